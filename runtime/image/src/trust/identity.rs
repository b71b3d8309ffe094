//! Which names a signature may be for (containers-policy.json(5), `signedIdentity`).

use crate::reference::{Partial, Reference};
use serde::Deserialize;

/// How the name in a signature relates to the image's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", deny_unknown_fields, rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Identity {
    /// The same repository and tag.
    // With braces, or serde would let further fields pass.
    MatchExact {},
    /// As [`Identity::MatchExact`]; of an image by digest the repository.
    MatchRepoDigestOrExact {},
    /// The same repository.
    MatchRepository {},
    /// This one.
    ExactReference { docker_reference: String },
    /// This repository.
    ExactRepository { docker_repository: String },
    /// As the default, after the beginning of the image's name is exchanged.
    #[serde(rename = "remapIdentity")]
    Remapped { prefix: String, signed_prefix: String },
}

impl Default for Identity {
    fn default() -> Self {
        Identity::MatchRepoDigestOrExact {}
    }
}

impl Identity {
    /// Whether an image without a name may have a signature for `said`.
    pub(crate) fn accepts_unnamed(&self, said: &str) -> bool {
        match self {
            Identity::ExactReference { docker_reference } => same(docker_reference, said),
            Identity::ExactRepository { docker_repository } => {
                repository(said).is_some_and(|r| repository(docker_repository) == Some(r))
            }
            Identity::MatchExact {}
            | Identity::MatchRepoDigestOrExact {}
            | Identity::MatchRepository {}
            | Identity::Remapped { .. } => false,
        }
    }

    /// Whether an image called `reference` may have a signature for `said`.
    pub(crate) fn accepts(&self, reference: &Reference, said: &str) -> bool {
        match self {
            Identity::MatchExact {} => reference.tag().is_some() && same(&reference.to_string(), said),
            Identity::MatchRepoDigestOrExact {} => by_digest_or_exact(reference, said),
            Identity::MatchRepository {} => repository(said).is_some_and(|r| r == reference.repository()),
            Identity::ExactReference { docker_reference } => same(docker_reference, said),
            Identity::ExactRepository { docker_repository } => {
                repository(said).is_some_and(|r| repository(docker_repository) == Some(r))
            }
            Identity::Remapped { prefix, signed_prefix } => {
                by_digest_or_exact(&remapped(reference, prefix, signed_prefix), said)
            }
        }
    }
}

fn by_digest_or_exact(reference: &Reference, said: &str) -> bool {
    match reference.digest() {
        Some(_) => repository(said).is_some_and(|r| r == reference.repository()),
        None => same(&reference.to_string(), said),
    }
}

/// A name without a tag is not the same as `latest`: nobody signed that word.
fn same(one: &str, other: &str) -> bool {
    let whole = |text: &str| {
        let partial = Partial::parse(text).ok()?;
        let has_tag = partial.tag.is_some() || partial.digest.is_some();
        partial.in_domain(crate::reference::DEFAULT_DOMAIN).ok().filter(|_| has_tag)
    };
    whole(one).is_some_and(|one| whole(other) == Some(one))
}

fn repository(text: &str) -> Option<String> {
    Some(Reference::parse(text).ok()?.repository())
}

fn remapped(reference: &Reference, prefix: &str, signed_prefix: &str) -> Reference {
    let text = reference.to_string();
    let rest = text.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']));
    let other = rest.and_then(|rest| Reference::parse(&format!("{signed_prefix}{rest}")).ok());
    other.unwrap_or_else(|| reference.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn accepts(identity: &str, image: &str, said: &str) -> bool {
        let identity: Identity = serde_json::from_str(identity).unwrap();
        identity.accepts(&Reference::parse(image).unwrap(), said)
    }

    #[test]
    fn names_match_as_the_manual_says() {
        let exact = r#"{"type":"matchRepoDigestOrExact"}"#;
        assert!(accepts(exact, "r.io/a:1", "r.io/a:1") && accepts(exact, "busybox:1", "docker.io/library/busybox:1"));
        assert!(!accepts(exact, "r.io/a:1", "r.io/a") && !accepts(exact, "r.io/a:1", "r.io/a:2"));
        assert!(!accepts(exact, "r.io/a", "r.io/a"), "latest is not what was signed");
        let pinned = format!("r.io/a@sha256:{HEX}");
        assert!(accepts(exact, &pinned, "r.io/a:9") && !accepts(exact, &pinned, "r.io/b:9"));
        let strict = r#"{"type":"matchExact"}"#;
        assert!(accepts(strict, "r.io/a:1", "r.io/a:1") && !accepts(strict, &pinned, "r.io/a:1"));
        let repository = r#"{"type":"matchRepository"}"#;
        assert!(accepts(repository, "r.io/a:1", "r.io/a") && !accepts(repository, "r.io/a:1", "r.io/a/b"));
        let fixed = r#"{"type":"exactReference","dockerReference":"r.io/other:1"}"#;
        assert!(accepts(fixed, "r.io/a:1", "r.io/other:1") && !accepts(fixed, "r.io/a:1", "r.io/a:1"));
        let fixed = r#"{"type":"exactRepository","dockerRepository":"r.io/other"}"#;
        assert!(accepts(fixed, "r.io/a:1", "r.io/other:7"));
        let moved = r#"{"type":"remapIdentity","prefix":"mirror.io/x","signedPrefix":"r.io"}"#;
        assert!(accepts(moved, "mirror.io/x/a:1", "r.io/a:1") && !accepts(moved, "mirror.io/xy/a:1", "r.io/a:1"));
        assert!(!accepts(exact, "r.io/a:1", "not a name"));
    }
}
