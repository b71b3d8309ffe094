//! `image-source`: where images come from, and that they are what was meant.

use rlrun_policy::{
    Caller, Container, Create, Diagnostic, Image, ImageInfo, ImageRef, Policy, Pull, Restriction, Severity, Verdict,
    finding, pattern, policy, settings,
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
        let Some(image) = &container.image else {
            if settings.allow_rootfs {
                return Verdict::abstain();
            }
            return Verdict::deny(
                finding("IMG004", Severity::High, "the root file system comes from no image").at("/image"),
            );
        };
        let found = judge(settings, image);
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

    #[test]
    fn fixtures() {
        rlrun_policy::fixtures::check::<ImageSource>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
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
