//! How much there is below a directory, as mapped root sees it: whoever owns a file, it is counted.

use super::failure::on;
use super::whiteout::open_dir;
use rlrun_spec::Failure;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Bytes of the files below each directory; 0 for one that is gone.
pub(super) fn run(paths: &[PathBuf]) -> Result<Vec<u64>, Failure> {
    paths.iter().map(|path| measure(path).map_err(on("measure the directory", path))).collect()
}

fn measure(path: &PathBuf) -> Result<u64, Errno> {
    match rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(dir) => {
            let mut sum = Sum { bytes: 0, linked: HashSet::new() };
            sum.add(&dir)?;
            Ok(sum.bytes)
        }
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(0),
        Err(e) => Err(e),
    }
}

struct Sum {
    bytes: u64,
    /// Files with several names, each counted once: device and inode.
    linked: HashSet<(u64, u64)>,
}

impl Sum {
    fn add(&mut self, dir: &OwnedFd) -> Result<(), Errno> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                // It goes while it is counted.
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => match open_dir(dir, name) {
                    Ok(below) => self.add(&below)?,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(e) => return Err(e),
                },
                _ if stat.st_nlink > 1 && !self.linked.insert((stat.st_dev, stat.st_ino)) => {}
                _ => self.bytes += u64::try_from(stat.st_size).unwrap_or_default(),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_counted_once_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let put = |path: &str, bytes: &[u8]| {
            std::io::Write::write_all(&mut std::fs::File::create(at(path)).unwrap(), bytes).unwrap();
        };
        std::fs::create_dir_all(at("a/b")).unwrap();
        put("a/one", &[0; 100]);
        put("a/b/two", &[0; 20]);
        std::fs::hard_link(at("a/one"), at("a/b/again")).unwrap();
        std::os::unix::fs::symlink("one", at("a/s")).unwrap();
        std::os::unix::fs::symlink("/", at("a/b/root")).unwrap();
        assert_eq!(run(&[at("a"), at("nothing"), at("a/one")]).unwrap(), [100 + 20 + 3 + 1, 0, 0]);
    }
}
