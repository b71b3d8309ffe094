//! The verbs about images: the store does the work, the policies judge what comes in, jobs run in the id map.

mod commit;
mod incoming;
mod mounted;
mod outgoing;
mod upkeep;

pub use commit::CommitRequest;
pub use incoming::ImportRequest;
pub use mounted::{
    Mounted, list as mounted, mount, mount_container, mounted_container, unmount, unmount_all, unmount_container,
};
pub use outgoing::{logged_in, login, logout, push, remote_tags, save, search, verify};
pub(crate) use upkeep::clear_leftovers;
pub use upkeep::{Share, Shares, check, leftovers, shares};

pub use rlrun_image::{
    Changes, Checked, Compression, Credentials, Files, Kept, Layout, ManifestForm, Signatures, VerifiedSignature,
};

pub(crate) use incoming::origin;

use crate::containers::Container;
use crate::host::cause::{Cause, IdKind, Surroundings};
use crate::host::filesystem::FileSystem;
use crate::host::idmap::{self, IdPlan};
use crate::host::{overlay, probe};
use crate::id_map_job::IdMapJobs;
use crate::journal;
use crate::life::{self, Removal};
use crate::place::Place;
use crate::record::{self, Reach};
use crate::volumes;
use rlrun_image::{Approve, Asking, Event, ImageError, ImageUser, Limits, Look, Work};
use rlrun_spec::container::UserNamespace;
use rlrun_spec::{Caller, Failure, HostFacts};
use serde_json::json;
use std::collections::BTreeMap;

pub use crate::record::OwnVolumes;
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
        if let Some(notice) = crate::store_ids::notice(&place, &ids) {
            crate::warn(&notice);
        }
        let workshop = Workshop { place, store, facts, ids, jobs };
        workshop.sweep()?;
        Ok(workshop)
    }

    /// Clears what killed containers left behind.
    ///
    /// # Errors
    /// When it cannot be removed even inside the id map.
    fn sweep(&self) -> Result<(), Failure> {
        record::sweep(&self.place, Reach::All, &mut |directory| self.jobs.remove(directory))
    }

    fn work<'a>(&'a self, progress: Listener<'a>, approve: Approve<'a>) -> Work<'a> {
        let before = &|_: &Asking<'_>| Ok(());
        Work { ids: &self.jobs, progress, approve, before, look: Look::Once, limits: Limits::default() }
    }

    /// A store that was never used is the time to learn whether the kernel's overlay works on it.
    fn try_overlay(&self) {
        if overlay::known_verdict(&self.place.data).is_none() {
            // Nothing depends on it here: `run` falls back by itself where the verdict is no, and reports where not.
            drop(overlay::try_native(&self.place.data));
        }
    }

    /// With the advice that only the host's facts give, or the little there is to say about content that is bad.
    fn told(&self, error: ImageError) -> Failure {
        let mut failure = Failure::from(error);
        if failure.step == STEP_ID {
            let reason = self.ids.single.clone().map(Box::new);
            let cause = Cause::NotMapped { kind: IdKind::User, id: 0, mapped: 0, reason };
            failure.hint = Some(cause.advice(&self.facts, &Surroundings::read()).to_string());
        } else if let Some(advice) = self.blamed(&failure) {
            failure.hint = Some(advice);
        } else if rlrun_spec::hint::for_failure(&failure).is_none() {
            failure.hint = Some("get the image anew from its source: it was damaged, or made to do damage".to_owned());
        }
        failure
    }

    /// What a failure says of the file system that the store is on.
    fn blamed(&self, failure: &Failure) -> Option<String> {
        let file_system = FileSystem::of(&self.place.data);
        let errno = failure.errno.filter(|errno| file_system.is_to_blame(errno.0))?;
        let elsewhere = rlrun_spec::hint::look_up("data-dir", Some(errno.0)).unwrap_or_default();
        let FileSystem { name, .. } = file_system;
        Some(format!("the store is on {name}: {}; {elsewhere}", file_system.remark()?))
    }

    /// `rlrun rm`.
    ///
    /// # Errors
    /// As [`life::remove`].
    pub fn remove_container(&self, container: &Container, removal: Removal) -> Result<(), Failure> {
        life::remove(&self.place, container, removal, &mut |directory| self.jobs.remove(directory))
    }

    /// Where this user's things are.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// `rlrun volume rm`.
    ///
    /// # Errors
    /// As [`volumes::remove`].
    pub fn remove_volume(&self, word: &str) -> Result<volumes::Volume, Failure> {
        volumes::remove(&self.place, word, &mut |directory| self.jobs.remove(directory))
    }

    /// `rlrun volume prune`.
    ///
    /// # Errors
    /// As [`volumes::prune`].
    pub fn prune_volumes(&self, chosen: &dyn Fn(&volumes::Volume) -> bool) -> Result<Vec<String>, Failure> {
        volumes::prune(&self.place, chosen, &mut |directory| self.jobs.remove(directory))
    }

    /// `rlrun rmi`.
    ///
    /// # Errors
    /// When there is no such image, or a container uses it.
    pub fn remove(&self, name: &str, mode: RemoveMode) -> Result<Removed, Failure> {
        Ok(told_removed(self.store.remove(name, mode, &|id| user_of(&self.place, id), &self.jobs)?))
    }

    /// `rlrun image prune`: what `doomed` says and no container uses.
    ///
    /// # Errors
    /// When the store cannot be read or changed.
    pub fn prune(&self, doomed: &dyn Fn(&ImageSummary) -> bool) -> Result<Removed, Failure> {
        Ok(told_removed(self.store.prune(doomed, &|id| user_of(&self.place, id), &self.jobs)?))
    }
}

/// Who needs an image.
fn user_of(place: &Place, id: &str) -> Option<ImageUser> {
    let container = record::user_of_image(place, id).map(ImageUser::Container);
    container.or_else(|| mounted::is_looked_at(place, id).then_some(ImageUser::Mount))
}

/// An image has come.
pub(crate) fn tell(action: &str, image: &Stored) {
    journal::image(&image.identity);
    let about = json!({"image": image.identity.reference, "digest": image.identity.digest});
    journal::event("image", action, &image.identity.id, &image.identity.reference, about);
}

fn told_removed(removed: Removed) -> Removed {
    removed.untagged.iter().for_each(|name| journal::event("image", "untag", "", name, json!({})));
    removed.deleted.iter().for_each(|id| journal::event("image", "remove", id, "", json!({})));
    removed
}

/// `rlrun tag`.
///
/// # Errors
/// When there is no such image, or a name is none.
pub fn tag(place: &Place, name: &str, new: &[String]) -> Result<(), Failure> {
    bring(place, name, &|_| {})?;
    Store::new(&place.data).tag(name, new)?;
    new.iter().for_each(|new| journal::event("image", "tag", "", new, json!({"from": name})));
    Ok(())
}

/// `rlrun untag`: the names that are given, else all.
///
/// # Errors
/// When there is no such image, or a name is not one of its.
pub fn untag(place: &Place, name: &str, old: &[String]) -> Result<(), Failure> {
    Store::new(&place.data).untag(name, old)?;
    journal::event("image", "untag", "", name, json!({}));
    Ok(())
}

/// Takes over an image that only an additional store has, for verbs that need all of it.
fn bring(place: &Place, name: &str, progress: Listener<'_>) -> Result<(), Failure> {
    let store = Store::new(&place.data);
    if store.has(name)? || !store.is_elsewhere(name)? {
        return Ok(());
    }
    Workshop::open(place.clone())?.take_over(name, progress)
}

/// `rlrun images`. Reads only.
///
/// # Errors
/// When the store cannot be read.
pub fn list(place: &Place) -> Result<Vec<ImageSummary>, Failure> {
    Ok(Store::new(&place.data).images(&|e| crate::warn(&format!("{e}")))?)
}

/// The id of the image that a word means, if there is one.
///
/// # Errors
/// When the store cannot be read.
pub fn id_of(place: &Place, name: &str) -> Result<Option<String>, Failure> {
    Ok(Store::new(&place.data).id_of(name)?)
}

/// How many containers each image has, by its id.
#[must_use]
pub fn containers(place: &Place) -> BTreeMap<String, usize> {
    record::images_in_use(place)
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
    let store = Store::new(&place.data);
    Ok(store.has(name)? || store.is_elsewhere(name)?)
}

/// `rlrun system share`.
///
/// # Errors
/// When the store cannot be changed.
pub fn share(place: &Place) -> Result<(), Failure> {
    Ok(Store::new(&place.data).share()?)
}

/// This machine, as images name it: `linux/amd64`.
#[must_use]
pub fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    };
    format!("linux/{architecture}")
}

/// Who asks.
pub(crate) fn caller(facts: &HostFacts) -> Caller {
    caller_as(facts.uid, facts.gid, facts.user.clone())
}

/// The same where nothing else of the host is of interest.
pub(crate) fn caller_as(uid: u32, gid: u32, user: String) -> Caller {
    use std::io::IsTerminal as _;
    Caller {
        uid,
        gid,
        user,
        origin: "cli".to_owned(),
        tty: std::io::stdin().is_terminal(),
        ci: std::env::var_os("CI").is_some(),
    }
}
