//! Whether the kernel mounts an overlay for this user on this store. Version and file system tell most of it; LSMs,
//! missing modules and odd file systems tell only when it is tried. The verdict is kept beside the store, for this
//! kernel, so that a run reads one small file.

use super::text;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Name under which the program is started again to try: one thread, as unshare(CLONE_NEWUSER) demands.
const CHILD: &str = "rlrun-try-overlay";

/// The verdict's file in the store: `RELEASE yes` or `RELEASE no`.
const VERDICT: &str = "native-overlay";

/// What a trial showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Mounted, and a directory could be replaced in it.
    Works,
    /// The kernel refused, with its reason.
    Refused(String),
    /// It could not be tried; nothing is known.
    NotTried(String),
}

/// The verdict of an earlier trial under this kernel.
#[must_use]
pub fn known_verdict(store: &Path) -> Option<bool> {
    let text = text::small(store.join(VERDICT))?;
    let (release, verdict) = text.trim_end().split_once(' ')?;
    (release == self::release()).then_some(verdict == "yes")
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Tries in a child process and keeps the verdict. The store must exist. For `doctor` and for the first use of a
/// store, not for every run: it costs a process.
#[must_use]
pub fn try_native(store: &Path) -> Trial {
    let trial = attempt(store);
    let verdict = match trial {
        Trial::Works => "yes",
        Trial::Refused(_) => "no",
        Trial::NotTried(_) => return trial,
    };
    // A verdict that cannot be kept is found again next time.
    keep(store, verdict).ok();
    trial
}

/// Tries in a directory that may be any; no verdict is kept.
#[must_use]
pub fn attempt(directory: &Path) -> Trial {
    try_in(directory).unwrap_or_else(|e| Trial::NotTried(e.to_string()))
}

fn keep(store: &Path, verdict: &str) -> io::Result<()> {
    let temporary = store.join(format!(".{VERDICT}.{}", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    let written = file.write_all(format!("{} {verdict}\n", release()).as_bytes());
    written.and_then(|()| fs::rename(&temporary, store.join(VERDICT))).or_else(|e| {
        fs::remove_file(&temporary)?;
        Err(e)
    })
}

fn try_in(store: &Path) -> io::Result<Trial> {
    let place = Place::make(store)?;
    let output = Command::new("/proc/self/exe")
        .arg0(CHILD)
        .current_dir(&place.0)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok(match output.status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(WORKS) => Trial::Works,
        Some(REFUSED) => Trial::Refused(said),
        _ => Trial::NotTried(said),
    })
}

/// Exit codes of the child, far from what any other program answers by habit.
const WORKS: u8 = 90;
const REFUSED: u8 = 91;
const NOT_TRIED: u8 = 92;

/// Directories for one trial, removed with it.
struct Place(PathBuf);

impl Place {
    fn make(store: &Path) -> io::Result<Self> {
        let dir = store.join(format!(".try-overlay.{}", std::process::id()));
        rustix::fs::mkdirat(CWD, &dir, Mode::RWXU)?;
        let place = Place(dir);
        for name in ["lower/dir", "upper", "work", "merged"] {
            fs::create_dir_all(place.0.join(name))?;
        }
        fs::File::create(place.0.join("lower/dir/file"))?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The kernel makes work/work with mode 0; its owner, the container's root, is this user.
        fs::set_permissions(self.0.join("work/work"), fs::Permissions::from_mode(0o700)).ok();
        // Nobody can be told here, and what is left is an empty tree under a name of its own.
        fs::remove_dir_all(&self.0).ok();
    }
}

/// To be called first in `main`: the process that was started only to try answers here and does nothing else.
#[must_use]
pub fn child_main() -> Option<ExitCode> {
    if std::env::args_os().next().as_deref() != Some(OsStr::new(CHILD)) {
        return None;
    }
    let (code, why) = match enter_namespace() {
        Err(e) => (NOT_TRIED, e.to_string()),
        Ok(()) => match mount_and_replace() {
            Err(e) => (REFUSED, e.to_string()),
            Ok(()) => (WORKS, String::new()),
        },
    };
    eprint!("{why}");
    Some(ExitCode::from(code))
}

/// Root of a new user namespace with one id, with mounts of its own.
fn enter_namespace() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    // gid_map stays closed to the unprivileged until setgroups is denied (user_namespaces(7)).
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
    {
        fs::OpenOptions::new().write(true).open(Path::new("/proc/self").join(file))?.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// In the working directory, by relative names: a store's path may hold the commas and colons that separate options.
fn mount_and_replace() -> io::Result<()> {
    let options = "lowerdir=lower,upperdir=upper,workdir=work,userxattr";
    nix::mount::mount(Some("overlay"), "merged", Some("overlay"), MsFlags::empty(), Some(options))?;
    // A directory in the place of a lower one needs an attribute on the upper file system; the mount itself does not.
    fs::remove_dir_all("merged/dir")?;
    fs::create_dir("merged/dir")?;
    match fs::read_dir("merged/dir")?.next() {
        None => Ok(()),
        Some(_) => Err(io::Error::other("a replaced directory still shows what it replaced")),
    }
}
