//! The ordinary user that containers belong to.

use nix::unistd::{Gid, Uid, User, chown, getuid};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The name of the user that `scripts/provision.sh` makes for tests started by root.
const PROVISIONED: &str = "rlrun-test";

/// Whoever runs containers: the caller, or a user without privilege when the caller is root.
#[derive(Clone, Debug)]
pub struct Ordinary {
    /// Login name.
    pub name: String,
    /// Host uid.
    pub uid: Uid,
    /// Host gid.
    pub gid: Gid,
    /// Whether rlrun must be started through a change of ids.
    pub dropped: bool,
}

impl Ordinary {
    /// The user of the tests.
    pub fn get() -> &'static Ordinary {
        static USER: OnceLock<Ordinary> = OnceLock::new();
        USER.get_or_init(|| if getuid().is_root() { Ordinary::named(PROVISIONED) } else { Ordinary::caller() })
    }

    /// Another user that exists; only root can use it.
    pub fn named(name: &str) -> Ordinary {
        let user = User::from_name(name).expect("the user database can be read");
        let user = user.unwrap_or_else(|| panic!("there is no user {name}: run scripts/provision.sh as root"));
        Ordinary { name: user.name, uid: user.uid, gid: user.gid, dropped: true }
    }

    fn caller() -> Ordinary {
        let user = User::from_uid(getuid()).expect("the user database can be read").expect("the caller has a name");
        Ordinary { name: user.name, uid: user.uid, gid: user.gid, dropped: false }
    }

    /// Makes a directory of this user that nobody else may enter.
    pub fn private_directory(&self, path: &Path) -> PathBuf {
        std::fs::create_dir_all(path).unwrap();
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        self.own(path);
        path.to_owned()
    }

    /// Hands a file to this user.
    pub fn own(&self, path: &Path) {
        if self.dropped {
            chown(path, Some(self.uid), Some(self.gid)).unwrap();
        }
    }

    /// A command that runs as this user, for host tools; rlrun itself is started by [`crate::Case`].
    pub fn command(&self, program: &str) -> Command {
        if !self.dropped {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &self.uid.to_string(), "--regid", &self.gid.to_string(), "--clear-groups", "--"])
            .arg(program);
        command
    }
}
