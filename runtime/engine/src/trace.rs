//! The command line's part of `--trace`.

/// Steps with the time at which each was complete, CLOCK_MONOTONIC in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Marks(Vec<(String, u64)>);

impl Marks {
    /// Notes that `step` is complete. Costs one vDSO call, traced or not.
    pub fn mark(&mut self, step: &str) {
        self.0.push((step.to_owned(), rlrun_sandbox::now()));
    }

    /// All marks, for the plan.
    #[must_use]
    pub fn into_inner(self) -> Vec<(String, u64)> {
        self.0
    }
}
