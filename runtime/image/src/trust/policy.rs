//! The file: strict JSON, the most specific scope wins, and all requirements of it must be met.

use super::identity::Identity;
use super::key::PublicKey;
use crate::error::{ImageError, store_io};
use crate::reference::Reference;
use crate::registry::config_home;
use crate::transport::{Files, Layout};
use base64::Engine as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is accepted.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    default: Vec<Requirement>,
    /// Transport, scope, requirements.
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// What an image must meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Requirement {
    AcceptAnything,
    Reject,
    /// A signature of cosign's that one of the keys has made.
    SigstoreSigned {
        keys: Keys,
        identity: Identity,
    },
    /// A signature of GnuPG's that one of the keys has made.
    SignedBy {
        keys: Keys,
        identity: Identity,
    },
    /// What is known and cannot be checked here.
    Unsupported(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    Files(Vec<PathBuf>),
    /// PEM; of GnuPG what it exports.
    Data(Vec<Vec<u8>>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFormat {
    default: Vec<Wire>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Wire>>>,
}

#[derive(Deserialize)]
#[serde(tag = "type", deny_unknown_fields, rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Wire {
    // With braces, or serde would let further fields pass.
    InsecureAcceptAnything {},
    Reject {},
    SignedBy {
        key_type: String,
        #[serde(default)]
        key_path: Option<PathBuf>,
        #[serde(default)]
        key_paths: Option<Vec<PathBuf>>,
        #[serde(default)]
        key_data: Option<String>,
        #[serde(default)]
        signed_identity: Option<Identity>,
    },
    SigstoreSigned(Box<SigstoreWire>),
    SignedBaseLayer {
        base_layer_identity: Identity,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SigstoreWire {
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    fulcio: Option<serde_json::Value>,
    pki: Option<serde_json::Value>,
    rekor_public_key_path: Option<String>,
    rekor_public_key_paths: Option<Vec<String>>,
    rekor_public_key_data: Option<String>,
    rekor_public_key_datas: Option<Vec<String>>,
    signed_identity: Option<Identity>,
}

impl Policy {
    /// The user's file, else the machine's. Without one everything is accepted: rlrun comes without its own.
    pub(crate) fn from_system() -> Result<Self, ImageError> {
        let user = config_home().map(|c| c.join("containers/policy.json"));
        for path in user.into_iter().chain([PathBuf::from("/etc/containers/policy.json")]) {
            match std::fs::read(&path) {
                Ok(text) => return Self::parse(&text).map_err(|why| ImageError::configuration(&path, why)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                // A policy that cannot be read is not a policy that allows.
                Err(e) => return Err(store_io("read the policy for images", &path)(e)),
            }
        }
        Ok(Policy { default: vec![Requirement::AcceptAnything], ..Policy::default() })
    }

    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let file: FileFormat = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        let scopes = |scopes: BTreeMap<String, Vec<Wire>>| {
            scopes.into_iter().map(|(scope, list)| Ok((scope, requirements(list)?))).collect::<Result<_, String>>()
        };
        let transports = file.transports.into_iter().map(|(name, list)| Ok((name, scopes(list)?)));
        Ok(Policy { default: requirements(file.default)?, transports: transports.collect::<Result<_, String>>()? })
    }

    /// For an image of a registry.
    pub(crate) fn for_reference(&self, reference: &Reference) -> &[Requirement] {
        self.first("docker", &reference.scopes())
    }

    /// For an image in files.
    pub(crate) fn for_files(&self, files: &Files) -> &[Requirement] {
        let transport = match files.layout {
            Layout::DockerArchive => "docker-archive",
            Layout::OciArchive => "oci-archive",
            Layout::OciDir => "oci",
            Layout::DockerDir => "dir",
        };
        let path = std::fs::canonicalize(&files.path).unwrap_or_else(|_| files.path.clone());
        let mut scopes: Vec<String> = files.name.iter().map(|n| format!("{}:{n}", path.display())).collect();
        scopes.extend(path.ancestors().filter(|p| *p != Path::new("/")).map(|p| p.display().to_string()));
        self.first(transport, &scopes)
    }

    fn first(&self, transport: &str, scopes: &[String]) -> &[Requirement] {
        let Some(known) = self.transports.get(transport) else { return &self.default };
        let found = scopes.iter().find_map(|scope| known.get(scope)).or_else(|| known.get(""));
        found.unwrap_or(&self.default)
    }
}

/// An empty list would accept nothing and everything, depending on who reads it.
fn requirements(list: Vec<Wire>) -> Result<Vec<Requirement>, String> {
    if list.is_empty() {
        return Err("a list of requirements is empty".to_owned());
    }
    list.into_iter().map(requirement).collect()
}

fn requirement(wire: Wire) -> Result<Requirement, String> {
    Ok(match wire {
        Wire::InsecureAcceptAnything {} => Requirement::AcceptAnything,
        Wire::Reject {} => Requirement::Reject,
        Wire::SignedBy { key_type, key_path, key_paths, key_data, signed_identity } => match key_type.as_str() {
            "GPGKeys" => Requirement::SignedBy {
                keys: keys("signedBy", (key_path, key_paths, key_data, None))?,
                identity: signed_identity.unwrap_or_default(),
            },
            "signedByGPGKeys" | "X509Certificates" | "signedByX509CAs" => {
                Requirement::Unsupported("signedBy: no program verifies other types of keys than GPGKeys")
            }
            other => return Err(format!("signedBy: there is no keyType `{}`", other.escape_default())),
        },
        Wire::SigstoreSigned(wire) => sigstore(*wire)?,
        Wire::SignedBaseLayer { base_layer_identity } => {
            // Only that it is one counts: nobody has ever verified these, as containers-policy.json(5) says.
            drop(base_layer_identity);
            Requirement::Unsupported("signedBaseLayer: no program verifies it")
        }
    })
}

/// Certificates of Fulcio's live for minutes: whether they were good when they signed is known to a transparency log.
const KEYLESS: &str = "sigstoreSigned: rlrun verifies with keys, not with certificates (keyless signatures), which only \
     Fulcio and Rekor can vouch for, online; sign with a key as well (cosign sign --key) and name it: keyPath";

fn sigstore(wire: SigstoreWire) -> Result<Requirement, String> {
    if wire.fulcio.is_some() || wire.pki.is_some() {
        return Ok(Requirement::Unsupported(KEYLESS));
    }
    let rekor = [wire.rekor_public_key_path.is_some(), wire.rekor_public_key_paths.is_some()];
    if rekor.contains(&true) || wire.rekor_public_key_data.is_some() || wire.rekor_public_key_datas.is_some() {
        return Ok(Requirement::Unsupported("sigstoreSigned: rlrun looks into no transparency log"));
    }
    let given = (wire.key_path, wire.key_paths, wire.key_data, wire.key_datas);
    Ok(Requirement::SigstoreSigned {
        keys: keys("sigstoreSigned", given)?,
        identity: wire.signed_identity.unwrap_or_default(),
    })
}

type GivenKeys = (Option<PathBuf>, Option<Vec<PathBuf>>, Option<String>, Option<Vec<String>>);

/// One way of naming keys, and not two.
fn keys(requirement: &str, given: GivenKeys) -> Result<Keys, String> {
    let decode = |text: String| {
        let decoded = base64::engine::general_purpose::STANDARD.decode(text);
        decoded.map_err(|_| "keyData is not base64".to_owned())
    };
    Ok(match given {
        (Some(path), None, None, None) => Keys::Files(vec![path]),
        (None, Some(paths), None, None) if !paths.is_empty() => Keys::Files(paths),
        (None, None, Some(data), None) => Keys::Data(vec![decode(data)?]),
        (None, None, None, Some(data)) if !data.is_empty() => {
            Keys::Data(data.into_iter().map(decode).collect::<Result<_, _>>()?)
        }
        _ => return Err(format!("{requirement} needs one of keyPath, keyPaths and keyData")),
    })
}

impl Keys {
    /// The bytes, each with where they are from.
    pub(super) fn read(&self) -> Result<Vec<(PathBuf, Vec<u8>)>, ImageError> {
        match self {
            Keys::Files(paths) => paths
                .iter()
                .map(|path| match std::fs::read(path) {
                    Ok(bytes) => Ok((path.clone(), bytes)),
                    Err(e) => Err(ImageError::configuration(path, e.to_string())),
                })
                .collect(),
            Keys::Data(all) => Ok(all.iter().map(|key| ("keyData of policy.json".into(), key.clone())).collect()),
        }
    }

    /// As keys of cosign's.
    pub(super) fn load(&self) -> Result<Vec<PublicKey>, ImageError> {
        let parse = |(path, pem): (PathBuf, Vec<u8>)| {
            PublicKey::parse(&pem).map_err(|why| ImageError::configuration(&path, why))
        };
        self.read()?.into_iter().map(parse).collect()
    }
}

impl Requirement {
    /// Whether nothing can meet it.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Requirement::Reject | Requirement::Unsupported(_))
    }

    pub(crate) fn refusal(&self) -> String {
        match self {
            Requirement::Unsupported(why) => format!("policy.json demands what cannot be checked here: {why}"),
            Requirement::Reject
            | Requirement::AcceptAnything
            | Requirement::SigstoreSigned { .. }
            | Requirement::SignedBy { .. } => "policy.json rejects it".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str, name: &str) -> String {
        let policy = Policy::parse(text.as_bytes()).unwrap();
        format!("{:?}", policy.for_reference(&Reference::parse(name).unwrap()))
    }

    const POLICY: &str = r#"{
        "default": [{"type": "reject"}],
        "transports": {
            "docker": {
                "docker.io/library/busybox:1": [{"type": "insecureAcceptAnything"}],
                "quay.io/team": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}],
                "*.example.com": [{"type": "insecureAcceptAnything"}]
            },
            "oci": {"": [{"type": "insecureAcceptAnything"}], "/bad": [{"type": "reject"}]}
        }
    }"#;

    #[test]
    fn the_most_specific_scope_wins() {
        assert_eq!(kinds(POLICY, "busybox:1"), "[AcceptAnything]");
        assert_eq!(kinds(POLICY, "busybox:2"), "[Reject]");
        assert_eq!(kinds(POLICY, "a.b.example.com/x"), "[AcceptAnything]");
        assert_eq!(kinds(POLICY, "example.com/x"), "[Reject]");
        assert!(kinds(POLICY, "quay.io/team/deep/app:1").contains("SignedBy"));
        assert_eq!(kinds(POLICY, "quay.io/teamster/app:1"), "[Reject]");
        let policy = Policy::parse(POLICY.as_bytes()).unwrap();
        let files = |layout, path: &str| policy.for_files(&Files { layout, path: path.into(), name: None }).to_vec();
        assert_eq!(files(Layout::OciDir, "/fine"), [Requirement::AcceptAnything]);
        assert_eq!(files(Layout::OciDir, "/bad/deep"), [Requirement::Reject]);
        assert_eq!(files(Layout::DockerArchive, "/fine"), [Requirement::Reject]);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for bad in [
            "{}",
            r#"{"default":[]}"#,
            r#"{"default":[{"type":"acceptEverything"}]}"#,
            r#"{"default":[{"type":"reject","extra":1}]}"#,
            r#"{"default":[{"type":"reject"}],"extra":1}"#,
            r#"{"default":[{"type":"sigstoreSigned"}]}"#,
            r#"{"default":[{"type":"signedBy","keyType":"GPGKeys"}]}"#,
            r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/a","keyData":"eA=="}]}"#,
            r#"{"default":[{"type":"signedBy","keyType":"Runes","keyPath":"/a"}]}"#,
            r#"{"default":[{"type":"signedBy","keyPath":"/a"}]}"#,
            r#"{"default":[{"type":"sigstoreSigned","keyPath":"/a","keyData":"eA=="}]}"#,
            r#"{"default":[{"type":"sigstoreSigned","keyPath":"/a","signedIdentity":{"type":"matchAll"}}]}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{"":[]}}}"#,
        ] {
            assert!(Policy::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in [r#"{"type":"signedBaseLayer"}"#, r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"x"}}"#] {
            assert!(Policy::parse(format!(r#"{{"default":[{bad}]}}"#).as_bytes()).is_err(), "{bad}");
        }
        // It refuses its own scope and no other.
        let base = r#"{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"a.io/x":[
            {"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}]}}}"#;
        assert!(kinds(base, "a.io/x:1").contains("signedBaseLayer"));
        assert_eq!(kinds(base, "a.io/y:1"), "[AcceptAnything]");
        let rekor = r#"{"default":[{"type":"sigstoreSigned","keyPath":"/a","rekorPublicKeyPath":"/b"}]}"#;
        assert!(Policy::parse(rekor.as_bytes()).unwrap().default[0].is_refusal());
    }
}
