//! What a registry has attached to an image: SBOMs, attestations, signatures. Looked for in the three places where tools put
//! it: the referrers of OCI 1.1, the tag that stands in for them, and the tags of cosign. Nobody verifies it here.

use super::client::{Client, header};
use super::listing::next_page;
use super::retry::Failed;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{MAX_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::provenance::Statement;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use ureq::http::header::LINK;

/// Anybody who may push may attach.
const MAX_STATEMENTS: usize = 200;
const MAX_PAGES: usize = 10;
/// Of a type; it goes to policies and terminals.
const MAX_WORD: usize = 200;
/// What tools call the predicate of an in-toto statement.
const PREDICATES: [&str; 3] = ["in-toto.io/predicate-type", "predicateType", "dev.sigstore.bundle.predicateType"];

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Listed {
    manifests: Vec<Described>,
    layers: Vec<Described>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Described {
    media_type: String,
    artifact_type: String,
    digest: String,
    annotations: Option<BTreeMap<String, String>>,
}

impl Client {
    /// Everything that is attached to a manifest. `beside` are manifests of the index that it was chosen from which are
    /// statements about it.
    pub(crate) fn statements(&self, about: &Digest, beside: &[Digest]) -> Result<Vec<Statement>, ImageError> {
        let tag = |suffix: &str| format!("sha256-{}{suffix}", about.hex());
        let by_tag = |suffix: &str| self.layers_of(&tag(suffix)).map(Option::unwrap_or_default);
        let all = std::thread::scope(|scope| {
            // None needs another's answer, and each is a way to the registry and back.
            let cosign = [".att", ".sbom"].map(|suffix| scope.spawn(move || by_tag(suffix)));
            let mut all = vec![self.referrers(about, &tag(""))];
            all.extend(
                beside.iter().take(MAX_PAGES).map(|d| self.layers_of(d.as_str()).map(Option::unwrap_or_default)),
            );
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            all.extend(cosign.map(join));
            all
        });
        let mut found = BTreeSet::new();
        for statements in all {
            found.extend(statements?);
        }
        Ok(found.into_iter().take(MAX_STATEMENTS).collect())
    }

    /// The manifests of one type that refer to another. A registry that fails at telling them has none.
    pub(crate) fn referring(&self, about: &Digest, artifact_type: &str) -> Vec<Digest> {
        let all = self.referrers(about, &format!("sha256-{}", about.hex())).unwrap_or_default();
        let all = all.into_iter().filter(|statement| statement.media_type == artifact_type);
        all.filter_map(|statement| statement.digest.parse().ok()).collect()
    }

    fn referrers(&self, about: &Digest, tag: &str) -> Result<Vec<Statement>, ImageError> {
        let mut url = format!("{}/v2/{}/referrers/{about}", self.base, self.reference.path());
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some((listed, next)) = self.listed(&url, OCI_INDEX)? else { break };
            found.extend(listed.manifests.into_iter().filter_map(|d| statement(d, None)));
            match next {
                Some(path) => url = format!("{}{path}", self.base),
                None => return Ok(found),
            }
        }
        if found.is_empty() {
            // It does not know referrers: whoever attaches something keeps an index under this tag (OCI distribution
            // specification 1.1, "Referrers Tag Schema").
            let url = format!("{}/v2/{}/manifests/{tag}", self.base, self.reference.path());
            let listed = self.listed(&url, OCI_INDEX)?.map(|(listed, _)| listed.manifests).unwrap_or_default();
            found.extend(listed.into_iter().filter_map(|d| statement(d, None)));
        }
        Ok(found)
    }

    /// The layers of a manifest, each a statement; None where there is no such manifest.
    fn layers_of(&self, wanted: &str) -> Result<Option<Vec<Statement>>, ImageError> {
        let url = format!("{}/v2/{}/manifests/{wanted}", self.base, self.reference.path());
        let listed = self.listed(&url, OCI_MANIFEST)?;
        Ok(listed.map(|(listed, _)| listed.layers.into_iter().filter_map(|d| statement(d, Some(wanted))).collect()))
    }

    /// Asked once: what is only attached is not worth a wait.
    fn listed(&self, url: &str, accept: &str) -> Result<Option<(Listed, Option<String>)>, ImageError> {
        let headers = [("Accept", accept.to_owned())];
        let listed = || -> Result<_, Failed> {
            let response = self.exchange(&|authorization| self.send(url, &headers, authorization))?;
            // 404 is what a registry without them answers to everything about referrers; some say 400 or 405.
            if matches!(response.status().as_u16(), 400 | 404 | 405 | 501) {
                return Ok(None);
            }
            let mut response = self.check(response)?;
            let next = header(&response, LINK).and_then(|link| next_page(&link));
            let bytes = self.read_small(&mut response, MAX_MANIFEST)?;
            let listed = serde_json::from_slice(&bytes);
            let listed = listed.map_err(|e| self.broken(format!("what it has attached cannot be read: {e}")))?;
            Ok(Some((listed, next)))
        };
        listed().map_err(Failed::into_error)
    }
}

/// None for what is no statement. `by` is the manifest that has it, where it is not the thing itself.
fn statement(described: Described, by: Option<&str>) -> Option<Statement> {
    let Described { media_type, artifact_type, digest, annotations } = described;
    let annotations = annotations.unwrap_or_default();
    let predicate = PREDICATES.iter().find_map(|key| annotations.get(*key)).map_or("", String::as_str);
    let media_type = if artifact_type.is_empty() { media_type } else { artifact_type };
    let fit = |word: &str| word.chars().filter(|c| !c.is_control()).take(MAX_WORD).collect::<String>();
    let digest = by.filter(|by| by.starts_with("sha256:")).unwrap_or(&digest).parse::<Digest>().ok()?;
    Some(Statement { digest: digest.to_string(), media_type: fit(&media_type), predicate: fit(predicate) })
}

/// For [`crate::fuzz`].
#[cfg(test)]
pub(super) fn fuzz_read(text: &str) {
    if let Ok(Listed { manifests, layers }) = serde_json::from_str(text) {
        manifests.into_iter().chain(layers).for_each(|d| drop(statement(d, None)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_say_what_they_are() {
        let zero = format!("sha256:{}", "0".repeat(64));
        let one = |more: &str| {
            let text = format!(r#"{{"mediaType":"a/b","digest":"{zero}"{more}}}"#);
            statement(serde_json::from_str(&text).unwrap(), None).unwrap()
        };
        assert_eq!(one(r#","annotations":null"#).media_type, "a/b");
        assert_eq!(one(r#","artifactType":"application/spdx+json""#).media_type, "application/spdx+json");
        let slsa = one(r#","annotations":{"in-toto.io/predicate-type":"https://slsa.dev/provenance/v1\u001b"}"#);
        assert_eq!(slsa.predicate, "https://slsa.dev/provenance/v1");
        assert!(statement(Described { digest: "x".into(), ..Described::default() }, None).is_none());
    }
}
