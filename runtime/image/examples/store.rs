//! Drives the store by hand: `store DATA pull|load|import|check|images|rmi|resolve|rootfs ...`. User namespaces come from
//! unshare(1), so it also shows all that an engine has to provide.
//!
//! `store inner` is the process inside the id map: a job on standard input, the answer on standard output.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "an example shows the calls, not error handling")]

use rlrun_image::{
    Asking, Event, Import, InIdMap, Incoming, Limits, Look, PullOptions, RemoveMode, Store, Work, copy_rootfs_job,
    inner_main,
};
use rlrun_spec::{Failure, Kind, Stage};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, ExitCode, Stdio};

/// Enters the id map with util-linux: container root is the user, further ids are the subordinate ones.
struct Unshare;

impl InIdMap for Unshare {
    fn run(&self, job: &[u8]) -> Result<Vec<u8>, Failure> {
        let failed =
            |why: String| Failure::new(Stage::Cli, Kind::Host, "id-map", "enter the id map", "unshare").why(why);
        let mut child = Command::new("unshare")
            .args(["--user", "--map-root-user", "--map-auto", "--"])
            .arg(std::env::current_exe().unwrap())
            .arg("inner")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failed(e.to_string()))?;
        child.stdin.take().unwrap().write_all(job).map_err(|e| failed(e.to_string()))?;
        let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
        match output.stdout.split_first() {
            Some((b'+', answer)) => Ok(answer.to_vec()),
            Some((b'-', failure)) => Err(serde_json::from_slice(failure).unwrap()),
            _ => Err(failed(output.status.to_string())),
        }
    }
}

fn inner() -> ExitCode {
    let mut job = Vec::new();
    std::io::stdin().read_to_end(&mut job).unwrap();
    let (mark, answer) = match inner_main(&job) {
        Ok(answer) => (b"+", answer),
        Err(failure) => (b"-", serde_json::to_vec(&failure).unwrap()),
    };
    let mut out = std::io::stdout();
    out.write_all(mark).and_then(|()| out.write_all(&answer)).unwrap();
    ExitCode::SUCCESS
}

fn show(event: &Event) {
    if !matches!(event, Event::BlobProgress { .. } | Event::Checking { .. }) {
        eprintln!("{event:?}");
    }
}

fn run(data: &str, words: &[&str]) -> Result<(), Failure> {
    let store = Store::new(data);
    let (approve, before) = (&|_: &Incoming<'_>| Ok(()), &|_: &Asking<'_>| Ok(()));
    let work = Work { ids: &Unshare, progress: &show, approve, before, look: Look::Once, limits: Limits::default() };
    match words {
        ["pull", name, rest @ ..] => {
            let tls_verify = rest.contains(&"--tls-verify=false").then_some(false);
            let platform = rest.iter().find_map(|w| w.strip_prefix("--platform=")).map(str::to_owned);
            println!("{:#?}", store.pull(name, &PullOptions { tls_verify, platform, ..Default::default() }, &work)?);
        }
        ["load", "-"] => println!("{:#?}", store.load(&mut std::io::stdin(), "standard input", &work)?),
        ["load", file] => println!("{:#?}", store.load(&mut File::open(file).unwrap(), file, &work)?),
        ["import", file, name @ ..] => {
            let how = Import { name: name.first().copied(), ..Import::default() };
            let stored = store.import(&mut File::open(file).unwrap(), file, &how, &work)?;
            println!("{stored:#?}");
        }
        ["check"] => println!("{:#?}", store.check(&Unshare, &show)?),
        ["images"] => println!("{:#?}", store.images(&|_| {})?),
        ["rmi", name] => println!("{:#?}", store.remove(name, RemoveMode::Normal, &|_| None, &Unshare)?),
        ["resolve", name] => println!("{:#?}", store.resolve(name)?),
        ["time", name] => {
            let start = std::time::Instant::now();
            for _ in 0..1000 {
                drop(store.resolve(name)?);
            }
            println!("{} ns", start.elapsed().as_nanos() / 1000);
        }
        ["rootfs", name, target] => {
            let image = store.resolve(name)?;
            drop(Unshare.run(&copy_rootfs_job(&image.layers, target.as_ref())?)?);
        }
        _ => eprintln!("usage: store DATA pull|load|import|check|images|rmi|resolve|time|rootfs ..."),
    }
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match &words[..] {
        ["inner"] => inner(),
        [data, rest @ ..] => match run(data, rest) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("Error: {failure}");
                if let Some(hint) = rlrun_spec::hint::for_failure(&failure) {
                    eprintln!("hint: {hint}");
                }
                ExitCode::from(failure.kind.exit_code())
            }
        },
        [] => ExitCode::FAILURE,
    }
}
