//! What was asked for and what the host really gives.

use serde::{Deserialize, Serialize};

/// How far a control holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforced {
    /// Not at all.
    No,
    /// With the gap that `why` names.
    Partly,
    /// As asked.
    Yes,
}

/// What happens when a control cannot be enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The container does not start.
    Require,
    /// One warning, and `inspect` says so.
    Prefer,
}

/// One control: decided before the verdict, shown to policies, printed by `plan` and `inspect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Stable name, for example `seccomp`, `no-new-privileges`, `pids-limit`.
    pub name: String,
    /// What was asked for, in words a user would type.
    pub requested: String,
    /// The kernel or process mechanism that was chosen, or `none`.
    pub mechanism: String,
    /// How far it holds.
    pub enforced: Enforced,
    /// Whether less than [`Enforced::Yes`] stops the start.
    pub level: Level,
    /// The reason when it does not hold as asked; empty when it does.
    pub why: String,
}
