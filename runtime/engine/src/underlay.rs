//! A layer below all layers of an image: the places of what rlrun itself mounts. An image that lacks one would have it
//! made at each start, and the directory around it copied, in the layer of what the container writes.

use crate::place::{Place, failed};
use rlrun_spec::Failure;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// In the store.
const NAME: &str = "underlay";
const DIRECTORIES: [&str; 4] = ["dev", "etc", "proc", "sys"];
/// Over which the same files of rlrun's own have to be mounted, or the container would see these.
const FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// Whether each file of the layer is covered by one of these.
pub(crate) fn is_covered(files: &[(String, Vec<u8>)]) -> bool {
    FILES.iter().all(|place| files.iter().any(|(file, _)| file == place))
}

/// The layer, made where it is missing. The caller has pinned the store: nobody clears its `tmp` meanwhile.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn layer(place: &Place) -> Result<PathBuf, Failure> {
    let layer = place.data.join(NAME);
    // It has come here whole, by its rename.
    if layer.is_dir() {
        return Ok(layer);
    }
    let aside = place.data.join("tmp").join(format!("{NAME}.{}", std::process::id()));
    let made = make(&aside).and_then(|()| fs::rename(&aside, &layer));
    match made {
        Ok(()) => Ok(layer),
        // Another command was first.
        Err(_) if layer.is_dir() => fs::remove_dir_all(&aside).map(|()| layer).map_err(|e| failed("make", &aside, &e)),
        Err(e) => Err(failed("make", &layer, &e)),
    }
}

/// Whatever the umask is: the container shows these where its image has nothing.
fn make(layer: &Path) -> io::Result<()> {
    let directory = |path: &Path| {
        match fs::create_dir(path) {
            // Left by a process of the same number that was killed.
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            Ok(()) | Err(_) => {}
        }
        fs::set_permissions(path, Permissions::from_mode(0o755))
    };
    fs::create_dir_all(layer)?;
    directory(layer)?;
    DIRECTORIES.iter().try_for_each(|name| directory(&layer.join(name)))?;
    FILES.iter().try_for_each(|name| {
        let file = File::create(layer.join(name.trim_start_matches('/')))?;
        file.set_permissions(Permissions::from_mode(0o644))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::tests::place;

    #[test]
    fn it_is_made_once_and_whole() {
        let (_dir, place) = place();
        let made = layer(&place).unwrap();
        for (name, mode) in [("", 0o755), ("etc", 0o755), ("proc", 0o755), ("etc/hosts", 0o644)] {
            assert_eq!(made.join(name).metadata().unwrap().permissions().mode() & 0o7777, mode, "{name}");
        }
        fs::remove_file(made.join("etc/hosts")).unwrap();
        assert_eq!(layer(&place).unwrap(), made);
        assert!(!made.join("etc/hosts").exists(), "what is there is taken");
        assert_eq!(fs::read_dir(place.data.join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_command_left_is_used() {
        let (_dir, place) = place();
        let aside = place.data.join("tmp").join(format!("{NAME}.{}", std::process::id()));
        fs::create_dir_all(aside.join("etc")).unwrap();
        assert!(layer(&place).unwrap().join("etc/resolv.conf").is_file());
        assert!(!aside.exists());
    }

    #[test]
    fn a_file_that_would_show_is_not_covered() {
        let mut files: Vec<_> = FILES.iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
        assert!(is_covered(&files));
        files.remove(0);
        assert!(!is_covered(&files));
    }
}
