//! What policies were asked about a container, kept beside the journal, so that they can be asked again: one file a
//! request, named by its digest, which the journal's line names too. The same run twice is one file. Secrets are left
//! out as they are in the journal, and what would only make the file large.

use super::redact;
use crate::place::Place;
use rlrun_spec::{Caller, ContainerSpec, SpecParts};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Beside the journal, and as long-lived.
const DIRECTORY: &str = "journal.requests";
/// Bytes of one; larger ones are not kept.
const MAX_BYTES: usize = 256 << 10;
/// How many are kept; beyond, those that were asked longest ago go.
const AT_MOST: usize = 4096;
/// Where a container has its short id.
const SHORT_ID: &str = "@";

#[derive(Serialize, Deserialize)]
struct Kept {
    caller: Caller,
    container: SpecParts,
}

/// A request out of the past.
#[derive(Debug)]
pub struct Asked {
    /// Who asked.
    pub caller: Caller,
    /// For what.
    pub container: SpecParts,
    /// What of it was not kept.
    pub missing: Vec<&'static str>,
}

/// Policies are about to be asked; a command that changes nothing asks for nobody's memory.
pub fn asked(place: &Place, spec: &mut ContainerSpec, caller: &Caller) {
    if !super::is_begun() {
        return;
    }
    let kept = spec.without_seccomp_rules(|parts| keep(place, parts, caller));
    let parts = spec.parts();
    let reference = match kept {
        Ok(digest) => json!({"digest": digest, "id": parts.id, "name": parts.name}),
        Err(error) => {
            crate::warn(&format!("what policies are asked is not kept beside the audit log: {error}"));
            json!({"id": parts.id, "name": parts.name, "why": error.to_string()})
        }
    };
    super::note("request", || reference);
}

fn keep(place: &Place, parts: &SpecParts, caller: &Caller) -> io::Result<String> {
    let kept = Kept { caller: caller.clone(), container: without_secrets(parts) };
    let text = bytes(&kept)?;
    if text.len() > MAX_BYTES {
        return Err(io::Error::other(format!("it is larger than {MAX_BYTES} bytes")));
    }
    let digest = rlrun_journal::digest(&text);
    let directory = place.own(DIRECTORY).map_err(|failure| io::Error::other(failure.to_string()))?;
    let path = directory.join(&digest);
    // What a killed command left of one is written again.
    if std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() == text.len() as u64) {
        touch(&path)?;
    } else {
        write(&path, &text)?;
        // Looking takes longer than writing: one new request in sixteen has the others counted.
        if digest.ends_with('0') {
            prune(&directory, AT_MOST)?;
        }
    }
    Ok(format!("sha256:{digest}"))
}

/// By way of a value, whose maps are in order: the same request is the same bytes.
fn bytes(kept: &Kept) -> io::Result<Vec<u8>> {
    let mut value = serde_json::to_value(kept)?;
    rlrun_spec::container::sort_sets(&mut value["container"]["oci"]);
    Ok(value.to_string().into_bytes())
}

/// Whole or not at all, for nobody else to read.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(std::process::id().to_string());
    let written = File::options().write(true).create_new(true).mode(0o600).open(&temporary);
    written.and_then(|mut file| file.write_all(text)).and_then(|()| std::fs::rename(&temporary, path)).inspect_err(
        |_| {
            // The first error is the one to tell; what a killed command left is pruned like the rest.
            std::fs::remove_file(&temporary).unwrap_or_default();
        },
    )
}

/// What was asked last goes last.
fn touch(path: &Path) -> io::Result<()> {
    let now = |nanoseconds| Timespec { tv_sec: 0, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: now(UTIME_OMIT), last_modification: now(UTIME_NOW) };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn prune(directory: &Path, at_most: usize) -> io::Result<()> {
    let entries: Vec<_> = std::fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    if entries.len() <= at_most {
        return Ok(());
    }
    let age = |path: &PathBuf| std::fs::symlink_metadata(path).and_then(|m| m.modified()).ok();
    let mut by_age: Vec<_> = entries.into_iter().map(|path| (age(&path), path)).collect();
    by_age.sort();
    for (_, path) in by_age.iter().take(by_age.len() - at_most) {
        match std::fs::remove_file(path) {
            // Another command was faster.
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// As the journal has it: names of variables without their values; words that tell of a secret without it. Who the
/// container is stands in the journal's line, so that the same request is the same bytes.
fn without_secrets(parts: &SpecParts) -> SpecParts {
    let mut kept = parts.clone();
    if kept.oci.hostname().as_deref().is_some_and(|name| !name.is_empty() && kept.id.starts_with(name)) {
        kept.oci.set_hostname(Some(SHORT_ID.to_owned()));
    }
    (kept.id, kept.name) = (String::new(), String::new());
    if let Some(process) = kept.oci.process_mut() {
        process.set_env(process.env().as_ref().map(|env| env.iter().map(|entry| redact::variable(entry)).collect()));
        let words = process.args().as_ref().map(|args| args.iter().map(Into::into).collect::<Vec<_>>());
        process.set_args(words.map(|words| redact::words(&words, MAX_BYTES)));
    }
    if let Some(annotations) = kept.oci.annotations() {
        let hidden = annotations.iter().map(|(name, value)| (name.clone(), redact::named(name, value)));
        kept.oci.set_annotations(Some(hidden.collect::<HashMap<_, _>>()));
    }
    if let Some(image) = &mut kept.beside.image {
        image.env = image.env.iter().map(|entry| redact::variable(entry)).collect();
        image.labels.iter_mut().for_each(|(name, value)| *value = redact::named(name, value));
    }
    kept
}

/// The request that a line of the journal names; None when policies were asked about no container.
///
/// # Errors
/// In words, when it is not there any more, or not what it was.
pub fn asked_of(place: &Place, line: &Value) -> Option<Result<Asked, String>> {
    let about = line.get("request")?;
    let text = |key: &str| about[key].as_str().unwrap_or_default();
    let Some(digest) = text("digest").strip_prefix("sha256:") else {
        return Some(Err(format!("was not kept: {}", text("why"))));
    };
    Some(read(&place.data.join(DIRECTORY), digest, text("id"), text("name")))
}

fn read(directory: &Path, digest: &str, id: &str, name: &str) -> Result<Asked, String> {
    if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("has a digest that is none".to_owned());
    }
    let bytes = std::fs::read(directory.join(digest)).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => "is not kept any more".to_owned(),
        _ => format!("cannot be read: {e}"),
    })?;
    if rlrun_journal::digest(&bytes) != digest {
        return Err("was changed since".to_owned());
    }
    let Kept { caller, mut container } =
        serde_json::from_slice(&bytes).map_err(|e| format!("is of another version: {e}"))?;
    let mut missing = Vec::new();
    let process = container.oci.process().as_ref();
    let hidden = |list: Option<&Vec<String>>| list.into_iter().flatten().any(|word| word.contains(redact::HIDDEN));
    if hidden(process.and_then(|p| p.env().as_ref())) {
        missing.push("values of environment variables");
    }
    if hidden(process.and_then(|p| p.args().as_ref())) {
        missing.push("secrets in the command");
    }
    let labels = container.beside.image.iter().flat_map(|image| &image.labels).map(|(_, value)| value);
    if container.oci.annotations().iter().flatten().map(|(_, value)| value).chain(labels).any(|v| v == redact::HIDDEN) {
        missing.push("secrets in labels and annotations");
    }
    if container.oci.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some()) {
        missing.push("the rules of the seccomp profile");
    }
    id.clone_into(&mut container.id);
    name.clone_into(&mut container.name);
    if container.oci.hostname().as_deref() == Some(SHORT_ID) {
        container.oci.set_hostname(Some(id.chars().take(12).collect()));
    }
    Ok(Asked { caller, container, missing })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> SpecParts {
        let id = "ab".repeat(32);
        serde_json::from_value(json!({
            "id": id, "name": "one", "image": null, "privileged": false, "network": "none", "ports": [], "dns": [],
            "egress": null, "userns": "default", "init": false, "interactive": false, "seccomp_profile": "default",
            "resolved_sources": [], "controls": [],
            "beside": {
                "restart": "no", "remove": true, "detached": false, "healthcheck": false, "disk_bytes": null,
                "secrets": [],
                "image": {"user": "", "env": ["KEY=hunter2"], "labels": [["api_key", "hunter2"], ["a", "b"]],
                    "entrypoint": [], "exposed_ports": [], "volumes": [], "created": null},
            },
            "oci": {
                "ociVersion": "1.2.0", "hostname": "abababababab", "root": {"path": "rootfs"},
                "annotations": {"my.token": "hunter2", "a": "b", "c": "d", "e": "f"},
                "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PASS=hunter2", "B"],
                    "args": ["app", "--password", "hunter2"],
                    "capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_FOWNER"]}},
                "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO",
                    "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}},
            },
        }))
        .unwrap()
    }

    fn kept(parts: &SpecParts) -> (String, Vec<u8>) {
        let caller = Caller { uid: 1, gid: 1, user: "me".to_owned(), origin: "cli".to_owned(), tty: false, ci: false };
        let kept = Kept { caller, container: without_secrets(parts) };
        let text = bytes(&kept).unwrap();
        (rlrun_journal::digest(&text), text)
    }

    #[test]
    fn what_is_kept_holds_no_secret_and_is_the_same_for_the_same_run() {
        let (digest, text) = kept(&parts());
        assert!(!String::from_utf8(text).unwrap().contains("hunter2"));
        let again = SpecParts { id: "cd".repeat(32), name: "two".to_owned(), ..parts() };
        let mut again = again;
        again.oci.set_hostname(Some("cdcdcdcdcdcd".to_owned()));
        assert_eq!(kept(&again).0, digest);
        again.privileged = true;
        assert_ne!(kept(&again).0, digest);
    }

    #[test]
    fn it_comes_back_and_says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let (digest, text) = kept(&parts());
        let path = dir.path().join(&digest);
        write(&path, &text).unwrap();
        let asked = read(dir.path(), &digest, &"ab".repeat(32), "one").unwrap();
        assert_eq!((asked.container.id, asked.container.name), (parts().id, parts().name));
        assert_eq!(asked.container.oci.hostname().as_deref(), Some("abababababab"));
        assert_eq!(asked.missing.len(), 4, "{:?}", asked.missing);
        let env = asked.container.oci.process().as_ref().unwrap().env().clone().unwrap();
        assert_eq!(env, ["PASS=***", "B"]);
        write(&path, &[&text[..], b" "].concat()).unwrap();
        assert!(read(dir.path(), &digest, "", "").unwrap_err().contains("was changed"));
        assert!(read(dir.path(), &"0".repeat(64), "", "").unwrap_err().contains("not kept any more"));
        assert!(read(dir.path(), "../../journal", "", "").is_err());
    }

    #[test]
    fn those_asked_longest_ago_go_first() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            write(&dir.path().join(name), b"x").unwrap();
        }
        let old = std::time::SystemTime::UNIX_EPOCH;
        std::fs::File::open(dir.path().join("b")).unwrap().set_modified(old).unwrap();
        prune(dir.path(), 2).unwrap();
        assert!(dir.path().join("a").exists() && !dir.path().join("b").exists() && dir.path().join("c").exists());
    }
}
