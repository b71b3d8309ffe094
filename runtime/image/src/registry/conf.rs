//! containers-registries.conf(5), version 2: the part that decides where a name is looked for and how.
//! Files are read unchanged, in containers/* search order.

use crate::error::{ImageError, store_io};
use crate::reference::{DEFAULT_DOMAIN, Partial, Reference};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The merged configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registries {
    unqualified: Vec<String>,
    aliases: BTreeMap<String, String>,
    entries: Vec<Entry>,
    helpers: Vec<String>,
    mode: ShortNameMode,
}

/// What a short name means that several registries may have and no alias settles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ShortNameMode {
    /// Nothing: whoever puts an image of that name into an earlier registry would be trusted.
    Enforcing,
    /// Each registry in turn.
    #[default]
    Permissive,
    /// As permissive; other tools do not ask either then.
    Disabled,
}

/// One `[[registry]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Entry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror: Vec<Mirror>,
    mirror_by_digest_only: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

/// As in the file. Unknown keys are other tools' business.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct FileFormat {
    unqualified_search_registries: Option<Vec<String>>,
    registry: Vec<Entry>,
    aliases: BTreeMap<String, String>,
    credential_helpers: Option<Vec<String>>,
    short_name_mode: Option<ShortNameMode>,
    /// The format before `[[registry]]`: what it blocks must not be let in because nobody looked.
    registries: Option<toml::Table>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AliasesFormat {
    aliases: BTreeMap<String, String>,
}

/// Where to ask for a reference: a repository and how far to trust the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) reference: Reference,
    /// Plain http and unverified certificates are allowed.
    pub(crate) insecure: bool,
}

impl Registries {
    /// The configuration of this user and machine.
    pub(crate) fn from_system() -> Result<Self, ImageError> {
        let mut merged = Registries::default();
        for path in system_files() {
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(store_io("read the registries' configuration", &path)(e)),
            };
            merged.add(&text, &path)?;
        }
        if let Some(path) = cache_home().map(|cache| cache.join("containers/short-name-aliases.conf")) {
            match std::fs::read_to_string(&path) {
                Ok(text) => merged.add_aliases(&text, &path)?,
                Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
                Err(e) => return Err(store_io("read the aliases of short names", &path)(e)),
            }
        }
        Ok(merged)
    }

    /// What other tools have been told when they asked what a short name means; it counts before all files of the
    /// configuration. Of these files nothing else is read.
    fn add_aliases(&mut self, text: &str, path: &Path) -> Result<(), ImageError> {
        let file: AliasesFormat =
            toml::from_str(text).map_err(|e| ImageError::configuration(path, e.message().to_owned()))?;
        self.aliases.extend(file.aliases);
        Ok(())
    }

    /// A later file wins: its search list replaces, its entries and aliases replace those of the same name.
    fn add(&mut self, text: &str, path: &Path) -> Result<(), ImageError> {
        let bad = |why: String| ImageError::configuration(path, why);
        let file: FileFormat = toml::from_str(text).map_err(|e| bad(e.message().to_owned()))?;
        if file.registries.is_some() {
            return Err(bad("[registries] is of the first version of this format, which is not read; \
                write unqualified-search-registries and [[registry]] as containers-registries.conf(5) has them"
                .to_owned()));
        }
        if let Some(list) = file.unqualified_search_registries {
            self.unqualified = list;
        }
        self.aliases.extend(file.aliases);
        self.mode = file.short_name_mode.unwrap_or(self.mode);
        if let Some(list) = file.credential_helpers {
            self.helpers = list;
        }
        for mut entry in file.registry {
            if entry.prefix.is_empty() {
                entry.prefix.clone_from(&entry.location);
            }
            if entry.prefix.is_empty() {
                return Err(bad("a [[registry]] has neither prefix nor location".to_owned()));
            }
            self.entries.retain(|e| e.prefix != entry.prefix);
            self.entries.push(entry);
        }
        Ok(())
    }

    /// The full references that a name may mean, in the order in which they are tried.
    pub(crate) fn candidates(&self, partial: &Partial) -> Result<Vec<Reference>, ImageError> {
        if partial.domain.is_some() {
            return Ok(vec![partial.clone().in_domain(DEFAULT_DOMAIN)?]);
        }
        // An empty one takes back what an earlier file said.
        if let Some(target) = self.aliases.get(&partial.path).filter(|target| !target.is_empty()) {
            let target = Partial::parse(target)?;
            let whole = Partial { domain: target.domain, path: target.path, ..partial.clone() };
            return Ok(vec![whole.in_domain(DEFAULT_DOMAIN)?]);
        }
        if self.unqualified.is_empty() {
            return Ok(vec![partial.clone().in_domain(DEFAULT_DOMAIN)?]);
        }
        self.unqualified.iter().map(|domain| partial.clone().in_domain(domain)).collect()
    }

    /// As [`Registries::candidates`], for what goes out to registries: an ambiguous name may be refused.
    pub(crate) fn remote_candidates(&self, partial: &Partial) -> Result<Vec<Reference>, ImageError> {
        let candidates = self.candidates(partial)?;
        if self.mode == ShortNameMode::Enforcing && candidates.len() > 1 {
            let all: Vec<String> = candidates.iter().map(ToString::to_string).collect();
            let why = format!("short-name-mode is enforcing, and it may mean {}", all.join(" or "));
            return Err(ImageError::reference(&partial.path, why));
        }
        Ok(candidates)
    }

    /// The registries that short names are looked for in.
    pub(crate) fn search_registries(&self) -> &[String] {
        &self.unqualified
    }

    /// Where to ask for `reference`: mirrors first, the registry itself last.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, ImageError> {
        let Some(entry) = self.entry_for(reference) else {
            return Ok(vec![Endpoint { reference: reference.clone(), insecure: false }]);
        };
        if entry.blocked {
            return Err(ImageError::Registry {
                object: reference.to_string(),
                why: format!("registries.conf blocks `{}`", entry.prefix),
                hint: Some("ask who keeps /etc/containers/registries.conf, or name another registry".to_owned()),
            });
        }
        let mut endpoints = Vec::new();
        for mirror in entry.mirror.iter().filter(|m| usable(entry, m, reference)) {
            let moved = relocate(reference, &entry.prefix, &mirror.location)?;
            endpoints.push(Endpoint { reference: moved, insecure: mirror.insecure });
        }
        let location = if entry.location.is_empty() { &entry.prefix } else { &entry.location };
        // A wildcard prefix without a location only configures; it moves nothing.
        let moved =
            if location.starts_with("*.") { reference.clone() } else { relocate(reference, &entry.prefix, location)? };
        endpoints.push(Endpoint { reference: moved, insecure: entry.insecure });
        Ok(endpoints)
    }

    /// The registry itself, for what is not to be read: mirrors take no pushes.
    pub(crate) fn endpoint_of_registry(&self, reference: &Reference) -> Result<Endpoint, ImageError> {
        let last = self.endpoints(reference)?.pop();
        last.ok_or_else(|| ImageError::Unknown { name: reference.to_string() })
    }

    /// Programs that keep passwords; the files of auth.json(5) are not among them.
    pub(crate) fn credential_helpers(&self) -> impl Iterator<Item = &str> {
        self.helpers.iter().map(String::as_str).filter(|h| *h != "containers-auth.json")
    }

    /// The longest matching prefix wins.
    fn entry_for(&self, reference: &Reference) -> Option<&Entry> {
        let matching = self.entries.iter().filter(|e| matches_prefix(&e.prefix, reference));
        matching.max_by_key(|e| e.prefix.len())
    }
}

fn usable(entry: &Entry, mirror: &Mirror, reference: &Reference) -> bool {
    let by_digest = reference.digest().is_some();
    match mirror.pull_from_mirror.as_str() {
        "digest-only" => by_digest,
        "tag-only" => !by_digest,
        _ => by_digest || !entry.mirror_by_digest_only,
    }
}

/// `*.example.com` matches hosts, anything else whole components of the name.
fn matches_prefix(prefix: &str, reference: &Reference) -> bool {
    if let Some(suffix) = prefix.strip_prefix('*') {
        return reference.domain().ends_with(suffix);
    }
    let text = reference.to_string();
    text.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']))
        // `localhost` must not match `localhost:5000/x`, whose colon begins a port.
        && (prefix.contains('/') || prefix == reference.domain())
}

fn relocate(reference: &Reference, prefix: &str, location: &str) -> Result<Reference, ImageError> {
    let text = reference.to_string();
    let rest = if prefix.starts_with('*') { text.strip_prefix(reference.domain()) } else { text.strip_prefix(prefix) };
    Reference::parse(&format!("{location}{}", rest.unwrap_or_default()))
}

/// Main file first, drop-ins after it: the first of $CONTAINERS_REGISTRIES_CONF, the user's, /etc, /usr/share.
fn system_files() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("CONTAINERS_REGISTRIES_CONF") {
        return vec![path.into()];
    }
    let mut bases = vec![PathBuf::from("/usr/share/containers"), PathBuf::from("/etc/containers")];
    bases.extend(config_home().map(|c| c.join("containers")));
    let main = bases.iter().rev().map(|b| b.join("registries.conf")).find(|p| p.exists());
    // The same file name in a more specific directory replaces, whatever the order of directories.
    let mut drop_ins = BTreeMap::new();
    for base in &bases {
        let Ok(entries) = std::fs::read_dir(base.join("registries.conf.d")) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "conf") {
                drop_ins.insert(entry.file_name(), path);
            }
        }
    }
    main.into_iter().chain(drop_ins.into_values()).collect()
}

/// `$XDG_CONFIG_HOME`, or `~/.config`.
pub(crate) fn config_home() -> Option<PathBuf> {
    home("XDG_CONFIG_HOME", ".config")
}

/// `$XDG_CACHE_HOME`, or `~/.cache`.
fn cache_home() -> Option<PathBuf> {
    home("XDG_CACHE_HOME", ".cache")
}

fn home(variable: &str, below: &str) -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set(variable).or_else(|| set("HOME").map(|h| h.join(below)))
}

/// For [`crate::fuzz`]: reads a file and asks it about a name.
#[cfg(test)]
pub(super) fn fuzz_read(text: &str) {
    let mut conf = Registries::default();
    if conf.add(text, Path::new("registries.conf")).is_ok()
        && let Ok(partial) = Partial::parse("x.b.io/a:1")
    {
        for reference in conf.candidates(&partial).unwrap_or_default() {
            drop(conf.endpoints(&reference));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Registries {
        let mut conf = Registries::default();
        conf.add(text, Path::new("registries.conf")).unwrap();
        conf
    }

    fn candidates(conf: &Registries, name: &str) -> Vec<String> {
        let partial = Partial::parse(name).unwrap();
        conf.candidates(&partial).unwrap().iter().map(ToString::to_string).collect()
    }

    fn endpoints(conf: &Registries, name: &str) -> Vec<(String, bool)> {
        let endpoints = conf.endpoints(&Reference::parse(name).unwrap()).unwrap();
        endpoints.iter().map(|e| (e.reference.to_string(), e.insecure)).collect()
    }

    #[test]
    fn what_the_first_version_blocks_is_not_let_in_unread() {
        let text = "[registries.block]\nregistries = ['a.io']";
        let error = Registries::default().add(text, Path::new("registries.conf")).unwrap_err();
        assert!(error.to_string().contains("first version"), "{error}");
    }

    #[test]
    fn short_names_are_looked_for_in_order() {
        let none = Registries::default();
        assert_eq!(candidates(&none, "app"), ["docker.io/library/app:latest"]);
        let two = conf("unqualified-search-registries = ['quay.io', 'localhost:5000']");
        assert_eq!(candidates(&two, "app:1"), ["quay.io/app:1", "localhost:5000/app:1"]);
        assert_eq!(candidates(&two, "docker.io/app"), ["docker.io/library/app:latest"]);
    }

    #[test]
    fn an_ambiguous_name_is_refused_where_that_is_demanded() {
        let ask = |mode: &str, name: &str| {
            let text = format!(
                "unqualified-search-registries = ['a.io', 'b.io']\nshort-name-mode = '{mode}'\n[aliases]\n'known' = 'a.io/x'"
            );
            conf(&text).remote_candidates(&Partial::parse(name).unwrap()).map(|c| c.len()).map_err(|e| e.to_string())
        };
        assert_eq!((ask("permissive", "app"), ask("disabled", "app")), (Ok(2), Ok(2)));
        assert!(ask("enforcing", "app").unwrap_err().contains("a.io/app:latest or b.io/app:latest"));
        assert_eq!((ask("enforcing", "known"), ask("enforcing", "b.io/app")), (Ok(1), Ok(1)));
        let mut other = Registries::default();
        assert!(other.add("short-name-mode = 'sometimes'", Path::new("registries.conf")).is_err());
    }

    #[test]
    fn an_alias_ends_the_search() {
        let alias = conf("unqualified-search-registries = ['quay.io']\n[aliases]\n'app' = 'registry.example/team/app'");
        assert_eq!(candidates(&alias, "app:2"), ["registry.example/team/app:2"]);
    }

    #[test]
    fn what_other_tools_were_told_counts_first() {
        let mut conf =
            conf("unqualified-search-registries = ['quay.io']\n[aliases]\n'app' = 'a.io/app'\n'b' = 'a.io/b'");
        let path = Path::new("short-name-aliases.conf");
        conf.add_aliases("[aliases]\n'app' = 'c.io/team/app'\n'b' = ''", path).unwrap();
        assert_eq!(candidates(&conf, "app:2"), ["c.io/team/app:2"]);
        assert_eq!(candidates(&conf, "b"), ["quay.io/b:latest"], "taken back");
        assert!(conf.add_aliases("[aliases", path).unwrap_err().to_string().contains("short-name-aliases.conf"));
    }

    #[test]
    fn mirrors_come_first_and_the_longest_prefix_wins() {
        let conf = conf(
            r#"
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "localhost:5000/mirror"
            insecure = true
            [[registry]]
            prefix = "docker.io/secret"
            location = "vault.example/secret"
            "#,
        );
        assert_eq!(
            endpoints(&conf, "busybox"),
            [
                ("localhost:5000/mirror/library/busybox:latest".into(), true),
                ("docker.io/library/busybox:latest".into(), false)
            ]
        );
        assert_eq!(endpoints(&conf, "secret/x:1"), [("vault.example/secret/x:1".into(), false)]);
        assert_eq!(endpoints(&conf, "secretary/x:1").len(), 2, "a prefix ends at a component");
    }

    #[test]
    fn blocked_insecure_and_wildcards() {
        let conf = conf(
            r#"
            [[registry]]
            location = "evil.example"
            blocked = true
            [[registry]]
            prefix = "*.lab.example"
            insecure = true
            [[registry]]
            location = "localhost"
            insecure = true
            "#,
        );
        let blocked = conf.endpoints(&Reference::parse("evil.example/x").unwrap()).unwrap_err();
        assert!(blocked.to_string().contains("blocks"));
        assert_eq!(endpoints(&conf, "a.lab.example/x:1"), [("a.lab.example/x:1".into(), true)]);
        assert_eq!(endpoints(&conf, "localhost:5000/x:1"), [("localhost:5000/x:1".into(), false)]);
    }

    #[test]
    fn a_mirror_for_digests_is_not_asked_for_tags() {
        let conf = conf(
            "[[registry]]\nlocation='r.example'\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation='m.example'",
        );
        assert_eq!(endpoints(&conf, "r.example/x:1").len(), 1);
        assert_eq!(endpoints(&conf, &format!("r.example/x@sha256:{}", "0".repeat(64))).len(), 2);
    }

    #[test]
    fn a_broken_file_is_named() {
        let error = Registries::default().add("[[registry", Path::new("/etc/containers/registries.conf")).unwrap_err();
        assert!(error.to_string().contains("/etc/containers/registries.conf"));
    }
}
