//! Waiting for a condition, with a deadline. Nothing here waits for time to pass.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// Asks until there is an answer, or gives up after `seconds`.
pub fn until<T>(seconds: u64, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        // A condition of another process cannot wake this one.
        std::thread::park_timeout(INTERVAL);
    }
}

/// Waits up to ten seconds for a condition and fails the test in its name.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    assert!(until(10, || condition().then_some(())).is_some(), "never happened: {what}");
}
