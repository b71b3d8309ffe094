//! The entry of the process inside the id map.

use rlrun_spec::{Failure, Kind, Stage};

/// Runs one job; called by the process that [`crate::InIdMap::run`] starts, as mapped root.
///
/// # Errors
/// Why the job could not be done.
pub fn inner_main(job: &[u8]) -> Result<Vec<u8>, Failure> {
    let job: super::Job = serde_json::from_slice(job)
        .map_err(|e| Failure::new(Stage::Cli, Kind::Internal, "unpack", "read the job", "").why(e.to_string()))?;
    Err(Failure::new(Stage::Cli, Kind::Internal, "unpack", "run the job", format!("{job:?}")))
}
