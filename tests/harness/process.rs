//! One invocation of rlrun under the warden: its output, its exit, and what it left running.

use crate::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const WARDEN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/warden"));
/// Longer than anything a test does; a command that takes longer hangs.
const DEADLINE_SECONDS: u64 = 40;

/// Writes the warden where root and the ordinary user can execute it.
pub(crate) fn install_warden(directory: &Path) -> PathBuf {
    let path = directory.join("warden");
    crate::root::install_program(&path, WARDEN);
    path
}

/// A command line that is being put together.
pub struct Invocation {
    pub(crate) warden: PathBuf,
    pub(crate) identity: Option<(u32, u32)>,
    pub(crate) directory: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) stdin: Vec<u8>,
    pub(crate) leak: Option<PathBuf>,
    pub(crate) keep: bool,
    pub(crate) deadline: u64,
    pub(crate) cwd: PathBuf,
}

/// Where a command's standard streams go.
pub(crate) enum Streams {
    Piped,
    Given(Stdio, Stdio, Stdio),
}

impl Invocation {
    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of rlrun's own environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Removes a variable that every invocation has.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self
    }

    /// What is written to standard input before it is closed.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Lets rlrun inherit a file as descriptor 9, as a careless parent does.
    #[must_use]
    pub fn leaking(mut self, file: &Path) -> Self {
        self.leak = Some(file.to_owned());
        self
    }

    /// What it leaves running is meant to run on; the case ends it when it is dropped.
    #[must_use]
    pub fn leaving_processes(mut self) -> Self {
        self.keep = true;
        self
    }

    /// Another working directory for rlrun.
    #[must_use]
    pub fn in_directory(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.cwd);
        self
    }

    /// Another deadline, in seconds.
    #[must_use]
    pub fn within(mut self, seconds: u64) -> Self {
        self.deadline = seconds;
        self
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Output {
        let input = std::mem::take(&mut self.stdin);
        let mut spawned = self.spawn();
        let mut stdin = spawned.stdin.take().unwrap();
        // The command may end, or close its input, without having read it.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = spawned.finish();
        writer.join().unwrap();
        output
    }

    /// Starts it with pipes for its standard streams.
    pub fn spawn(self) -> Spawned {
        let mut running = self.start(Streams::Piped, false);
        let stdin = running.warden.stdin.take();
        let stdout = Stream::collect(running.warden.stdout.take().unwrap());
        let stderr = Stream::collect(running.warden.stderr.take().unwrap());
        Spawned { running, stdin, stdout, stderr }
    }

    /// Starts it with the given streams.
    pub fn spawn_with(self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Running {
        self.start(Streams::Given(stdin, stdout, stderr), false)
    }

    pub(crate) fn start(self, streams: Streams, terminal: bool) -> Running {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let socket = self.directory.join(format!("w{}.{number}", std::process::id()));
        let listener = UnixListener::bind(&socket).unwrap();

        let mut command = Command::new(&self.warden);
        command.arg("-s").arg(&socket).arg("-d").arg(self.deadline.to_string());
        if let Some((uid, gid)) = self.identity {
            command.args(["-u", &uid.to_string(), "-g", &gid.to_string()]);
        }
        if terminal {
            command.arg("-t");
        }
        if self.keep {
            command.arg("-k");
        }
        if let Some(file) = &self.leak {
            command.arg("-l").arg(file);
        }
        command.arg("--").arg(&self.program).args(&self.args).env_clear().envs(self.env).current_dir(&self.cwd);
        match streams {
            Streams::Piped => command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()),
            Streams::Given(stdin, stdout, stderr) => command.stdin(stdin).stdout(stdout).stderr(stderr),
        };
        let mut warden = command.spawn().unwrap();
        // The parent's copies of the given streams must go, or nobody ever reads an end of file.
        drop(command);
        let control = accept(&listener, &mut warden);
        std::fs::remove_file(&socket).unwrap();
        let mut control = BufReader::new(control);
        let pid = read_line(&mut control).strip_prefix("pid ").expect("the warden says the pid first").parse().unwrap();
        Running { warden, control, pid: Pid::from_raw(pid), text: format!("rlrun {}", show(&self.args)) }
    }
}

fn show(args: &[OsString]) -> String {
    args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn accept(listener: &UnixListener, warden: &mut Child) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let connection = until(10, || match listener.accept() {
        Ok((stream, _)) => Some(stream),
        Err(_) => {
            if let Some(status) = warden.try_wait().unwrap() {
                panic!("the warden ended before it began: {status}");
            }
            None
        }
    });
    let connection = connection.expect("the warden connects");
    connection.set_nonblocking(false).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(DEADLINE_SECONDS * 5))).unwrap();
    connection
}

fn read_line(control: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    control.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// How long an invocation may take unless a test says otherwise.
pub(crate) fn default_deadline() -> u64 {
    DEADLINE_SECONDS
}

/// A running rlrun.
pub struct Running {
    warden: Child,
    control: BufReader<UnixStream>,
    /// Its pid on the host; the supervisor keeps it.
    pub pid: Pid,
    text: String,
}

/// How rlrun ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With a code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Running {
    /// Sends a signal to rlrun; one that has ended is past it, as its exit will tell.
    pub fn signal(&self, signal: Signal) {
        match kill(self.pid, signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(errno) => panic!("{signal} to rlrun: {errno}"),
        }
    }

    /// Whether rlrun still runs.
    pub fn alive(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
    }

    /// Waits for the end of rlrun and of everything it started; fails when something is still there afterwards.
    pub fn wait(mut self) -> Exit {
        let mut exit = None;
        let mut left = Vec::new();
        loop {
            let line = read_line(&mut self.control);
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match word {
                "exit" => exit = Some(Exit::Code(rest.parse().unwrap())),
                "signal" => exit = Some(Exit::Signal(rest.parse().unwrap())),
                "timeout" => left.push("it did not end in time".to_owned()),
                "left" => left.push(rest.to_owned()),
                "done" => break,
                _ => panic!("{}: the warden died: {line:?}", self.text),
            }
        }
        self.warden.wait().unwrap();
        assert!(left.is_empty(), "{}: left running: {}", self.text, left.join(", "));
        exit.expect("a command that ended has a status")
    }
}

/// Collects a stream in the background, so that a test can look at what has come so far.
struct Stream {
    so_far: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Stream {
    fn collect(mut source: impl Read + Send + 'static) -> Stream {
        let so_far = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let sink = so_far.clone();
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 65536];
            while let Ok(n @ 1..) = source.read(&mut chunk) {
                sink.lock().unwrap().extend_from_slice(&chunk[..n]);
            }
        });
        Stream { so_far, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.so_far.lock().unwrap()).into_owned()
    }

    fn finish(self) -> Vec<u8> {
        self.reader.join().unwrap();
        std::mem::take(&mut self.so_far.lock().unwrap())
    }
}

/// A running rlrun with pipes.
pub struct Spawned {
    /// The process.
    pub running: Running,
    /// Its standard input; dropping it is an end of file.
    pub stdin: Option<ChildStdin>,
    stdout: Stream,
    stderr: Stream,
}

impl Spawned {
    /// Waits until standard output has this text.
    pub fn wait_for(&self, text: &str) {
        let seen = until(30, || self.stdout.text().contains(text).then_some(()));
        assert!(
            seen.is_some(),
            "{}: never printed {text:?}\nstdout: {}\nstderr: {}",
            self.running.text,
            self.stdout.text(),
            self.stderr.text()
        );
    }

    /// What standard output has so far.
    pub fn stdout_so_far(&self) -> String {
        self.stdout.text()
    }

    /// What standard error has so far.
    pub fn stderr_so_far(&self) -> String {
        self.stderr.text()
    }

    /// Sends a signal to rlrun.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Output {
        drop(self.stdin.take());
        let text = self.running.text.clone();
        let exit = self.running.wait();
        Output { text, exit, stdout: self.stdout.finish(), stderr: self.stderr.finish() }
    }
}

/// What an invocation gave.
pub struct Output {
    text: String,
    /// How it ended.
    pub exit: Exit,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Fails with everything there is to know.
    #[track_caller]
    pub fn fail(&self, why: &str) -> ! {
        panic!("{}\n{why}\nended: {:?}\nstdout: {}\nstderr: {}", self.text, self.exit, self.out(), self.err())
    }

    /// It ended with this code.
    #[track_caller]
    pub fn code(&self, code: i32) -> &Self {
        if self.exit != Exit::Code(code) {
            self.fail(&format!("expected exit code {code}"));
        }
        self
    }

    /// It ended with 0.
    #[track_caller]
    pub fn ok(&self) -> &Self {
        self.code(0)
    }

    /// Standard output is exactly this line or these lines, but for the last newline.
    #[track_caller]
    pub fn prints(&self, expected: &str) -> &Self {
        if self.out().trim_end_matches('\n') != expected.trim_end_matches('\n') {
            self.fail(&format!("expected on standard output: {expected}"));
        }
        self
    }

    /// Standard output has this text.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        if !self.out().contains(text) {
            self.fail(&format!("expected somewhere on standard output: {text}"));
        }
        self
    }

    /// Standard error has this text.
    #[track_caller]
    pub fn complains(&self, text: &str) -> &Self {
        if !self.err().to_lowercase().contains(&text.to_lowercase()) {
            self.fail(&format!("expected somewhere on standard error: {text}"));
        }
        self
    }

    /// One error with its hint, in the form that every failure has, and nothing on standard output.
    #[track_caller]
    pub fn refused(&self, code: i32, why: &str) -> &Self {
        self.code(code).complains(why);
        let err = self.err();
        if err.lines().filter(|line| line.starts_with("Error: ")).count() != 1 {
            self.fail("expected exactly one `Error: ` line");
        }
        if !err.lines().any(|line| line.starts_with("hint: ") && line.len() > "hint: ".len()) {
            self.fail("expected a hint");
        }
        if !self.stdout.is_empty() {
            self.fail("expected nothing on standard output");
        }
        self
    }
}

/// The process with this name among the descendants of a process, seen from the host.
pub fn payload_of(ancestor: Pid, name: &str) -> Pid {
    let found = until(10, || descendants(ancestor).into_iter().find(|pid| command_name(*pid).as_deref() == Some(name)));
    found.unwrap_or_else(|| panic!("{name} is not running below {ancestor}"))
}

fn command_name(pid: Pid) -> Option<String> {
    Some(std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}

/// Every process below this one, in no order.
pub fn descendants(ancestor: Pid) -> Vec<Pid> {
    let mut known = vec![ancestor];
    let mut next = 0;
    while next < known.len() {
        let path = format!("/proc/{0}/task/{0}/children", known[next]);
        let children = std::fs::read_to_string(path).unwrap_or_default();
        known.extend(children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())));
        next += 1;
    }
    known.split_off(1)
}
