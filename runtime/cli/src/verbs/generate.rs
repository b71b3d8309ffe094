//! `generate`: what starts containers after a boot, for systemd or cron. rlrun has no daemon that could.

use super::{Outcome, Verb, place, read, verb, with};
use crate::arguments::generate::SystemdArgs;
use crate::report;
use clap::ArgMatches;
use rlrun_engine::containers::{self, Container};
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use std::fs::OpenOptions;
use std::io::Write as _;

/// The verbs of `rlrun generate`.
pub(super) const VERBS: &[Verb] = &[
    verb("cron", "Print the line of crontab(5) that starts what is to run after a boot", |c| c, cron),
    verb("systemd", "Print a systemd unit of the user", with::<SystemdArgs>, systemd),
];

/// Everything with `--restart always`, and `unless-stopped` that nobody stopped.
const AT_BOOT: &str = "start --all --filter should-start-on-boot=true";
const RESTARTS: &[&str] = &["no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"];

fn failure(operation: &str, object: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "generate", operation, object)
}

/// The path of this program, in the quotes of systemd.syntax(7) and of the shell where it needs some.
fn program() -> Result<String, Failure> {
    let path = std::env::current_exe().map_err(|e| failure("find", "rlrun itself").why(e.to_string()))?;
    let path = path.to_string_lossy().into_owned();
    let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b));
    if plain {
        Ok(path)
    } else {
        Err(failure("write down", &path).why("the path needs quotes, which cron and systemd read differently"))
    }
}

fn cron(_: &mut ArgMatches, _: Marks) -> Outcome {
    let program = program()?;
    report::print(&format!(
        "# Starts the containers that are to run, after every boot. `crontab -e` takes this line.\n\
         @reboot {program} {AT_BOOT}\n"
    ))
}

fn systemd(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: SystemdArgs = read(matches)?;
    if !RESTARTS.contains(&args.restart_policy.as_str()) {
        let failure = failure("understand --restart-policy", &args.restart_policy).why("systemd has no such policy");
        return Err(failure.hint(format!("choose one of {}", RESTARTS.join(", "))));
    }
    let container = args.container.as_deref().map(|word| containers::find(&place()?, word)).transpose()?;
    let (name, text) = match &container {
        None => ("rlrun-restart".to_owned(), of_all(&program()?)),
        Some(container) => {
            let summary = &container.summary;
            let word = if args.name { &summary.name } else { &summary.id };
            (format!("{}{}{word}", args.container_prefix, args.separator), of_one(&args, &program()?, container, word))
        }
    };
    let text = format!("{}{text}", heading(&name));
    if !args.files {
        return report::print(&text);
    }
    let file = format!("{name}.service");
    let path = std::path::absolute(&file).map_err(|e| failure("write the unit", &file).why(e.to_string()))?;
    let object = path.display().to_string();
    let written = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
    written
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| failure("write the unit", &object).why(e.to_string()))?;
    report::print(&format!("{object}\n"))
}

fn heading(name: &str) -> String {
    format!(
        "# {name}.service\n\
         # Belongs in ~/.config/systemd/user/; then: systemctl --user enable --now {name}.service\n\
         # systemd ends the services of a user who logs out, and starts them only at the next login, unless that user\n\
         # lingers: loginctl enable-linger\n\n"
    )
}

fn of_all(program: &str) -> String {
    format!(
        "[Unit]\n\
         Description=The containers of rlrun that are to run after a boot\n\
         Wants=network-online.target\n\
         After=network-online.target\n\n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=true\n\
         ExecStart={program} {AT_BOOT}\n\
         ExecStop={program} stop --all\n\n\
         [Install]\n\
         WantedBy=default.target\n"
    )
}

/// `start --attach` becomes the supervisor, so the unit's main process is the container's life.
fn of_one(args: &SystemdArgs, program: &str, container: &Container, word: &str) -> String {
    let seconds = args.stop_timeout.unwrap_or(container.summary.life.stop_seconds);
    // The stop has its own deadline; systemd's comes after it and the tidying up.
    let patience = u64::from(seconds) + 60;
    let pause = args.restart_sec.map(|s| format!("RestartSec={s}\n")).unwrap_or_default();
    format!(
        "[Unit]\n\
         Description=rlrun container {}\n\
         Wants=network-online.target\n\
         After=network-online.target\n\n\
         [Service]\n\
         Type=exec\n\
         Restart={}\n\
         {pause}\
         TimeoutStopSec={patience}\n\
         ExecStart={program} start --attach {word}\n\
         ExecStop={program} stop --ignore -t {seconds} {word}\n\n\
         [Install]\n\
         WantedBy=default.target\n",
        container.summary.name, args.restart_policy,
    )
}
