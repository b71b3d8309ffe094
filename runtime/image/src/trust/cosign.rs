//! Signatures as cosign attaches them: an image whose layers are signed statements, in the same repository under the tag
//! `sha256-<digest>.sig`, or referring to what it signs (OCI 1.1). Verified with a public key alone; no log and no certificate is asked.

use super::key::PublicKey;
use super::statement::{self, VerifiedSignature};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{self, Descriptor, Manifest};
use crate::registry::Client;
use base64::Engine as _;

/// What an image is called that refers to what it signs.
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const KIND: &str = "cosign container image signature";
/// A statement is a few hundred bytes.
const MAX_PAYLOAD: u64 = 64 << 10;
/// Somebody may have put thousands there.
const MAX_SIGNATURES: usize = 100;
const MAX_REFERRING: usize = 20;

/// The statements that are attached to an image, with what is said to be their signatures.
pub(super) struct Signatures {
    found: Vec<Attached>,
}

struct Attached {
    digest: Digest,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl Signatures {
    /// Everything that is attached to one of `digests`.
    pub(super) fn fetch(client: &Client, digests: &[&Digest]) -> Result<Self, ImageError> {
        let mut found = Vec::new();
        for digest in digests {
            let referring = client.referring(digest, ARTIFACT).into_iter().take(MAX_REFERRING);
            let names = std::iter::once(format!("sha256-{}.sig", digest.hex())).chain(referring.map(String::from));
            for name in names {
                let Some(fetched) = client.manifest_if_there(&name)? else { continue };
                let object = format!("the signatures of {digest}");
                let parsed = manifest::parse(&fetched.bytes, fetched.content_type.as_deref(), &object)?;
                let Manifest::Image(image) = parsed else { continue };
                for layer in image.layers.iter().filter(|l| l.media_type == PAYLOAD).take(MAX_SIGNATURES) {
                    found.extend(attached(client, digest, layer)?);
                }
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
            match statement::name_in(&attached.payload, KIND, &attached.digest) {
                Ok(identity) if accept(&identity) => {
                    let (digest, key) = (attached.digest.to_string(), key.id().to_string());
                    return Ok(VerifiedSignature { scheme: "cosign-key".to_owned(), digest, identity, key });
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
