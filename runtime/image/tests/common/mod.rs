//! What the tests share: an ordinary user, a way into the id map, archives made by hand, and a look at the store.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test file is a crate of its own and uses a part")]

mod registry;
mod tar;

pub use registry::{Answer, Image, Request, Server};
pub use tar::{Layer, archive, archive_with, gzip, hex};

use rlrun_image::{ImageError, InIdMap, Limits, Look, Store, Stored, Work, inner_main};
use rlrun_spec::{Failure, Kind, Stage};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Declares a test that needs user namespaces; its body gets a [`Scratch`].
macro_rules! namespaced {
    ($(#[$doc:meta])* fn $name:ident($scratch:ident) $body:block) => {
        $(#[$doc])*
        #[test]
        fn $name() {
            $crate::common::as_ordinary_user(stringify!($name), || {
                let $scratch = $crate::common::Scratch::new();
                $body
            });
        }
    };
}
pub(crate) use namespaced;

/// Runs `test`, called `name`, as an ordinary user who has user namespaces with subordinate ids. Started by root, the test
/// runs again as `$RLRUN_TEST_USER`. Where there is no such thing, it is skipped, unless `$RLRUN_MUST_HAVE` names `userns`.
pub fn as_ordinary_user(name: &str, test: impl FnOnce()) {
    if rustix::process::geteuid().is_root() {
        return as_user(name);
    }
    if !enter_works() {
        return skip(name, "unshare --user --map-root-user --map-auto does not work here");
    }
    test();
}

fn skip(name: &str, why: &str) {
    let must = std::env::var("RLRUN_MUST_HAVE").unwrap_or_default();
    assert!(!must.split(',').any(|need| need.trim() == "userns"), "{name}: {why}");
    say(&format!("SKIPPED {name}: {why}"));
}

/// Past libtest's capture, which takes what `eprintln!` writes: a skipped test must be seen.
pub fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn as_user(name: &str) {
    let user = std::env::var("RLRUN_TEST_USER").unwrap_or_else(|_| "rlrun-test".to_owned());
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let Some(line) = passwd.lines().find(|l| l.split(':').next() == Some(&user)) else {
        return skip(name, &format!("root needs an ordinary user to test as, and there is no `{user}`"));
    };
    let fields: Vec<&str> = line.split(':').collect();
    let output = Command::new("setpriv")
        .args(["--reuid", fields[2], "--regid", fields[3], "--init-groups", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("HOME", fields[5])
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("XDG_CONFIG_HOME")
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "as {user}: {text}");
    assert!(text.contains("1 passed"), "as {user}, the test did not run: {text}");
    if let Some(skipped) = text.lines().find(|l| l.starts_with("SKIPPED")) {
        say(skipped);
    }
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--map-auto", "--"]);
    command
}

fn enter_works() -> bool {
    unshare().arg("true").stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

const ANSWER: &str = "RLRUN_TEST_INNER_ANSWER";

/// Not a test: the process inside the id map, which [`Enter`] starts from this same program.
#[test]
fn inner_process() {
    let Some(answer) = std::env::var_os(ANSWER) else { return };
    let mut job = Vec::new();
    std::io::stdin().read_to_end(&mut job).unwrap();
    let result = inner_main(&job);
    let bytes = match result {
        Ok(answer) => [b"+", &answer[..]].concat(),
        Err(failure) => [b"-", &serde_json::to_vec(&failure).unwrap()[..]].concat(),
    };
    write(Path::new(&answer), &bytes);
}

/// Enters the id map with util-linux.
pub struct Enter;

impl InIdMap for Enter {
    fn run(&self, job: &[u8]) -> Result<Vec<u8>, Failure> {
        enter(unshare(), job)
    }
}

/// As on hosts that grant no subordinate ids: only root is mapped.
pub struct EnterSingle;

impl InIdMap for EnterSingle {
    fn run(&self, job: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--"]);
        enter(command, job)
    }
}

fn enter(mut command: Command, job: &[u8]) -> Result<Vec<u8>, Failure> {
    let answer = tempfile::NamedTempFile::new().unwrap();
    let mut child = command
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "common::inner_process", "--nocapture"])
        .env(ANSWER, answer.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(job).unwrap();
    let status = child.wait().unwrap();
    let bytes = fs::read(answer.path()).unwrap();
    match bytes.split_first() {
        Some((b'+', answer)) => Ok(answer.to_vec()),
        Some((b'-', failure)) => Err(serde_json::from_slice(failure).unwrap()),
        _ => Err(Failure::new(Stage::Cli, Kind::Internal, "test", "enter", status.to_string())),
    }
}

/// For tests that must never get as far as unpacking.
pub struct Never;

impl InIdMap for Never {
    fn run(&self, job: &[u8]) -> Result<Vec<u8>, Failure> {
        panic!("nothing is to be unpacked: {}", String::from_utf8_lossy(job));
    }
}

/// For stores that hold nothing but the caller's own files.
pub struct Here;

impl InIdMap for Here {
    fn run(&self, job: &[u8]) -> Result<Vec<u8>, Failure> {
        inner_main(job)
    }
}

pub fn work(ids: &dyn InIdMap) -> Work<'_> {
    Work {
        ids,
        progress: &|_| {},
        approve: &|_| Ok(()),
        before: &|_| Ok(()),
        look: Look::Once,
        limits: Limits::default(),
    }
}

/// A directory with a store, and things beside the store that no layer may touch.
pub struct Scratch {
    root: PathBuf,
    pub store: Store,
}

impl Scratch {
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("rlrun-image-").tempdir().unwrap().keep();
        fs::create_dir(root.join("outside")).unwrap();
        write(&root.join("outside/canary"), b"alive");
        Scratch { store: Store::new(root.join("data")), root }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn load(&self, archive: &[u8]) -> Result<Vec<Stored>, ImageError> {
        self.load_with(archive, Limits::default())
    }

    pub fn load_with(&self, mut archive: &[u8], limits: Limits) -> Result<Vec<Stored>, ImageError> {
        let result = self.store.load(&mut archive, "test.tar", &Work { limits, ..work(&Enter) });
        self.assert_untouched();
        result
    }

    /// Loads what must be refused, and sees to it that the store is as it was.
    pub fn refuse(&self, archive: &[u8]) -> Failure {
        self.refuse_with(archive, Limits::default())
    }

    pub fn refuse_with(&self, archive: &[u8], limits: Limits) -> Failure {
        let before = self.contents();
        let failure = Failure::from(self.load_with(archive, limits).expect_err("the archive must be refused"));
        assert_eq!(self.contents(), before, "{failure} left something behind");
        failure
    }

    /// Outside is as it was, and nothing else has appeared.
    pub fn assert_untouched(&self) {
        let mut names: Vec<String> = names(&self.root);
        names.retain(|n| n != "data");
        assert_eq!(names, ["outside"]);
        assert_eq!(self::names(&self.root.join("outside")), ["canary"]);
        assert_eq!(fs::read(self.root.join("outside/canary")).unwrap(), b"alive");
    }

    /// Every name in the store but its locks.
    pub fn contents(&self) -> Vec<String> {
        let mut all = Vec::new();
        for dir in ["blobs/sha256", "layers", "images", "refs", "tmp"] {
            all.extend(names(&self.path("data").join(dir)).into_iter().map(|n| format!("{dir}/{n}")));
        }
        all
    }

    /// The layers of an image, top first.
    pub fn layers(&self, name: &str) -> Vec<PathBuf> {
        self.store.resolve(name).unwrap().layers
    }

    /// Runs a shell script as mapped root; `$1` and further are `arguments`.
    pub fn inside(&self, script: &str, arguments: &[&Path]) -> String {
        let output = unshare().args(["sh", "-euc", script, "sh"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let script = ["sh", "-c", "chmod -R u+rwx \"$1\" 2>/dev/null; rm -rf \"$1\"", "sh"];
        drop(unshare().args(script).arg(&self.root).stderr(Stdio::null()).status());
        // Without user namespaces there are only files of our own.
        drop(fs::remove_dir_all(&self.root));
    }
}

pub fn write(path: &Path, bytes: &[u8]) {
    fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

pub fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Paths below a directory with their kind and size: what the extractor made of a layer.
pub fn tree(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![String::new()];
    while let Some(at) = pending.pop() {
        for name in names(&dir.join(&at)) {
            let path = if at.is_empty() { name } else { format!("{at}/{name}") };
            let meta = fs::symlink_metadata(dir.join(&path)).unwrap();
            let kind = match meta.mode() & 0o170_000 {
                0o040_000 => {
                    pending.push(path.clone());
                    "dir".to_owned()
                }
                0o120_000 => format!("-> {}", fs::read_link(dir.join(&path)).unwrap().display()),
                0o020_000 if meta.rdev() == 0 => "whiteout".to_owned(),
                0o100_000 => format!("file {}", meta.size()),
                other => format!("{other:o}"),
            };
            found.insert(path, kind);
        }
    }
    found
}
