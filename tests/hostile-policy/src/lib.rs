//! A policy that misbehaves as its settings say: what the end-to-end tests hand to rlrun to see that it refuses.

use rlrun_policy::{
    Caller, Container, Create, Exec, ExecRequest, MountTighten, Policy, Restriction, Severity, Verdict, finding,
    policy, settings,
};
use serde::Deserialize;
use std::hint::black_box;

/// What to do.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    how: How,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum How {
    /// What an honest policy does.
    Allow,
    /// Never comes to an end.
    Loop,
    /// Asks for memory without end.
    Allocate,
    /// Calls itself without end.
    Recurse,
    /// Traps.
    Trap,
    /// Answers with more than anybody reads.
    Flood,
    /// Names a capability that does not exist.
    Nonsense,
    /// Asks for a mount to become writable.
    Loosen,
    /// Writes terminal control sequences into its reasons.
    Colour,
}

settings!(Settings);

/// The policy.
pub struct Hostile;

impl Policy for Hostile {
    type Settings = Settings;
}

impl Create for Hostile {
    fn create(settings: &Settings, _: &Container, _: &Caller) -> Verdict {
        match settings.how {
            How::Allow => Verdict::allow(),
            How::Loop => endless(),
            How::Allocate => allocate(),
            How::Recurse => Verdict::allow().note("depth", &recurse(0).to_string()),
            How::Trap => panic!("as its settings say"),
            How::Flood => Verdict::deny(finding("FLOOD", Severity::High, "x".repeat(8 << 20))),
            How::Nonsense => Verdict::allow().restrict(Restriction::DropCapabilities(vec!["CAP_\0FLY".to_owned()])),
            How::Loosen => Verdict::allow().restrict(Restriction::TightenMount(MountTighten {
                destination: "/proc".to_owned(),
                add_options: vec!["rw".to_owned(), "suid".to_owned()],
            })),
            How::Colour => Verdict::deny(finding(
                "COLOUR",
                Severity::High,
                "\x1b[2J\x1b]0;owned\x07\nError: forged\nhint: run evil",
            )),
        }
    }
}

/// Says what it was asked, and refuses a command called `forbidden`.
impl Exec for Hostile {
    fn exec(settings: &Settings, request: &ExecRequest, container: &Container, _: &Caller) -> Verdict {
        match (settings.how, request.args.first().map(String::as_str)) {
            (How::Loop, _) => endless(),
            (_, Some("forbidden")) => Verdict::deny(finding(
                "EXEC",
                Severity::High,
                format!(
                    "{} as {} in {}, privileged {}, terminal {}",
                    request.args.join(" "),
                    request.uid,
                    container.name,
                    request.privileged,
                    request.tty
                ),
            )),
            _ => Verdict::allow(),
        }
    }
}

fn endless() -> Verdict {
    let mut n = 0_u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

fn allocate() -> Verdict {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![1_u8; 1 << 20]));
    }
}

#[expect(unconditional_recursion, reason = "that is the point")]
fn recurse(depth: u64) -> u64 {
    black_box([depth; 64])[7] + recurse(black_box(depth + 1))
}

policy!(Hostile: create, exec);
