//! `login` and `logout`.

use crate::arguments::transfer::{LoginArgs, LogoutArgs};
use crate::report;
use crate::verbs::{Outcome, place, read};
use clap::ArgMatches;
use rlrun_engine::images::{self, Kept};
use rlrun_engine::request::PullOptions;
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

/// A password is shorter than this.
const MAX_PASSWORD: u64 = 64 << 10;

pub(crate) fn login(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: LoginArgs = read(matches)?;
    // Refuses root: its files would be another user's.
    place()?;
    let registry = args.name.as_deref().unwrap_or("docker.io");
    let options: PullOptions = args.registry.into();
    if args.get_login {
        let user = images::logged_in(registry, options.authfile.as_deref())?;
        let user = user.ok_or_else(|| failed(registry).why("nobody is logged in"))?;
        return report::print(&format!("{user}\n"));
    }
    let user = match args.username {
        Some(user) => user,
        None => ask("Username: ", registry, Echo::On)?,
    };
    let password = match (args.password, args.password_stdin) {
        (Some(password), _) => password,
        (None, true) => piped(registry)?,
        (None, false) => ask("Password: ", registry, Echo::Off)?,
    };
    let kept = images::login(registry, &user, &password, &options)?;
    if args.verbose {
        match kept {
            Kept::File(path) => eprintln!("Used: {}", path.display()),
            Kept::Helper(name) => eprintln!("Used: docker-credential-{name}"),
        }
    }
    report::print("Login Succeeded!\n")
}

pub(crate) fn logout(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: LogoutArgs = read(matches)?;
    place()?;
    let registry = args.registry.as_deref().unwrap_or("docker.io");
    let gone = images::logout((!args.all).then_some(registry), args.authfile.as_deref())?;
    if args.all {
        return report::print("Removed login credentials for all registries\n");
    }
    if gone.is_empty() {
        return Err(failed(registry).why("nobody is logged in"));
    }
    report::print(&gone.iter().map(|key| format!("Removed login credentials for {key}\n")).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

fn failed(registry: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "login", "log in to", registry)
        .hint("rlrun login -u USER --password-stdin REGISTRY")
}

fn piped(registry: &str) -> Result<String, Failure> {
    let mut password = String::new();
    let read = std::io::stdin().take(MAX_PASSWORD).read_to_string(&mut password);
    read.map_err(|e| failed(registry).why(e.to_string()))?;
    Ok(password.trim_end_matches(['\r', '\n']).to_owned())
}

/// Whether what is typed is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    On,
    Off,
}

fn ask(question: &str, registry: &str, echo: Echo) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(failed(registry).why("there is no terminal to ask for a user and a password"));
    }
    eprint!("{question}");
    let silence = (echo == Echo::Off).then(Silence::begin).flatten();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if silence.is_some() {
        eprintln!();
    }
    drop(silence);
    read.map_err(|e| failed(registry).why(e.to_string()))?;
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

/// While it lives, the terminal does not show what is typed.
struct Silence(Termios);

impl Silence {
    fn begin() -> Option<Self> {
        let before = termios::tcgetattr(std::io::stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent).ok()?;
        Some(Silence(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that went away needs nothing back.
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0).ok();
    }
}
