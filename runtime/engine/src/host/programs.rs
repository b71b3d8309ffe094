//! Programs that rlrun starts: where they are, and whether the privileged ones have their privilege.

use rlrun_spec::host::{Helper, Powerless};
use rustix::fs::{Access, StatVfsMountFlags};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Searched after PATH: cron(8), sudo(8) and CI jobs often come without the sbin directories.
const USUAL: [&str; 5] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin", "/sbin"];

const S_ISUID: u32 = 0o4000;

/// Bits of capabilities(7).
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;

/// Where programs are looked for.
#[derive(Clone, Debug)]
pub struct Search {
    directories: Vec<PathBuf>,
}

impl Search {
    /// Absolute directories of PATH, then the usual ones, each once. A relative entry would name a program of the
    /// working directory.
    #[must_use]
    pub fn new() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut directories: Vec<PathBuf> = Vec::new();
        for dir in std::env::split_paths(&path).chain(USUAL.map(PathBuf::from)) {
            if dir.is_absolute() && !directories.contains(&dir) {
                directories.push(dir);
            }
        }
        Search { directories }
    }

    /// The first executable file of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        self.all(name).next()
    }

    /// newuidmap(1): the first one that can do its work, else the first one at all with what it lacks.
    #[must_use]
    pub fn newuidmap(&self) -> Helper {
        self.helper("newuidmap", CAP_SETUID)
    }

    /// newgidmap(1), likewise.
    #[must_use]
    pub fn newgidmap(&self) -> Helper {
        self.helper("newgidmap", CAP_SETGID)
    }

    fn all(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        self.directories.iter().map(move |dir| dir.join(name)).filter(|path| executable(path))
    }

    fn helper(&self, name: &str, capability: u32) -> Helper {
        let mut first = Helper::Missing;
        for path in self.all(name) {
            match powerless(&path, capability) {
                None => return Helper::Usable(path),
                Some(why) if first == Helper::Missing => first = Helper::Unprivileged { path, why },
                Some(_) => {}
            }
        }
        first
    }
}

impl Default for Search {
    fn default() -> Self {
        Self::new()
    }
}

fn executable(path: &Path) -> bool {
    rustix::fs::access(path, Access::EXEC_OK).is_ok() && path.is_file()
}

/// What keeps a helper from gaining its capability, if anything does.
fn powerless(path: &Path, capability: u32) -> Option<Powerless> {
    let meta = path.metadata().ok();
    let setuid_root = meta.is_some_and(|meta| meta.mode() & S_ISUID != 0 && meta.uid() == 0);
    if !setuid_root && !has_file_capability(path, capability) {
        return Some(Powerless::NotSetuid);
    }
    // Both kinds of privilege are ignored on such a mount and below such a process (execve(2)).
    if rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::NOSUID)) {
        return Some(Powerless::NosuidMount);
    }
    rustix::thread::no_new_privs().unwrap_or(false).then_some(Powerless::NoNewPrivs)
}

fn has_file_capability(path: &Path, capability: u32) -> bool {
    let mut value = [0_u8; 24];
    let Ok(length) = rustix::fs::getxattr(path, "security.capability", &mut value) else { return false };
    value.get(..length).is_some_and(|value| permits(value, capability))
}

/// Whether a `security.capability` value puts `capability` into the permitted set and makes it effective: a
/// little-endian word of revision and flags, then the lower half of the permitted set (capabilities(7)).
fn permits(value: &[u8], capability: u32) -> bool {
    const EFFECTIVE: u32 = 1;
    let word = |at: usize| Some(u32::from_le_bytes(value.get(at..at + 4)?.try_into().ok()?));
    let (Some(flags), Some(permitted)) = (word(0), word(4)) else { return false };
    flags & EFFECTIVE != 0 && permitted & (1 << capability) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_capability_must_be_permitted_and_effective() {
        // setcap cap_setuid=ep, as getfattr shows it.
        let setuid_ep = [1, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(permits(&setuid_ep, CAP_SETUID));
        assert!(!permits(&setuid_ep, CAP_SETGID));
        let only_permitted = [0, 0, 0, 2, 0x80, 0, 0, 0];
        assert!(!permits(&only_permitted, CAP_SETUID));
        assert!(!permits(&setuid_ep[..7], CAP_SETUID));
        assert!(!permits(&[], CAP_SETUID));
    }

    #[test]
    fn a_program_of_ours_is_powerless_as_a_helper() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("newuidmap");
        std::fs::File::create(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(powerless(&path, CAP_SETUID), Some(Powerless::NotSetuid));
    }

    #[test]
    fn the_shell_is_found_and_nonsense_is_not() {
        let search = Search::new();
        assert!(search.find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(search.find("no-such-program-anywhere"), None);
        assert_eq!(search.find("/"), None);
    }
}
