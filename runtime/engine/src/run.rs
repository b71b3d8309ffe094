//! `rlrun run`: decide, record, seal, become the supervisor or, with `-d`, start one.

use crate::attach::{self, Attaching};
use crate::containers;
use crate::id_map_job::IdMapJobs;
use crate::images::{self, Listener};
use crate::journal;
use crate::life;
use crate::names;
use crate::place::{Place, own_program};
use crate::prepare::{Fetching, Prepared, prepare};
use crate::record::{self, Mounted, RECORD, Reach, Record, Remains, Summary};
use crate::request::mount::MountRequest;
use crate::request::{RunRequest, StorageDriver};
use crate::trace::Marks;
use oci_spec::runtime::Mount;
use rlrun_image::InIdMap as _;
use rlrun_spec::plan::SealError;
use rlrun_spec::policy::Answer;
use rlrun_spec::{ContainerSpec, Failure, Kind, SealedPlan, Stage, plan_from_oci};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// [`record::Details`], borrowed.
#[derive(Serialize)]
struct Details<'a> {
    request: &'a RunRequest,
    spec: &'a ContainerSpec,
    verdicts: &'a [Answer],
}

/// How a start went.
#[derive(Debug)]
pub enum Started {
    /// In the background; this is its id.
    Detached(String),
}

/// Whether this process goes on, or has waited for the container that another has run in its place (`--rmi`).
///
/// # Errors
/// When there can be no further process.
pub fn apart() -> Result<Option<u8>, Failure> {
    match rlrun_sandbox::apart()? {
        rlrun_sandbox::Apart::Here => Ok(None),
        rlrun_sandbox::Apart::Ended(code) => Ok(Some(code)),
    }
}

/// Runs a container. In the foreground this process is the supervisor from here on and ends with the payload's exit
/// code. With `-d` it returns when the payload runs.
///
/// # Errors
/// With whatever stopped the start; nothing is left behind then.
pub fn run(
    place: &Place,
    request: &RunRequest,
    attaching: Attaching,
    preserved: Vec<OwnedFd>,
    progress: Listener<'_>,
    mut marks: Marks,
) -> Result<Started, Failure> {
    sweep(place, Reach::Some);
    images::clear_leftovers(place);
    place.has_room()?;
    let remains = if request.launching.remove { Remains::Nothing } else { Remains::Record };
    let supervisor = own_program("rlrun-supervisor")?;
    let New { id, prepared, mut record, cidfile } = New::make(place, request, remains, progress, &mut marks)?;
    let mut facts = prepared.facts(place, request, &record.directory)?;
    marks.mark("cli: launch decided");
    facts.cgroup = crate::cgroup::create(&prepared, &record.directory)?;
    marks.mark("cli: cgroups made");
    facts.trace_marks = marks.into_inner();
    let plan = SealedPlan::seal(&prepared.admitted, facts).map_err(|e| unsealed(&e, request))?;
    drop(prepared);
    if request.launching.life.detach {
        journal::tell(place);
        // From here on the supervisor takes back what does not start.
        rlrun_sandbox::start_detached(&plan, record.hand_over()?, &supervisor).inspect_err(|_| record.take_back())?;
        if let Some(cidfile) = cidfile {
            cidfile.keep();
        }
        return Ok(Started::Detached(id));
    }
    journal::finish(place, journal::Outcome::Done);
    let lock = record.hand_over()?;
    let failure = if request.launching.life.leavable {
        let name = record.name_link.file_name().unwrap_or_default().to_string_lossy();
        let attach = attach::accompanying(&record.directory, &name, attaching);
        rlrun_sandbox::replace_self_accompanying(&plan, lock, preserved, attach, &supervisor)
    } else {
        rlrun_sandbox::replace_self(&plan, lock, preserved, &supervisor)
    };
    record.take_back();
    drop(cidfile);
    Err(failure)
}

/// `rlrun oci create`: everything but the last step. Returns when the container's process waits for its start; what it
/// waits with are the caller's own streams, or a terminal whose master goes to the socket `console`.
///
/// # Errors
/// As [`run`].
pub fn create_held(
    place: &Place,
    request: &RunRequest,
    console: Option<&Path>,
    mut marks: Marks,
) -> Result<(), Failure> {
    sweep(place, Reach::Some);
    images::clear_leftovers(place);
    place.has_room()?;
    let supervisor = own_program("rlrun-supervisor")?;
    let console = console.map(rlrun_sandbox::console::connect).transpose()?;
    let New { prepared, mut record, .. } = New::make(place, request, Remains::Record, &|_| {}, &mut marks)?;
    let mut facts = prepared.facts(place, request, &record.directory)?;
    facts.cgroup = crate::cgroup::create(&prepared, &record.directory)?;
    facts.trace_marks = marks.into_inner();
    let plan = SealedPlan::seal(&prepared.admitted, facts).map_err(|e| unsealed(&e, request))?;
    drop(prepared);
    journal::tell(place);
    let lock = record.hand_over()?;
    rlrun_sandbox::start_held(&plan, lock, console, &supervisor).inspect_err(|_| record.take_back())
}

/// `rlrun create`: everything but the start. Returns the id.
///
/// # Errors
/// As [`run`].
pub fn create(
    place: &Place,
    request: &RunRequest,
    progress: Listener<'_>,
    mut marks: Marks,
) -> Result<String, Failure> {
    sweep(place, Reach::Some);
    images::clear_leftovers(place);
    place.has_room()?;
    // Also with `--rm`, until it has run.
    let New { id, prepared, record, cidfile } = New::make(place, request, Remains::Record, progress, &mut marks)?;
    let facts = prepared.facts(place, request, &record.directory)?;
    // What could not be launched is refused now.
    SealedPlan::seal(&prepared.admitted, facts).map_err(|e| unsealed(&e, request))?;
    record.rest()?;
    if let Some(cidfile) = cidfile {
        cidfile.keep();
    }
    Ok(id)
}

/// A new container, decided and recorded; dropping it takes it back.
struct New {
    id: String,
    prepared: Prepared,
    record: Record,
    cidfile: Option<Cidfile>,
}

impl New {
    fn make(
        place: &Place,
        request: &RunRequest,
        remains: Remains,
        progress: Listener<'_>,
        marks: &mut Marks,
    ) -> Result<New, Failure> {
        let id = names::container_id()?;
        let (prepared, record) = Self::claim(place, request, &id, remains, progress, marks)?;
        for warning in &prepared.warnings {
            crate::warn(warning);
        }
        make_root(&prepared, request, &record)?;
        record.write(RECORD, &text(request, &prepared, &record.directory, now())?)?;
        crate::volumes::make_all(place, prepared.admitted.spec(), &record.directory)?;
        marks.mark("cli: record written");
        let cidfile = request.launching.cidfile.as_deref().map(|path| Cidfile::write(path, &id)).transpose()?;
        if prepared.storage.driver == StorageDriver::Copy {
            copy_layers(&prepared, &record)?;
        }
        let parts = prepared.admitted.spec().parts();
        let mut about = match (&request.bundle, &request.rootfs) {
            (Some(bundle), _) => json!({"bundle": bundle.directory}),
            (None, Some(root)) => json!({"rootfs": root.path}),
            (None, None) => json!({"image": prepared.image.identity.reference}),
        };
        let labels = labels(request, &prepared);
        if !labels.is_empty() {
            about["labels"] = json!(labels);
        }
        journal::event("container", "create", &id, &parts.name, about);
        Ok(New { id, prepared, record, cidfile })
    }

    /// Decides, then claims the name: whoever asked for one that is taken has changed nothing. A name that nobody asked
    /// for may be taken by another command in between; then there is another one.
    fn claim(
        place: &Place,
        request: &RunRequest,
        id: &str,
        remains: Remains,
        progress: Listener<'_>,
        marks: &mut Marks,
    ) -> Result<(Prepared, Record), Failure> {
        let mut name = request.name.clone().unwrap_or_else(|| names::free_name(place, id));
        let mut tries = 0;
        loop {
            let prepared = prepare(place, request, (id, &name), Fetching::Allowed(progress), marks)?;
            let replaced = request.name.as_deref().filter(|_| request.launching.replace);
            if let Some(old) = replaced.and_then(|name| containers::find_by_name(place, name)) {
                life::remove(place, &old, life::Removal::forced(), &mut |directory| {
                    default_jobs(place)?.remove(directory)
                })?;
            }
            match record::create(place, id, &name, remains) {
                Ok(record) => {
                    marks.mark("cli: name claimed");
                    return Ok((prepared, record));
                }
                Err(failure) if tries < 3 && record::is_taken(&failure) => match request.name {
                    None => name = names::other_name(&name, id),
                    Some(_) if request.launching.replace => {}
                    Some(_) => return Err(failure),
                },
                Err(failure) => return Err(failure),
            }
            tries += 1;
        }
    }
}

fn now() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    u64::try_from(now).unwrap_or(u64::MAX)
}

/// Clears what killed containers left. A container must not fail to start because another cannot be cleaned up.
pub fn sweep(place: &Place, reach: Reach) {
    let mut jobs = None;
    let swept = record::sweep(place, reach, &mut |directory| {
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

pub(crate) fn default_jobs(place: &Place) -> Result<IdMapJobs, Failure> {
    use crate::host::{cause::Surroundings, idmap, probe};
    let host = probe(&place.data);
    let ids = idmap::plan(&host, &rlrun_spec::container::UserNamespace::Default)
        .map_err(|cause| cause.failure(&host, &Surroundings::read()))?;
    Ok(IdMapJobs::new(ids.maps))
}

/// The text of the record's file.
pub(crate) fn text(
    request: &RunRequest,
    prepared: &Prepared,
    directory: &Path,
    created: u64,
) -> Result<Vec<u8>, Failure> {
    let spec = prepared.admitted.spec();
    let details = Details { request, spec, verdicts: prepared.admitted.answers() };
    record::file::render(&summary(request, prepared, directory, created), &details).map_err(|e| {
        Failure::new(Stage::Cli, Kind::Internal, "record", "write the record of", &*spec.parts().name)
            .why(e.to_string())
    })
}

fn summary(request: &RunRequest, prepared: &Prepared, directory: &Path, created: u64) -> Summary {
    let parts = prepared.admitted.spec().parts();
    let process = parts.oci.process().as_ref();
    Summary {
        id: parts.id.clone(),
        name: parts.name.clone(),
        created,
        image: prepared.admitted.spec().parts().image.clone().filter(|_| request.bundle.is_none()),
        bundle: request.bundle.as_ref().map(|bundle| bundle.directory.clone()),
        command: process.and_then(|p| p.args().clone()).unwrap_or_default(),
        labels: labels(request, prepared).into_iter().collect(),
        ports: parts.ports.clone(),
        network: parts.network,
        mounts: mounted(request, parts.oci.mounts().as_deref().unwrap_or_default()),
        tty: request.tty,
        interactive: request.interactive,
        remove: request.launching.remove,
        storage_driver: prepared.storage.driver,
        life: prepared.life(request, directory),
    }
}

/// The image's and the user's.
fn labels(request: &RunRequest, prepared: &Prepared) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = prepared.image.config.labels.clone();
    labels.extend(request.labels.iter().cloned());
    labels
}

/// What the user and the image mounted, as it was admitted.
fn mounted(request: &RunRequest, mounts: &[Mount]) -> Vec<Mounted> {
    let asked = |m: &&Mount| request.mounts.iter().any(|r| m.destination() == Path::new(r.destination()));
    let is_volume = |m: &Mount| m.typ().as_deref() == Some("volume");
    let text = |path: Option<&PathBuf>| path.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    let mounts = mounts.iter().filter(|m| is_volume(m) || asked(m));
    // One that is a directory of the host, or memory, is a volume all the same.
    let named = |m: &Mount| {
        request.mounts.iter().find_map(|r| match r {
            MountRequest::Volume { name: Some(name), destination, .. } if m.destination() == Path::new(destination) => {
                Some(name.clone())
            }
            _ => None,
        })
    };
    let mounted = |m: &Mount| Mounted {
        kind: match m.typ().as_deref() {
            _ if named(m).is_some() => "volume".to_owned(),
            Some("bind") if plan_from_oci::is_layered(m) => "overlay".to_owned(),
            kind => kind.unwrap_or_default().to_owned(),
        },
        source: match (named(m), m.typ().as_deref()) {
            (Some(name), _) => name,
            (None, Some("tmpfs" | "ramfs" | "devpts")) => String::new(),
            _ => text(m.source().as_ref()),
        },
        destination: m.destination().to_string_lossy().into_owned(),
        image: m.options().iter().flatten().find_map(|o| o.strip_prefix("id=")).map(str::to_owned),
        read_only: m.options().iter().flatten().rfind(|o| *o == "ro" || *o == "rw").is_some_and(|o| o == "ro"),
    };
    mounts.map(mounted).collect()
}

/// Where other commands look for the files of a container, unless the kernel mounts them over what it wrote.
fn make_root(prepared: &Prepared, request: &RunRequest, record: &Record) -> Result<(), Failure> {
    let at = record.directory.join("merged");
    let made = match (prepared.directory(request), prepared.storage.driver) {
        (Some(root), _) => std::os::unix::fs::symlink(root, &at),
        (None, StorageDriver::Overlay) => Ok(()),
        (None, StorageDriver::FuseOverlayfs | StorageDriver::Copy | StorageDriver::Directory) => {
            std::fs::DirBuilder::new().mode(0o755).create(&at)
        }
    };
    made.map_err(|e| record::failed("data-dir", "make", &at, &e))
}

fn copy_layers(prepared: &Prepared, record: &Record) -> Result<(), Failure> {
    let job = rlrun_image::copy_rootfs_job(&prepared.image.layers, &record.directory.join("merged"))?;
    let host = &prepared.host;
    let ids = crate::host::idmap::plan(host, &rlrun_spec::container::UserNamespace::Default)
        .map_err(|cause| cause.failure(host, &crate::host::cause::Surroundings::read()))?;
    IdMapJobs::new(ids.maps).run(&job).map(drop)
}

/// What rlrun makes itself it can seal; a bundle may ask for anything.
pub(crate) fn unsealed(error: &SealError, request: &RunRequest) -> Failure {
    match (&request.bundle, error) {
        (Some(_), SealError::Unsupported { field, why }) => crate::bundle::refused(field, &**why),
        // The one thing that only the seal knows: whether a cgroup holds the memory.
        (None, SealError::Unsupported { field, why }) if field == "/mounts" => {
            Failure::new(Stage::Cli, Kind::Usage, "plan-mounts", "plan the mounts of", &*request.image)
                .why(&**why)
                .hint("--mount type=tmpfs,tmpfs-size=64m has a size")
        }
        _ => {
            Failure::new(Stage::Cli, Kind::Internal, "seal", "seal the plan of", &*request.image).why(error.to_string())
        }
    }
}

/// `--cidfile`, taken back when the container does not start.
struct Cidfile(Option<PathBuf>);

impl Cidfile {
    fn write(path: &Path, id: &str) -> Result<Self, Failure> {
        let failure = |e: &std::io::Error| {
            let failure =
                Failure::new(Stage::Cli, Kind::Usage, "cidfile", "write the id to", path.display().to_string());
            match e.raw_os_error() {
                // Its directory: the file itself is made.
                Some(errno) if e.kind() == ErrorKind::NotFound => {
                    let directory = path.parent().unwrap_or(path).display();
                    failure.errno(errno).hint(format!("the directory {directory} does not exist: make it first"))
                }
                Some(errno) => failure.errno(errno).hint("--cidfile names a file that does not exist yet"),
                None => failure.why(e.to_string()),
            }
        };
        let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|e| failure(&e))?;
        let cidfile = Cidfile(Some(path.to_owned()));
        file.write_all(id.as_bytes()).map_err(|e| failure(&e))?;
        Ok(cidfile)
    }

    /// The container runs.
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Cidfile {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && std::fs::remove_file(path).is_err()
        {
            // Somebody was faster; it is not there, which is all that was wanted.
        }
    }
}
