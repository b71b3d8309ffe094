//! `rlrun secret`: create, exists, inspect, ls, rm.

use super::images::{each, inspect_named};
use super::{Outcome, Verb, place, read, verb, with};
use crate::arguments::secret::{CreateArgs, InspectArgs, LsArgs, NameArgs, RmArgs};
use crate::format::{Filters, Format, Heading, Row};
use crate::report;
use crate::table::{ago, now, timestamp};
use clap::ArgMatches;
use rlrun_engine::request::labels;
use rlrun_engine::secrets::{self, Existing, Secret};
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::process::ExitCode;

pub(super) const VERBS: &[Verb] = &[
    verb("create", "Keep a secret", with::<CreateArgs>, create),
    verb("exists", "Tell by the exit code whether a secret is there", with::<NameArgs>, exists),
    verb("inspect", "Print what is known of secrets, as JSON", with::<InspectArgs>, inspect),
    verb("ls", "List secrets", with::<LsArgs>, list).known_as(&["list"]),
    verb("rm", "Remove secrets", with::<RmArgs>, remove).known_as(&["remove"]),
];

fn usage(operation: &str, object: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "secret", operation, object)
}

fn create(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: CreateArgs = read(matches)?;
    if args.driver != "file" {
        let failure = usage("keep the secret with the driver", &args.driver).why("no such driver");
        return Err(failure.hint("leave out --driver: secrets are files that only you can read"));
    }
    let name = secrets::name("NAME", &args.name)?;
    let labels = args.label.iter().map(|l| labels::label("--label", l)).collect::<Result<_, _>>()?;
    let existing = match (args.replace, args.ignore) {
        (true, _) => Existing::Replaced,
        (false, true) => Existing::Ignored,
        (false, false) => Existing::Refused,
    };
    let secret = secrets::create(&place()?, &name, &value(&args)?, labels, existing)?;
    report::print(&format!("{}\n", secret.id))
}

fn value(args: &CreateArgs) -> Result<Vec<u8>, Failure> {
    let object = args.source.display().to_string();
    if args.env {
        let value = std::env::var_os(&args.source).ok_or_else(|| {
            usage("read the secret from your variable", &object).why("it is not set").hint("export it first")
        })?;
        return secrets::checked(value.into_vec(), &object);
    }
    if args.source == Path::new("-") {
        return secrets::value(&mut std::io::stdin().lock(), "standard input");
    }
    let mut file = File::open(&args.source).map_err(|e| usage("read the secret from", &object).why(e.to_string()))?;
    secrets::value(&mut file, &object)
}

fn exists(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: NameArgs = read(matches)?;
    Ok(ExitCode::from(u8::from(secrets::find(&place()?, &args.name).is_err())))
}

/// Field names as in `podman secret inspect`.
fn document(secret: &Secret) -> Value {
    json!({
        "ID": secret.id,
        "CreatedAt": timestamp(secret.created),
        "UpdatedAt": timestamp(secret.updated),
        "Spec": {"Name": secret.name, "Driver": {"Name": "file", "Options": {}}, "Labels": secret.labels},
    })
}

/// As `podman secret inspect --pretty` shows one.
const PRETTY: &str = "ID:              {{.ID}}\n\
                      Name:            {{.Spec.Name}}\n\
                      Labels:\n\
                      {{range $name, $value := .Spec.Labels}} - {{$name}}={{$value}}\n{{end}}\
                      Driver:          {{.Spec.Driver.Name}}\n\
                      Created at:      {{.CreatedAt}}\n\
                      Updated at:      {{.UpdatedAt}}";

fn inspect(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: InspectArgs = read(matches)?;
    let place = place()?;
    let format = if args.pretty { Some(PRETTY) } else { args.format.as_deref() };
    inspect_named(&args.names, format, |name| {
        let secret = secrets::find(&place, name)?;
        let mut document = document(&secret);
        if args.showsecret {
            document["SecretData"] = json!(String::from_utf8_lossy(&secrets::reveal(&place, &secret)?));
        }
        Ok(document)
    })
}

fn list(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: LsArgs = read(matches)?;
    let mut all = secrets::list(&place()?)?;
    let filters = Filters::parse(&args.list.filter, &["id", "name"])?;
    all.retain(|s| {
        filters.any("name", |word| s.name.contains(word)) && filters.any("id", |word| s.id.starts_with(word))
    });
    if args.list.quiet {
        return report::print(&all.iter().map(|s| format!("{}\n", s.id)).collect::<String>());
    }
    let columns = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}";
    let format = Format::parse(args.list.format.as_deref(), columns)?;
    let age = |nanoseconds: u64| ago(nanoseconds / 1_000_000_000, now());
    let row = |s: &Secret| Row {
        document: document(s),
        fields: json!({
            "ID": s.id, "Name": s.name, "Driver": "file", "CreatedAt": age(s.created), "UpdatedAt": age(s.updated),
            "Spec": document(s)["Spec"],
        }),
    };
    let rows: Vec<Row> = all.iter().map(row).collect();
    let headings = [("CreatedAt", "CREATED"), ("UpdatedAt", "UPDATED")];
    report::print(&format.list(&rows, &headings, Heading::from(args.list.noheading))?)
}

fn remove(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: RmArgs = read(matches)?;
    let place = place()?;
    let names = match args.all {
        true => secrets::list(&place)?.into_iter().map(|s| s.id).collect(),
        false => args.names,
    };
    each(&names, |name| {
        if args.ignore && secrets::find(&place, name).is_err() {
            return Ok(String::new());
        }
        secrets::remove(&place, name).map(|id| format!("{id}\n"))
    })
}
