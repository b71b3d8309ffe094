//! The one place where failures become words: `Error: what: on what: why`, then `hint: ...`.

use crate::arguments::not_yet;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use rlrun_spec::{Failure, Kind, Stage, hint};
use std::io::{ErrorKind as IoErrorKind, Write as _};
use std::process::ExitCode;

/// Tells a failure; its kind is the exit code.
pub(crate) fn failure(failure: &Failure) -> ExitCode {
    eprintln!("Error: {failure}");
    if let Some(hint) = hint::for_failure(failure).or_else(|| general(failure.kind).map(str::to_owned)) {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(failure.kind.exit_code())
}

/// Where to look when nothing better is known.
fn general(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Usage => Some("`rlrun --help` and `rlrun COMMAND --help` tell what can be written"),
        Kind::Denied => Some("`rlrun policy ls` lists the policies that are asked; their owner can change them"),
        Kind::Host => Some("`rlrun doctor` tells what this host lacks"),
        Kind::CannotInvoke | Kind::NotFound | Kind::Runtime | Kind::Internal => None,
    }
}

/// Writes what a verb prints. A reader that went away (`| head`) ends the program as SIGPIPE would, without a word.
pub(crate) fn print(text: &str) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(e) if e.kind() == IoErrorKind::BrokenPipe => Ok(ExitCode::from(128 + 13)),
        Err(e) => {
            let failure = Failure::new(Stage::Cli, Kind::Runtime, "print", "write to", "standard output");
            Err(match e.raw_os_error() {
                Some(errno) => failure.errno(errno),
                None => failure.why(e.to_string()),
            })
        }
    }
}

/// What clap found wrong, in the form of every other failure. Help that was asked for is no failure.
pub(crate) fn usage(error: &clap::Error, verb: Option<&str>) -> Result<ExitCode, Failure> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.clone()),
        Some(ContextValue::Strings(words)) => Some(words.join(", ")),
        _ => None,
    };
    let help = match verb {
        Some(verb) => format!("rlrun {verb} --help"),
        None => "rlrun --help".to_owned(),
    };
    let failed = |object: &str, why: &str| {
        Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "understand the command line", object).why(why)
    };
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    Err(match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return print_help(error, ExitCode::SUCCESS),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return print_help(error, ExitCode::from(Kind::Usage.exit_code()));
        }
        ErrorKind::UnknownArgument if !argument.starts_with('-') => {
            failed(&argument, "is one word too many").hint(format!("{} --help", command(error).unwrap_or(help)))
        }
        ErrorKind::UnknownArgument => match known_of_podman(error, verb, &argument) {
            Some(known) => known,
            None => failed(&argument, "unknown option").hint(
                context(ContextKind::SuggestedArg)
                    .filter(|similar| is_near(&argument, similar))
                    .map_or_else(|| format!("{help} lists the options"), |similar| format!("did you mean {similar}?")),
            ),
        },
        ErrorKind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            not_yet::verb(&word)
                .unwrap_or_else(|| failed(&word, "unknown command").hint(format!("{help} lists the commands")))
        }
        ErrorKind::MissingRequiredArgument => failed(&argument, "is missing").hint(help),
        ErrorKind::InvalidValue => {
            let value = context(ContextKind::InvalidValue).unwrap_or_default();
            let option = argument.split([' ', '[', '=']).next().unwrap_or_default();
            match context(ContextKind::ValidValue) {
                _ if value.is_empty() => failed(option, "needs a value").hint(help),
                Some(valid) => failed(&format!("{option} {value}"), "no such choice").hint(format!("choose {valid}")),
                None => failed(&format!("{option} {value}"), "is not a valid value").hint(help),
            }
        }
        _ => failed("", &first_line(error)).hint(help),
    })
}

/// A misspelling, and not just another word with some of the same letters.
fn is_near(written: &str, known: &str) -> bool {
    let name = written.split('=').next().unwrap_or_default();
    let (name, known) = (name.trim_start_matches('-'), known.trim_start_matches('-'));
    strsim::damerau_levenshtein(name, known) <= (name.len() / 4).max(1) || known.starts_with(name)
}

/// The command that did not understand, with its own sub-command: the first words of its usage.
fn command(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else { return None };
    let usage = usage.to_string();
    let is_name = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    let words: Vec<&str> = usage.split_whitespace().skip_while(|word| *word != "rlrun").take_while(is_name).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// An option that podman has in the place of this one.
fn known_of_podman(error: &clap::Error, verb: Option<&str>, argument: &str) -> Option<Failure> {
    let command = command(error).unwrap_or_default();
    let words = command.trim_start_matches("rlrun ").trim_start_matches("container ");
    not_yet::option_of(words, argument).or_else(|| not_yet::option(argument).filter(|_| takes_options_of_run(verb)))
}

fn takes_options_of_run(verb: Option<&str>) -> bool {
    matches!(verb, Some("run" | "create" | "plan" | "container"))
}

fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn print_help(error: &clap::Error, code: ExitCode) -> Result<ExitCode, Failure> {
    // Help piped into a pager that was left.
    match error.print() {
        Ok(()) => Ok(code),
        Err(e) if e.kind() == IoErrorKind::BrokenPipe => Ok(ExitCode::from(128 + 13)),
        Err(e) => Err(Failure::new(Stage::Cli, Kind::Runtime, "print", "print", "help").why(e.to_string())),
    }
}
