//! `policy trace` and `policy bench`: one policy, one question, looked at closely.

use super::super::{Outcome, place, read};
use super::project::component;
use crate::report;
use crate::table::columns;
use clap::{ArgMatches, Args};
use rlrun_engine::place::Place;
use rlrun_engine::policies::case::{Case, Told};
use rlrun_engine::policies::{self, Reply};
use rlrun_engine::trace::Marks;
use rlrun_spec::policy::PolicyId;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Args, Debug)]
pub(super) struct TraceArgs {
    /// A policy, or its project
    #[arg(value_name = "FILE|DIR")]
    policy: PathBuf,
    /// A case to ask; without one, an ordinary request of each hook
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    /// A policy, or its project
    #[arg(value_name = "FILE|DIR")]
    policy: PathBuf,
    /// A case to ask; without one, an ordinary request of the first hook
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
}

/// What the policy logged since the last look.
static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn log(_: &PolicyId, level: &str, message: &str) {
    LOGGED.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{level}: {message}"));
}

fn logged() -> Vec<String> {
    std::mem::take(&mut *LOGGED.lock().unwrap_or_else(PoisonError::into_inner))
}

pub(super) fn trace(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: TraceArgs = read(matches)?;
    let (file, place) = (component(&args.policy)?, place()?);
    let mut out = String::new();
    for case in cases(&place, &file, args.request.as_deref())? {
        let mut policy = policies::bench(&place, &file, case.settings.as_ref(), Some(log))?;
        let function = policy.functions().find(|f| f.hook == case.hook).cloned();
        let function = function.ok_or_else(|| unasked(&file, &format!("it does not have the hook {}", case.hook)))?;
        let arguments = case.arguments(&function).map_err(|why| unasked(&file, &why))?;
        let reply = case.ask(&mut policy).map_err(|why| unasked(&file, &why))?;
        out.push_str(&format!("{}#{}\n", function.interface, function.name));
        for (name, value) in &arguments {
            out.push_str(&format!("  {name}: {value}\n"));
        }
        out.extend(logged().iter().map(|line| format!("  log: {line}\n")));
        match &reply.answer {
            Ok(answer) => out.push_str(&format!("  answer: {answer}\n")),
            Err(refusal) => out.push_str(&format!("  failed: {}\n", json!(refusal.diagnostics))),
        }
        let Reply { init_fuel, fuel, opened, asked, .. } = reply;
        out.push_str(&format!("  fuel: {init_fuel} to set up, {fuel} to answer\n"));
        out.push_str(&format!("  time: {} to set up, {} to answer\n", micros(opened), micros(asked)));
    }
    report::print(&out)
}

pub(super) fn bench(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: BenchArgs = read(matches)?;
    let (file, place) = (component(&args.policy)?, place()?);
    let case = cases(&place, &file, args.request.as_deref())?.into_iter().next();
    let case = case.ok_or_else(|| unasked(&file, "it has no hook that can be asked"))?;
    let cold = cold(&place, &file)?;
    let rounds = usize::try_from(args.rounds).unwrap_or(usize::MAX);
    let (mut loads, mut firsts, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        let mut policy = policies::bench(&place, &file, None, None)?;
        loads.push(start.elapsed());
        let reply = case.ask(&mut policy).map_err(|why| unasked(&file, &why))?;
        firsts.push(reply.opened + reply.asked);
    }
    let mut policy = policies::bench(&place, &file, None, None)?;
    policy.set_contents(case.contents.clone());
    let function = policy.functions().find(|f| f.hook == case.hook);
    let arguments = function.map(|f| case.arguments(f)).transpose().map_err(|why| unasked(&file, &why))?;
    let replies = policy.ask_often(&case.hook, &arguments.unwrap_or_default(), rounds);
    let replies = replies.map_err(|why| unasked(&file, &format!("{why:?}")))?;
    again.extend(replies.iter().map(|reply| reply.asked));
    let last =
        replies.last().map_or((0, 0, String::new()), |reply| (reply.init_fuel, reply.fuel, Told::of(reply).decision));
    let row = |what: &str, mut times: Vec<Duration>| {
        times.sort();
        let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
        vec![what.to_owned(), micros(at(0)), micros(at(50)), micros(at(95))]
    };
    let rows = vec![
        ["", "MIN", "MEDIAN", "P95"].map(str::to_owned).to_vec(),
        row("compile", vec![cold]),
        row("load", loads),
        row("first", firsts),
        row("again", again),
    ];
    let (init, fuel, decision) = last;
    report::print(&format!(
        "{}\nfuel: {init} to set up, {fuel} to answer {} ({decision})\n\
         compile: once, when a policy is new; load: machine code from the cache; first: a fresh instance and its\n\
         answer; again: another answer of the same instance; {rounds} rounds\n",
        columns(&rows),
        case.hook,
    ))
}

/// With an empty cache.
fn cold(place: &Place, file: &Path) -> Result<Duration, Failure> {
    let cache = place.cache.join(format!("bench-{}", std::process::id()));
    let empty = Place { cache: cache.clone(), ..place.clone() };
    let start = Instant::now();
    let loaded = policies::bench(&empty, file, None, None).map(drop);
    let taken = start.elapsed();
    // Whatever came of it, nothing of it is kept; a directory that was never made is no error.
    let removed = std::fs::remove_dir_all(&cache);
    loaded?;
    removed.map_err(|e| unasked(file, &format!("{}: {e}", cache.display())))?;
    Ok(taken)
}

/// The case that was named, or an ordinary request of each hook.
fn cases(place: &Place, file: &Path, request: Option<&Path>) -> Result<Vec<Case>, Failure> {
    if let Some(path) = request {
        return Ok(vec![Case::load(path)?]);
    }
    let policy = policies::bench(place, file, None, None)?;
    let mut hooks: Vec<String> = policy.functions().map(|f| f.hook.clone()).collect();
    hooks.dedup();
    if let Some(of_text) = policies::hooks_of_text(&policies::described(file)?) {
        hooks.retain(|hook| of_text.contains(hook));
    }
    let ordinary = |hook| Case {
        path: PathBuf::from("ordinary"),
        hook,
        settings: None,
        now: None,
        contents: None,
        changes: serde_json::Map::new(),
        expect: None,
    };
    Ok(hooks.into_iter().map(ordinary).collect())
}

fn unasked(file: &Path, why: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "ask-policy", "ask the policy", file.display().to_string()).why(why)
}

fn micros(time: Duration) -> String {
    format!("{}us", time.as_micros())
}
