//! What is signed: a small JSON document that names an image and its digest. cosign and GnuPG sign the same words
//! (containers-signature(5)); only what they call themselves differs.

use crate::digest::Digest;
use serde::{Deserialize, Serialize};

/// A signature that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedSignature {
    /// `cosign-key` or `gpg-key`.
    pub scheme: String,
    /// What was signed: the manifest, or an index that it was chosen from.
    pub digest: String,
    /// What the signer called the image.
    pub identity: String,
    /// Digest of the public key; of a GnuPG key its fingerprint.
    pub key: String,
}

/// A field that is not known might be a condition that is not kept.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    critical: Critical,
    #[serde(default, rename = "optional")]
    _optional: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Named,
    image: Pointed,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Named {
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Pointed {
    docker_manifest_digest: Digest,
}

/// The name in a statement, if it is one of this kind about this image.
pub(super) fn name_in(payload: &[u8], kind: &str, about: &Digest) -> Result<String, String> {
    let statement: Statement =
        serde_json::from_slice(payload).map_err(|e| format!("its signed statement cannot be read: {e}"))?;
    let Critical { identity, image, kind: said } = statement.critical;
    if said != kind {
        return Err(format!("its signed statement is a `{}`", said.escape_default()));
    }
    if &image.docker_manifest_digest != about {
        return Err(format!("its signature is for another image, {}", image.docker_manifest_digest));
    }
    Ok(identity.docker_reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_says_what_it_must_and_nothing_else() {
        let about = Digest::of(b"x");
        let with = |more: &str, kind: &str, digest: &Digest| {
            format!(
                r#"{{"critical":{{"identity":{{"docker-reference":"a.io/b:1"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind}"{more}}},"optional":{{"creator":"x","timestamp":1}}}}"#
            )
        };
        let read = |text: String| name_in(text.as_bytes(), "k", &about);
        assert_eq!(read(with("", "k", &about)).unwrap(), "a.io/b:1");
        assert!(read(with("", "other", &about)).unwrap_err().contains("`other`"));
        assert!(read(with("", "k", &Digest::of(b"y"))).unwrap_err().contains("another image"));
        assert!(read(with(r#","expires":1"#, "k", &about)).is_err());
        assert!(read("[]".to_owned()).is_err());
    }
}
