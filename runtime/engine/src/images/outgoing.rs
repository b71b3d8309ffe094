//! What sends images away, and who we are where they go.

use super::{Listener, Store, bring};
use crate::place::Place;
use crate::request::PullOptions;
use rlrun_image::{Changes, Files, Kept, Saved, Signatures, Transport, VerifiedSignature};
use rlrun_spec::Failure;
use std::path::Path;

/// `rlrun save`: each image by the words that name it.
///
/// # Errors
/// When an image is not there, or cannot be written.
pub fn save(place: &Place, images: &[Vec<String>], to: &Files, changes: Changes) -> Result<(), Failure> {
    for name in images.iter().filter_map(|names| names.first()) {
        bring(place, name, &|_| {})?;
    }
    // As podman does: an archive is to be taken by whoever reads it.
    let saved = Store::new(&place.data).save(images, to, &Changes { signatures: Signatures::Removed, ..changes })?;
    warn_of_platforms(&saved);
    Ok(())
}

/// `rlrun push`: to a registry or into files; gives back the digest of what is there.
///
/// # Errors
/// When there is no such image, or it cannot be sent.
pub fn push(
    place: &Place,
    name: &str,
    destination: Option<&str>,
    (options, changes): (&PullOptions, &Changes),
    progress: Listener<'_>,
) -> Result<Option<String>, Failure> {
    bring(place, name, progress)?;
    let store = Store::new(&place.data);
    let to = destination.map(Transport::parse).transpose()?;
    let saved = match to {
        Some(Transport::Files(files)) => store.save(&[vec![name.to_owned()]], &files, changes)?,
        Some(Transport::Registry(to)) => store.push(name, Some(&to), (options, changes), progress)?,
        None => store.push(name, None, (options, changes), progress)?,
    };
    warn_of_platforms(&saved);
    Ok(saved.digest)
}

fn warn_of_platforms(saved: &Saved) {
    for name in &saved.one_platform_of {
        crate::warn(&format!(
            "of the several platforms that {name} was pulled from, only the one that is here went; \
             `skopeo copy --all` copies all from registry to registry"
        ));
    }
}

/// `rlrun image verify`: with a public key, else as policy.json demands.
///
/// # Errors
/// When there is no such image, or no signature that holds.
pub fn verify(
    place: &Place,
    name: &str,
    key: Option<&Path>,
    options: &PullOptions,
) -> Result<Vec<VerifiedSignature>, Failure> {
    Ok(Store::new(&place.data).verify(name, key, options)?)
}

/// `rlrun search`.
///
/// # Errors
/// When a registry does not tell what it has, or none is to be asked.
pub fn search(term: &str, options: &PullOptions) -> Result<Vec<String>, Failure> {
    Ok(Store::search(term, options)?)
}

/// The tags of a repository, for `rlrun search --list-tags`.
///
/// # Errors
/// When no registry has it.
pub fn remote_tags(name: &str, options: &PullOptions) -> Result<Vec<String>, Failure> {
    Ok(Store::remote_tags(name, options)?.iter().map(ToString::to_string).collect())
}

/// `rlrun login`.
///
/// # Errors
/// When the registry does not let the user in, or the credentials cannot be kept.
pub fn login(registry: &str, user: &str, password: &str, options: &PullOptions) -> Result<Kept, Failure> {
    Ok(rlrun_image::login(registry, user, password, options)?)
}

/// `rlrun login --get-login`.
///
/// # Errors
/// When a file of credentials cannot be understood.
pub fn logged_in(registry: &str, authfile: Option<&Path>) -> Result<Option<String>, Failure> {
    Ok(rlrun_image::logged_in(registry, authfile)?)
}

/// `rlrun logout`: from one registry or from all; gives back from which.
///
/// # Errors
/// When the file of credentials cannot be changed.
pub fn logout(registry: Option<&str>, authfile: Option<&Path>) -> Result<Vec<String>, Failure> {
    Ok(rlrun_image::logout(registry, authfile)?)
}
