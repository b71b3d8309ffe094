//! Signatures as cosign attaches them: an image `sha256-<digest>.sig` in the same repository, whose layers are signed
//! statements. Verified with a public key alone; no log and no certificate is asked.

use super::key::PublicKey;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{self, Descriptor, Manifest};
use crate::registry::Client;
use base64::Engine as _;
use serde::{Deserialize, Serialize};

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const KIND: &str = "cosign container image signature";
/// A statement is a few hundred bytes.
const MAX_PAYLOAD: u64 = 64 << 10;
/// Somebody may have put thousands there.
const MAX_SIGNATURES: usize = 100;

/// A signature that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedSignature {
    /// What was signed: the manifest, or an index that it was chosen from.
    pub digest: String,
    /// What the signer called the image.
    pub identity: String,
    /// Digest of the key.
    pub key: String,
}

/// The statements that are attached to an image, with what is said to be their signatures.
pub(super) struct Signatures {
    found: Vec<Attached>,
}

struct Attached {
    digest: Digest,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// The statement (containers-signature(5)).
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: Named,
    image: Pointed,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Named {
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Pointed {
    docker_manifest_digest: Digest,
}

impl Signatures {
    /// Everything that is attached to one of `digests`.
    pub(super) fn fetch(client: &Client, digests: &[&Digest]) -> Result<Self, ImageError> {
        let mut found = Vec::new();
        for digest in digests {
            let Some(fetched) = client.manifest_if_there(&format!("sha256-{}.sig", digest.hex()))? else { continue };
            let object = format!("the signatures of {digest}");
            let parsed = manifest::parse(&fetched.bytes, fetched.content_type.as_deref(), &object)?;
            let Manifest::Image(image) = parsed else { continue };
            for layer in image.layers.iter().filter(|l| l.media_type == PAYLOAD).take(MAX_SIGNATURES) {
                found.extend(attached(client, digest, layer)?);
            }
        }
        Ok(Signatures { found })
    }

    /// The first that one of the keys made, for one of the digests, under a name that is accepted.
    pub(super) fn verify(
        &self,
        keys: &[PublicKey],
        accept: &dyn Fn(&str) -> bool,
    ) -> Result<VerifiedSignature, String> {
        if self.found.is_empty() {
            return Err("it has to be signed, and the registry has no signature of it".to_owned());
        }
        let mut why = "no signature of it was made by an accepted key".to_owned();
        for attached in &self.found {
            let Some(key) = keys.iter().find(|k| k.has_signed(&attached.payload, &attached.signature)) else {
                continue;
            };
            // Only now is it the signer's word.
            match statement(attached) {
                Ok(identity) if accept(&identity) => {
                    let (digest, key) = (attached.digest.to_string(), key.id().to_string());
                    return Ok(VerifiedSignature { digest, identity, key });
                }
                Ok(identity) => why = format!("its signature is for `{}`", identity.escape_default()),
                Err(wrong) => why = wrong,
            }
        }
        Err(why)
    }
}

fn attached(client: &Client, digest: &Digest, layer: &Descriptor) -> Result<Option<Attached>, ImageError> {
    let Some(text) = layer.annotation(SIGNATURE) else { return Ok(None) };
    let Ok(signature) = base64::engine::general_purpose::STANDARD.decode(text) else { return Ok(None) };
    if layer.size > MAX_PAYLOAD {
        return Ok(None);
    }
    let payload = client.small_blob(&layer.digest, MAX_PAYLOAD)?;
    Ok(Some(Attached { digest: digest.clone(), payload, signature }))
}

/// The name in a statement, if it is one about this image.
fn statement(attached: &Attached) -> Result<String, String> {
    let payload: Payload =
        serde_json::from_slice(&attached.payload).map_err(|e| format!("its signed statement cannot be read: {e}"))?;
    let Critical { identity, image, kind } = payload.critical;
    if kind != KIND {
        return Err(format!("its signed statement is a `{}`", kind.escape_default()));
    }
    if image.docker_manifest_digest != attached.digest {
        return Err(format!("its signature is for another image, {}", image.docker_manifest_digest));
    }
    Ok(identity.docker_reference)
}

/// For [`crate::fuzz`].
#[cfg(test)]
pub(super) fn fuzz_statement(input: &[u8]) -> Result<String, String> {
    statement(&Attached { digest: Digest::of(b"x"), payload: input.to_vec(), signature: Vec::new() })
}
