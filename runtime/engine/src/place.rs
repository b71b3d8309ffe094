//! Where rlrun keeps things, and its own programs. Nothing here needs a run-time directory, so `su`, `sudo`, cron
//! and CI jobs without XDG_RUNTIME_DIR work like any login.

use crate::config::user;
use rlrun_spec::{Failure, Kind, Stage};
use std::env;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The caller's directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Images, layers, container records: `RLRUN_DATA_HOME` or `~/.local/share/rlrun`.
    pub data: PathBuf,
    /// Compiled policies and filters, which can be made again: `~/.cache/rlrun`.
    pub cache: PathBuf,
    /// `~/.config/rlrun`.
    pub config: PathBuf,
}

impl Place {
    /// From the environment, and without HOME from passwd(5).
    ///
    /// # Errors
    /// As [`Place::find`].
    pub fn of_caller() -> Result<Self, Failure> {
        if let Ok(place) = Place::find(None) {
            return Ok(place);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let files = user::Files { passwd: &passwd, group: "" };
        let uid = rustix::process::geteuid().as_raw();
        let account = user::find(&uid.to_string(), files).ok().filter(|_| user::knows_uid(&passwd, uid));
        Place::find(account.as_ref().map(|a| Path::new(&a.home)))
    }

    /// From the environment (XDG Base Directory Specification). `home` is the home directory of the account, for
    /// callers without HOME.
    ///
    /// # Errors
    /// When there is no absolute path for one of them.
    pub fn find(home: Option<&Path>) -> Result<Self, Failure> {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let home = absolute("HOME").or_else(|| home.map(Path::to_path_buf));
        let base = |variable: &str, below: &str| {
            absolute(variable).map(|p| p.join("rlrun")).or_else(|| home.as_ref().map(|h| h.join(below).join("rlrun")))
        };
        let data = absolute("RLRUN_DATA_HOME").or_else(|| base("XDG_DATA_HOME", ".local/share"));
        match (data, base("XDG_CACHE_HOME", ".cache"), base("XDG_CONFIG_HOME", ".config")) {
            (Some(data), Some(cache), Some(config)) => Ok(Place { data, cache, config }),
            _ => Err(Failure::new(Stage::Cli, Kind::Host, "data-dir", "find the home directory", "HOME")
                .why("it is not set to an absolute path")
                .hint("set HOME, or RLRUN_DATA_HOME to a directory of your own")),
        }
    }

    /// A directory below `data`, made if it is missing, for nobody but the caller.
    ///
    /// # Errors
    /// When it cannot be made or belongs to somebody else.
    pub fn own(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.data.join(name);
        make_private(&path)?;
        Ok(path)
    }
}

/// What `data-dir` failures are about, so that whoever tells of one need not tell of its consequences too.
pub const DATA_DIR: &str = "data-dir";

/// Less than this, and the first thing to fail would be a record of rlrun's own.
const LEAST_ROOM: u64 = 32 << 20;
const LEAST_FILES: u64 = 64;

impl Place {
    /// Makes the store's directory where it is missing.
    ///
    /// # Errors
    /// When it cannot be made or written: told before anything else complains of it in its own words.
    pub fn can_write(&self) -> Result<(), Failure> {
        match rustix::fs::access(&self.data, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::NOENT) => make_private(&self.data),
            Err(errno) => {
                let path = self.data.display().to_string();
                let failure = Failure::new(Stage::Cli, Kind::Host, DATA_DIR, "write to rlrun's directory", path);
                Err(failure.errno(errno.raw_os_error()))
            }
        }
    }

    /// Whether there is room for another container or image. What only removes does not ask.
    ///
    /// # Errors
    /// As [`Place::can_write`], and when the file system of the store is full, or nearly so.
    pub fn has_room(&self) -> Result<(), Failure> {
        self.can_write()?;
        let Ok(left) = rustix::fs::statvfs(&self.data) else { return Ok(()) };
        let bytes = left.f_bavail.saturating_mul(left.f_frsize);
        // Some file systems have no fixed number of files, and say 0 of 0.
        let files = if left.f_files == 0 { u64::MAX } else { left.f_favail };
        let (what, least) = match (bytes < LEAST_ROOM, files < LEAST_FILES) {
            (false, false) => return Ok(()),
            (true, _) => (format!("{} KiB", bytes >> 10), format!("{} KiB", LEAST_ROOM >> 10)),
            (false, true) => (format!("{files} files"), LEAST_FILES.to_string()),
        };
        let store = self.data.display().to_string();
        Err(Failure::new(Stage::Cli, Kind::Host, "store-room", "use the store", store)
            .why(format!("there is room for {what} more only, and {least} are kept free for rlrun's own records"))
            .hint(
                "rlrun rm and rlrun rmi remove what is not needed any more; rlrun system df shows what takes how much",
            ))
    }
}

/// Something below the store could not be made.
pub(crate) fn failed(operation: &str, path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(Stage::Cli, Kind::Host, DATA_DIR, operation, path.display().to_string());
    match error.raw_os_error() {
        Some(errno) => failure.errno(errno),
        None => failure.why(error.to_string()),
    }
}

/// One mkdir when it exists already; its parents only when it does not.
fn make_private(path: &Path) -> Result<(), Failure> {
    let failed = |e: &std::io::Error| failed("make rlrun's directory", path, e);
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(|e| failed(&e))
        }
        Err(e) => Err(failed(&e)),
    }
}

/// A program of rlrun's own: beside the running one, or in `../libexec/rlrun` where `make install` puts it.
///
/// # Errors
/// When it is in neither place.
pub fn own_program(name: &str) -> Result<PathBuf, Failure> {
    let failure = || Failure::new(Stage::Cli, Kind::Host, "own-program", "find rlrun's own program", name);
    let running = env::current_exe().map_err(|e| failure().why(e.to_string()))?;
    let here = running.parent().unwrap_or(Path::new("/"));
    let places = [here.join("../libexec/rlrun").join(name), here.join(name)];
    places.iter().find(|p| p.metadata().is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0)).cloned().ok_or_else(|| {
        failure()
            .why(format!("it is neither in {} nor beside rlrun", places[0].display()))
            .hint("run `make install` again")
    })
}

/// A directory that rlrun was installed with: `../share/rlrun/NAME` of the program.
///
/// # Errors
/// When it is not there.
pub fn own_share(name: &str) -> Result<PathBuf, Failure> {
    let failure = || Failure::new(Stage::Cli, Kind::Host, "own-share", "find what rlrun was installed with", name);
    let running = env::current_exe().map_err(|e| failure().why(e.to_string()))?;
    let prefix = running.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let path = prefix.join("share/rlrun").join(name);
    if path.is_dir() {
        return Ok(path);
    }
    Err(failure().why(format!("there is no {}", path.display())).hint("run `make install` again"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A place of a test's own.
    pub(crate) fn place() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().to_path_buf();
        (dir, Place { data: data.clone(), cache: data.clone(), config: data })
    }

    #[test]
    fn a_private_directory_is_made_with_its_parents_and_kept() {
        let base = tempfile::tempdir().unwrap();
        let data = base.path().join("a/b");
        let place = Place { data: data.clone(), cache: data.clone(), config: data };
        let made = place.own("names").unwrap();
        assert_eq!(made.metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(place.own("names").unwrap(), made);
    }
}
