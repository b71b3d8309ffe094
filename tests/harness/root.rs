//! The directory of a test run and the template in it: rlrun installed, one image loaded, caches warm. Every case starts
//! from a copy of the template, so that a test costs what it tests.

use crate::archive::Image;
use crate::case::Case;
use crate::rootfs::base_rootfs;
use crate::user::Ordinary;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The image that every case has.
pub const BASE: &str = "localhost/base:1";

/// What a run of the tests shares.
pub(crate) struct Root {
    /// Everything is below it.
    pub path: PathBuf,
    /// Where rlrun is installed; the ordinary user owns it, as a rootless user does.
    pub prefix: PathBuf,
    /// The home that cases copy.
    pub template: PathBuf,
}

impl Root {
    /// The one of this run, made by whoever comes first.
    pub fn get() -> &'static Root {
        static ROOT: OnceLock<Root> = OnceLock::new();
        ROOT.get_or_init(|| {
            let path = directory();
            let root = Root { prefix: path.join("prefix"), template: path.join("template"), path };
            root.prepare();
            root
        })
    }

    fn prepare(&self) {
        let lock = File::create(self.path.join("lock")).unwrap();
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).expect("flock(2)");
        if self.path.join("ready").exists() {
            return;
        }
        install(&stage(), &self.prefix);
        crate::process::install_warden(&self.path);
        self.make_template();
        File::create(self.path.join("ready")).unwrap();
    }

    fn make_template(&self) {
        let archive = self.path.join("base.tar");
        write(&archive, &template_archive());
        let home = Ordinary::get().private_directory(&self.template);
        let case = Case::at(self, &self.path.join("making"), home);
        let archive = archive.to_str().unwrap();
        case.run(["load", "-i", archive]).ok();
        // Fills the cache of compiled policies and filters, and proves the set-up before hundreds of tests fail of it.
        case.run(["run", "--rm", "--network", "none", BASE, "true"]).ok();
    }
}

/// The docker-archive of [`BASE`].
pub fn template_archive() -> Vec<u8> {
    Image::new(BASE, base_rootfs().clone()).docker_archive().bytes()
}

/// Where the tests keep their files: given by `make test`, else a directory of this user for this build of rlrun.
fn directory() -> PathBuf {
    if let Some(path) = std::env::var_os("RLRUN_TEST_ROOT") {
        return PathBuf::from(path);
    }
    let uid = nix::unistd::getuid();
    let built = std::fs::metadata(stage().join("bin/rlrun")).expect("rlrun is staged: run `make build`").mtime();
    let path = PathBuf::from(format!("/var/tmp/rlrun-{uid}-{built}"));
    // Two test processes may come here at once; a directory of somebody else is never used.
    match DirBuilder::new().mode(0o755).create(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => panic!("{}: {error}", path.display()),
        _ => {}
    }
    let found = std::fs::symlink_metadata(&path).unwrap();
    assert!(found.is_dir() && found.uid() == uid.as_raw(), "{} belongs to somebody else", path.display());
    path
}

/// The staged tree that is tested.
fn stage() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/stage-debug");
    std::env::var_os("RLRUN_STAGE").map_or(default, PathBuf::from)
}

/// Copies a staged tree to where the ordinary user owns it.
pub(crate) fn install(stage: &Path, prefix: &Path) {
    std::fs::create_dir_all(prefix).unwrap();
    let status = Command::new("cp").arg("-r").arg("--").arg(stage.join(".")).arg(prefix).status().unwrap();
    assert!(status.success(), "cannot copy {}: run `make build`", stage.display());
    let user = Ordinary::get();
    if user.dropped {
        let owner = format!("{}:{}", user.uid, user.gid);
        assert!(Command::new("chown").args(["-R", &owner]).arg(prefix).status().unwrap().success());
    }
}

/// Writes a program so that it can be executed at once.
pub(crate) fn install_program(path: &Path, program: &[u8]) {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(path).unwrap();
    file.write_all(program).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Writes a file that does not exist yet.
pub(crate) fn write(path: &Path, data: &[u8]) {
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).unwrap().write_all(data).unwrap();
}
