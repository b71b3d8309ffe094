//! `image-source`: where images come from, and that they are what was meant.

use rlrun_policy::{
    Caller, Container, Create, Diagnostic, Image, ImageInfo, ImageRef, Policy, Pull, Restriction, Severity, Verdict,
    finding, pattern, policy, provenance, settings,
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The policy.
pub struct ImageSource;

/// `image-source.toml`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Registries, repositories or patterns: `docker.io/library`, `localhost:5000`, `quay.io/*/tools`. Empty: all.
    pub allow: Vec<String>,
    /// The same, refused whatever `allow` says.
    pub deny: Vec<String>,
    /// The reference has to name the digest, `busybox@sha256:...`.
    pub require_digest: bool,
    /// Plain http and unverified TLS.
    pub allow_insecure: bool,
    /// Containers without an image: `--rootfs`, foreign bundles.
    pub allow_rootfs: bool,
    /// A signature of the image was verified when it came in, as policy.json demanded.
    pub require_signature: bool,
    /// Something tells what is in the image (SPDX, CycloneDX).
    pub require_sbom: bool,
    /// Reference and the one digest it may have.
    pub digests: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            allow: Vec::new(),
            deny: Vec::new(),
            require_digest: false,
            allow_insecure: false,
            allow_rootfs: true,
            require_signature: false,
            require_sbom: false,
            digests: BTreeMap::new(),
        }
    }
}

settings!(Settings);

impl Policy for ImageSource {
    type Settings = Settings;
}

impl Image for ImageSource {
    fn pull(settings: &Settings, request: &Pull, _: &Caller) -> Verdict {
        let mut found = judge(settings, &request.image);
        if request.insecure && !settings.allow_insecure {
            found.push(
                finding("IMG003", Severity::High, "the connection to the registry is not authenticated")
                    .at("/insecure")
                    .help("give the registry a certificate, or set allow-insecure")
                    .into(),
            );
        }
        if let Some(mirror) = request.mirror.as_deref().filter(|m| !is_allowed(settings, m)) {
            found.push(
                finding("IMG005", Severity::High, format!("the mirror {mirror} is not an allowed source"))
                    .at("/mirror")
                    .into(),
            );
        }
        Verdict::judged(found)
    }

    fn image(settings: &Settings, info: &ImageInfo, _: &Caller) -> Verdict {
        let mut found = judge(settings, &info.image);
        found.extend(wrong_digest(settings, &info.image));
        Verdict::judged(found)
    }
}

impl Create for ImageSource {
    fn create(settings: &Settings, container: &Container, _: &Caller) -> Verdict {
        let mounted = mounted_images(settings, container);
        if !mounted.is_empty() {
            return Verdict::judged(mounted);
        }
        let Some(image) = &container.image else {
            if settings.allow_rootfs {
                return Verdict::abstain();
            }
            return Verdict::deny(
                finding("IMG004", Severity::High, "the root file system comes from no image").at("/image"),
            );
        };
        let mut found = judge(settings, image);
        found.extend(unfounded(settings, image));
        if !found.is_empty() {
            return Verdict::judged(found);
        }
        // Said as a restriction, the digest is compared by rlrun with what it is going to run.
        let wanted = named_digest(&image.reference).or_else(|| settings.digests.get(&image.reference).cloned());
        wanted.into_iter().map(Restriction::RequireDigest).fold(Verdict::allow(), Verdict::restrict)
    }
}

policy!(ImageSource: image, create);

fn judge(settings: &Settings, image: &ImageRef) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if !is_allowed(settings, &image.reference) {
        found.push(
            finding("IMG001", Severity::High, format!("{} is not from an allowed source", image.reference))
                .at("/image/reference")
                .help(allowed_help(settings))
                .into(),
        );
    }
    if settings.require_digest && named_digest(&image.reference).is_none() {
        let digest = if image.digest.is_empty() { "sha256:..." } else { &image.digest };
        found.push(
            finding("IMG002", Severity::Medium, format!("{} can change: its digest is not named", image.reference))
                .at("/image/reference")
                .help(format!("say {}@{digest}", untagged(&image.reference)))
                .into(),
        );
    }
    found
}

/// An image that is mounted is used like the one that is run.
fn mounted_images(settings: &Settings, container: &Container) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (index, mount) in container.mounts.iter().enumerate().filter(|(_, m)| m.kind == "image") {
        let image = ImageRef { reference: mount.source.clone(), digest: String::new(), platform: String::new() };
        found.extend(judge(settings, &image).into_iter().map(|mut finding| {
            finding.path = Some(format!("/mounts/{index}/source"));
            finding
        }));
    }
    found
}

/// What is missing of where the image is from.
fn unfounded(settings: &Settings, image: &ImageRef) -> Vec<Diagnostic> {
    if !settings.require_signature && !settings.require_sbom {
        return Vec::new();
    }
    let origin = provenance::image();
    let mut found = Vec::new();
    if settings.require_signature && !origin.as_ref().is_some_and(|o| o.signatures.iter().any(|s| s.verified)) {
        found.push(
            finding("IMG007", Severity::High, format!("no signature of {} was verified", image.reference))
                .at("/image")
                .help("demand one in policy.json (containers-policy.json(5)), and pull the image again")
                .into(),
        );
    }
    if settings.require_sbom && !origin.as_ref().is_some_and(|o| o.sbom) {
        found.push(
            finding("IMG008", Severity::Medium, format!("nothing tells what is in {}", image.reference))
                .at("/image")
                .help("attach an SBOM to it (buildx --sbom, cosign attach sbom), and pull the image again")
                .into(),
        );
    }
    found
}

fn allowed_help(settings: &Settings) -> String {
    if settings.allow.is_empty() {
        return "use another image".to_owned();
    }
    format!("allowed: {}", settings.allow.join(", "))
}

fn wrong_digest(settings: &Settings, image: &ImageRef) -> Option<Diagnostic> {
    let wanted = named_digest(&image.reference).or_else(|| settings.digests.get(&image.reference).cloned())?;
    (wanted != image.digest).then(|| {
        finding("IMG006", Severity::Critical, format!("the image is {}, not {wanted}", image.digest))
            .at("/image/digest")
            .into()
    })
}

fn is_allowed(settings: &Settings, reference: &str) -> bool {
    let matched = |patterns: &[String]| patterns.iter().any(|p| is_from(reference, p));
    !matched(&settings.deny) && (settings.allow.is_empty() || matched(&settings.allow))
}

/// `docker.io/library` stands for all below it, and not for `docker.io/library2`.
fn is_from(reference: &str, source: &str) -> bool {
    if source.contains('*') {
        return pattern::glob(source, reference) || pattern::glob(source, untagged(reference));
    }
    let rest = reference.strip_prefix(source.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']) && !is_port(rest))
}

/// `localhost` is not `localhost:5000`.
fn is_port(rest: &str) -> bool {
    rest.strip_prefix(':').and_then(|r| r.split_once('/')).is_some_and(|(p, _)| p.bytes().all(|b| b.is_ascii_digit()))
}

fn named_digest(reference: &str) -> Option<String> {
    reference.split_once('@').map(|(_, digest)| digest.to_owned())
}

fn untagged(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once(':') {
        // A colon before the last slash belongs to the registry's port.
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlrun_policy::provenance::Origin;

    #[test]
    fn fixtures() {
        rlrun_policy::fixtures::check::<ImageSource>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }

    #[test]
    fn where_an_image_is_from_has_to_be_known() {
        let settings = Settings { require_signature: true, require_sbom: true, ..Settings::default() };
        let image = ImageRef { reference: "a.io/b:1".into(), digest: String::new(), platform: String::new() };
        assert_eq!(unfounded(&settings, &image).len(), 2);
        let nothing =
            Origin { pinned: false, signatures: Vec::new(), looked: true, attestations: Vec::new(), sbom: true };
        provenance::set(Some(nothing));
        let found = unfounded(&settings, &image);
        assert_eq!(found.iter().map(|d| d.code.as_str()).collect::<Vec<_>>(), ["IMG007"]);
        assert!(unfounded(&Settings::default(), &image).is_empty());
    }

    #[test]
    fn a_source_is_a_whole_name() {
        assert!(is_from("docker.io/library/busybox:1", "docker.io/library"));
        assert!(is_from("docker.io/library/busybox:1", "docker.io/library/"));
        assert!(is_from("localhost:5000/app:1", "localhost:5000"));
        assert!(is_from("quay.io/me/tools:2", "quay.io/*/tools"));
        assert!(!is_from("docker.io/library2/x", "docker.io/library"));
        assert!(!is_from("docker.io.evil.example/x", "docker.io"));
        assert!(!is_from("localhost:5000/app", "localhost"));
    }
}
