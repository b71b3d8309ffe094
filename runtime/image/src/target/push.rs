//! `push`: an image of the store to a registry, byte for byte unless something else is asked for.

use super::outgoing::Outgoing;
use super::{Changes, Saved};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::options::PullOptions;
use crate::reference::Reference;
use crate::registry::{Bytes, Client, Credentials, Lookaside, Purpose, Registries, Sent, Upload};
use crate::store::Store;
use crate::work::Event;
use rlrun_spec::Failure;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Connections at once, as other engines have it.
const CONNECTIONS: usize = 6;

type Progress<'a> = &'a (dyn Fn(&Event) + Sync);

impl Store {
    /// Sends an image to `destination`, or to where its name says.
    ///
    /// # Errors
    /// When there is no such image, or the registry does not take it.
    pub fn push(
        &self,
        name: &str,
        destination: Option<&str>,
        (options, changes): (&PullOptions, &Changes),
        progress: Progress<'_>,
    ) -> Result<Saved, ImageError> {
        let _writers = self.lock_for_reading()?;
        let image = self.outgoing(&[name.to_owned()])?;
        let reference = match (destination, image.names.first()) {
            (Some(words), _) => Reference::parse(words)?,
            (None, Some(reference)) => reference.clone(),
            (None, None) => return Err(ImageError::reference(name, "an id says nothing about where it is to go")),
        };
        let tag = match (reference.tag(), reference.digest()) {
            (Some(tag), None) => tag.to_owned(),
            _ => return Err(ImageError::reference(&reference.to_string(), "an image is pushed to a tag")),
        };
        let changed = changes.apply(self, image)?;
        let image = &changed.image;
        let lookaside = match image.signatures.is_empty() {
            true => None,
            false => Some(Lookaside::to_write(&reference)?),
        };
        self.send(image, &reference, &tag, options, progress).map_err(while_pushing)?;
        if let Some(lookaside) = lookaside {
            lookaside.keep(&image.digest(), &image.signatures)?;
        }
        let one_platform_of = image.one_platform_of.iter().cloned().collect();
        Ok(Saved { digest: Some(image.digest().to_string()), one_platform_of })
    }

    fn send(
        &self,
        image: &Outgoing,
        reference: &Reference,
        tag: &str,
        options: &PullOptions,
        progress: Progress<'_>,
    ) -> Result<(), ImageError> {
        let endpoint = Registries::from_system()?.endpoint_of_registry(reference)?;
        let credentials = Credentials::chosen(&endpoint.reference, options)?;
        let client = Client::connect(&endpoint, credentials, options, Purpose::Push)?;
        let lenders = self.lenders(&endpoint.reference)?;
        let config_digest = image.config_digest();
        let mut seen = BTreeSet::new();
        let mut uploads: Vec<Upload<'_>> = image
            .layers
            .iter()
            .filter(|layer| !layer.foreign && seen.insert(&layer.digest))
            .map(|layer| Upload {
                digest: &layer.digest,
                size: layer.size,
                bytes: Bytes::File(&layer.path),
                mount_from: lenders.get(&layer.digest).map(String::as_str),
            })
            .collect();
        let size = image.config.len() as u64;
        uploads.push(Upload { digest: &config_digest, size, bytes: Bytes::Memory(&image.config), mount_from: None });
        send_all(&client, &uploads, progress)?;
        client.put_manifest(tag, &image.manifest, &image.media_type)
    }

    /// Repositories of the same registry whose images here have a blob: it can be lent from there.
    fn lenders(&self, to: &Reference) -> Result<BTreeMap<Digest, String>, ImageError> {
        let mut lenders = BTreeMap::new();
        for (record, names) in self.names_by_record()? {
            let mut names: Vec<&Reference> =
                names.iter().filter(|n| n.domain() == to.domain() && n.path() != to.path()).collect();
            // Where it was pulled from it certainly is: only there it has a name with its digest.
            names.sort_by_key(|name| (name.digest().is_none(), name.to_string()));
            let Some(lender) = names.first() else { continue };
            for digest in self.blobs_of(&record)? {
                lenders.entry(digest).or_insert_with(|| lender.path().to_owned());
            }
        }
        Ok(lenders)
    }
}

fn send_all(client: &Client, uploads: &[Upload<'_>], progress: Progress<'_>) -> Result<(), ImageError> {
    let queue = Mutex::new(uploads.iter());
    let failure = Mutex::new(None);
    let lock = |e: PoisonError<_>| e.into_inner();
    let work = || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(upload) = next else { return };
            let name = upload.digest.to_string();
            progress(&Event::BlobStarted { name: name.clone(), size: upload.size });
            match client.send_blob(upload, progress) {
                Ok(Sent::Sent) => progress(&Event::BlobDone(name)),
                Ok(Sent::Present) => progress(&Event::Present(name)),
                Err(e) => {
                    failure.lock().unwrap_or_else(lock).get_or_insert(e);
                    // The others end with what they are at.
                    queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().for_each(drop);
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS.min(uploads.len()) {
            scope.spawn(work);
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => Ok(()),
        Some(e) => Err(e),
    }
}

/// The same failures as when pulling, called what they are here.
fn while_pushing(error: ImageError) -> ImageError {
    let mut failure = Failure::from(error);
    if failure.operation == "pull the image" {
        "push the image".clone_into(&mut failure.operation);
    }
    ImageError::Inner(failure)
}
