//! Where an image is from, beside what it is: who has signed it, and what is said about it.

use crate::digest::Digest;
use crate::registry::RawSignature;
use crate::trust::VerifiedSignature;
use serde::{Deserialize, Serialize};

/// What was found out about an image when it came in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Signatures that were verified because policy.json demands them.
    pub signatures: Vec<VerifiedSignature>,
    /// Statements about it, none of which was verified; None when nobody has looked.
    pub statements: Option<Vec<Statement>>,
    /// Blobs with signatures of GnuPG's that came along, so that they can go along.
    pub(crate) kept: Vec<Digest>,
}

impl Provenance {
    /// Adds what was found out later; whether that is anything new.
    pub(crate) fn learn(&mut self, later: Provenance) -> bool {
        let mut sum = self.clone();
        // A demand that was met now counts; without one, what was verified before still was.
        if !later.signatures.is_empty() {
            sum.signatures = later.signatures;
        }
        sum.statements = later.statements.or(sum.statements);
        if !later.kept.is_empty() {
            sum.kept = later.kept;
        }
        let new = *self != sum;
        *self = sum;
        new
    }
}

/// Something that is attached to an image: an SBOM, a provenance, a scan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Statement {
    /// Of its manifest.
    pub digest: String,
    /// What it is: the type of the artifact or of its content.
    pub media_type: String,
    /// What an in-toto statement is about: `https://spdx.dev/Document`; empty where it is none.
    pub predicate: String,
}

/// An image's provenance with the signatures themselves.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) verified: Vec<VerifiedSignature>,
    pub(crate) statements: Option<Vec<Statement>>,
    pub(crate) raw: Vec<RawSignature>,
}
