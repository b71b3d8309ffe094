//! The verbs about images: the store does the work, the policies judge what comes in, jobs run in the id map.

use crate::host::cause::{Cause, IdKind, Surroundings};
use crate::host::idmap::{self, IdPlan};
use crate::host::{overlay, probe};
use crate::id_map_job::IdMapJobs;
use crate::place::Place;
use crate::policies::{self, Choice};
use crate::record;
use crate::request::{Fetch, Pull, PullOptions};
use rlrun_admission::{Hook, PolicySet};
use rlrun_image::{Approve, Event, ImageError, Incoming, Limits, Reference, Work};
use rlrun_spec::container::UserNamespace;
use rlrun_spec::policy::{Denied, ImageFacts, PullRequest};
use rlrun_spec::{Caller, Failure, HostFacts, Kind, Stage};
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use rlrun_image::{
    Event as Progress, ImageDetails, ImageSummary, LayerDetails, RemoveMode, Removed, Store, Stored,
};

/// The step of failures about ids that the map lacks; set where layers are unpacked.
const STEP_ID: &str = "unpack-id";

/// Where progress goes; called from several threads.
pub type Listener<'a> = &'a (dyn Fn(&Event) + Sync);

/// What the verbs work with: the store, the host, the caller.
#[derive(Debug)]
pub struct Workshop {
    place: Place,
    store: Store,
    facts: HostFacts,
    ids: IdPlan,
    jobs: IdMapJobs,
}

impl Workshop {
    /// For verbs that change the store. Clears what killed commands left behind.
    ///
    /// # Errors
    /// When there is no place for a store, or this host allows no user namespace.
    pub fn open(place: Place) -> Result<Self, Failure> {
        let facts = probe(&place.data);
        Self::of_host(place, facts)
    }

    /// With facts that are known already.
    ///
    /// # Errors
    /// As [`Workshop::open`].
    pub fn of_host(place: Place, facts: HostFacts) -> Result<Self, Failure> {
        let ids = idmap::plan(&facts, &UserNamespace::Default)
            .map_err(|cause| cause.failure(&facts, &Surroundings::read()))?;
        let (store, jobs) = (Store::new(&place.data), IdMapJobs::new(ids.maps.clone()));
        let workshop = Workshop { place, store, facts, ids, jobs };
        workshop.sweep()?;
        Ok(workshop)
    }

    /// Clears what killed containers left behind.
    ///
    /// # Errors
    /// When it cannot be removed even inside the id map.
    fn sweep(&self) -> Result<(), Failure> {
        record::sweep(&self.place, &mut |directory| self.jobs.remove(directory))
    }

    fn work<'a>(&'a self, progress: Listener<'a>, approve: Approve<'a>) -> Work<'a> {
        Work { ids: &self.jobs, progress, approve, limits: Limits::default() }
    }

    /// A store that was never used is the time to learn whether the kernel's overlay works on it.
    fn try_overlay(&self) {
        if overlay::known_verdict(&self.place.data).is_none() {
            // Nothing depends on it here: `run` falls back by itself where the verdict is no, and reports where not.
            drop(overlay::try_native(&self.place.data));
        }
    }

    /// `rlrun load`.
    ///
    /// # Errors
    /// When the archive is not one, or a policy refuses an image of it.
    pub fn load(&self, source: Option<&Path>, progress: Listener<'_>) -> Result<Vec<Stored>, Failure> {
        let (mut reader, object) = open(source)?;
        let policies = self.policies()?;
        let approve = |image: &Incoming<'_>| self.judge(&policies, image);
        let work = self.work(progress, &approve);
        let stored = self.store.load(&mut *reader, &object, &work).map_err(|e| self.told(e))?;
        self.added(&stored);
        Ok(stored)
    }

    /// `rlrun import`; `-` is standard input.
    ///
    /// # Errors
    /// When the file is no archive, or a policy refuses the image.
    pub fn import(&self, file: &Path, name: Option<&str>, progress: Listener<'_>) -> Result<Stored, Failure> {
        let (mut reader, object) = open(Some(file).filter(|f| *f != Path::new("-")))?;
        let policies = self.policies()?;
        let approve = |image: &Incoming<'_>| self.judge(&policies, image);
        let work = self.work(progress, &approve);
        let stored = self.store.import(&mut *reader, &object, name, &work).map_err(|e| self.told(e))?;
        self.added(std::slice::from_ref(&stored));
        Ok(stored)
    }

    /// `rlrun pull`.
    ///
    /// # Errors
    /// When the image cannot be had, or a policy refuses it.
    pub fn pull(&self, name: &str, options: &PullOptions, progress: Listener<'_>) -> Result<Stored, Failure> {
        self.pull_asking(&self.policies()?, name, options, progress)
    }

    /// The image of a `run`, fetched if that is asked for.
    ///
    /// # Errors
    /// When it is not there and cannot be had, or a policy refuses it.
    pub(crate) fn fetch(
        &self,
        policies: &PolicySet,
        name: &str,
        fetch: &Fetch,
        progress: Listener<'_>,
    ) -> Result<(), Failure> {
        let pulled = match fetch.when {
            Pull::Never => Ok(()),
            Pull::Missing if self.store.has(name)? => Ok(()),
            Pull::Missing | Pull::Always | Pull::Newer => {
                self.pull_asking(policies, name, &fetch.options, progress).map(drop)
            }
        };
        match pulled {
            Err(failure) if fetch.when == Pull::Newer && failure.kind != Kind::Denied && self.store.has(name)? => {
                crate::warn(&format!("the image is used as it is: {failure}"));
                Ok(())
            }
            other => other,
        }
    }

    fn pull_asking(
        &self,
        policies: &PolicySet,
        name: &str,
        options: &PullOptions,
        progress: Listener<'_>,
    ) -> Result<Stored, Failure> {
        if policies.asks(Hook::Image) {
            let reference = Reference::parse(name)?;
            let request = PullRequest {
                reference: reference.to_string(),
                digest: reference.digest().map(ToString::to_string),
                platform: options.platform.clone().unwrap_or_else(platform),
                insecure: options.tls_verify == Some(false),
                mirror: None,
            };
            policies.on_pull(&request, &caller(&self.facts)).map_err(|denied| denied.failure(name))?;
        }
        let approve = |image: &Incoming<'_>| self.judge(policies, image);
        let stored = self.store.pull(name, options, &self.work(progress, &approve)).map_err(|e| self.told(e))?;
        self.added(std::slice::from_ref(&stored));
        Ok(stored)
    }

    /// With the advice that only the host's facts give, or the little there is to say about content that is bad.
    fn told(&self, error: ImageError) -> Failure {
        let mut failure = Failure::from(error);
        if failure.step == STEP_ID {
            let reason = self.ids.single.clone().map(Box::new);
            let cause = Cause::NotMapped { kind: IdKind::User, id: 0, mapped: 0, reason };
            failure.hint = Some(cause.advice(&self.facts, &Surroundings::read()).to_string());
        } else if rlrun_spec::hint::for_failure(&failure).is_none() {
            failure.hint = Some("get the image anew from its source: it was damaged, or made to do damage".to_owned());
        }
        failure
    }

    fn policies(&self) -> Result<PolicySet, Failure> {
        policies::load(&self.place, Choice::default())
    }

    /// What is to be said and learnt after images have come in.
    fn added(&self, stored: &[Stored]) {
        self.try_overlay();
        stored.iter().flat_map(warnings_of).for_each(|warning| crate::warn(&warning));
    }

    /// Asks about an image before it comes in.
    fn judge(&self, policies: &PolicySet, image: &Incoming<'_>) -> Result<(), Failure> {
        if !policies.asks(Hook::Image) {
            return Ok(());
        }
        let refused = |denied: Box<Denied>| denied.failure(&image.identity.reference);
        policies.on_image(&facts_of(image), &caller(&self.facts)).map(drop).map_err(refused)
    }

    /// `rlrun rm`.
    ///
    /// # Errors
    /// When there is no such container, or it runs.
    pub fn remove_container(&self, word: &str) -> Result<(), Failure> {
        record::remove(&self.place, word, &mut |directory| self.jobs.remove(directory))
    }

    /// `rlrun rmi`.
    ///
    /// # Errors
    /// When there is no such image, or a container uses it.
    pub fn remove(&self, name: &str, mode: RemoveMode) -> Result<Removed, Failure> {
        let in_use = |id: &str| record::user_of_image(&self.place, id);
        Ok(self.store.remove(name, mode, &in_use, &self.jobs)?)
    }

    /// `rlrun image prune`: what `doomed` says and no container uses.
    ///
    /// # Errors
    /// When the store cannot be read or changed.
    pub fn prune(&self, doomed: &dyn Fn(&ImageSummary) -> bool) -> Result<Removed, Failure> {
        let in_use = |id: &str| record::user_of_image(&self.place, id);
        Ok(self.store.prune(doomed, &in_use, &self.jobs)?)
    }
}

/// `rlrun tag`.
///
/// # Errors
/// When there is no such image, or a name is none.
pub fn tag(place: &Place, name: &str, new: &[String]) -> Result<(), Failure> {
    Ok(Store::new(&place.data).tag(name, new)?)
}

/// `rlrun untag`: the names that are given, else all.
///
/// # Errors
/// When there is no such image, or a name is not one of its.
pub fn untag(place: &Place, name: &str, old: &[String]) -> Result<(), Failure> {
    Ok(Store::new(&place.data).untag(name, old)?)
}

/// `rlrun images`: everything, or what one name means. Reads only.
///
/// # Errors
/// When the store cannot be read.
pub fn list(place: &Place, name: Option<&str>) -> Result<Vec<ImageSummary>, Failure> {
    let store = Store::new(&place.data);
    let mut all = store.images()?;
    if let Some(name) = name {
        match store.resolve(name) {
            Ok(image) => all.retain(|summary| summary.id == image.identity.id),
            // Asking for what is not there is no error, as in podman.
            Err(ImageError::Unknown { .. }) => all.clear(),
            Err(other) => return Err(other.into()),
        }
    }
    Ok(all)
}

/// `rlrun image inspect` and its kin: one image with its documents. Reads only.
///
/// # Errors
/// When there is no such image, or the store cannot be read.
pub fn details(place: &Place, name: &str) -> Result<ImageDetails, Failure> {
    Ok(Store::new(&place.data).details(name)?)
}

/// `rlrun image exists`.
///
/// # Errors
/// When the store cannot be read.
pub fn exists(place: &Place, name: &str) -> Result<bool, Failure> {
    Ok(Store::new(&place.data).has(name)?)
}

fn facts_of(image: &Incoming<'_>) -> ImageFacts {
    let config = image.config.clone();
    ImageFacts {
        reference: image.identity.reference.clone(),
        digest: image.identity.digest.clone(),
        platform: image.identity.platform.clone(),
        created: config.created,
        user: config.user,
        env: config.env,
        labels: config.labels.into_iter().collect(),
        entrypoint: config.entrypoint,
        exposed_ports: config.exposed_ports,
        volumes: config.volumes,
        layers: u32::try_from(image.layers).unwrap_or(u32::MAX),
        size_bytes: image.size,
        history: image.history.to_vec(),
    }
}

fn warnings_of(stored: &Stored) -> Vec<String> {
    let name = &stored.identity.reference;
    let mut all = Vec::new();
    if stored.skipped_devices > 0 {
        all.push(format!(
            "{name}: {} device nodes were left out: no user namespace can make them",
            stored.skipped_devices
        ));
    }
    if stored.squashed_owners > 0 {
        all.push(format!("{name}: {} files belong to root now: only one id is mapped", stored.squashed_owners));
    }
    if stored.identity.platform.split('/').nth(1) != platform().split('/').nth(1) {
        all.push(format!("{name} is for {}, and this machine is {}", stored.identity.platform, platform()));
    }
    all
}

/// This machine, as images name it.
fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    format!("linux/{architecture}")
}

fn open(source: Option<&Path>) -> Result<(Box<dyn Read + Send>, String), Failure> {
    let Some(path) = source else { return Ok((Box::new(std::io::stdin()), "standard input".to_owned())) };
    let object = path.display().to_string();
    let failure = || Failure::new(Stage::Cli, Kind::Usage, "open-archive", "open the archive", object.clone());
    let file = File::open(path).map_err(|e| match e.raw_os_error() {
        Some(errno) => failure().errno(errno),
        None => failure().why(e.to_string()),
    })?;
    Ok((Box::new(file), object))
}

/// Who asks.
pub(crate) fn caller(facts: &HostFacts) -> Caller {
    use std::io::IsTerminal as _;
    Caller {
        uid: facts.uid,
        gid: facts.gid,
        user: facts.user.clone(),
        origin: "cli".to_owned(),
        tty: std::io::stdin().is_terminal(),
        ci: std::env::var_os("CI").is_some(),
    }
}
