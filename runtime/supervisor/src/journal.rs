//! What becomes of a container without a command being there, told to the journal.

use crate::book::now;
use rlrun_journal::{append, quoted};
use rlrun_spec::plan::Launch;

/// Appends one event. A container must not fail because nobody can be told of it: `verify` and `events` show what there
/// is.
pub(crate) fn tell(launch: &Launch, action: &str, exit_code: Option<u8>) {
    let code = exit_code.map(|code| format!("\"exitCode\":{code}")).unwrap_or_default();
    append_event(launch, action, &code);
}

/// A command in the container has ended; without a code when nobody could see it.
pub(crate) fn exec_died(launch: &Launch, session: &str, exit_code: Option<u8>) {
    let code = exit_code.map(|code| format!(",\"exitCode\":{code}")).unwrap_or_default();
    append_event(launch, "exec_died", &format!("\"execID\":{}{code}", quoted(session)));
}

/// `attributes` are the members of a JSON object.
fn append_event(launch: &Launch, action: &str, attributes: &str) {
    let line = format!(
        "\"time\":{},\"events\":[{{\"type\":\"container\",\"action\":\"{action}\",\"id\":{},\"name\":{},\"attributes\":{{{attributes}}}}}]",
        now(),
        quoted(&launch.id),
        quoted(&launch.name)
    );
    if append(&launch.facts.journal, &line).is_err() {
        // The disk is full or gone.
    }
}
