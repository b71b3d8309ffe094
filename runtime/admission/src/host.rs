//! What policies are told of the host, so that they need no access to it.

use crate::sources::{MANDATORY_DIR, Sources};
use std::collections::HashMap;
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
        let mut places = Places::default();
        let home = sources.home.clone().or_else(home).map(|home| places.find(&home));
        let own = own.map(|path| places.find(&path)).filter(|found| is_root || !found.roots);
        HostSide { own_paths: own.map(Place::text).collect(), home: home.map(Place::text).unwrap_or_default() }
    }
}

/// Where a path really is.
#[derive(Clone)]
struct Place {
    /// Symlinks resolved, as far as there is something.
    real: PathBuf,
    /// Root's, and everything above it too: no container of another user can write or replace that.
    roots: bool,
}

impl Place {
    fn text(self) -> String {
        self.real.to_string_lossy().into_owned()
    }
}

/// Every directory is looked at once, however many of the paths lie below it: each look is a system call at every start.
#[derive(Default)]
struct Places(HashMap<PathBuf, Place>);

impl Places {
    fn find(&mut self, path: &Path) -> Place {
        if let Some(place) = self.0.get(path) {
            return place.clone();
        }
        let place = self.look(path);
        self.0.insert(path.to_owned(), place.clone());
        place
    }

    fn look(&mut self, path: &Path) -> Place {
        let (parent, name) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => (self.find(parent), name),
            (Some(_), None) => return self.target(path),
            (None, _) => (Place { real: PathBuf::new(), roots: true }, path.as_os_str()),
        };
        let real = parent.real.join(name);
        match std::fs::symlink_metadata(&real) {
            Ok(found) if found.is_symlink() => {
                let target = self.target(&real);
                Place { roots: target.roots && parent.roots && found.uid() == 0, ..target }
            }
            Ok(found) => Place { roots: parent.roots && found.uid() == 0, real },
            // What does not exist yet has no symlinks in its name, and is whose the directory is.
            Err(_) => Place { roots: parent.roots, real },
        }
    }

    /// By the kernel: through a link, or upwards from one.
    fn target(&mut self, path: &Path) -> Place {
        match std::fs::canonicalize(path) {
            // The real path is itself a link only where somebody changes it meanwhile.
            Ok(real) if real != path => self.find(&real),
            Ok(_) | Err(_) => Place { real: path.to_owned(), roots: false },
        }
    }
}

/// The program and the places of its helpers and policies (`make install`).
fn installed(program: PathBuf) -> [PathBuf; 3] {
    let prefix = program.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let (helpers, shared) = (prefix.join("libexec/rlrun"), prefix.join("share/rlrun"));
    [program, helpers, shared]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_the_sixth_field_of_the_uid() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000:A:/srv/alice:/bin/sh\n";
        assert_eq!(home_of(passwd, 1000), Some("/srv/alice".into()));
        assert_eq!(home_of(passwd, 1), None);
    }

    fn find(path: &Path) -> Place {
        Places::default().find(path)
    }

    #[test]
    fn what_only_root_can_change_needs_no_guard() {
        assert!(find(Path::new("/etc/no/such/thing")).roots);
        let dir = tempfile::tempdir().unwrap();
        let owner = std::fs::metadata(dir.path()).unwrap().uid();
        assert_eq!(find(&dir.path().join("bin/rlrun")).roots, owner == 0);
        // A link of root's to what is somebody's is as safe as that; this one is the caller's own.
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        assert_eq!(find(&dir.path().join("link")).roots, owner == 0);
    }

    #[test]
    fn links_are_resolved_as_far_as_there_is_something() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(real.join("real/sub")).unwrap();
        for (target, link) in [("real", "link"), ("link", "second"), ("loop", "loop"), ("nowhere", "broken")] {
            std::os::unix::fs::symlink(target, real.join(link)).unwrap();
        }
        for (asked, found) in [
            ("link/not/there", "real/not/there"),
            ("second/sub", "real/sub"),
            ("second/sub/../new", "real/new"),
            ("real/sub/..", "real"),
            ("loop/below", "loop/below"),
            ("broken", "broken"),
        ] {
            assert_eq!(find(&real.join(asked)).real, real.join(found), "{asked}");
        }
        assert_eq!(find(Path::new("/")).real, Path::new("/"));
    }
}
