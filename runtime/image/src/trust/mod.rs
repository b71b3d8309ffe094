//! containers-policy.json(5): which images may come in at all. Asked before anything of an image is fetched or unpacked;
//! what cannot be checked here is refused, never passed over.

mod cosign;
mod identity;
mod key;
mod openpgp;
mod policy;
mod statement;

pub(crate) use identity::Identity;
pub(crate) use key::PublicKey;
pub(crate) use policy::{Policy, Requirement};
pub use statement::VerifiedSignature;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::reference::Reference;
use crate::registry::{Client, Lookaside, RawSignature};
use crate::store::Store;
use crate::transport::{Files, Layout};
use cosign::Signatures;
use openpgp::Keyring;
use policy::Keys;
use rlrun_spec::{Failure, Kind, Stage};
use std::path::Path;

/// Decides about an image that is offered under `reference`; `client` is where its signatures are, `digests` are its
/// manifest's and those of the indexes that it was chosen from: whoever signed one of them signed the image. `raw` are
/// its signatures of GnuPG's.
pub(crate) fn check_registry(
    policy: &Policy,
    reference: &Reference,
    client: &Client,
    digests: &[&Digest],
    raw: &[RawSignature],
) -> Result<Vec<VerifiedSignature>, ImageError> {
    let mut verified = Vec::new();
    for requirement in policy.for_reference(reference) {
        match requirement {
            Requirement::AcceptAnything => {}
            Requirement::SigstoreSigned { keys, identity } => {
                let signatures = Signatures::fetch(client, digests)?;
                let keys = keys.load()?;
                let accept = |said: &str| identity.accepts(reference, said);
                let found = signatures.verify(&keys, &accept).map_err(|why| refused(reference.to_string(), &why))?;
                verified.push(found);
            }
            Requirement::SignedBy { keys, identity } => {
                let accept = |said: &str| identity.accepts(reference, said);
                verified.push(check_gpg(keys, raw, &accept, reference.to_string())?);
            }
            other => return Err(refused(reference.to_string(), &other.refusal())),
        }
    }
    Ok(verified)
}

/// As [`check_registry`], with a public key instead of policy.json; the signature has to be for that repository.
pub(crate) fn check_key(
    pem: &[u8],
    reference: &Reference,
    client: &Client,
    digests: &[&Digest],
) -> Result<VerifiedSignature, ImageError> {
    let refused = |why: &str| refused(reference.to_string(), why);
    let keys = [PublicKey::parse(pem).map_err(|why| refused(&why))?];
    let repository = reference.repository();
    let accept = |said: &str| Reference::parse(said).is_ok_and(|r| r.repository() == repository);
    Signatures::fetch(client, digests)?.verify(&keys, &accept).map_err(|why| refused(&why))
}

/// Whether a reference may be asked for at all.
pub(crate) fn check_name(policy: &Policy, reference: &Reference) -> Result<(), ImageError> {
    match policy.for_reference(reference).iter().find(|r| r.is_refusal()) {
        None => Ok(()),
        Some(requirement) => Err(refused(reference.to_string(), &requirement.refusal())),
    }
}

/// The first of the signatures that one of the keys made.
fn check_gpg(
    keys: &Keys,
    raw: &[RawSignature],
    accept: &dyn Fn(&str) -> bool,
    object: String,
) -> Result<VerifiedSignature, ImageError> {
    let keyring = Keyring::write(&keys.read()?)?;
    let mut why = "it has to be signed, and there is no GPG signature of it".to_owned();
    for signature in raw {
        match keyring.verify(&signature.bytes, &signature.about, accept)? {
            Ok(verified) => return Ok(verified),
            Err(wrong) => why = wrong,
        }
    }
    Err(refused(object, &why))
}

/// Decides about images in files. Only a `dir:` carries signatures; they are for what the signer called the image.
pub(crate) fn check_files(
    policy: &Policy,
    files: &Files,
    raw: &[RawSignature],
) -> Result<Vec<VerifiedSignature>, ImageError> {
    let object = files.path.display().to_string();
    let accept = |identity: &Identity, said: &str| identity.accepts_unnamed(said);
    with_few_signatures(policy.for_files(files), &object, raw, &accept, "images in files carry no such signatures")
}

/// Decides about an image that is taken over from another store on this machine.
pub(crate) fn check_adopted(
    policy: &Policy,
    name: Option<&Reference>,
    store: &Path,
    raw: &[RawSignature],
) -> Result<Vec<VerifiedSignature>, ImageError> {
    let why = "an additional store keeps no such signatures: pull it from its registry";
    match name {
        Some(name) => {
            let accept = |identity: &Identity, said: &str| identity.accepts(name, said);
            with_few_signatures(policy.for_reference(name), &name.to_string(), raw, &accept, why)
        }
        None => {
            let files = Files { layout: Layout::OciDir, path: store.to_owned(), name: None };
            let accept = |identity: &Identity, said: &str| identity.accepts_unnamed(said);
            with_few_signatures(policy.for_files(&files), &store.display().to_string(), raw, &accept, why)
        }
    }
}

type Accept<'a> = &'a dyn Fn(&Identity, &str) -> bool;

/// Where only GnuPG's signatures can be.
fn with_few_signatures(
    requirements: &[Requirement],
    object: &str,
    raw: &[RawSignature],
    accept: Accept<'_>,
    why: &str,
) -> Result<Vec<VerifiedSignature>, ImageError> {
    let mut verified = Vec::new();
    for requirement in requirements {
        match requirement {
            Requirement::AcceptAnything => {}
            Requirement::SignedBy { keys, identity } => {
                verified.push(check_gpg(keys, raw, &|said| accept(identity, said), object.to_owned())?);
            }
            Requirement::SigstoreSigned { .. } => {
                return Err(refused(object.to_owned(), &format!("it has to be signed, and {why}")));
            }
            other => return Err(refused(object.to_owned(), &other.refusal())),
        }
    }
    Ok(verified)
}

/// The same for an archive that is read from a stream: what it is turns out when it is read.
pub(crate) fn check_stream(policy: &Policy, layout: Layout, object: &str) -> Result<(), ImageError> {
    check_files(policy, &Files { layout, path: object.into(), name: None }, &[]).map(drop)
}

impl Store {
    /// Verifies the signatures that a registry has of an image of the store: with a public key, else as policy.json
    /// demands. Gives back what was verified; nothing where policy.json demands no signature.
    ///
    /// # Errors
    /// When there is no such image, no signature of it, or none that the key made.
    pub fn verify(
        &self,
        name: &str,
        key: Option<&Path>,
        options: &crate::PullOptions,
    ) -> Result<Vec<VerifiedSignature>, ImageError> {
        let (reference, record) = match self.find(name) {
            Err(unknown @ ImageError::Unknown { .. }) => {
                let elsewhere = self.elsewhere(name)?.ok_or(unknown)?;
                (elsewhere.reference, elsewhere.record)
            }
            other => other?,
        };
        let reference = Reference::parse(&reference)?;
        let client = crate::source::reach(&reference, options)?;
        let digests: Vec<&Digest> = record.manifests().collect();
        match key {
            None => {
                let raw = Lookaside::to_read(&reference)?.signatures(&digests)?;
                check_registry(&Policy::from_system()?, &reference, &client, &digests, &raw)
            }
            Some(path) => {
                let keys = vec![PublicKey::read(path)?];
                let repository = reference.repository();
                let accept = |said: &str| Reference::parse(said).is_ok_and(|r| r.repository() == repository);
                let found = Signatures::fetch(&client, &digests)?.verify(&keys, &accept);
                Ok(vec![found.map_err(|why| refused(reference.to_string(), &why))?])
            }
        }
    }
}

fn refused(object: String, why: &str) -> ImageError {
    let failure = Failure::new(Stage::Cli, Kind::Denied, "image-policy", "accept the image", object);
    ImageError::Inner(failure.why(why).hint(
        "the first of ~/.config/containers/policy.json and /etc/containers/policy.json says what is accepted \
         (containers-policy.json(5))",
    ))
}

/// For [`crate::fuzz`].
#[cfg(test)]
pub(crate) mod fuzz {
    use super::{Policy, PublicKey, openpgp, statement};
    use crate::digest::Digest;
    use crate::reference::Reference;

    pub(crate) fn read(text: &[u8]) {
        if let (Ok(policy), Ok(reference)) = (Policy::parse(text), Reference::parse("a.io/b:1")) {
            assert!(!policy.for_reference(&reference).is_empty(), "a list without requirements accepts anything");
        }
    }

    pub(crate) fn statement(input: &[u8]) {
        drop(statement::name_in(input, "cosign container image signature", &Digest::of(b"x")));
        drop(PublicKey::parse(input));
        openpgp::fuzz_read(input);
    }
}
