//! `volume create --opt`: what a volume is instead of a directory of rlrun's. It is mounted as what it is, so that
//! policies see a directory of the host as one.

use super::{DATA, DIRECTORY, Volume, about, read};
use crate::place::Place;
use crate::request::Invalid;
use crate::request::mount::{self, Flags, MountRequest};
use rlrun_spec::{Failure, Kind, Stage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const OPTION: &str = "--opt";
const EXAMPLES: &str = "type=tmpfs with o=size=64m, or device=/DIRECTORY with o=bind";

/// The words of `--opt`, which make sense together.
///
/// # Errors
/// When they ask for what only root can mount, or for nothing that is known.
pub fn options(words: &[String]) -> Result<BTreeMap<String, String>, Invalid> {
    let mut all = BTreeMap::new();
    for word in words {
        let invalid = |why: &str| Invalid::new(OPTION, word, why).hint(format!("write {EXAMPLES}"));
        let Some((name, value)) = word.split_once('=') else { return Err(invalid("is not NAME=VALUE")) };
        if !["type", "device", "o"].contains(&name) {
            return Err(invalid("local volumes have the options type, device and o"));
        }
        all.insert(name.to_owned(), value.to_owned());
    }
    mounted(&all, "/volume", &Flags::default())?;
    Ok(all)
}

/// The mount that a volume with these options is; None for a directory of rlrun's.
///
/// # Errors
/// As [`options`].
pub(crate) fn mounted(
    options: &BTreeMap<String, String>,
    destination: &str,
    asked: &Flags,
) -> Result<Option<MountRequest>, Invalid> {
    let text = |name: &str| options.get(name).map_or("", String::as_str);
    let (kind, device, words) = (text("type"), text("device"), text("o"));
    let invalid = |name: &str, why: &str| {
        Invalid::new(OPTION, format!("{name}={}", text(name)), why).hint(format!("write {EXAMPLES}"))
    };
    let binds = words.split(',').any(|word| word == "bind" || word == "rbind");
    match kind {
        "tmpfs" => {
            let mut made = mount::tmpfs(&format!("{destination}:{words}")).map_err(|e| invalid("o", &e.why))?;
            if let MountRequest::Tmpfs { flags, .. } = &mut made {
                *flags = flags.with(asked);
            }
            Ok(Some(made))
        }
        "" if options.is_empty() => Ok(None),
        "" | "none" | "bind" if kind == "bind" || binds => {
            if !device.starts_with('/') {
                return Err(invalid("device", "a bind is of a directory of the host, by its absolute path"));
            }
            if device.contains(':') {
                return Err(invalid("device", "a path with a colon cannot be the device of a volume"));
            }
            let words: Vec<&str> = words.split(',').filter(|word| *word != "rbind" && !word.is_empty()).collect();
            let made = mount::volume(&format!("{device}:{destination}:{}", words.join(",")));
            match made.map_err(|e| invalid("o", &e.why))? {
                MountRequest::Bind { source, destination, flags } => {
                    Ok(Some(MountRequest::Bind { source, destination, flags: flags.with(asked) }))
                }
                _ => Err(invalid("o", "an overlay is of one container: -v DIRECTORY:PATH:O")),
            }
        }
        "" | "none" => Err(invalid("o", "quotas of a directory, and owners that it is made with, take root")
            .hint("--storage-opt size= bounds what a container writes, -v VOLUME:PATH:U gives a volume to its user")),
        _ => Err(invalid("type", "only root can mount a file system of a device or of the network")
            .hint(format!("mount it on the host, or write {EXAMPLES}"))),
    }
}

/// The same for a volume by its name, which may not be there yet.
pub(crate) fn of(
    volumes: &Path,
    name: &str,
    destination: &str,
    (flags, subpath): (&Flags, Option<&str>),
) -> Result<Option<MountRequest>, Failure> {
    let Some(volume) = read(volumes, name).filter(|volume| !volume.options.is_empty()) else { return Ok(None) };
    let made = mounted(&volume.options, destination, flags)?;
    match (made, subpath) {
        (Some(_), Some(path)) => Err(Failure::new(Stage::Cli, Kind::Usage, "plan-mounts", "mount a part of", name)
            .why(format!("{path} cannot be taken alone of a volume that is a mount itself"))),
        (made, _) => Ok(made),
    }
}

/// Where the files of a volume are on the host.
///
/// # Errors
/// When they are in the memory of the containers that mount it.
pub(crate) fn directory(place: &Place, volume: &Volume) -> Result<PathBuf, Failure> {
    match mounted(&volume.options, "/volume", &Flags::default())? {
        None => Ok(place.data.join(DIRECTORY).join(&volume.name).join(DATA)),
        Some(MountRequest::Bind { source, .. }) => Ok(PathBuf::from(source)),
        Some(_) => Err(about("reach the files of", &volume.name)
            .why("they are in the memory of each container that mounts it")
            .hint("rlrun cp CONTAINER:PATH reaches them while a container runs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(words: &[&str]) -> Result<Option<MountRequest>, String> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let asked = Flags { read_only: Some(true), ..Flags::default() };
        let all = options(&words).map_err(|e| Failure::from(e).to_string())?;
        mounted(&all, "/d", &asked).map_err(|e| Failure::from(e).to_string())
    }

    #[test]
    fn memory_and_directories_of_the_host_can_be_volumes() {
        assert_eq!(made(&[]).unwrap(), None);
        let Some(MountRequest::Tmpfs { destination, flags, data }) =
            made(&["type=tmpfs", "device=tmpfs", "o=size=1m,mode=700,noexec"]).unwrap()
        else {
            panic!("no tmpfs")
        };
        assert_eq!((destination.as_str(), data), ("/d", vec!["size=1m".to_owned(), "mode=700".to_owned()]));
        assert_eq!((flags.noexec, flags.read_only), (Some(true), Some(true)));
        for words in [&["type=none", "device=/srv", "o=bind,nodev"][..], &["device=/srv", "o=rbind,nodev"]] {
            let Some(MountRequest::Bind { source, flags, .. }) = made(words).unwrap() else { panic!("no bind") };
            assert_eq!((source.as_str(), flags.nodev, flags.read_only), ("/srv", Some(true), Some(true)));
        }
    }

    #[test]
    fn what_takes_root_is_refused_with_a_reason() {
        for (words, why) in [
            (&["type=nfs", "device=:/srv", "o=addr=10.0.0.1"][..], "only root can mount"),
            (&["type=ext4", "device=/dev/sda1"], "only root can mount"),
            (&["o=size=10m"], "take root"),
            (&["o=uid=1000"], "take root"),
            (&["type=none", "device=srv", "o=bind"], "absolute path"),
            (&["type=none", "device=/srv", "o=bind,O"], "of one container"),
            (&["type=tmpfs", "o=size=much"], "not a valid value"),
            (&["size=1m"], "type, device and o"),
            (&["type"], "NAME=VALUE"),
        ] {
            let error = made(words).unwrap_err();
            assert!(error.contains("invalid --opt") && error.contains(why), "{words:?}: {error}");
        }
    }
}
