//! policy.json decides what comes in, and cosign's signatures are verified with a key alone.

use rlrun_tests::{Case, FakeRegistry, Image, Registry, Reply, Rootfs, base_rootfs, case, digest, gzip};
use serde_json::json;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

fn write(path: &Path, data: impl AsRef<[u8]>) {
    std::fs::File::create(path).unwrap().write_all(data.as_ref()).unwrap();
}

fn openssl(words: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(words).output().unwrap();
    assert!(output.status.success(), "openssl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A pair of keys as cosign makes them: ECDSA on P-256.
pub(crate) fn make_key(case: &Case, name: &str) -> (String, String) {
    let private = case.directory().join(format!("{name}.pem")).to_str().unwrap().to_owned();
    let public = case.directory().join(format!("{name}.pub")).to_str().unwrap().to_owned();
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &private]);
    openssl(&["ec", "-in", &private, "-pubout", "-out", &public]);
    (private, public)
}

/// Signs an image of a registry as `cosign sign --key` does.
pub(crate) fn sign(case: &Case, registry: &Registry, repository: &str, manifest: &str, by: (&str, &str)) {
    let Signed { signed, payload } = signature(case, manifest, by);
    let tag = format!("{}.sig", manifest.replace(':', "-"));
    registry.add_manifest(repository, &tag, signed.as_bytes(), &[CONFIG, payload.as_bytes()]);
}

const CONFIG: &[u8] = br#"{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}"#;

/// The manifest of a signature, and what it has signed.
struct Signed {
    signed: String,
    payload: String,
}

fn signature(case: &Case, manifest: &str, (key, said): (&str, &str)) -> Signed {
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": said},
            "image": {"docker-manifest-digest": manifest},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string();
    let file = case.directory().join("payload.json");
    write(&file, &payload);
    let signature = openssl(&["dgst", "-sha256", "-sign", key, file.to_str().unwrap()]);
    write(&case.directory().join("payload.sig"), signature);
    let encoded = openssl(&["base64", "-A", "-in", case.directory().join("payload.sig").to_str().unwrap()]);
    let signed = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(CONFIG),
            "size": CONFIG.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": digest(payload.as_bytes()),
            "size": payload.len(),
            "annotations": {"dev.cosignproject.cosign/signature": String::from_utf8(encoded).unwrap()},
        }],
    })
    .to_string();
    Signed { signed, payload }
}

pub(crate) fn accept_only(case: &Case, requirement: &serde_json::Value) {
    case.user().private_directory(&case.home().join(".config"));
    let directory = case.user().private_directory(&case.home().join(".config/containers"));
    let path = directory.join("policy.json");
    let policy =
        json!({"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {"": [requirement]}}});
    write(&path, policy.to_string());
    case.user().own(&path);
}

fn image(text: &str) -> Image {
    Image::new("unused:1", base_rootfs().clone()).layer(Rootfs::new().file("etc/which", 0o644, text))
}

fn layers(case: &Case) -> usize {
    std::fs::read_dir(case.data().join("blobs/sha256")).unwrap().count()
}

#[test]
fn what_policy_json_rejects_never_comes_in() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    registry.add("app", "1", &image("x"));
    let name = format!("localhost:{}/app:1", registry.address.port());
    let before = layers(&case);
    for (requirement, why) in [
        (json!({"type": "reject"}), "rejects"),
        (json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/no/such/key"}), "/no/such/key"),
        (json!({"type": "signedBy", "keyType": "X509Certificates", "keyPath": "/k"}), "GPGKeys"),
        (json!({"type": "sigstoreSigned", "keyPath": "/no/such/key"}), "/no/such/key"),
        (json!({"type": "sigstoreSigned", "fulcio": {}}), "keyless"),
        (json!({"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}), "no program verifies it"),
        (json!({"type": "somethingNew"}), "policy.json"),
    ] {
        accept_only(&case, &requirement);
        case.run(["pull", &name]).refused(125, why);
        case.run(["run", "--rm", "--network", "none", &name, "true"]).refused(125, why);
    }
    assert_eq!(layers(&case), before, "nothing of it is there");
    accept_only(&case, &json!({"type": "insecureAcceptAnything"}));
    case.run(["pull", &name]).ok();
    // Files have scopes of their own.
    let archive = case.make_file("a.tar", image("y").docker_archive().bytes());
    let path = case.home().join(".config/containers/policy.json");
    write(&path, r#"{"default": [{"type": "reject"}]}"#);
    case.run(["load", "-i", archive.to_str().unwrap()]).refused(125, "rejects");
    let allowed = json!({"default": [{"type": "reject"}],
        "transports": {"docker-archive": {"": [{"type": "insecureAcceptAnything"}]}}});
    write(&path, allowed.to_string());
    case.run(["load", "-i", archive.to_str().unwrap()]).ok();
}

#[test]
fn an_image_comes_in_when_the_right_key_has_signed_it() {
    let case = case!(Userns, Registry, Openssl);
    let registry = Registry::http(case.directory());
    let manifest = registry.add("app", "1", &image("signed"));
    let host = format!("localhost:{}", registry.address.port());
    let (name, repository) = (format!("{host}/app:1"), format!("{host}/app"));
    let (right, right_public) = make_key(&case, "right");
    let (wrong, wrong_public) = make_key(&case, "wrong");
    let demand = |key: &str, identity: &str| json!({"type": "sigstoreSigned", "keyPath": key, "signedIdentity": {"type": identity}});
    accept_only(&case, &demand(&right_public, "matchRepository"));
    let before = layers(&case);
    case.run(["pull", &name]).refused(125, "no signature");
    sign(&case, &registry, "app", &manifest, (&wrong, &repository));
    case.run(["pull", &name]).refused(125, "accepted key");
    registry.remove_tag("app", &format!("{}.sig", manifest.replace(':', "-")));
    // Signed by the right key, but another image, or for another name.
    let other = digest(b"other");
    sign_as(&case, &registry, &manifest, &other, (&right, &repository));
    case.run(["pull", &name]).refused(125, "another image");
    registry.remove_tag("app", &format!("{}.sig", manifest.replace(':', "-")));
    sign(&case, &registry, "app", &manifest, (&right, "localhost:1/else"));
    case.run(["pull", &name]).refused(125, "localhost:1/else");
    registry.remove_tag("app", &format!("{}.sig", manifest.replace(':', "-")));
    assert_eq!(layers(&case), before, "nothing of it is there");

    sign(&case, &registry, "app", &manifest, (&right, &repository));
    case.run(["pull", &name]).ok();
    case.run(["image", "verify", &name]).ok().says(&manifest);
    case.run(["image", "verify", "--key", &right_public, &name]).ok().says(&repository);
    case.run(["image", "verify", "--key", &wrong_public, &name]).refused(125, "accepted key");
    // The name in it has no tag, which is not the exact name.
    accept_only(&case, &demand(&right_public, "matchExact"));
    case.run(["pull", &name]).refused(125, "signature is for");
}

/// As [`sign`], with a statement about another digest than the one it is attached to.
fn sign_as(case: &Case, registry: &Registry, manifest: &str, stated: &str, (key, said): (&str, &str)) {
    sign(case, registry, "app", stated, (key, said));
    let tag = |digest: &str| format!("{}.sig", digest.replace(':', "-"));
    registry.move_tag("app", &tag(stated), &tag(manifest));
}

/// A registry of OCI 1.1 tells what refers to an image; the signature has no tag of its own.
#[test]
fn a_signature_that_refers_to_its_image_is_found() {
    let case = case!(Userns);
    let (private, public) = make_key(&case, "key");
    let (own, _) = image("referred to").oci_manifest("+gzip", gzip);
    let manifest = digest(&own);
    let identity = json!({"type": "exactRepository", "dockerRepository": "example.com/app"});
    accept_only(&case, &json!({"type": "sigstoreSigned", "keyPath": public, "signedIdentity": identity}));
    let pull = |artifact_type: &str, key: &str| {
        let Signed { signed, payload } = signature(&case, &manifest, (key, "example.com/app:1"));
        let mut replies = FakeRegistry::replies(&image("referred to"));
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let listed = json!({"mediaType": kind, "artifactType": artifact_type, "digest": digest(signed.as_bytes()), "size": signed.len()});
        let index = "application/vnd.oci.image.index.v1+json";
        let list = json!({"schemaVersion": 2, "mediaType": index, "manifests": [listed]}).to_string();
        replies.insert(format!("/v2/app/referrers/{manifest}"), Reply::ok(index, list));
        replies.insert(format!("/v2/app/manifests/{}", digest(signed.as_bytes())), Reply::ok(kind, signed));
        let blob = format!("/v2/app/blobs/{}", digest(payload.as_bytes()));
        replies.insert(blob, Reply::ok("application/octet-stream", payload));
        let registry = FakeRegistry::serving(replies);
        case.run(["pull", &registry.reference()])
    };
    let cosign = "application/vnd.dev.cosign.artifact.sig.v1+json";
    pull("application/spdx+json", &private).refused(125, "no signature of it");
    let (other, _) = make_key(&case, "other");
    pull(cosign, &other).refused(125, "accepted key");
    pull(cosign, &private).ok();
}
