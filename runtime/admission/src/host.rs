//! What policies are told of the host, so that they need no access to it.

use crate::sources::{MANDATORY_DIR, Sources};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Facts about the caller's side, symlinks resolved like the sources of mounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostSide {
    /// The caller's home directory; empty when it is not known.
    pub(crate) home: String,
    /// What rlrun trusts, its own directories and its program, as far as it is not root's.
    pub(crate) own_paths: Vec<String>,
}

impl HostSide {
    pub(crate) fn look(sources: &Sources) -> Self {
        // The directory of the policies' directory: whoever may write that can replace it.
        let above = |path: &Path| path.parent().unwrap_or(path).to_owned();
        let directories = [
            above(&sources.user_dir),
            above(&sources.cache_dir),
            sources.data_dir.clone(),
            above(Path::new(MANDATORY_DIR)),
        ];
        let own = directories.into_iter().chain(std::env::current_exe().ok().into_iter().flat_map(installed));
        let is_root = rustix::process::getuid().is_root();
        let own = own.filter(|path| is_root || !is_roots(path));
        HostSide {
            home: sources.home.clone().or_else(home).map(|h| resolved(&h)).unwrap_or_default(),
            own_paths: own.map(|p| resolved(&p)).collect(),
        }
    }
}

/// The program and the places of its helpers and policies (`make install`).
fn installed(program: PathBuf) -> [PathBuf; 3] {
    let prefix = program.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let (helpers, shared) = (prefix.join("libexec/rlrun"), prefix.join("share/rlrun"));
    [program, helpers, shared]
}

/// Root's, and everything above it too: no container of another user can write or replace that.
fn is_roots(path: &Path) -> bool {
    path.ancestors().filter_map(|part| std::fs::metadata(part).ok()).all(|found| found.uid() == 0)
}

/// As the user database says. HOME is the caller's to set, and a policy that guards ~/.ssh must not follow it away.
fn home() -> Option<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let listed = home_of(&passwd, uid).filter(|home| home.is_absolute());
    // Users of a directory service are in no file.
    listed.or_else(|| std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute()))
}

/// The sixth field of the first line with that uid (passwd(5)).
fn home_of(passwd: &str, uid: u32) -> Option<PathBuf> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [_, _, id, _, _, home, ..] if id.parse() == Ok(uid) => Some(PathBuf::from(home)),
            _ => None,
        }
    })
}

/// What does not exist yet has no symlinks in its last part; its name is what it will be.
fn resolved(path: &Path) -> String {
    let existing = path.ancestors().find_map(|a| Some((a, std::fs::canonicalize(a).ok()?)));
    let resolved = match existing {
        Some((ancestor, real)) => match path.strip_prefix(ancestor) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            Ok(_) | Err(_) => real,
        },
        None => path.to_owned(),
    };
    resolved.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_the_sixth_field_of_the_uid() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000:A:/srv/alice:/bin/sh\n";
        assert_eq!(home_of(passwd, 1000), Some("/srv/alice".into()));
        assert_eq!(home_of(passwd, 1), None);
    }

    #[test]
    fn what_only_root_can_change_needs_no_guard() {
        assert!(is_roots(Path::new("/etc/no/such/thing")));
        let dir = tempfile::tempdir().unwrap();
        let owner = std::fs::metadata(dir.path()).unwrap().uid();
        assert_eq!(is_roots(&dir.path().join("bin/rlrun")), owner == 0);
    }

    #[test]
    fn links_are_resolved_as_far_as_there_is_something() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("real")).unwrap();
        std::os::unix::fs::symlink("real", real.join("link")).unwrap();
        assert_eq!(resolved(&real.join("link/not/there")), real.join("real/not/there").to_string_lossy());
    }
}
