//! What this command changes, collected while it works and written as one line of the journal (`rlrun_journal`) at its
//! end: who, the words, the image, the effective security, what the policies said, and the events that `events` shows.
//! What a container does by itself its supervisor writes.

mod read;
mod redact;
mod request;
mod sink;

pub use read::{Lines, verify};
pub use request::{Asked, asked, asked_of};
pub use rlrun_journal::Verified;

use crate::place::Place;
use rlrun_spec::policy::{Admitted, Answer, Decision, Denied, Permit, PolicyId};
use rlrun_spec::{ContainerSpec, Failure, ImageIdentity, Kind};
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Below the data directory.
const FILE: &str = "journal";
/// What of a command line is kept.
const MAX_ARGV: usize = 4096;
/// What of the verdicts is kept: an archive may hold any number of images.
const MAX_VERDICTS: usize = 256;

/// The member of what is collected that says that there is a line already; it is never written.
const TOLD: &str = "told";

/// Collected so far; None when this command changes nothing.
static NOTES: Mutex<Option<Map<String, Value>>> = Mutex::new(None);

/// Where the journal is.
#[must_use]
pub fn path(place: &Place) -> PathBuf {
    place.data.join(FILE)
}

/// Nanoseconds since the epoch.
fn now() -> u64 {
    u64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// From here on this command is one that changes something.
pub fn begin(operation: &str, words: &[OsString]) {
    let mut notes = Map::new();
    notes.insert("time".to_owned(), json!(now()));
    notes.insert("operation".to_owned(), json!(operation));
    notes.insert("argv".to_owned(), json!(redact::words(words, MAX_ARGV)));
    *NOTES.lock().unwrap_or_else(PoisonError::into_inner) = Some(notes);
}

fn is_begun() -> bool {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

fn note(key: &str, value: impl FnOnce() -> Value) {
    if let Some(notes) = &mut *NOTES.lock().unwrap_or_else(PoisonError::into_inner) {
        notes.insert(key.to_owned(), value());
    }
}

/// Something happened to a container, an image, a volume, a secret. `attributes` are a JSON object.
pub fn event(kind: &str, action: &str, id: &str, name: &str, attributes: Value) {
    if let Some(notes) = &mut *NOTES.lock().unwrap_or_else(PoisonError::into_inner) {
        let events = notes.entry("events").or_insert_with(|| json!([]));
        if let Some(events) = events.as_array_mut() {
            events.push(json!({"type": kind, "action": action, "id": id, "name": name, "attributes": attributes}));
        }
    }
}

/// Which image it is about.
pub fn image(image: &ImageIdentity) {
    note("image", || json!({"reference": image.reference, "digest": image.digest, "id": image.id}));
}

/// A container was admitted: what confines it, and who said so.
pub fn admitted(admitted: &Admitted) {
    note("security", || security(admitted.spec()));
    verdicts(|| admitted.answers().iter().map(verdict).collect());
}

/// It is about a container that was admitted before: its image, and what confines it.
pub fn within(container: &ContainerSpec) {
    if let Some(identity) = &container.parts().image {
        image(identity);
    }
    note("security", || security(container));
}

/// Policies let something pass that has no configuration of its own.
pub fn permitted(permit: &Permit) {
    verdicts(|| permit.answers().iter().map(verdict).collect());
}

/// What policies said that have been asked before, and of what: an image comes in before a container is admitted.
pub fn heard(permit: &Permit, about: &str) {
    let heard = |answer: &&Answer| answer.decision != Decision::Abstain || !answer.audit.is_empty();
    let of = |answer: &Answer| {
        let mut verdict = verdict(answer);
        verdict["of"] = json!(about);
        verdict
    };
    verdicts(|| permit.answers().iter().filter(heard).map(of).collect());
}

/// One command may ask several times, the same question among them.
fn verdicts(new: impl FnOnce() -> Vec<Value>) {
    if let Some(notes) = &mut *NOTES.lock().unwrap_or_else(PoisonError::into_inner)
        && let Some(known) = notes.entry("verdicts").or_insert_with(|| json!([])).as_array_mut()
    {
        for verdict in new() {
            if known.len() < MAX_VERDICTS && !known.contains(&verdict) {
                known.push(verdict);
            }
        }
    }
}

/// Policies refused.
pub fn denied(denied: &Denied) {
    let refusal = |r: &rlrun_spec::policy::Refusal| {
        let mut verdict = policy(&r.policy);
        verdict["decision"] = json!("deny");
        verdict["findings"] = json!(r.diagnostics.iter().map(|d| d.code.as_str()).collect::<Vec<_>>());
        // For `policy explain`: which field, and what to do about it.
        verdict["diagnostics"] = json!(r.diagnostics);
        verdict
    };
    verdicts(|| denied.refusals().iter().map(refusal).collect());
}

fn policy(id: &PolicyId) -> Value {
    json!({"policy": id.name, "digest": id.digest, "tier": id.tier})
}

fn verdict(answer: &Answer) -> Value {
    let mut verdict = policy(&answer.policy);
    verdict["decision"] = json!(answer.decision);
    if !answer.diagnostics.is_empty() {
        verdict["findings"] = json!(answer.diagnostics.iter().map(|d| d.code.as_str()).collect::<Vec<_>>());
    }
    if !answer.audit.is_empty() {
        verdict["audit"] = json!(answer.audit);
    }
    verdict
}

/// The effective security in short; the record has it in full.
fn security(spec: &ContainerSpec) -> Value {
    let parts = spec.parts();
    let process = parts.oci.process().as_ref();
    let bounding = process.and_then(|p| p.capabilities().as_ref()).and_then(|c| c.bounding().as_ref());
    let mut capabilities: Vec<String> = bounding.into_iter().flatten().map(ToString::to_string).collect();
    capabilities.sort();
    let weak = parts.controls.iter().filter(|c| c.enforced != rlrun_spec::Enforced::Yes).map(|c| &c.name);
    json!({
        "privileged": parts.privileged,
        "user": process.map(|p| p.user().uid()),
        "userns": parts.userns,
        "network": parts.network,
        "capabilities": capabilities,
        "seccomp": parts.seccomp_profile,
        "noNewPrivileges": process.and_then(oci_spec::runtime::Process::no_new_privileges).unwrap_or(false),
        "readOnly": parts.oci.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
        "sources": parts.resolved_sources,
        "notEnforced": weak.collect::<Vec<_>>(),
    })
}

/// How the command ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// Well.
    Done,
    /// With another exit code than 0: a container's own, or some of several things could not be done.
    Nonzero,
    /// With this.
    Failed(&'a Failure),
}

/// Writes what is known so far, before a supervisor writes what follows from it: a container is created, then started.
/// Of what comes after only a failure is worth a line of its own.
pub fn tell(place: &Place) {
    let mut rest = NOTES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    finish(place, Outcome::Done);
    if let Some(rest) = &mut rest {
        rest.retain(|key, _| ["time", "operation", "argv", "image"].contains(&key.as_str()));
        rest.insert(TOLD.to_owned(), json!(true));
    }
    *NOTES.lock().unwrap_or_else(PoisonError::into_inner) = rest;
}

/// Writes the line, if there is one to write. A misspelt command changed nothing.
pub fn finish(place: &Place, outcome: Outcome<'_>) {
    let Some(mut notes) = NOTES.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let told = notes.remove(TOLD).is_some();
    let changed = told || notes.contains_key("events");
    let (word, why) = match outcome {
        Outcome::Nonzero if !changed => return,
        Outcome::Done if told => return,
        Outcome::Done => ("done", None),
        Outcome::Nonzero => ("nonzero exit", None),
        Outcome::Failed(failure) if failure.kind == Kind::Denied => ("denied", Some(failure.to_string())),
        Outcome::Failed(failure) if failure.kind == Kind::Usage && !changed => return,
        // There is no place for a log, and nothing was done; that one error says it all.
        Outcome::Failed(failure) if failure.step == crate::place::DATA_DIR && !changed => return,
        Outcome::Failed(failure) => ("failed", Some(failure.to_string())),
    };
    notes.insert("outcome".to_owned(), json!(word));
    if let Some(why) = why {
        notes.insert("why".to_owned(), json!(why));
    }
    notes.insert("who".to_owned(), who());
    let line = Value::Object(notes).to_string();
    let members = line.strip_prefix('{').and_then(|l| l.strip_suffix('}')).unwrap_or_default();
    let written = place.own("").and_then(|_| {
        let path = path(place);
        rlrun_journal::append(&path, members).map_err(|e| crate::record::failed("journal", "append to", &path, &e))
    });
    if let Err(failure) = written.and_then(|()| sink::send(&line)) {
        crate::warn(&format!("what was done is not in the audit log: {failure}"));
    }
}

/// Who asks, as the kernel knows it: `loginuid` stays what it was at login, whatever su and sudo did since
/// (`pam_loginuid(8)`).
fn who() -> Value {
    let loginuid = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|t| t.trim().parse::<u32>().ok());
    let terminal = [rustix::stdio::stdin(), rustix::stdio::stderr()]
        .into_iter()
        .find_map(|fd| rustix::termios::ttyname(fd, Vec::new()).ok())
        .map(|name| name.to_string_lossy().into_owned());
    json!({
        "uid": rustix::process::getuid().as_raw(),
        "loginuid": loginuid.filter(|uid| *uid != u32::MAX),
        "tty": terminal,
    })
}
