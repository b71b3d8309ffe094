//! What becomes of a container without a command being there, told to the journal.

use crate::book::now;
use rlrun_journal::{append, quoted};
use rlrun_spec::plan::Launch;
use std::path::Path;

/// A command in the container has ended.
pub(crate) fn exec_died(launch: &Launch, session: &str, exit_code: u8) {
    let attributes = format!("\"execID\":{},\"exitCode\":{exit_code}", quoted(session));
    append_event(&launch.facts.journal, (&launch.id, &launch.name), "exec_died", &attributes);
}

/// Appends one event of the container with this id and name; `attributes` are the members of a JSON object. A container
/// must not fail because nobody can be told of it: `verify` and `events` show what there is.
pub(crate) fn append_event(journal: &Path, (id, name): (&str, &str), action: &str, attributes: &str) {
    let line = format!(
        "\"time\":{},\"events\":[{{\"type\":\"container\",\"action\":\"{action}\",\"id\":{},\"name\":{},\"attributes\":{{{attributes}}}}}]",
        now(),
        quoted(id),
        quoted(name)
    );
    if append(journal, &line).is_err() {
        // The disk is full or gone.
    }
}
