//! What adds images: archives, root file systems, registries. Each is judged before it is unpacked or named.

use super::{Listener, Store, Stored, Workshop, caller, platform, tell};
use crate::policies::{self, Choice, heard_of_image};
use crate::request::change::Change;
use crate::request::{Fetch, Pull, PullOptions};
use rlrun_admission::{Hook, PolicySet};
use rlrun_image::{
    Asking, Files, Import, Incoming, Layout, Look, Provenance, ResolvedImage, Statement, Transport, VerifiedSignature,
    Work,
};
use rlrun_spec::policy::{Attestation, HistoryEntry, ImageFacts, LayerFacts, Origin, PullRequest, Signature};
use rlrun_spec::{Failure, ImageIdentity, Kind, Stage};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What is asked of `import` beside the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportRequest {
    /// What the image is to be called.
    pub name: Option<String>,
    /// `--change`.
    pub changes: Vec<Change>,
    /// `--message`.
    pub message: Option<String>,
    /// `--arch`, `--os` and `--variant`.
    pub platform: Option<String>,
}

impl Workshop {
    /// `rlrun load`.
    ///
    /// # Errors
    /// When the archive is not one, or a policy refuses an image of it.
    pub fn load(&self, source: Option<&Path>, progress: Listener<'_>) -> Result<Vec<Stored>, Failure> {
        self.place.has_room()?;
        let policies = self.policies()?;
        if let Some(path) = source.filter(|path| path.is_dir()) {
            // What is in it tells how it is laid out.
            let files = Files { layout: Layout::OciDir, path: path.to_owned(), name: None };
            return self.load_files(&policies, &files, progress);
        }
        let (mut reader, object) = open(source)?;
        let approve = |image: &Incoming<'_>| self.judge(&policies, image);
        let work = self.work(progress, &approve);
        let stored = self.store.load(&mut *reader, &object, &work).map_err(|e| self.told(e))?;
        stored.iter().for_each(|image| tell("loadfromarchive", image));
        self.added(&stored);
        Ok(stored)
    }

    /// `rlrun import`; `-` is standard input.
    ///
    /// # Errors
    /// When the file is no archive, or a policy refuses the image.
    pub fn import(&self, file: &Path, request: &ImportRequest, progress: Listener<'_>) -> Result<Stored, Failure> {
        let change = |config: &mut Map<String, Value>| request.changes.iter().for_each(|change| change.apply(config));
        let how = Import {
            name: request.name.as_deref(),
            message: request.message.as_deref(),
            platform: request.platform.as_deref(),
            change: Some(&change),
        };
        self.place.has_room()?;
        let (mut reader, object) = open(Some(file).filter(|f| *f != Path::new("-")))?;
        let policies = self.policies()?;
        let approve = |image: &Incoming<'_>| self.judge(&policies, image);
        let work = self.work(progress, &approve);
        let stored = self.store.import(&mut *reader, &object, &how, &work).map_err(|e| self.told(e))?;
        tell("import", &stored);
        self.added(std::slice::from_ref(&stored));
        Ok(stored)
    }

    /// `rlrun pull`: from a registry or from files; gives back the ids.
    ///
    /// # Errors
    /// When the image cannot be had, or a policy refuses it.
    pub fn pull(&self, name: &str, fetch: &Fetch, progress: Listener<'_>) -> Result<Vec<String>, Failure> {
        let policies = self.policies()?;
        match Transport::parse(name)? {
            Transport::Files(files) => {
                let stored = self.load_files(&policies, &files, progress)?;
                Ok(stored.into_iter().map(|image| image.identity.id).collect())
            }
            Transport::Registry(name) => {
                self.fetch_named(&policies, &name, fetch, progress)?;
                Ok(vec![self.store.resolve(&name)?.identity.id])
            }
        }
    }

    /// `rlrun pull --all-tags`.
    ///
    /// # Errors
    /// As [`Workshop::pull`].
    pub fn pull_all_tags(&self, name: &str, fetch: &Fetch, progress: Listener<'_>) -> Result<Vec<String>, Failure> {
        let Transport::Registry(name) = Transport::parse(name)? else {
            return Err(Failure::new(Stage::Cli, Kind::Usage, "image-reference", "pull all tags of", name)
                .why("only repositories have tags"));
        };
        let policies = self.policies()?;
        let mut ids = Vec::new();
        for reference in Store::remote_tags(&name, &fetch.options)? {
            let name = reference.to_string();
            self.fetch_named(&policies, &name, fetch, progress)?;
            ids.push(self.store.resolve(&name)?.identity.id);
        }
        Ok(ids)
    }

    /// The image of a `run`, fetched if that is asked for; gives back what it is called in the store.
    ///
    /// # Errors
    /// When it is not there and cannot be had, or a policy refuses it.
    pub(crate) fn fetch(
        &self,
        policies: &PolicySet,
        name: &str,
        fetch: &Fetch,
        progress: Listener<'_>,
    ) -> Result<String, Failure> {
        match Transport::parse(name)? {
            Transport::Registry(name) => self.fetch_named(policies, &name, fetch, progress).map(|()| name),
            Transport::Files(files) => match &self.load_files(policies, &files, progress)?[..] {
                [one] => Ok(one.identity.id.clone()),
                _ => Err(Failure::new(Stage::Cli, Kind::Usage, "image-reference", "find the image", name)
                    .why("it holds several images")
                    .hint("add the name of one: docker-archive:FILE:NAME")),
            },
        }
    }

    fn fetch_named(
        &self,
        policies: &PolicySet,
        name: &str,
        fetch: &Fetch,
        progress: Listener<'_>,
    ) -> Result<(), Failure> {
        let pulled = match fetch.when {
            Pull::Never | Pull::Missing if self.store.has(name)? || self.adopt(policies, name, progress)? => Ok(()),
            Pull::Never => Ok(()),
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

    /// As [`Workshop::pull`], from an additional store.
    pub(super) fn take_over(&self, name: &str, progress: Listener<'_>) -> Result<(), Failure> {
        self.adopt(&self.policies()?, name, progress).map(drop)
    }

    /// Takes the image over from an additional store, if one has it.
    fn adopt(&self, policies: &PolicySet, name: &str, progress: Listener<'_>) -> Result<bool, Failure> {
        let approve = |image: &Incoming<'_>| self.judge(policies, image);
        let stored = self.store.adopt(name, &self.work(progress, &approve)).map_err(|e| self.told(e))?;
        stored.iter().for_each(|image| tell("pull", image));
        self.added(stored.as_slice());
        Ok(stored.is_some())
    }

    fn load_files(&self, policies: &PolicySet, files: &Files, progress: Listener<'_>) -> Result<Vec<Stored>, Failure> {
        self.place.has_room()?;
        let approve = |image: &Incoming<'_>| self.judge(policies, image);
        let stored = self.store.load_files(files, &self.work(progress, &approve)).map_err(|e| self.told(e))?;
        stored.iter().for_each(|image| tell("pull", image));
        self.added(&stored);
        Ok(stored)
    }

    fn pull_asking(
        &self,
        policies: &PolicySet,
        name: &str,
        options: &PullOptions,
        progress: Listener<'_>,
    ) -> Result<Stored, Failure> {
        self.place.has_room()?;
        let asks = policies.asks(Hook::Image);
        let before = |asking: &Asking<'_>| {
            let reference = asking.reference;
            let request = PullRequest {
                reference: reference.to_string(),
                digest: reference.digest().map(ToString::to_string),
                platform: options.platform.clone().unwrap_or_else(platform),
                insecure: asking.insecure,
                mirror: asking.mirror.clone(),
            };
            match asks {
                true => heard_of_image(policies.on_pull(&request, &caller(&self.facts)), name),
                false => Ok(()),
            }
        };
        let look = if asks { Look::Always } else { Look::Once };
        let approve = |image: &Incoming<'_>| self.judge(policies, image);
        let work = Work { before: &before, look, ..self.work(progress, &approve) };
        let stored = self.store.pull(name, options, &work).map_err(|e| self.told(e))?;
        tell("pull", &stored);
        self.added(std::slice::from_ref(&stored));
        Ok(stored)
    }

    /// For what comes into the store, so there has to be one.
    pub(super) fn policies(&self) -> Result<PolicySet, Failure> {
        self.place.can_write()?;
        policies::load(&self.place, Choice::default())
    }

    /// What is to be said and learnt after images have come in.
    fn added(&self, stored: &[Stored]) {
        self.try_overlay();
        stored.iter().flat_map(warnings_of).for_each(|warning| crate::warn(&warning));
    }

    /// Asks about an image before it comes in.
    pub(super) fn judge(&self, policies: &PolicySet, image: &Incoming<'_>) -> Result<(), Failure> {
        if !policies.asks(Hook::Image) {
            return Ok(());
        }
        let ImageIdentity { reference, id, .. } = image.identity;
        let said = policies.on_image(&facts_of(image), &caller(&self.facts));
        heard_of_image(said, if reference.is_empty() { id } else { reference })
            .inspect_err(|_| crate::journal::image(image.identity))
    }
}

fn signature(verified: &VerifiedSignature) -> Signature {
    let VerifiedSignature { scheme, identity, key, .. } = verified.clone();
    Signature { scheme, identity, key_id: key }
}

/// A media type may carry what an in-toto statement is about.
fn attestation(statement: &Statement) -> Attestation {
    let Statement { digest, media_type, predicate } = statement.clone();
    let media_type = if predicate.is_empty() { media_type } else { format!("{media_type}; predicate={predicate}") };
    Attestation { digest, media_type }
}

/// What policies are told of where an image of the store is from.
pub(crate) fn origin(image: &ResolvedImage) -> Origin {
    let Provenance { signatures, statements, .. } = &image.provenance;
    Origin {
        pinned: image.identity.reference.contains('@'),
        signatures: signatures.iter().map(signature).collect(),
        looked: statements.is_some(),
        attestations: statements.iter().flatten().map(attestation).collect(),
    }
}

fn facts_of(image: &Incoming<'_>) -> ImageFacts {
    let config = image.config.clone();
    let manifest: ManifestFacts = serde_json::from_slice(image.manifest).unwrap_or_default();
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
        signatures: image.signatures.iter().map(signature).collect(),
        manifest: text(image.manifest),
        config: text(image.config_json),
        media_type: manifest.media_type,
        annotations: manifest.annotations.into_iter().collect(),
        layer_list: manifest.layers.into_iter().map(Into::into).collect(),
        history_list: history(image.config_json),
        attestations: image.statements.iter().flat_map(|all| all.iter().map(attestation)).collect(),
        looked: image.statements.is_some(),
    }
}

/// What of a manifest policies are told in words; the image's own parser has checked it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ManifestFacts {
    media_type: String,
    annotations: BTreeMap<String, String>,
    layers: Vec<Described>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Described {
    media_type: String,
    digest: String,
    size: u64,
}

impl From<Described> for LayerFacts {
    fn from(layer: Described) -> Self {
        LayerFacts { digest: layer.digest, media_type: layer.media_type, size_bytes: layer.size }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn history(config: &[u8]) -> Vec<HistoryEntry> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Config {
        history: Vec<HistoryEntry>,
    }
    serde_json::from_slice::<Config>(config).unwrap_or_default().history
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

fn open(source: Option<&Path>) -> Result<(Box<dyn Read + Send>, String), Failure> {
    let Some(path) = source else { return Ok((Box::new(std::io::stdin()), "standard input".to_owned())) };
    let object = path.display().to_string();
    let failure = || Failure::new(Stage::Cli, Kind::Usage, "open-archive", "open the archive", object.clone());
    let file = File::open(path).map_err(|e| match e.raw_os_error() {
        Some(errno) => failure().errno(errno),
        None => failure().why(e.to_string()),
    })?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        let hint = "tar -C DIRECTORY -cf FILE . makes an archive of it; rlrun pull oci:DIRECTORY takes an image layout";
        return Err(failure().why("it is a directory").hint(hint));
    }
    Ok((Box::new(file), object))
}
