//! `rlrun start`: a container that is there is decided anew, policies included, from what was asked for when it was
//! created, and started.

use crate::attach::{self, Attaching};
use crate::containers::Container;
use crate::journal;
use crate::life;
use crate::place::{Place, own_program};
use crate::prepare::{Fetching, prepare};
use crate::record::file::write_aside;
use crate::record::{Details, KEEP, RECORD, Reach, Record, failed, lock};
use crate::request::mount::MountRequest;
use crate::request::{Pull, RunRequest};
use crate::run::{self, Started, sweep};
use crate::trace::Marks;
use rlrun_spec::life::Hold;
use rlrun_spec::{Failure, Kind, SealedPlan, Stage};
use std::fs;
use std::io::ErrorKind;

/// Who watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attach {
    /// Nobody.
    No,
    /// The caller: this process becomes the supervisor, or somebody who is attached.
    Foreground(Attaching),
}

/// Starts a container that is at rest. In the foreground it comes back only with a failure.
///
/// # Errors
/// With whatever stops the start; the container stays as it was.
pub fn start(place: &Place, container: &Container, attach: Attach, mut marks: Marks) -> Result<Started, Failure> {
    sweep(place, Reach::Some);
    if life::is_held(container) {
        if attach != Attach::No {
            let failure = life::about("attach to", &container.summary.name);
            return Err(failure.why("its streams are those of who created it").hint("start it without --attach"));
        }
        return life::proceed(container).map(|()| Started::Detached(container.summary.id.clone()));
    }
    place.has_room()?;
    let directory = &container.directory;
    // Held until the record is written anew, so that no other command changes it meanwhile; and looked at again with it.
    let _change =
        lock::change(directory, lock::Patience::Endless).map_err(|e| failed("start", "lock", directory, &e))?;
    let container = &Container::read(directory.clone()).unwrap_or_else(|| container.clone());
    let mut record = Record::reopen(place, directory, &container.summary.name)?;
    match launch(place, container, attach, &mut record, &mut marks) {
        Ok(started) => Ok(started),
        Err(failure) => {
            // A supervisor that got so far has removed them itself.
            if let Err(left) = crate::cgroup::remove(directory) {
                crate::warn(&left.to_string());
            }
            // The lock is here only when the supervisor was never given it. What is to leave nothing from here on keeps
            // its sign of life, by which the next command finds what its supervisor could not remove.
            if directory.join(KEEP).exists() {
                record.rest()?;
            }
            Err(failure)
        }
    }
}

/// Asks the policies about one more start of a container that runs, before it is stopped for it. What else could stop
/// that start is known only when it rests: its ports are its own.
///
/// # Errors
/// When a policy refuses, or cannot be asked.
pub fn may_restart(place: &Place, container: &Container) -> Result<(), Failure> {
    let Ok(details) = Details::read(&container.directory) else { return Ok(()) };
    let summary = &container.summary;
    let request = again(container, details.request, &Attach::No);
    let fetching = summary.image.as_ref().map_or(Fetching::Forbidden, Fetching::Known);
    match prepare(place, &request, (&summary.id, &summary.name), fetching, &mut Marks::default()) {
        Err(failure) if failure.kind == Kind::Denied => Err(failure),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn launch(
    place: &Place,
    container: &Container,
    attach: Attach,
    record: &mut Record,
    marks: &mut Marks,
) -> Result<Started, Failure> {
    let (summary, directory) = (&container.summary, &container.directory);
    let broken = |why: String| {
        Failure::new(Stage::Cli, Kind::Runtime, "record", "read the record of", summary.name.clone()).why(why)
    };
    let details = Details::read(directory).map_err(|e| broken(e.to_string()))?;
    let request = again(container, details.request, &attach);
    let without_image = request.bundle.is_some() || request.rootfs.is_some();
    let fetching = match &summary.image {
        Some(image) => Fetching::Known(image),
        None if without_image => Fetching::Forbidden,
        None => return Err(broken("it names no image".to_owned())),
    };
    let prepared = prepare(place, &request, (&summary.id, &summary.name), fetching, marks)?;
    for warning in &prepared.warnings {
        crate::warn(warning);
    }
    let supervisor = own_program("rlrun-supervisor")?;
    crate::volumes::make_all(place, prepared.admitted.spec(), directory)?;
    let mut facts = prepared.facts(place, &request, directory)?;
    // Of an end that no supervisor saw, and no command since.
    crate::cgroup::remove(directory)?;
    facts.cgroup = crate::cgroup::create(&prepared, directory)?;
    facts.remove_unstarted = false;
    facts.trace_marks = std::mem::take(marks).into_inner();
    let text = run::text(&request, &prepared, directory, summary.created)?;
    let plan = SealedPlan::seal(&prepared.admitted, facts).map_err(|e| run::unsealed(&e, &request))?;
    write_aside(directory, RECORD, &text).map_err(|e| failed("data-dir", "write", &directory.join(RECORD), &e))?;
    if summary.remove {
        // From here on it leaves nothing, whatever ends it.
        let keep = directory.join(KEEP);
        match fs::remove_file(&keep) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed("data-dir", "remove", &keep, &e)),
            _ => {}
        }
    }
    drop(prepared);
    let lock = record.hand_over()?;
    let Attach::Foreground(attaching) = attach else {
        return rlrun_sandbox::start_detached(&plan, lock, &supervisor).map(|()| Started::Detached(summary.id.clone()));
    };
    journal::finish(place, journal::Outcome::Done);
    if !request.launching.life.leavable {
        return Err(rlrun_sandbox::replace_self(&plan, lock, Vec::new(), &supervisor));
    }
    let attach = attach::accompanying(directory, &summary.name, attaching);
    Err(rlrun_sandbox::replace_self_accompanying(&plan, lock, Vec::new(), attach, &supervisor))
}

/// What was asked for, for one more start: the same image, the same host ports, files already where they are.
fn again(container: &Container, mut request: RunRequest, attach: &Attach) -> RunRequest {
    let summary = &container.summary;
    request.name = Some(summary.name.clone());
    for port in &mut request.network.ports {
        let same = |p: &&rlrun_spec::container::PortMapping| {
            (p.container_port, p.protocol) == (port.container_port, port.protocol)
                && port.host_ip.is_none_or(|ip| ip == p.host_ip)
        };
        port.host_port = port.host_port.or_else(|| Some(summary.ports.iter().find(same)?.host_port));
    }
    for mount in &mut request.mounts {
        if let MountRequest::Image { id, destination, .. } = mount {
            *id = summary.mounts.iter().find(|m| m.destination == *destination).and_then(|m| m.image.clone());
        }
    }
    let launching = &mut request.launching;
    launching.preserve_fds = 0;
    launching.storage_driver = Some(summary.storage_driver);
    launching.fetch.when = Pull::Never;
    launching.cidfile = None;
    launching.replace = false;
    launching.life.detach = *attach == Attach::No;
    launching.life.hold = Hold::No;
    launching.life.leavable = match attach {
        Attach::No => false,
        // Nobody types, and its input is open all the same.
        Attach::Foreground(attaching) if summary.interactive && !attaching.input => true,
        Attach::Foreground(attaching) => attach::is_leavable(summary.tty && summary.interactive, attaching),
    };
    request
}
