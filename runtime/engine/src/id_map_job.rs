//! Jobs inside the caller's id map: rlrun executes itself there, because layers and containers hold files of
//! subordinate ids.
//!
//! The process inside gets its job on standard input and answers on standard output: one byte that says how it went,
//! then the result or the failure, so that a failure arrives whole and is told once.

use crate::place::own_program;
use rlrun_image::InIdMap;
use rlrun_sandbox::{Lent, MappedChild, MappedProgram};
use rlrun_spec::plan::{Home, Input};
use rlrun_spec::{Failure, IdMaps, Kind, Stage};
use std::env;
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{ExitCode, Stdio};

/// The hidden verb; the kind of job follows it.
pub const VERB: &str = "internal-id-map-job";

/// A job of the image store, [`rlrun_image::inner_main`].
const STORE: &str = "store";
/// Remove the contents of the directory that standard input names.
const REMOVE: &str = "remove";

/// Files of a container, [`crate::files`].
const FILES: &str = "files";

const DONE: u8 = 0;
const FAILED: u8 = 1;

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

    /// Empties a directory that holds files of any id of the map.
    ///
    /// # Errors
    /// The first removal that failed.
    pub fn remove(&self, directory: &Path) -> Result<(), Failure> {
        self.execute(REMOVE, directory.as_os_str().as_bytes()).map(drop)
    }

    fn execute(&self, kind: &str, job: &[u8]) -> Result<Vec<u8>, Failure> {
        self.start(kind, Home::New, job, Vec::new())?.finish()
    }

    /// Starts a job about files ([`crate::files`]) in `home`, with the descriptors that it names.
    pub(crate) fn start_files(&self, home: Home, job: &[u8], lent: Vec<Lent>) -> Result<Started, Failure> {
        self.start(FILES, home, job, lent)
    }

    fn start(&self, kind: &str, home: Home, job: &[u8], lent: Vec<Lent>) -> Result<Started, Failure> {
        let rlrun = own_path()?;
        let supervisor = own_program("rlrun-supervisor")?;
        let argv = [rlrun.as_str(), VERB, kind];
        let program = MappedProgram { maps: &self.maps, home, argv: &argv, input: Input::Bytes(job.to_vec()), lent };
        program.start(&supervisor, Stdio::piped()).map(Started)
    }
}

/// The path of the running program.
pub(crate) fn own_path() -> Result<String, Failure> {
    let path = env::current_exe().ok().and_then(|p| p.to_str().map(str::to_owned));
    path.ok_or_else(|| failure("find", "rlrun itself").why("its path is not known"))
}

/// A job at work.
#[derive(Debug)]
pub(crate) struct Started(MappedChild);

impl Started {
    /// What it answers, or its failure.
    pub(crate) fn finish(self) -> Result<Vec<u8>, Failure> {
        let mut answer = self.0.finish()?;
        if answer.is_empty() {
            return Err(failure("read the answer of", "the job in the id map").why("there is none"));
        }
        let outcome = answer.remove(0);
        if outcome == DONE {
            return Ok(answer);
        }
        Err(serde_json::from_slice(&answer)
            .unwrap_or_else(|e| failure("read the answer of", "the job in the id map").why(e.to_string())))
    }
}

impl InIdMap for IdMapJobs {
    fn run(&self, job: &[u8]) -> Result<Vec<u8>, Failure> {
        self.execute(STORE, job)
    }
}

fn failure(operation: &str, object: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Internal, "run-mapped", operation, object)
}

/// What the command line does when it was started for [`VERB`].
#[must_use]
pub fn main(kind: Option<&OsStr>) -> ExitCode {
    let (outcome, bytes) = match answer(kind) {
        Ok(result) => (DONE, result),
        Err(failure) => (FAILED, serde_json::to_vec(&failure).unwrap_or_default()),
    };
    let mut out = std::io::stdout().lock();
    match out.write_all(&[outcome]).and_then(|()| out.write_all(&bytes)).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody is left to be told.
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(kind: Option<&OsStr>) -> Result<Vec<u8>, Failure> {
    let mut job = Vec::new();
    std::io::stdin().lock().read_to_end(&mut job).map_err(|e| failure("read", "the job").why(e.to_string()))?;
    match kind.and_then(OsStr::to_str) {
        Some(STORE) => rlrun_image::inner_main(&job),
        Some(FILES) => crate::files::inside(&job),
        Some(REMOVE) => rlrun_sandbox::remove_contents(Path::new(OsStr::from_bytes(&job))).map(|()| Vec::new()),
        Some(_) | None => Err(failure("start", VERB).why("it is started by rlrun, not by hand")),
    }
}
