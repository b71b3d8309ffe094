//! `--volumes-from`: what another container mounts, mounted here too.

use super::keep_own;
use crate::containers;
use crate::place::Place;
use crate::request::RunRequest;
use crate::request::mount::{Flags, MountRequest};
use rlrun_spec::{Failure, Kind, Stage};

/// Adds the volumes and binds of the containers that the words name, `CONTAINER[:ro|rw|z]`. What the request itself
/// mounts at a place stays. From now on they are as good as written out, so that the other container may go.
///
/// # Errors
/// When there is no such container, or an option is unknown.
pub fn inherit(place: &Place, words: &[String], request: &mut RunRequest) -> Result<(), Failure> {
    for word in words {
        let (name, options) = word.split_once(':').unwrap_or((word, ""));
        let mut read_only = None;
        for option in options.split(',').filter(|o| !o.is_empty()) {
            match option {
                "ro" => read_only = Some(true),
                "rw" => read_only = Some(false),
                "z" => {}
                _ => {
                    let operation = "invalid --volumes-from";
                    return Err(Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", operation, word.as_str())
                        .why(format!("unknown option {option}"))
                        .hint("write CONTAINER, CONTAINER:ro or CONTAINER:rw"));
                }
            }
        }
        let other = containers::find(place, name)?;
        // Two have them now: they must not go with the first.
        keep_own(place, &other.directory, &|_| true)?;
        for mount in other.summary.mounts {
            if request.mounts.iter().any(|m| m.destination() == mount.destination) {
                continue;
            }
            let flags = Flags { read_only: Some(read_only.unwrap_or(mount.read_only)), ..Flags::default() };
            let (source, destination) = (mount.source, mount.destination);
            match mount.kind.as_str() {
                "volume" => {
                    request.mounts.push(MountRequest::Volume { name: Some(source), destination, flags, subpath: None });
                }
                "overlay" => request.mounts.push(MountRequest::Overlay { source, destination, flags }),
                "image" => request.mounts.push(MountRequest::Image { image: source, id: None, destination, flags }),
                "bind" => request.mounts.push(MountRequest::Bind { source, destination, flags }),
                // A file system in memory belongs to its container.
                _ => {}
            }
        }
    }
    Ok(())
}
