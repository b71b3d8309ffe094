//! `rlrun run`: decide, record, seal, become the supervisor.

use crate::id_map_job::IdMapJobs;
use crate::images::Listener;
use crate::names;
use crate::place::{Place, own_program};
use crate::prepare::{Fetching, Prepared, prepare};
use crate::record::{self, CONFIG, Record, Remains};
use crate::request::{RunRequest, StorageDriver};
use crate::trace::Marks;
use rlrun_image::InIdMap as _;
use rlrun_spec::policy::Answer;
use rlrun_spec::{ContainerSpec, Failure, ImageIdentity, Kind, SealedPlan, Stage};
use serde::Serialize;
use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// `config.json` of a record: everything that was decided about a container.
#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    name: &'a str,
    /// Nanoseconds since the epoch.
    created: u128,
    image: &'a ImageIdentity,
    labels: &'a [(String, String)],
    stop_signal: i32,
    remove: bool,
    spec: &'a ContainerSpec,
    verdicts: &'a [Answer],
}

/// Runs a container in the foreground. On success this process is the supervisor from here on and ends with the
/// payload's exit code; it returns only on failure.
///
/// # Errors
/// With whatever stopped the start; nothing is left behind then.
pub fn run(
    place: &Place,
    request: &RunRequest,
    progress: Listener<'_>,
    mut marks: Marks,
) -> Result<Infallible, Failure> {
    sweep(place);
    let id = names::container_id()?;
    let name = request.name.clone().unwrap_or_else(|| names::free_name(place, &id));
    let prepared = prepare(place, request, (&id, &name), Fetching::Allowed(progress), &mut marks)?;
    for warning in &prepared.warnings {
        crate::warn(warning);
    }
    let supervisor = own_program("rlrun-supervisor")?;
    let remains = if request.launching.remove { Remains::Nothing } else { Remains::Record };
    let mut record = record::create(place, &id, &name, remains)?;
    marks.mark("cli: name claimed");
    record.write(CONFIG, &document(request, &prepared)?)?;
    marks.mark("cli: record written");
    let cidfile = request.launching.cidfile.as_deref().map(|path| Cidfile::write(path, &id)).transpose()?;
    if prepared.storage.driver == StorageDriver::Copy {
        copy_layers(&prepared, &record)?;
    }
    let mut facts = prepared.facts(place, request, &record.directory)?;
    marks.mark("cli: launch decided");
    facts.trace_marks = marks.into_inner();
    let plan = SealedPlan::seal(&prepared.admitted, facts).map_err(|e| unsupported(&e.to_string(), &request.image))?;
    drop(prepared);
    let failure = rlrun_sandbox::replace_self(&plan, record.hand_over()?, &supervisor);
    record.take_back();
    drop(cidfile);
    Err(failure)
}

/// Clears what killed containers left. A container must not fail to start because another cannot be cleaned up.
fn sweep(place: &Place) {
    let mut jobs = None;
    let swept = record::sweep(place, &mut |directory| {
        let jobs = match &mut jobs {
            Some(jobs) => jobs,
            none => none.insert(default_jobs(place)?),
        };
        IdMapJobs::remove(jobs, directory)
    });
    if let Err(failure) = swept {
        crate::warn(&format!("what a killed container left behind stays: {failure}"));
    }
}

fn default_jobs(place: &Place) -> Result<IdMapJobs, Failure> {
    use crate::host::{cause::Surroundings, idmap, probe};
    let host = probe(&place.data);
    let ids = idmap::plan(&host, &rlrun_spec::container::UserNamespace::Default)
        .map_err(|cause| cause.failure(&host, &Surroundings::read()))?;
    Ok(IdMapJobs::new(ids.maps))
}

fn document(request: &RunRequest, prepared: &Prepared) -> Result<Vec<u8>, Failure> {
    let parts = prepared.admitted.spec().parts();
    let document = Document {
        id: &parts.id,
        name: &parts.name,
        created: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos(),
        image: &prepared.image.identity,
        labels: &request.labels,
        stop_signal: prepared.stop_signal,
        remove: request.launching.remove,
        spec: prepared.admitted.spec(),
        verdicts: prepared.admitted.answers(),
    };
    serde_json::to_vec(&document).map_err(|e| {
        Failure::new(Stage::Cli, Kind::Internal, "record", "write the record of", &*parts.name).why(e.to_string())
    })
}

fn copy_layers(prepared: &Prepared, record: &Record) -> Result<(), Failure> {
    let job = rlrun_image::copy_rootfs_job(&prepared.image.layers, &record.directory.join("merged"))?;
    let host = &prepared.host;
    let ids = crate::host::idmap::plan(host, &rlrun_spec::container::UserNamespace::Default)
        .map_err(|cause| cause.failure(host, &crate::host::cause::Surroundings::read()))?;
    IdMapJobs::new(ids.maps).run(&job).map(drop)
}

fn unsupported(why: &str, image: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Internal, "seal", "seal the plan of", image).why(why)
}

/// `--cidfile`, taken back when the container does not start.
struct Cidfile(PathBuf);

impl Cidfile {
    fn write(path: &Path, id: &str) -> Result<Self, Failure> {
        let failure = |e: &std::io::Error| {
            let failure =
                Failure::new(Stage::Cli, Kind::Usage, "cidfile", "write the id to", path.display().to_string());
            match e.raw_os_error() {
                Some(errno) => failure.errno(errno).hint("--cidfile names a file that does not exist yet"),
                None => failure.why(e.to_string()),
            }
        };
        let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|e| failure(&e))?;
        let cidfile = Cidfile(path.to_owned());
        file.write_all(id.as_bytes()).map_err(|e| failure(&e))?;
        Ok(cidfile)
    }
}

impl Drop for Cidfile {
    fn drop(&mut self) {
        if std::fs::remove_file(&self.0).is_err() {
            // Somebody was faster; it is not there, which is all that was wanted.
        }
    }
}
