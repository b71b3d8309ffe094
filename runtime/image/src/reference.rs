//! Image references: what users type, and the one normal form that everything behind the command line sees.
//!
//! The grammar is that of the distribution reference library: `[domain/]path[:tag][@sha256:hex]`.

use crate::digest::Digest;
use crate::error::ImageError;
use std::fmt;

pub(crate) const DEFAULT_DOMAIN: &str = "docker.io";
/// Images that no registry gave a name live here, as with podman.
pub(crate) const LOCAL_DOMAIN: &str = "localhost";
const DEFAULT_TAG: &str = "latest";
/// `library/` is what docker.io calls names of one component.
const OFFICIAL: &str = "library/";
/// A reference is also a file name in the store: 183 bytes and `@sha256:<64 digits>` make 255 (NAME_MAX).
const MAX_NAME: usize = 183;
const MAX_FILE_NAME: usize = 255;

/// A complete reference: domain, path, and a tag, a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A reference before a domain is known: short names keep `domain` empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partial {
    pub(crate) domain: Option<String>,
    pub(crate) path: String,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<Digest>,
}

impl Partial {
    pub(crate) fn parse(text: &str) -> Result<Self, ImageError> {
        let bad = |why: &str| ImageError::reference(text, why);
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(|why: String| bad(&why))?)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; before it, a port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (name, None),
        };
        if let Some(tag) = &tag
            && !is_tag(tag)
        {
            return Err(bad(
                "a tag is 1 to 128 letters, digits, `_`, `.` or `-`, and begins with none of the last two",
            ));
        }
        let (domain, path) = split_domain(name);
        if let Some(domain) = domain
            && !is_domain(domain)
        {
            return Err(bad("the registry is not a host name with an optional port"));
        }
        check_path(path).map_err(bad)?;
        if name.len() > MAX_NAME {
            return Err(bad("the name is longer than 183 bytes"));
        }
        if is_hex64_path(domain, path) {
            return Err(bad("64 hex digits are an image id, not a name"));
        }
        Ok(Partial { domain: domain.map(str::to_owned), path: path.to_owned(), tag, digest })
    }

    /// With a registry, for names that have none.
    pub(crate) fn in_domain(self, domain: &str) -> Result<Reference, ImageError> {
        let shown = self.path.clone();
        let domain = self.domain.unwrap_or_else(|| domain.to_owned());
        // index.docker.io is docker.io's old name; both mean the same repositories.
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN.to_owned() } else { domain };
        let official = domain == DEFAULT_DOMAIN && !self.path.contains('/');
        let path = if official { format!("{OFFICIAL}{}", self.path) } else { self.path };
        let tag = match (self.tag, &self.digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag,
        };
        let reference = Reference { domain, path, tag, digest: self.digest };
        if reference.stored_name().len() > MAX_FILE_NAME {
            return Err(ImageError::reference(&shown, "the name is too long"));
        }
        Ok(reference)
    }
}

impl Reference {
    /// Reads what a user typed; names without a registry are docker.io's.
    ///
    /// # Errors
    /// [`ImageError::Reference`] with what is wrong.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        Partial::parse(text)?.in_domain(DEFAULT_DOMAIN)
    }

    /// Reads the name of an image that no registry gave one: it is put under `localhost/`.
    ///
    /// # Errors
    /// [`ImageError::Reference`] with what is wrong.
    pub fn parse_local(text: &str) -> Result<Self, ImageError> {
        Partial::parse(text)?.in_domain(LOCAL_DOMAIN)
    }

    /// Registry, with its port.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository within the registry.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Registry and repository.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag, if it has one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if it has one.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository at a digest, without a tag.
    #[must_use]
    pub fn at(&self, digest: &Digest) -> Reference {
        Reference { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    /// The same repository and tag without the digest; None when there is no tag.
    #[must_use]
    pub fn tagged(&self) -> Option<Reference> {
        self.tag.as_ref()?;
        Some(Reference { digest: None, ..self.clone() })
    }

    /// Where configuration about it may stand, the most specific first: itself, its repository, each level above, and
    /// wildcards over hosts (containers-policy.json(5), containers-registries.d(5)).
    pub(crate) fn scopes(&self) -> Vec<String> {
        let repository = self.repository();
        let mut scopes = vec![self.to_string()];
        scopes.extend(self.tagged().filter(|_| self.digest().is_none()).map(|t| t.to_string()));
        let mut rest = repository.as_str();
        scopes.push(rest.to_owned());
        while let Some((parent, _)) = rest.rsplit_once('/') {
            scopes.push(parent.to_owned());
            rest = parent;
        }
        let mut host = self.domain();
        while let Some((_, parent)) = host.split_once('.') {
            scopes.push(format!("*.{parent}"));
            host = parent;
        }
        scopes
    }

    /// What the store files it under: the digest alone names the content where there is one.
    fn stored_name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}/{}@{digest}", self.domain, self.path),
            (None, Some(tag)) => format!("{}/{}:{tag}", self.domain, self.path),
            (None, None) => self.repository(),
        }
    }

    /// The file name of this reference. `+` is in no name, tag or sha256 digest, so the way back is unambiguous.
    pub(crate) fn file_name(&self) -> String {
        self.stored_name().replace('/', "+")
    }

    pub(crate) fn from_file_name(name: &str) -> Option<Self> {
        let reference = Reference::parse(&name.replace('+', "/")).ok()?;
        (reference.file_name() == name).then_some(reference)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The first component is a registry if it looks like a host: it has a dot or a port, is `localhost`, or has a
/// capital letter, which no repository may have.
fn split_domain(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == LOCAL_DOMAIN || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, name),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|d| d.split_once(']')) {
        Some((v6, rest)) => {
            let port = rest.strip_prefix(':');
            return v6.parse::<std::net::Ipv6Addr>().is_ok() && (rest.is_empty() || port.is_some_and(is_port));
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    (1..=128).contains(&bytes.len()) && word(bytes[0]) && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("the name is empty");
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("repository names are lower case");
    }
    if path.split('/').all(is_component) {
        return Ok(());
    }
    Err("name components are lower-case letters and digits, separated by `.`, `_`, `__` or dashes")
}

/// `[a-z0-9]+ ( ( \. | _ | __ | -+ ) [a-z0-9]+ )*`
fn is_component(component: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut separators =
        component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|s| !s.is_empty());
    let bytes = component.as_bytes();
    bytes.first().copied().is_some_and(alnum)
        && bytes.last().copied().is_some_and(alnum)
        && separators.all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

/// The reference library refuses bare 64-digit names because they would shadow image ids.
fn is_hex64_path(domain: Option<&str>, path: &str) -> bool {
    domain.is_none() && crate::digest::is_hex64(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn normal(text: &str) -> String {
        Reference::parse(text).unwrap().to_string()
    }

    #[test]
    fn users_words_become_the_normal_form() {
        assert_eq!(normal("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(normal("busybox:1.36"), "docker.io/library/busybox:1.36");
        assert_eq!(normal("me/app"), "docker.io/me/app:latest");
        assert_eq!(normal("docker.io/busybox"), "docker.io/library/busybox:latest");
        assert_eq!(normal("index.docker.io/busybox"), "docker.io/library/busybox:latest");
        assert_eq!(normal("localhost:5000/app:1"), "localhost:5000/app:1");
        assert_eq!(normal("localhost/app:1"), "localhost/app:1");
        assert_eq!(normal("quay.io/a/b__c/d--e.f"), "quay.io/a/b__c/d--e.f:latest");
        assert_eq!(normal("[::1]:5000/app"), "[::1]:5000/app:latest");
        assert_eq!(normal(&format!("app@sha256:{HEX}")), format!("docker.io/library/app@sha256:{HEX}"));
        assert_eq!(normal(&format!("h.io/app:1@sha256:{HEX}")), format!("h.io/app:1@sha256:{HEX}"));
    }

    #[test]
    fn local_names_belong_to_localhost() {
        assert_eq!(Reference::parse_local("app:1").unwrap().to_string(), "localhost/app:1");
        assert_eq!(Reference::parse_local("team/app").unwrap().to_string(), "localhost/team/app:latest");
        assert_eq!(
            Reference::parse_local("docker.io/library/app").unwrap().to_string(),
            "docker.io/library/app:latest"
        );
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = "a".repeat(184);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "A",
            "a:",
            "a:-x",
            "a b",
            "a//b",
            "a/../b",
            ".a",
            "a.",
            "a..b",
            "a___b",
            "-a",
            "a@sha256:1",
            "a@md5:00",
            "localhost:99999/a",
            "ho_st.io/a",
            "[::g]:1/a",
            "a:b:c",
            "ä",
            "a/B",
            "a\0",
            "a:\u{e9}",
            HEX,
            &long,
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own_normal_form(
            domain in "([a-z][a-z0-9]{0,8}\\.[a-z]{2,4}(:[1-9][0-9]{0,3})?|localhost)",
            path in "[a-z0-9]{1,8}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,8}){0,3}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
            digest in proptest::option::of("[0-9a-f]{64}"),
        ) {
            let mut text = format!("{domain}/{path}");
            if let Some(tag) = &tag { text.push(':'); text.push_str(tag); }
            if let Some(digest) = &digest { text.push_str("@sha256:"); text.push_str(digest); }
            let reference = Reference::parse(&text).unwrap();
            prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
            let stored = reference.digest().map_or_else(|| reference.clone(), |d| reference.at(d));
            prop_assert_eq!(Reference::from_file_name(&reference.file_name()), Some(stored));
        }

        #[test]
        fn no_words_make_a_file_name_that_leaves_its_directory(text in "\\PC{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                let name = reference.file_name();
                prop_assert!(!name.contains(['/', '\0']) && !name.starts_with('.') && name.len() <= 255);
            }
        }
    }
}
