//! Pulling: find the registry that has the name, choose the platform, fetch what is missing with several connections at
//! once, and extract each layer while others are still on their way.

use super::spool::read_blob;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{self, Descriptor, ImageManifest, MAX_CONFIG, Manifest, Platform};
use crate::options::PullOptions;
use crate::provenance::{Found, Statement};
use crate::reference::{Partial, Reference};
use crate::registry::{
    BlobRequest, Client, Credentials, Endpoint, FetchedManifest, Lookaside, Purpose, Registries, is_insecure, usable,
};
use crate::store::{Ingest, NewImage, NewLayer, Stored, read_config};
use crate::trust::{self, Policy};
use crate::work::{Asking, Event, Look};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use ureq::http::Uri;

/// Connections at once, as other engines have it.
const CONNECTIONS: usize = 6;
/// Index in an index in an index is nobody's image.
const MAX_INDEXES: usize = 2;

pub(super) fn pull(ingest: Ingest<'_>, name: &str, options: &PullOptions) -> Result<Stored, ImageError> {
    let platform = match &options.platform {
        None => Platform::host(),
        Some(text) => text.parse().map_err(|why: String| ImageError::reference(text, why))?,
    };
    let policy = Policy::from_system()?;
    let (reference, client, first) = find(&ingest, &policy, name, options)?;
    let chosen = choose(&client, &reference, first, &platform)?;
    let digests: Vec<&Digest> =
        std::iter::once(&chosen.manifest).chain(&chosen.indexes).map(|manifest| &manifest.digest).collect();
    let raw = Lookaside::to_read(&reference)?.signatures(&digests)?;
    let verified = trust::check_registry(&policy, &reference, &client, &digests, &raw)?;
    let statements = statements(&ingest, &client, &chosen);
    let image = receive(&ingest, &client, &reference, (chosen, Found { verified, statements, raw }))?;
    let stored = ingest.commit(vec![image])?;
    let mut stored = stored.into_iter().next().ok_or_else(|| ImageError::Unknown { name: name.to_owned() })?;
    stored.identity.reference = reference.to_string();
    Ok(stored)
}

/// The registry of a reference, for those who look for more than the image there.
pub(crate) fn reach(reference: &Reference, options: &PullOptions) -> Result<Client, ImageError> {
    let endpoint = Registries::from_system()?.endpoint_of_registry(reference)?;
    let credentials = Credentials::chosen(&endpoint.reference, options)?;
    Client::connect(&endpoint, credentials, options, Purpose::Pull)
}

/// Repositories whose name has a word, of the registry that it is written after, else of the search registries.
pub(super) fn search(term: &str, options: &PullOptions) -> Result<Vec<String>, ImageError> {
    let registries = Registries::from_system()?;
    let (hosts, word) = match term.split_once('/') {
        Some((host, word)) if host.contains(['.', ':']) || host == "localhost" => (vec![host.to_owned()], word),
        _ => (registries.search_registries().to_vec(), term),
    };
    if hosts.is_empty() {
        let why = "no registry is named, and registries.conf has no unqualified-search-registries";
        return Err(ImageError::reference(term, why));
    }
    let mut found = Vec::new();
    for host in hosts {
        let reference = Reference::parse(&format!("{host}/search"))?;
        let names = reach(&reference, options)?.catalog()?;
        found.extend(names.into_iter().filter(|name| name.contains(word)).map(|name| format!("{host}/{name}")));
    }
    Ok(found)
}

/// All tags of the repository that a name means, as references.
pub(super) fn tags(name: &str, options: &PullOptions) -> Result<Vec<Reference>, ImageError> {
    let registries = Registries::from_system()?;
    let partial = Partial::parse(name)?;
    if partial.tag.is_some() || partial.digest.is_some() {
        return Err(ImageError::reference(name, "all tags are those of a repository, so that none can be given"));
    }
    let mut failures = Vec::new();
    for reference in registries.remote_candidates(&partial)? {
        let endpoint = registries.endpoint_of_registry(&reference)?;
        let credentials = Credentials::chosen(&endpoint.reference, options)?;
        let tags = Client::connect(&endpoint, credentials, options, Purpose::Pull).and_then(|client| client.tags());
        match tags {
            Ok(tags) => {
                let name = |tag: String| Reference::parse(&format!("{}:{tag}", reference.repository()));
                return tags.into_iter().map(name).collect();
            }
            Err(e) => failures.push(e),
        }
    }
    Err(combine(name, failures))
}

/// Asks each registry that the name may mean, each by way of its mirrors; the first that has it is the one.
fn find(
    ingest: &Ingest<'_>,
    policy: &Policy,
    name: &str,
    options: &PullOptions,
) -> Result<(Reference, Client, FetchedManifest), ImageError> {
    let registries = Registries::from_system()?;
    let mut failures = Vec::new();
    for reference in registries.remote_candidates(&Partial::parse(name)?)? {
        trust::check_name(policy, &reference)?;
        for endpoint in registries.endpoints(&reference)? {
            ask(ingest, &reference, &endpoint, options)?;
            (ingest.work.progress)(&Event::Trying(endpoint.reference.to_string()));
            let credentials = Credentials::chosen(&endpoint.reference, options)?;
            let wanted =
                reference.digest().map(Digest::to_string).or(reference.tag().map(str::to_owned)).unwrap_or_default();
            let fetched = Client::connect(&endpoint, credentials, options, Purpose::Pull)
                .and_then(|client| client.manifest(&wanted).map(|manifest| (client, manifest)));
            match fetched {
                Ok((client, manifest)) => return Ok((reference, client, manifest)),
                // What is wrong with a mirror or one of several registries matters only if none has it.
                Err(e) => failures.push(e),
            }
        }
    }
    Err(combine(name, failures))
}

fn ask(
    ingest: &Ingest<'_>,
    reference: &Reference,
    endpoint: &Endpoint,
    options: &PullOptions,
) -> Result<(), ImageError> {
    let elsewhere = endpoint.reference.repository();
    let mirror = (elsewhere != reference.repository()).then_some(elsewhere);
    Ok((ingest.work.before)(&Asking { reference, mirror, insecure: is_insecure(endpoint, options) })?)
}

/// What is said about the image; None when nobody has looked, or the registry does not tell.
fn statements(ingest: &Ingest<'_>, client: &Client, chosen: &Chosen) -> Option<Vec<Statement>> {
    let manifest = &chosen.manifest.digest;
    if ingest.work.look == Look::Once && ingest.has_looked(&chosen.image.config.digest, manifest) {
        return None;
    }
    let beside = chosen.indexes.iter().flat_map(|index| manifest::statements_in(&index.bytes, manifest));
    // An image is none the worse for a registry that fails at this; policies are told that nobody knows.
    client.statements(manifest, &beside.collect::<Vec<_>>()).ok()
}

fn combine(name: &str, mut failures: Vec<ImageError>) -> ImageError {
    match failures.len() {
        0 => ImageError::Unknown { name: name.to_owned() },
        1 => failures.remove(0),
        _ => {
            let all: Vec<String> = failures.iter().map(ToString::to_string).collect();
            ImageError::Registry {
                object: name.to_owned(),
                why: format!("no registry gave it: {}", all.join("; ")),
                hint: None,
            }
        }
    }
}

/// The one image that was chosen.
struct Chosen {
    manifest: FetchedManifest,
    image: ImageManifest,
    /// Indexes on the way to it.
    indexes: Vec<FetchedManifest>,
}

fn choose(
    client: &Client,
    reference: &Reference,
    mut fetched: FetchedManifest,
    platform: &Platform,
) -> Result<Chosen, ImageError> {
    let object = reference.to_string();
    let mut indexes = Vec::new();
    loop {
        match manifest::parse(&fetched.bytes, fetched.content_type.as_deref(), &object)? {
            Manifest::Image(image) => return Ok(Chosen { manifest: fetched, image, indexes }),
            Manifest::Index(_) if indexes.len() == MAX_INDEXES => {
                return Err(ImageError::malformed(object, "indexes are nested too deeply"));
            }
            Manifest::Index(list) => {
                let digest = platform.choose(&list, &object)?.digest.clone();
                indexes.push(std::mem::replace(&mut fetched, client.manifest(digest.as_str())?));
            }
        }
    }
}

fn receive(
    ingest: &Ingest<'_>,
    client: &Client,
    reference: &Reference,
    (chosen, found): (Chosen, Found),
) -> Result<NewImage, ImageError> {
    let object = reference.to_string();
    let Chosen { manifest, image, indexes } = chosen;
    if image.config.size > MAX_CONFIG {
        return Err(ImageError::malformed(object, format!("its configuration has {} bytes", image.config.size)));
    }
    fetch_one(ingest, client, &image.config)?;
    let config = read_blob(ingest, &image.config.digest, MAX_CONFIG, &object)?;
    let described = image.layers.iter().map(|l| (l.digest.clone(), l.size)).collect();
    let foreign = image.layers.iter().map(|l| (l.digest.clone(), usable(l.foreign_urls())));
    let foreign: BTreeMap<Digest, Vec<Uri>> = foreign.filter(|(_, urls)| !urls.is_empty()).collect();
    let contents = read_config(&config, &object, described, &ingest.work.limits)?;
    let mut names: Vec<Reference> = reference.tagged().into_iter().filter(|_| reference.digest().is_none()).collect();
    names.push(reference.at(&manifest.digest));
    let mut others = Vec::new();
    for index in indexes {
        others.push(ingest.add_blob(&index.bytes)?);
        names.push(reference.at(&index.digest));
    }
    let image = NewImage {
        manifest: ingest.add_blob(&manifest.bytes)?,
        config_digest: image.config.digest,
        contents,
        others,
        names,
        found: Some(found),
    };
    ingest.approve(&image)?;
    ask_for_foreign(ingest, reference, &foreign)?;
    fetch_layers(ingest, client, &image.contents.layers, &foreign)?;
    Ok(image)
}

/// Other servers than the registry are asked about as mirrors are.
fn ask_for_foreign(
    ingest: &Ingest<'_>,
    reference: &Reference,
    foreign: &BTreeMap<Digest, Vec<Uri>>,
) -> Result<(), ImageError> {
    let missing = foreign.iter().filter(|(digest, _)| ingest.blob_path(digest).is_none());
    for url in missing.flat_map(|(_, urls)| urls) {
        let mirror = url.authority().map(|authority| format!("{authority}{}", url.path()));
        (ingest.work.before)(&Asking { reference, mirror, insecure: url.scheme_str() == Some("http") })?;
    }
    Ok(())
}

fn fetch_one(ingest: &Ingest<'_>, client: &Client, blob: &Descriptor) -> Result<(), ImageError> {
    if ingest.blob_path(&blob.digest).is_some() {
        return Ok(());
    }
    let path = ingest.incoming(blob.digest.hex());
    let cancelled = AtomicBool::new(false);
    let request = BlobRequest { digest: &blob.digest, size: blob.size, path: &path, urls: &[], cancelled: &cancelled };
    let path = client.blob(&request, ingest.work.progress)?;
    ingest.keep_blob(&path, &blob.digest)
}

/// What a download thread reports: which layer, and where it is.
type Arrival = Result<(usize, PathBuf), ImageError>;

/// Downloads in threads; this one takes what has arrived and has it extracted.
fn fetch_layers(
    ingest: &Ingest<'_>,
    client: &Client,
    layers: &[NewLayer],
    foreign: &BTreeMap<Digest, Vec<Uri>>,
) -> Result<(), ImageError> {
    let mut wanted: Vec<(usize, PathBuf)> = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let twice = layers[..index].iter().any(|l| l.digest == layer.digest);
        if ingest.blob_path(&layer.digest).is_some() {
            (ingest.work.progress)(&Event::Present(layer.digest.to_string()));
        } else if !twice {
            wanted.push((index, ingest.incoming(layer.digest.hex())));
        }
    }
    if !wanted.is_empty() {
        ingest.begin_writeback()?;
    }
    let threads = CONNECTIONS.min(wanted.len());
    let total = wanted.len();
    let queue = Mutex::new(wanted.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let progress = ingest.work.progress;
    let cancelled = AtomicBool::new(false);
    let (arrived, arrivals) = channel::<Arrival>();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let arrived = arrived.clone();
            let (next, cancelled) = (&next, &cancelled);
            scope.spawn(move || {
                while let Some((index, path)) = next() {
                    let layer = &layers[index];
                    let NewLayer { digest, size, .. } = layer;
                    let urls = foreign.get(digest).map_or(&[][..], Vec::as_slice);
                    let request = BlobRequest { digest, size: *size, path: &path, urls, cancelled };
                    let result = client.blob(&request, progress).map(|path| (index, path));
                    let failed = result.is_err();
                    // Nobody listens any more when another download has failed.
                    if arrived.send(result).is_err() || failed {
                        return;
                    }
                }
            });
        }
        drop(arrived);
        let result = extract_arrivals(ingest, layers, total, &arrivals);
        // After a failure nothing more is fetched; after success nothing is left to be.
        cancelled.store(true, Ordering::Relaxed);
        drop(arrivals);
        queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().for_each(drop);
        result
    })
}

fn extract_arrivals(
    ingest: &Ingest<'_>,
    layers: &[NewLayer],
    mut missing: usize,
    arrivals: &std::sync::mpsc::Receiver<Arrival>,
) -> Result<(), ImageError> {
    while missing > 0 {
        let Ok(first) = arrivals.recv() else { break };
        let mut batch = Vec::new();
        for arrival in std::iter::once(first).chain(arrivals.try_iter()) {
            let (index, path) = arrival?;
            ingest.keep_blob(&path, &layers[index].digest)?;
            batch.push(index);
            missing -= 1;
        }
        // The last batch is extracted by the commit, together with finishing: one process less.
        if missing > 0 {
            ingest.unpack(layers, &batch)?;
        }
    }
    Ok(())
}
