//! Finding and executing the payload, with or without the built-in init in front of it.

use crate::at::{At, failed};
use crate::confine;
use crate::mapper::exit_code;
use crate::sys::{self, Fork};
use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal, sigprocmask};
use rlrun_spec::hint::OWN_PROGRAM;
use rlrun_spec::plan::{Launch, Process};
use rlrun_spec::{Failure, Kind};
use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, statat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use std::convert::Infallible;
use std::ffi::CString;

/// Podman's and the shell's default when the environment names no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program's path inside: as it is with a slash in it, else the first executable of PATH (`execvp(3)`).
pub(crate) fn find(process: &Process) -> Result<CString, Failure> {
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    if name.contains('/') {
        let path = if name.starts_with('/') { name.to_owned() } else { format!("{}/{name}", process.cwd) };
        executable(&path).map_err(|errno| cannot_execute(name, errno))?;
        return c_string(&path);
    }
    let path = process.env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut reason = Errno::NOENT;
    for directory in path.split(':') {
        let directory = if directory.is_empty() { &process.cwd } else { directory };
        let candidate = format!("{directory}/{name}");
        match executable(&candidate) {
            Ok(()) => return c_string(&candidate),
            // A later directory may hold one that works; if none does, this is the better reason.
            Err(Errno::ACCESS) => reason = Errno::ACCESS,
            Err(_) => {}
        }
    }
    let mut failure = cannot_execute(name, reason);
    if reason == Errno::NOENT {
        failure.errno = None;
        failure = failure.why("executable file not found in $PATH");
    }
    Err(failure)
}

/// Whether the path leads to a regular file with an execute bit that is not the one this process runs from: until it
/// has executed, `/proc/self/exe` is rlrun's own, which does nothing there.
fn executable(path: &str) -> Result<(), Errno> {
    let stat = statat(CWD, path, AtFlags::empty())?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR),
        _ => return Err(Errno::ACCESS),
    }
    let own = statat(CWD, "/proc/self/exe", AtFlags::empty());
    if own.is_ok_and(|own| (own.st_dev, own.st_ino) == (stat.st_dev, stat.st_ino)) {
        return Err(Errno::TXTBSY);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

fn c_string(path: &str) -> Result<CString, Failure> {
    CString::new(path).map_err(|_| Errno::INVAL).at("exec", "execute", path)
}

fn cannot_execute(name: &str, errno: Errno) -> Failure {
    let kind = match errno {
        Errno::NOENT | Errno::NOTDIR => Kind::NotFound,
        _ => Kind::CannotInvoke,
    };
    let mut failure = failed(kind, "exec", "execute in the container", name, "").errno(errno.raw_os_error());
    match errno {
        Errno::NOEXEC => failure.why("it is of another architecture or has no interpreter line"),
        Errno::TXTBSY => {
            failure.errno = None;
            let why = "it leads to the program that starts containers, not to one of the image";
            failure.why(why).hint(OWN_PROGRAM)
        }
        _ => failure,
    }
}

/// Confines this process and becomes the payload, or the built-in init with the payload as its child.
pub(crate) fn run(launch: &Launch, program: &CString) -> Result<Infallible, Failure> {
    let process = &launch.process;
    let env: Vec<&String> = process.env.iter().chain(&launch.facts.secret_variables).collect();
    let argv = sys::CStrings::new(&process.args).at("exec", "execute", "the arguments")?;
    let envp = sys::CStrings::new(&env).at("exec", "execute", "the environment")?;
    let execute = || {
        if let Err(failure) = confine::apply(launch) {
            return failure;
        }
        execute_now(process, program, &argv, &envp)
    };
    if !launch.init {
        return Err(execute());
    }
    // Before confinement, whose filter refuses clone3(2); both sides confine themselves.
    match sys::clone_stage(0).at("init", "start the payload under", "the built-in init")? {
        Fork::Child => {
            lead_foreground(process);
            Err(execute())
        }
        Fork::Parent { pid, .. } => {
            // Init's end of the channel must not outlive the payload's exec: end of file is how the supervisor knows.
            sys::close_from(3).at("init", "close", "the channel")?;
            match confine::apply(launch) {
                Ok(()) => sys::exit_now(reap(pid)),
                Err(_) => sys::exit_now(125),
            }
        }
    }
}

/// Becomes a command in a container that runs, confined before but for the filter.
pub(crate) fn join(launch: &Launch, program: &CString) -> Result<Infallible, Failure> {
    let process = &launch.process;
    let argv = sys::CStrings::new(&process.args).at("exec", "execute", "the arguments")?;
    let envp = sys::CStrings::new(&process.env).at("exec", "execute", "the environment")?;
    confine::filter(launch)?;
    Err(execute_now(process, program, &argv, &envp))
}

fn execute_now(process: &Process, program: &CString, argv: &sys::CStrings, envp: &sys::CStrings) -> Failure {
    reset_signals();
    let errno = sys::exec(&sys::Program::Path(program), argv, envp);
    // find() saw the file: what is missing now is the interpreter that it names.
    let missing = errno == Errno::NOENT;
    let mut failure = cannot_execute(process.args.first().map(String::as_str).unwrap_or_default(), errno);
    if missing {
        failure.kind = Kind::NotFound;
        failure = failure.why("the interpreter or dynamic loader that it names does not exist in the image");
    }
    failure
}

/// The payload gets the mask and the actions that a program expects, whatever ours were (signal(7)).
fn reset_signals() {
    sys::default_signal_actions();
    if sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).is_err() {
        // Cannot fail with valid arguments (sigprocmask(2)).
    }
}

/// Its own process group, in the foreground of the terminal if there is one, so that ^C reaches it and not init.
fn lead_foreground(process: &Process) {
    let led = rustix::process::setpgid(None, None);
    if led.is_ok() && process.terminal {
        let group = rustix::process::getpid();
        // SIGTTOU would stop a background process that asks for the foreground (tcsetpgrp(3)); the mask is put back
        // before the payload is executed.
        let mut background = SigSet::empty();
        background.add(NixSignal::SIGTTOU);
        if sigprocmask(SigmaskHow::SIG_BLOCK, Some(&background), None).is_err() {
            return;
        }
        if rustix::termios::tcsetpgrp(rustix::stdio::stdin(), group).is_err() {
            // Without the foreground the payload still runs; the shell it may be takes it itself.
        }
    }
}

/// The built-in init: forwards every signal to the payload, reaps whatever is orphaned, ends with the payload's code.
fn reap(payload: Pid) -> u8 {
    let all = SigSet::all();
    if sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None).is_err() {
        return 125;
    }
    loop {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == payload => return exit_code(status),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return 125,
            }
        }
        match all.wait() {
            Ok(NixSignal::SIGCHLD) | Err(_) => {}
            Ok(signal) => {
                if let Some(signal) = Signal::from_named_raw(signal as i32)
                    && kill_process(payload, signal).is_err()
                {
                    // It ended meanwhile: the next turn reaps it.
                }
            }
        }
    }
}
