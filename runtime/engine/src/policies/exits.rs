//! The ends of containers, told to policies that want to know. The supervisor holds no WebAssembly, so it is the next
//! command with policies that reads the journal from where the last one stopped.

use crate::journal;
use crate::place::Place;
use rlrun_admission::{Hook, PolicySet};
use rlrun_spec::policy::{ExitEvent, PolicyId, Subject};
use rustix::fs::FlockOperation;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

/// How much of the journal has been told: a number of bytes.
const TOLD: &str = "exits-told";
/// One command tells of so many ends at most; the next goes on.
const AT_MOST: usize = 1000;

/// Tells of the ends since the last time. Nothing depends on it, so nothing fails for it.
pub(super) fn tell(place: &Place, policies: &PolicySet) {
    if policies.asks(Hook::Exit)
        && let Err(error) = tell_since(place, policies)
    {
        crate::warn(&format!("policies were not told of containers that have ended: {error}"));
    }
}

fn tell_since(place: &Place, policies: &PolicySet) -> std::io::Result<()> {
    let path = place.data.join(TOLD);
    let known = path.exists();
    let mut options = File::options();
    let mut cursor = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    // Another command is at it.
    if rustix::fs::flock(&cursor, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let mut told = String::new();
    cursor.read_to_string(&mut told)?;
    let Ok(mut journal) = File::open(journal::path(place)) else { return Ok(()) };
    let length = journal.metadata()?.len();
    let start = match told.trim().parse::<u64>() {
        Ok(start) if start <= length => start,
        // A journal that was put aside begins anew. A policy that is new learns of what comes.
        _ if known => 0,
        _ => length,
    };
    journal.seek(SeekFrom::Start(start))?;
    let (events, read) = events(BufReader::new(journal))?;
    if !events.is_empty() {
        policies.tell_exits(&events, note);
    }
    cursor.set_len(0)?;
    cursor.seek(SeekFrom::Start(0))?;
    cursor.write_all((start + read).to_string().as_bytes())
}

/// The ends in whole lines, and the bytes of those lines.
fn events(mut journal: impl std::io::BufRead) -> std::io::Result<(Vec<ExitEvent>, u64)> {
    let (mut events, mut read, mut line) = (Vec::new(), 0, Vec::new());
    while events.len() < AT_MOST {
        line.clear();
        let bytes = journal.by_ref().read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            break;
        }
        read += u64::try_from(bytes).unwrap_or(u64::MAX);
        if let Ok(value) = serde_json::from_slice::<Value>(&line) {
            let all = value["events"].as_array().map(Vec::as_slice).unwrap_or_default();
            events.extend(all.iter().filter_map(|event| exit(event, &value["time"])));
        }
    }
    Ok((events, read))
}

fn exit(event: &Value, time: &Value) -> Option<ExitEvent> {
    if event["type"] != "container" || event["action"] != "died" {
        return None;
    }
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let attributes = &event["attributes"];
    Some(ExitEvent {
        container: Subject { id: text("id"), name: text("name"), image: None },
        exit_code: attributes["exitCode"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or(-1),
        finished: time.as_u64().unwrap_or_default(),
        oom_killed: attributes["oomKilled"].as_bool().unwrap_or(false),
    })
}

/// Into the audit log, by way of this command's line.
fn note(policy: &PolicyId, level: &str, message: &str) {
    let said = json!({"level": level, "message": message, "digest": policy.digest});
    journal::event("policy", "exit", &policy.digest, &policy.name, said);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_read_and_only_ends_are_told() {
        let text = concat!(
            r#"{"time":5,"events":[{"type":"container","action":"died","id":"aa","name":"n","attributes":{"exitCode":3}}]}"#,
            "\n",
            r#"{"time":6,"events":[{"type":"image","action":"died"},{"type":"container","action":"start"}]}"#,
            "\nno json\n",
            r#"{"time":7,"events":[{"type":"container","act"#,
        );
        let (found, read) = events(text.as_bytes()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].exit_code, found[0].finished, found[0].container.name.as_str()), (3, 5, "n"));
        assert_eq!(usize::try_from(read).unwrap(), text.rfind('\n').unwrap() + 1);
    }
}
