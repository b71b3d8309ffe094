//! What `run` and `plan` share: from the request to a configuration that every policy let pass, and the facts to seal
//! it with. Nothing is created on the way but what a pull brings.

mod facts;

use crate::bundle;
use crate::config::mounts::MountedImage;
use crate::config::{self, Built, rootdir};
use crate::host::cause::Surroundings;
use crate::host::idmap::{self, IdPlan};
use crate::host::probe;
use crate::images::{Listener, Store, Workshop, caller};
use crate::place::Place;
use crate::policies::{self, Choice};
use crate::request::health::OfImage;
use crate::request::life::LogRequest;
use crate::request::limits::Cgroups;
use crate::request::mount::MountRequest;
use crate::request::{self, Pull, RunRequest};
use crate::storage::{self, Storage};
use crate::trace::Marks;
use rlrun_admission::PolicySet;
use rlrun_image::{ImageConfig, ImageError, Pin, ResolvedImage, Transport};
use rlrun_net::ports::PortRequest;
use rlrun_spec::container::{PortMapping, UserNamespace};
use rlrun_spec::health::Health;
use rlrun_spec::life::JOURNALD;
use rlrun_spec::policy::{Admitted, Denied, ExecRequest};
use rlrun_spec::{ContainerSpec, Failure, HostFacts, ImageIdentity, Kind, Stage};
use std::path::Path;

/// Everything is decided.
#[derive(Debug)]
pub struct Prepared {
    /// The configuration, admitted.
    pub admitted: Admitted,
    /// The image.
    pub image: ResolvedImage,
    /// The images that it mounts.
    images: Vec<MountedImage>,
    /// The host.
    pub host: HostFacts,
    /// Id maps.
    pub ids: IdPlan,
    /// Storage driver.
    pub storage: Storage,
    /// User namespace with its ids.
    pub userns: UserNamespace,
    /// Account files of `keep-id`.
    account_files: Vec<(String, Vec<u8>)>,
    /// Signal that stops it.
    pub stop_signal: i32,
    /// Health checks.
    pub health: Option<Health>,
    /// Told before the start.
    pub warnings: Vec<String>,
    /// Keeps the image where it is.
    pub pin: Pin,
}

/// Whether a missing image may be fetched.
#[derive(Clone, Copy)]
pub enum Fetching<'a> {
    /// As the request says; progress goes here.
    Allowed(Listener<'a>),
    /// Never: a plan leaves nothing behind.
    Forbidden,
    /// Never: a container goes on with the image that it was made of, whatever has its name by now.
    Known(&'a ImageIdentity),
}

/// Decides everything.
///
/// # Errors
/// With the first thing that stops the start, a policy's no among them.
pub fn prepare(
    place: &Place,
    request: &RunRequest,
    names: (&str, &str),
    fetching: Fetching<'_>,
    marks: &mut Marks,
) -> Result<Prepared, Failure> {
    let mut host = probe(&place.data);
    if request.limits.cgroups == Cgroups::Disabled {
        host.cgroup.keep(|_| false);
    }
    marks.mark("cli: host probed");
    check_log(request)?;
    let userns = request.userns.decide(&host)?;
    let ids = match &request.bundle {
        Some(bundle) => bundle.ids(&host)?,
        None => idmap::plan(&host, &userns).map_err(|cause| cause.failure(&host, &Surroundings::read()))?,
    };
    let policies = policies::load(place, Choice::of(&request.launching))?;
    marks.mark("cli: policy code loaded");
    let store = Store::new(&place.data);
    let pin = store.pin()?;
    let (image, pin) = match (&request.bundle, &request.rootfs) {
        (Some(bundle), _) => (bundle.stand_in(), pin),
        (None, Some(root)) => (rootdir::stand_in(root)?, pin),
        (None, None) => resolve(place, &store, request, fetching, &policies, &host, pin)?,
    };
    let images = mounted_images(&store, &request.mounts)?;
    marks.mark("cli: image resolved");
    let (storage, built) = match &request.bundle {
        Some(bundle) => {
            let (id, name) = names;
            let (host, ids, userns) = (&host, &ids, &userns);
            (bundle::STORAGE, bundle::build(bundle::Inputs { request, bundle, host, ids, userns, id, name })?)
        }
        None => {
            let storage = storage_for(request, &host, &userns)?;
            let volumes = place.data.join(crate::volumes::DIRECTORY);
            let freed = replaced_ports(place, request);
            let around = Around { id: names.0, name: names.1, volumes: &volumes, freed: &freed, images: &images };
            let built = build(request, &image, &host, &ids, &userns, &storage, around)?;
            (storage, built)
        }
    };
    marks.mark("cli: configuration built");
    let Built { mut spec, mut warnings, account_files, stop_signal } = built;
    if request.bundle.is_none() && request.rootfs.is_none() {
        crate::journal::image(&image.identity);
        warnings.extend(crate::store_ids::notice_with(place, &host, &userns, &ids));
    }
    let refused = |denied: Box<Denied>| {
        crate::journal::denied(&denied);
        policies::told(place, &denied, &image.identity.reference)
    };
    let mut asking = caller(&host);
    if request.bundle.is_some() {
        "oci".clone_into(&mut asking.origin);
    }
    crate::journal::asked(place, &mut spec, &asking);
    marks.mark("cli: request kept");
    let shown = spec.parts().controls.clone();
    let admitted = policies.evaluate(spec, &asking).map_err(refused)?;
    crate::journal::admitted(&admitted);
    warnings.extend(config::limits::check_imposed(request.limits.level, &shown, &admitted.spec().parts().controls)?);
    let health = health(request, &image.config)?;
    for check in health.iter().flat_map(checks) {
        policies.on_exec(&check_request(check, admitted.spec()), admitted.spec(), &asking).map_err(refused)?;
    }
    warnings.extend(admitted.warnings().map(|(p, d)| format!("policy {}: [{}] {}", p.name, d.code, d.message)));
    // Their memory goes with this process's, by exec or exit; taking it apart first only costs time.
    std::mem::forget(policies);
    marks.mark("cli: policy verdict");
    Ok(Prepared {
        admitted,
        image,
        images,
        host,
        ids,
        storage,
        userns,
        account_files,
        stop_signal,
        health,
        warnings,
        pin,
    })
}

/// Journald is where a systemd is that runs it.
fn check_log(request: &RunRequest) -> Result<(), Failure> {
    if !matches!(request.launching.life.log, Some(LogRequest::Journald { .. })) || Path::new(JOURNALD).exists() {
        return Ok(());
    }
    Err(Failure::new(Stage::Cli, Kind::Host, "log", "log to", "journald")
        .why(format!("there is none on this host: {JOURNALD} does not exist"))
        .hint("--log-driver k8s-file, which is the default, needs no service"))
}

/// What is checked, by the user's words or the image's.
pub(crate) fn health(request: &RunRequest, image: &ImageConfig) -> Result<Option<Health>, Failure> {
    let milliseconds = |nanoseconds: u64| nanoseconds / 1_000_000;
    let of_image = image.healthcheck.as_ref().map(|check| OfImage {
        test: &check.test,
        interval_ms: milliseconds(check.interval),
        timeout_ms: milliseconds(check.timeout),
        start_period_ms: milliseconds(check.start_period),
        retries: check.retries,
    });
    Ok(request::health::decide(&request.launching.life.health, of_image)?)
}

/// The commands that health checks run.
fn checks(health: &Health) -> impl Iterator<Item = &[String]> {
    [Some(&health.command), health.startup.as_ref().map(|s| &s.command)].into_iter().flatten().map(Vec::as_slice)
}

/// A health check is a command that joins the container, asked about before anything starts: the supervisor, which
/// makes it, has no policies.
fn check_request(command: &[String], container: &ContainerSpec) -> ExecRequest {
    let process = container.parts().oci.process().clone().unwrap_or_default();
    ExecRequest {
        container_id: container.parts().id.clone(),
        args: command.to_vec(),
        env: process.env().clone().unwrap_or_default(),
        uid: process.user().uid(),
        tty: false,
        privileged: false,
    }
}

/// From the store, fetched first where the request says so. The pin must not be held while a pull removes what an
/// interrupted one left.
fn resolve(
    place: &Place,
    store: &Store,
    request: &RunRequest,
    fetching: Fetching<'_>,
    policies: &PolicySet,
    host: &HostFacts,
    pin: Pin,
) -> Result<(ResolvedImage, Pin), Failure> {
    if let Fetching::Known(identity) = fetching {
        let mut image = store.resolve(&identity.id)?;
        identity.reference.clone_into(&mut image.identity.reference);
        return Ok((image, pin));
    }
    let fetch = &request.launching.fetch;
    let transport = Transport::parse(&request.image)?;
    let listener = match (fetching, &transport) {
        (Fetching::Forbidden, Transport::Registry(name)) => return Ok((store.resolve(name)?, pin)),
        (Fetching::Forbidden, Transport::Files(_)) => return Err(unplanned(&request.image)),
        (Fetching::Allowed(listener), _) => listener,
        (Fetching::Known(_), _) => return Err(unplanned(&request.image)),
    };
    if let Transport::Registry(name) = &transport
        && matches!(fetch.when, Pull::Never | Pull::Missing)
    {
        match store.resolve(name) {
            Err(ImageError::Unknown { .. }) if fetch.when == Pull::Missing || store.is_elsewhere(name)? => {}
            other => return Ok((other?, pin)),
        }
    }
    drop(pin);
    let workshop = Workshop::of_host(place.clone(), host.clone())?;
    let name = workshop.fetch(policies, &request.image, fetch, listener)?;
    let pin = store.pin()?;
    Ok((store.resolve(&name)?, pin))
}

/// A plan adds nothing to the store.
fn unplanned(image: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "image-reference", "plan with the image", image)
        .why("it is not in the store")
        .hint(format!("`rlrun pull {image}` puts it there"))
}

fn storage_for(request: &RunRequest, host: &HostFacts, userns: &UserNamespace) -> Result<Storage, Failure> {
    if request.rootfs.as_ref().is_some_and(|root| !root.overlay) {
        return Ok(bundle::STORAGE);
    }
    let launching = &request.launching;
    storage::choose(storage::forced(launching.storage_driver, &request.limits, launching.remove), host, userns)
}

/// The images of `--mount type=image`, which are in the store already.
fn mounted_images(store: &Store, mounts: &[MountRequest]) -> Result<Vec<MountedImage>, Failure> {
    let mut all = Vec::new();
    for mount in mounts {
        let MountRequest::Image { image, id, destination, .. } = mount else { continue };
        let found = store.resolve(id.as_ref().unwrap_or(image)).map_err(Failure::from)?;
        let identity = match id {
            // By its id it may have another name now, or none.
            Some(_) => ImageIdentity { reference: image.clone(), ..found.identity },
            None => found.identity,
        };
        all.push(MountedImage { destination: destination.clone(), identity, layers: found.layers });
    }
    Ok(all)
}

/// What a configuration is built among.
#[derive(Clone, Copy)]
struct Around<'a> {
    id: &'a str,
    name: &'a str,
    volumes: &'a Path,
    /// Host ports that become free before they are needed.
    freed: &'a [PortMapping],
    images: &'a [MountedImage],
}

fn build(
    request: &RunRequest,
    image: &ResolvedImage,
    host: &HostFacts,
    ids: &IdPlan,
    userns: &UserNamespace,
    storage: &Storage,
    around: Around<'_>,
) -> Result<Built, Failure> {
    let Around { id, name, volumes, freed, images } = around;
    let wanted = published(request, image);
    let ports = rlrun_net::ports::resolve_beside(&wanted, freed).map_err(|e| e.into_failure(Stage::Cli))?;
    let resolv_conf = facts::resolv_conf(request, request.network.mode);
    let dns: Vec<String> =
        resolv_conf.lines().filter_map(|l| l.strip_prefix("nameserver ")).map(str::to_owned).collect();
    let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    config::build(config::Inputs {
        request,
        image,
        host,
        ids,
        userns,
        storage,
        id,
        name,
        volumes,
        images,
        ports: &ports,
        host_name: &host_name,
        dns: &dns,
    })
}

/// Host ports of the container that this one replaces, which ends first.
fn replaced_ports(place: &Place, request: &RunRequest) -> Vec<PortMapping> {
    let replaced = request.name.as_deref().filter(|_| request.launching.replace);
    let old = replaced.and_then(|name| crate::containers::find_by_name(place, name));
    old.filter(crate::life::is_looked_after).map(|old| old.summary.ports).unwrap_or_default()
}

/// `-p`, and with `-P` what the image and `--expose` name beside.
fn published(request: &RunRequest, image: &ResolvedImage) -> Vec<PortRequest> {
    let mut all = request.network.ports.clone();
    if !request.network.publish_all {
        return all;
    }
    let of_image = image.config.exposed_ports.iter().filter_map(|word| rlrun_net::ports::parse(word).ok()).flatten();
    for port in request.network.exposed.iter().cloned().chain(of_image) {
        if !all.iter().any(|p| (p.container_port, p.protocol) == (port.container_port, port.protocol)) {
            all.push(PortRequest { host_ip: None, host_port: None, ..port });
        }
    }
    all
}

/// Rootless is the point: as root, the id maps, the store and every limit would mean something else.
///
/// # Errors
/// For root.
pub fn refuse_root() -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new(Stage::Cli, Kind::Usage, "refuse-root", "start as root", "rlrun")
        .why("rlrun is rootless: its containers belong to an ordinary user")
        .hint("run it as an ordinary user, for example: su - USER -c 'rlrun ...'"))
}
