//! One test's world: a home, a runtime directory and a data directory of its own, on the real kernel.

use crate::archive::Image;
use crate::needs::{Need, all_met};
use crate::process::{Invocation, Output, Spawned, default_deadline};
use crate::root::{Root, install, write};
use crate::user::Ordinary;
use crate::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// One test's world.
pub struct Case {
    warden: PathBuf,
    user: Ordinary,
    directory: PathBuf,
    home: PathBuf,
    runtime: PathBuf,
    prefix: PathBuf,
    /// Cases are checked and removed at the end; the template's is not.
    temporary: bool,
    keeps_containers: bool,
}

impl Case {
    /// A copy of the template, or None when the host lacks something. Use [`crate::case!`].
    pub fn new(needs: &[Need]) -> Option<Case> {
        all_met(needs).then(|| Case::of(Ordinary::get().clone()))
    }

    /// A case of another user, whose home is empty: no image, no cache.
    pub fn of_user(user: Ordinary) -> Case {
        let root = Root::get();
        let directory = fresh_directory(root);
        let home = user.private_directory(&directory.join("home"));
        let mut case = Case::at(root, &directory, home);
        user.own(&case.runtime);
        case.user = user;
        case.temporary = true;
        case
    }

    fn of(user: Ordinary) -> Case {
        let root = Root::get();
        let directory = fresh_directory(root);
        let home = directory.join("home");
        // -a keeps owners, modes and extended attributes: the copy is the template.
        let mut copy = Command::new("cp");
        copy.args(["-a", "--reflink=auto", "--"]).args([&root.template, &home]);
        assert!(copy.status().unwrap().success(), "the template can be copied");
        let mut case = Case::at(root, &directory, home);
        case.user = user;
        case.temporary = true;
        case
    }

    pub(crate) fn at(root: &Root, directory: &Path, home: PathBuf) -> Case {
        std::fs::create_dir_all(directory).unwrap();
        let user = Ordinary::get().clone();
        let runtime = user.private_directory(&directory.join("run"));
        Case {
            warden: root.path.join("warden"),
            directory: directory.to_owned(),
            home,
            runtime,
            prefix: root.prefix.clone(),
            user,
            temporary: false,
            keeps_containers: false,
        }
    }

    /// The user that runs containers.
    pub fn user(&self) -> &Ordinary {
        &self.user
    }

    /// $HOME.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The directory of this case; the ordinary user can enter it and cannot write to it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where rlrun keeps images and containers.
    pub fn data(&self) -> PathBuf {
        self.home.join(".local/share/rlrun")
    }

    /// Every file of the store but the journal, which tells of failures too, as a list to compare.
    pub fn store(&self) -> Vec<String> {
        let mut find = Command::new("find");
        find.arg(self.data())
            .args(["-name", "journal*", "-prune", "-o", "-not", "-type", "d", "-not", "-name", "*.lock"]);
        let found = find.args(["-printf", "%P %y %s %l\n"]).output().unwrap();
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let mut list: Vec<String> = String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
        list.sort();
        list
    }

    /// $XDG_RUNTIME_DIR.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The installed rlrun.
    pub fn program(&self) -> PathBuf {
        self.prefix.join("bin/rlrun")
    }

    /// Replaces the shared installation by one of this case's own, for tests that attack it.
    #[must_use]
    pub fn with_own_installation(mut self) -> Case {
        let prefix = self.directory.join("prefix");
        install(&self.prefix, &prefix);
        self.prefix = prefix;
        self
    }

    /// Containers stay after this test's runs (no `--rm`), which is what it is about.
    #[must_use]
    pub fn keeping_containers(mut self) -> Case {
        self.keeps_containers = true;
        self
    }

    /// A directory of the ordinary user inside this case.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        self.user.private_directory(&self.directory.join(name))
    }

    /// A file of the ordinary user inside this case.
    pub fn make_file(&self, name: &str, data: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.join(name);
        write(&path, data.as_ref());
        self.user.own(&path);
        path
    }

    /// Loads an image.
    pub fn load(&self, image: &Image) {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let archive = self.make_file(&format!("image{number}.tar"), image.docker_archive().bytes());
        self.run(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]).ok();
    }

    /// An invocation of rlrun that is not started yet.
    pub fn rlrun<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Invocation {
        self.invoke(&self.program()).args(args)
    }

    /// An invocation of another program as the same user, under the same watch.
    pub fn invoke(&self, program: &Path) -> Invocation {
        let invocation = Invocation {
            warden: self.warden.clone(),
            identity: self.user.dropped.then(|| (self.user.uid.as_raw(), self.user.gid.as_raw())),
            directory: self.directory.clone(),
            program: program.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: Vec::new(),
            leak: None,
            keep: false,
            deadline: default_deadline(),
            cwd: "/".into(),
        };
        invocation
            .env("HOME", &self.home)
            .env("XDG_RUNTIME_DIR", &self.runtime)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("USER", &self.user.name)
            .env("LANG", "C.UTF-8")
    }

    /// The same as root, for tests that change the host first; the program must drop its privilege itself.
    pub fn invoke_as_root(&self, program: &Path) -> Invocation {
        Invocation { identity: None, ..self.invoke(program) }
    }

    /// rlrun in a mount namespace of root's own that `prepare`, a shell script, has changed first.
    pub fn on_changed_host(&self, prepare: &str, args: &[&str]) -> Invocation {
        let script = format!(
            "set -e; {prepare}; exec setpriv --reuid {} --regid {} --clear-groups -- \"$@\"",
            self.user.uid, self.user.gid
        );
        let program = self.program();
        self.invoke_as_root("/usr/bin/unshare".as_ref())
            .args(["--mount", "sh", "-c", &script, "sh", program.to_str().unwrap()])
            .args(args)
    }

    /// Runs rlrun to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.rlrun(args).run()
    }

    /// `rlrun run --rm --network none BASE ...`: what most tests are about.
    pub fn in_base<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Output {
        self.run_base(&[], command)
    }

    /// The same with options.
    pub fn run_base<S: AsRef<OsStr>>(&self, options: &[&str], command: impl IntoIterator<Item = S>) -> Output {
        self.base(options, command).run()
    }

    /// The same, not started yet.
    pub fn base<S: AsRef<OsStr>>(&self, options: &[&str], command: impl IntoIterator<Item = S>) -> Invocation {
        self.rlrun(["run", "--rm", "--network", "none"]).args(options).args([crate::BASE]).args(command)
    }

    /// A running `rlrun run --rm --network none BASE ...` that has printed `ready`.
    pub fn spawn_base<S: AsRef<OsStr>>(&self, options: &[&str], command: impl IntoIterator<Item = S>) -> Spawned {
        let spawned = self.base(options, command).spawn();
        spawned.wait_for("ready");
        spawned
    }

    /// `rlrun run -d --network none OPTIONS BASE COMMAND`: the id that it printed.
    #[track_caller]
    pub fn detached<S: AsRef<OsStr>>(&self, options: &[&str], command: impl IntoIterator<Item = S>) -> String {
        let run = self.rlrun(["run", "-d", "--network", "none"]).args(options).args([crate::BASE]).args(command);
        let out = run.leaving_processes().run();
        let id = out.ok().out().trim_end().to_owned();
        if id.len() != 64 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            out.fail("expected an id");
        }
        id
    }

    /// The supervisors of this case's containers: the processes that hold a lock below its home.
    pub fn supervisors(&self) -> Vec<Pid> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            // Descriptor 4 is the lock (launch contract); whatever ended meanwhile has none.
            if std::fs::read_link(entry.path().join("fd/4")).is_ok_and(|file| file.starts_with(self.data())) {
                found.push(Pid::from_raw(pid));
            }
        }
        found
    }

    /// Ends what runs in the background; the kernel ends everything below a supervisor with it.
    fn end_supervisors(&self) {
        let left = until(10, || {
            for pid in self.supervisors() {
                if kill(pid, Signal::SIGKILL).is_err() {
                    // It ended meanwhile.
                }
            }
            self.supervisors().is_empty().then_some(())
        });
        assert!(left.is_some(), "supervisors that cannot be killed: {:?}", self.supervisors());
    }

    /// Fails when an ended container left a record, a claim on a name, a mount or a file in the runtime directory.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        for place in [self.data().join("containers"), self.data().join("names")] {
            let left = names_in(&place);
            assert!(self.keeps_containers || left.is_empty(), "left in {}: {left:?}", place.display());
        }
        let left = files_below(&self.runtime);
        assert!(left.is_empty(), "left in the runtime directory: {left:?}");
        let home = self.home.to_str().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(home)).collect();
        assert!(left.is_empty(), "left mounted: {left:?}");
    }
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn fresh_directory(root: &Root) -> PathBuf {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory = root.path.join(format!("{}.{number}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    directory
}

fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Files, sockets and links below a directory; empty directories are no leftover.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

impl Drop for Case {
    fn drop(&mut self) {
        if !self.temporary {
            return;
        }
        self.end_supervisors();
        if std::thread::panicking() {
            println!("the failed test's files are in {}", self.directory.display());
            return;
        }
        self.assert_nothing_left();
        // Layers hold files of subordinate ids, which only their user namespace may remove.
        let mut remove = if self.user.dropped {
            Command::new("rm")
        } else {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--map-auto", "rm"]);
            command
        };
        remove.args(["-rf", "--"]).arg(&self.directory);
        // A command of `exec -d` outlives the supervisor for a moment, and whoever waits for it writes its end down.
        let removed = until(10, || remove.status().is_ok_and(|status| status.success()).then_some(()));
        assert!(removed.is_some(), "cannot remove {}", self.directory.display());
    }
}
