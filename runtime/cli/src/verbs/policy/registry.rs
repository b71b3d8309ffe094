//! `policy pull` and `policy push`.

use super::super::{Outcome, place, read};
use crate::arguments::transfer::RegistryArgs;
use crate::report;
use clap::{ArgMatches, Args};
use rlrun_engine::policies;
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct PullArgs {
    /// Where it is: NAME:TAG or NAME@sha256:...
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// Public key, PEM, that has to have signed it
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) fn pull(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let PullArgs { reference, key, registry } = read(matches)?;
    let pem = key.as_deref().map(policies::read_key).transpose()?;
    let kept = policies::pull(&place()?, &reference, pem.as_deref(), &registry.into())?;
    let mut text = format!("{}@{}\n", kept.reference.split('@').next().unwrap_or_default(), kept.digest);
    for file in &kept.files {
        text.push_str(&format!("{}\n", file.display()));
    }
    report::print(&text)
}

#[derive(Args, Debug)]
pub(super) struct PushArgs {
    /// The policies, then where to: NAME:TAG
    #[arg(value_name = "FILE... REFERENCE", num_args = 2.., required = true)]
    words: Vec<PathBuf>,
    /// Send the settings beside each file along
    #[arg(long)]
    with_settings: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) fn push(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let PushArgs { mut words, with_settings, registry } = read(matches)?;
    let reference = words.pop().unwrap_or_default().to_string_lossy().into_owned();
    if reference.ends_with(".wasm") {
        return Err(Failure::new(Stage::Cli, Kind::Usage, "push-policy", "push to", reference)
            .why("it is the name of a policy's file, and the last word is where to")
            .hint("rlrun policy push FILE... NAME:TAG"));
    }
    if words.is_empty() {
        return Err(Failure::new(Stage::Cli, Kind::Usage, "push-policy", "push", reference)
            .why("there is no policy to push")
            .hint("rlrun policy push FILE... NAME:TAG"));
    }
    let pushed = policies::push(&place()?, &words, &reference, with_settings, &registry.into())?;
    report::print(&format!("{}\n", pushed.digest))
}
