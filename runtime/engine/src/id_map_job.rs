//! Jobs inside the caller's id map: rlrun executes itself there, because layers and containers hold files of
//! subordinate ids.

use crate::place::own_program;
use rlrun_image::InIdMap;
use rlrun_spec::{Failure, IdMaps, Kind, Stage};
use std::env;

/// The hidden verb that the command line answers with [`rlrun_image::inner_main`]: a job on standard input, its result
/// on standard output.
pub const VERB: &str = "internal-id-map-job";

/// The caller's id map.
#[derive(Clone, Debug)]
pub struct IdMapJobs {
    maps: IdMaps,
}

impl IdMapJobs {
    /// With the maps of the default user namespace: layers are shared by all containers, whatever theirs is.
    #[must_use]
    pub fn new(maps: IdMaps) -> Self {
        IdMapJobs { maps }
    }
}

impl InIdMap for IdMapJobs {
    fn run(&self, job: &[u8]) -> Result<Vec<u8>, Failure> {
        let rlrun = env::current_exe().ok().and_then(|p| p.to_str().map(str::to_owned)).ok_or_else(|| {
            Failure::new(Stage::Cli, Kind::Internal, "run-mapped", "find", "rlrun itself").why("its path is not known")
        })?;
        rlrun_sandbox::run_mapped(&self.maps, &[&rlrun, VERB], job, &own_program("rlrun-supervisor")?)
    }
}
