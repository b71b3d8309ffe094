//! The overlay is really tried. Without the test harness: the trial starts this program again, which must answer
//! before it has a second thread.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use rlrun_engine::host::overlay::{self, Trial};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = overlay::child_main() {
        return code;
    }
    a_trial_leaves_its_verdict_and_nothing_else();
    a_verdict_of_another_kernel_is_none();
    what_cannot_be_tried_is_no_verdict();
    ExitCode::SUCCESS
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn a_trial_leaves_its_verdict_and_nothing_else() {
    let store = tempfile::Builder::new().prefix("a store: with, odd\\ name").tempdir().unwrap();
    assert_eq!(overlay::known_verdict(store.path()), None);
    let trial = overlay::try_native(store.path());
    let (verdict, left) = match &trial {
        Trial::Works => (Some(true), vec!["native-overlay"]),
        Trial::Refused(why) => {
            assert!(!why.is_empty());
            (Some(false), vec!["native-overlay"])
        }
        // User namespaces are off here; then nothing is claimed.
        Trial::NotTried(why) => {
            println!("skipped: {why}");
            (None, Vec::new())
        }
    };
    assert_eq!(overlay::known_verdict(store.path()), verdict, "{trial:?}");
    assert_eq!(names(store.path()), left, "{trial:?}");
}

fn a_verdict_of_another_kernel_is_none() {
    let store = tempfile::tempdir().unwrap();
    let mut file = std::fs::File::create(store.path().join("native-overlay")).unwrap();
    std::io::Write::write_all(&mut file, b"2.6.32-other yes\n").unwrap();
    assert_eq!(overlay::known_verdict(store.path()), None);
}

fn what_cannot_be_tried_is_no_verdict() {
    assert!(matches!(overlay::try_native(Path::new("/proc")), Trial::NotTried(_)));
}
