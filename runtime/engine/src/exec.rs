//! `rlrun exec`: a command in a running container. The policies that were asked about the container are asked about
//! the command; it runs under the confinement that was admitted, read from the container's record.

use crate::config::user::{self, Account, Files};
use crate::config::{capability_sets, seccomp};
use crate::containers::{self, Container};
use crate::host::account;
use crate::images::caller_as;
use crate::journal;
use crate::names;
use crate::place::{Place, own_program};
use crate::policies::{self, Choice};
use crate::record::Details;
use crate::request::capability;
use crate::request::exec::{ExecWords, Which};
use crate::running::Running;
use oci_spec::runtime::{Linux, LinuxIdMapping, Process, User};
use rlrun_sandbox::Joining as Handles;
use rlrun_spec::exec::Joining;
use rlrun_spec::life::{DEFAULT_STOP_SECONDS, DEFAULT_STOP_SIGNAL, Life, Log, Restart};
use rlrun_spec::plan::{LaunchFacts, Rootfs};
use rlrun_spec::policy::{ExecRequest, Permit};
use rlrun_spec::{
    ContainerSpec, Failure, IdMapping, IdMaps, Kind, MapWriter, SealedExec, SpecParts, Stage, plan_from_oci,
};
use rustix::fs::{FileType, OFlags};
use serde_json::json;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

/// How it went, where this process is still there to tell.
#[derive(Debug)]
pub enum Started {
    /// In the background; events call it this.
    Detached(String),
}

/// Takes over the caller's descriptors for `--preserve-fds`. To be called before anything else is opened.
///
/// # Errors
/// When one of them is not open, or opens more than itself: by a directory everything below it and above it can be
/// reached, which no policy would have seen.
pub fn take_preserved(count: u32) -> Result<Vec<OwnedFd>, Failure> {
    let one = |number: u32| {
        let failure =
            || Failure::new(Stage::Cli, Kind::Usage, "preserve-fds", "pass on", format!("descriptor {number}"));
        let fd = RawFd::try_from(number).ok().and_then(|n| rlrun_sandbox::sys::take_inherited(n).ok());
        let Some(fd) = fd else {
            return Err(failure()
                .why("it is not open")
                .hint("--preserve-fds=N passes descriptors 3 to 2+N: open them before, exec 3<FILE"));
        };
        let errno = |e: rustix::io::Errno| failure().errno(e.raw_os_error());
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd).map_err(errno)?.st_mode);
        let is_path = rustix::fs::fcntl_getfl(&fd).map_err(errno)?.contains(OFlags::PATH);
        if kind == FileType::Directory || is_path {
            return Err(failure()
                .why("it is a directory or a path, and with it the container would have what is around it on the host")
                .hint("mount it, for policies to judge: -v DIRECTORY:PLACE"));
        }
        Ok(fd)
    };
    (0..count).map(|n| one(n.saturating_add(3))).collect()
}

/// Runs a command in a container. In the foreground this process is the command's supervisor from here on and ends
/// with its exit code.
///
/// # Errors
/// When the container does not run, a policy says no, or the command cannot be started.
pub fn exec(place: &Place, words: &ExecWords, preserved: Vec<OwnedFd>) -> Result<Started, Failure> {
    let container = find(place, &words.container)?;
    let running = Running::of(&container)?;
    let details = details(&container)?;
    let supervisor = own_program("rlrun-supervisor")?;
    let session = names::container_id()?;
    let plan = decide(place, &container, &running, details, words, &session)?;
    let summary = &container.summary;
    journal::event("container", "exec", &summary.id, &summary.name, json!({"execID": session}));
    let handles = Handles { running: running.program()?, init: running.init, preserved };
    if words.detach {
        rlrun_sandbox::start_detached_joining(&plan, handles, &supervisor)?;
        return Ok(Started::Detached(session));
    }
    journal::finish(place, journal::Outcome::Done);
    Err(rlrun_sandbox::replace_self_joining(&plan, handles, &supervisor))
}

/// The container that is meant.
///
/// # Errors
/// When there is none.
pub fn find(place: &Place, which: &Which) -> Result<Container, Failure> {
    match which {
        Which::Named(word) => containers::find(place, word),
        Which::Latest => containers::list(place)?.pop().ok_or_else(|| {
            Failure::new(Stage::Cli, Kind::Usage, "find-container", "find the container", "--latest")
                .why("there is no container")
                .hint("rlrun run -d IMAGE starts one")
        }),
    }
}

fn details(container: &Container) -> Result<Details, Failure> {
    Details::read(&container.directory).map_err(|e| {
        Failure::new(Stage::Cli, Kind::Runtime, "exec", "read the record of", container.summary.name.clone())
            .why(e.to_string())
    })
}

/// Everything that is decided about the command.
fn decide(
    place: &Place,
    container: &Container,
    running: &Running,
    details: Details,
    words: &ExecWords,
    session: &str,
) -> Result<SealedExec, Failure> {
    let broken = |why: String| {
        Failure::new(
            Stage::Cli,
            Kind::Internal,
            "seal",
            "seal the plan of a command in",
            container.summary.name.clone(),
        )
        .why(why)
    };
    let spec = ContainerSpec::new(details.spec).map_err(|e| broken(e.to_string()))?;
    journal::within(&spec);
    let parts = spec.parts();
    let (Some(process), Some(linux)) = (parts.oci.process(), parts.oci.linux()) else {
        return Err(broken("it has no process".to_owned()));
    };
    let maps = id_maps(linux);
    let who = match &words.user {
        None => None,
        Some(word) => Some(account_inside(running, word, &maps)?),
    };
    let user = who.as_ref().map_or_else(|| process.user().clone(), |account| user_of(process, account));
    let bounding: capability::Set = if words.privileged {
        capability::ALL.into_iter().map(capability::number).collect()
    } else {
        let mask = plan_from_oci::bounding(&spec);
        (0..64).filter(|n| mask & (1 << n) != 0).collect()
    };
    let capabilities = capability_sets(&details.request, user.uid(), &bounding);
    let request = ExecRequest {
        container_id: parts.id.clone(),
        args: words.command.clone(),
        env: environment(process, who.as_ref(), words),
        uid: user.uid(),
        tty: words.tty,
        privileged: words.privileged,
    };
    let permit = ask(place, &Choice::of(&details.request.launching), &request, &spec)?;
    let joining = Joining {
        session: session.to_owned(),
        user,
        capabilities,
        cwd: words.workdir.as_ref().map_or_else(|| process.cwd().clone(), PathBuf::from),
        interactive: words.interactive,
        preserved: words.preserve_fds,
        detached: words.detach,
        detach_keys: words.detach_keys.clone(),
    };
    let mut facts = facts(place, container, parts, maps)?;
    facts.secret_variables = crate::secrets::variables(place, &details.request.secrets)?;
    SealedExec::seal(&permit, &request, &spec, joining, facts).map_err(|e| broken(e.to_string()))
}

fn ask(place: &Place, choice: &Choice, request: &ExecRequest, container: &ContainerSpec) -> Result<Permit, Failure> {
    let policies = policies::load(place, choice.clone())?;
    let uid = rustix::process::geteuid().as_raw();
    let caller = caller_as(uid, rustix::process::getegid().as_raw(), account::of(uid).name);
    let permit = policies::heard(policies.on_exec(request, container, &caller), &container.parts().name)?;
    // Their memory goes with this process's.
    std::mem::forget(policies);
    Ok(permit)
}

/// The container's environment, what goes with the user, then the user's words.
fn environment(process: &Process, who: Option<&Account>, words: &ExecWords) -> Vec<String> {
    let mut all = process.env().clone().unwrap_or_default();
    let mut set = |name: &str, value: &str| {
        let entry = format!("{name}={value}");
        match all.iter_mut().find(|e| e.split_once('=').is_some_and(|(n, _)| n == name)) {
            Some(old) => *old = entry,
            None => all.push(entry),
        }
    };
    if words.tty {
        set("TERM", "xterm");
    }
    if let Some(account) = who {
        set("HOME", &account.home);
    }
    for (name, value) in &words.env {
        set(name, value);
    }
    all
}

/// `-u`, looked up in the container's own files as they are now.
fn account_inside(running: &Running, word: &str, maps: &IdMaps) -> Result<Account, Failure> {
    let read = |path: &str| match running.text(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            crate::warn(&format!("the container's /{path} cannot be read, only numbers name users and groups: {e}"));
            String::new()
        }
        text => text.unwrap_or_default(),
    };
    let (passwd, group) = (read("etc/passwd"), read("etc/group"));
    let mut account = user::find(word, Files { passwd: &passwd, group: &group })?;
    if !account.groups.contains(&account.gid) {
        account.groups.insert(0, account.gid);
    }
    account.groups.retain(|gid| maps.host_gid(*gid).is_some());
    if matches!(maps.writer, MapWriter::Single) {
        account.groups.clear();
    }
    Ok(account)
}

fn user_of(process: &Process, account: &Account) -> User {
    let mut user = User::default();
    user.set_uid(account.uid).set_gid(account.gid).set_umask(process.user().umask());
    if !account.groups.is_empty() {
        user.set_additional_gids(Some(account.groups.clone()));
    }
    user
}

/// The maps of the container's user namespace, which exists: nobody writes them again. With a single id it may not set
/// groups (user_namespaces(7)).
fn id_maps(linux: &Linux) -> IdMaps {
    let lines = |lines: &Option<Vec<LinuxIdMapping>>| -> Vec<IdMapping> {
        let line = |l: &LinuxIdMapping| IdMapping { container: l.container_id(), host: l.host_id(), count: l.size() };
        lines.iter().flatten().map(line).collect()
    };
    let (uids, gids) = (lines(linux.uid_mappings()), lines(linux.gid_mappings()));
    let writer = match uids.as_slice() {
        [IdMapping { count: 1, .. }] => MapWriter::Single,
        _ => MapWriter::Helpers { newuidmap: PathBuf::new(), newgidmap: PathBuf::new() },
    };
    IdMaps { uids, gids, writer }
}

/// Where the container is. What its own start needed beside, a command that joins it does not.
fn facts(place: &Place, container: &Container, parts: &SpecParts, id_maps: IdMaps) -> Result<LaunchFacts, Failure> {
    let profile = parts.oci.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let overlay = parts.seccomp_overlay.to_oci(profile);
    let sections: Vec<_> = profile.into_iter().chain(&overlay).collect();
    let filters = rlrun_sandbox::seccomp::filters(&sections, &place.cache).map_err(|error| seccomp::failure(&error))?;
    Ok(LaunchFacts {
        id_maps,
        rootfs: Rootfs::Directory { path: PathBuf::from("/") },
        container_dir: container.directory.clone(),
        journal: journal::path(place),
        volumes: place.data.join(crate::volumes::DIRECTORY),
        disk: None,
        layered: Vec::new(),
        preserved: 0,
        name_link: place.data.join("names").join(&parts.name),
        live_link: place.data.join("live").join(&parts.id),
        remove: false,
        remove_unstarted: false,
        life: Life {
            detached: false,
            accompanied: false,
            hold: rlrun_spec::life::Hold::No,
            log: Log::None,
            restart: Restart::No,
            stop_signal: DEFAULT_STOP_SIGNAL,
            stop_seconds: DEFAULT_STOP_SECONDS,
            timeout_seconds: None,
            health: None,
        },
        seccomp_unconfined: filters.is_empty(),
        seccomp_filters: filters,
        cgroup: crate::cgroup::approach(&container.directory)?,
        slirp: None,
        files: Vec::new(),
        secrets: Vec::new(),
        secret_variables: Vec::new(),
        pidfile: None,
        trace: false,
        trace_marks: Vec::new(),
    })
}
