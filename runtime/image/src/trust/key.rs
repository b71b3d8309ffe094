//! Public keys as PEM, and what they have signed. ECDSA on P-256 is what cosign makes; P-384 and Ed25519 cost nothing more.

use crate::digest::Digest;
use crate::error::ImageError;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;

/// A key that verifies.
pub(crate) struct PublicKey {
    algorithm: &'static dyn VerificationAlgorithm,
    key: Vec<u8>,
    id: Digest,
}

/// What a SubjectPublicKeyInfo (RFC 5280, 4.1) of each kind begins with; the key itself follows.
const KINDS: [(&[u8], usize, &dyn VerificationAlgorithm); 3] = [
    (
        b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
        65,
        &signature::ECDSA_P256_SHA256_ASN1,
    ),
    (
        b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00",
        97,
        &signature::ECDSA_P384_SHA384_ASN1,
    ),
    (b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", 32, &signature::ED25519),
];

impl PublicKey {
    pub(crate) fn read(path: &Path) -> Result<Self, ImageError> {
        let pem = std::fs::read(path).map_err(|e| ImageError::configuration(path, e.to_string()))?;
        Self::parse(&pem).map_err(|why| ImageError::configuration(path, why))
    }

    pub(crate) fn parse(pem: &[u8]) -> Result<Self, String> {
        let der =
            SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|e| format!("it is no public key in PEM: {e}"))?;
        let kind =
            KINDS.iter().find(|(prefix, length, _)| der.strip_prefix(*prefix).is_some_and(|key| key.len() == *length));
        let (prefix, _, algorithm) =
            kind.ok_or("only ECDSA on P-256 and P-384 and Ed25519 are supported, with uncompressed points")?;
        Ok(PublicKey { algorithm: *algorithm, key: der[prefix.len()..].to_vec(), id: Digest::of(&der) })
    }

    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.key).verify(message, signature).is_ok()
    }

    /// The digest of the key, so that messages and policies can name it.
    pub(crate) fn id(&self) -> &Digest {
        &self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with openssl(1) for this test: a key, and the message `hello` signed with it.
    pub(crate) const PEM: &str = include_str!("testdata/p256.pub");
    const SIGNATURE: &[u8] = include_bytes!("testdata/hello.sig");

    #[test]
    fn a_signature_is_verified() {
        let key = PublicKey::parse(PEM.as_bytes()).unwrap();
        assert!(key.has_signed(b"hello", SIGNATURE));
        assert!(!key.has_signed(b"hellp", SIGNATURE) && !key.has_signed(b"hello", &SIGNATURE[1..]));
        assert!(!key.has_signed(b"hello", b""));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(PublicKey::parse(b"").is_err() && PublicKey::parse(b"hello").is_err());
        assert!(PublicKey::parse(PEM.replace("BEGIN PUBLIC", "BEGIN PRIVATE").as_bytes()).is_err());
    }
}
