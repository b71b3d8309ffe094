//! `generate`: what starts containers after a boot, for systemd or cron. rlrun has no daemon that could.

use super::{Outcome, Verb, place, read, verb, with};
use crate::arguments::generate::SystemdArgs;
use crate::report;
use clap::ArgMatches;
use rlrun_engine::containers::{self, Container};
use rlrun_engine::record::Details;
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::json;
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
    let json = match args.format.as_deref() {
        None => false,
        Some("json") => true,
        Some(other) => return Err(failure("understand --format", other).why("it is not json")),
    };
    let place = place()?;
    let container = args.container.as_deref().map(|word| containers::find(&place, word)).transpose()?;
    let (name, text) = match &container {
        None => ("rlrun-restart".to_owned(), of_all(&program()?)),
        Some(container) => {
            let summary = &container.summary;
            let word = if args.name { &summary.name } else { &summary.id };
            let commands = if args.new || args.template {
                anew(&args, &program()?, container)?
            } else {
                again(&args, &program()?, word, container)
            };
            let at = if args.template { "@" } else { "" };
            (format!("{}{}{word}{at}", args.container_prefix, args.separator), of_one(&args, container, &commands))
        }
    };
    let text = if args.no_header { text } else { format!("{}{text}", heading(&name)) };
    if !args.files {
        return report::print(&if json { format!("{:#}\n", json!({ name: text })) } else { text });
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
    let instance = if name.ends_with('@') { "INSTANCE" } else { "" };
    format!(
        "# {name}.service\n\
         # Belongs in ~/.config/systemd/user/; then: systemctl --user enable --now {name}{instance}.service\n\
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
fn again(args: &SystemdArgs, program: &str, word: &str, container: &Container) -> String {
    let seconds = seconds(args, container);
    format!(
        "ExecStart={program} start --attach {word}\n\
         ExecStop={program} stop --ignore -t {seconds} {word}\n"
    )
}

fn seconds(args: &SystemdArgs, container: &Container) -> u32 {
    args.stop_timeout.unwrap_or(container.summary.life.stop_seconds)
}

/// The command line that made the container, in the foreground and in the place of the one before.
fn anew(args: &SystemdArgs, program: &str, container: &Container) -> Result<String, Failure> {
    let name = &container.summary.name;
    let details =
        Details::read(&container.directory).map_err(|e| failure("read the record of", name).why(e.to_string()))?;
    let request = &details.request;
    // Before the image are the options, after it the command's own words.
    let tail = request.command.len() + 1;
    let argv = &request.launching.argv;
    let verb = argv.iter().position(|word| word == "run" || word == "create");
    let options = verb.and_then(|verb| argv.get(verb + 1..argv.len().checked_sub(tail)?)).ok_or_else(|| {
        failure("repeat the command line of", name)
            .why("it is not known")
            .hint("leave out --new: the unit starts this container again")
    })?;
    let mut words = vec!["run".to_owned(), "--rm".to_owned(), "--replace".to_owned()];
    words.extend(kept(options));
    let mut words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    // Of a template every instance has a name of its own; the last of two counts.
    let instance = if args.template { "-%i" } else { "" };
    let own = format!("{}{instance}", quoted(name));
    if request.name.is_none() || args.template {
        words.extend(["--name".to_owned(), own.clone()]);
    }
    words.extend(argv[argv.len() - tail..].iter().map(|word| quoted(word)));
    Ok(format!("ExecStart={program} {}\nExecStop={program} stop --ignore {own}\n", words.join(" ")))
}

/// Without what the unit decides itself.
fn kept(options: &[String]) -> Vec<String> {
    const WORDS: [&str; 6] = ["-d", "--detach", "--detach=true", "--rm", "--rm=true", "--replace"];
    const WITH_VALUE: [&str; 2] = ["--restart", "--cidfile"];
    let mut kept = Vec::new();
    let mut words = options.iter();
    while let Some(word) = words.next() {
        let (option, joined) = word.split_once('=').map_or((word.as_str(), false), |(option, _)| (option, true));
        if WITH_VALUE.contains(&option) {
            if !joined {
                words.next();
            }
        } else if is_cluster(word) {
            let rest: String = word.chars().filter(|c| *c != 'd').collect();
            kept.extend((rest != "-").then_some(rest));
        } else if !WORDS.contains(&word.as_str()) {
            kept.push(word.clone());
        }
    }
    kept
}

/// `-dit`: short switches in one word.
fn is_cluster(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| "ditqP".contains(c)))
}

/// As one word of a command line of systemd's (systemd.syntax(7), systemd.service(5)).
fn quoted(word: &str) -> String {
    let escaped =
        word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$").replace('\n', "\\n");
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:=,@+%$".contains(&b);
    if !escaped.is_empty() && escaped.bytes().all(plain) { escaped } else { format!("\"{escaped}\"") }
}

fn of_one(args: &SystemdArgs, container: &Container, commands: &str) -> String {
    // The stop has its own deadline; systemd's comes after it and the tidying up.
    let patience = u64::from(seconds(args, container)) + 60;
    let lines = |key: &str, values: &[String]| values.iter().map(|v| format!("{key}={v}\n")).collect::<String>();
    let units = [lines("Wants", &args.wants), lines("After", &args.after), lines("Requires", &args.requires)].concat();
    let variables: String = args.env.iter().map(|v| format!("Environment={}\n", quoted(v))).collect();
    let pause = args.restart_sec.map(|s| format!("RestartSec={s}\n")).unwrap_or_default();
    let start = args.start_timeout.map(|s| format!("TimeoutStartSec={s}\n")).unwrap_or_default();
    format!(
        "[Unit]\n\
         Description=rlrun container {}\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         {units}\n\
         [Service]\n\
         Type=exec\n\
         Restart={}\n\
         {variables}{pause}{start}\
         TimeoutStopSec={patience}\n\
         {commands}\n\
         [Install]\n\
         WantedBy=default.target\n",
        container.summary.name, args.restart_policy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_unit_decides_is_left_out() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let options = words("-dit --name web --restart always --rm -e A=1 --cidfile=x -d --detach -p 80:80");
        assert_eq!(kept(&options), words("-it --name web -e A=1 -p 80:80"));
    }

    #[test]
    fn words_are_quoted_as_systemd_reads_them() {
        assert_eq!(quoted("plain-1.x"), "plain-1.x");
        assert_eq!(quoted("50% of $HOME"), "\"50%% of $$HOME\"");
        assert_eq!(quoted("a\"b\\c"), "\"a\\\"b\\\\c\"");
        assert_eq!(quoted(""), "\"\"");
    }
}
