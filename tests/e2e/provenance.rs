//! Where an image is from: what a registry has attached to it, as policies are told.

use crate::policy::{install, shipped};
use rlrun_tests::{Case, Image, Registry, Rootfs, base_rootfs, case, digest, gzip};
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn image(text: &str) -> Image {
    Image::new("unused:1", base_rootfs().clone()).layer(Rootfs::new().file("etc/which", 0o644, text))
}

/// Media type and predicate of everything that is said about an image.
fn said(case: &Case, name: &str) -> Vec<(String, String)> {
    let all = case.run(["image", "inspect", "-f", "{{json .Attestations}}", name]).ok().out();
    let all: Value = serde_json::from_str(&all).unwrap();
    let text = |statement: &Value, key: &str| statement[key].as_str().unwrap().to_owned();
    all.as_array().unwrap().iter().map(|s| (text(s, "media_type"), text(s, "predicate"))).collect()
}

fn descriptor(kind: &str, bytes: &[u8], annotations: &Value) -> Value {
    json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len(), "annotations": annotations})
}

/// A manifest with one layer.
fn carrying(layer: &Value, config: &[u8]) -> Vec<u8> {
    let config = descriptor("application/vnd.oci.image.config.v1+json", config, &json!({}));
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}).to_string().into_bytes()
}

#[test]
fn what_is_attached_to_an_image_is_found_wherever_tools_put_it() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    let host = format!("localhost:{}", registry.address.port());
    let (name, config) = (format!("{host}/app:1"), b"{}");
    let manifest = registry.add("app", "1", &image("x"));
    case.run(["pull", &name]).ok();
    assert_eq!(said(&case, &name), []);
    // cosign's tag, and the tag that stands for referrers where a registry has none (Debian's has none).
    let statement = b"{\"payload\":\"\"}";
    let layer = descriptor(
        "application/vnd.dsse.envelope.v1+json",
        statement,
        &json!({"predicateType": "https://slsa.dev/provenance/v1"}),
    );
    let tag = |suffix: &str| format!("{}{suffix}", manifest.replace(':', "-"));
    registry.add_manifest("app", &tag(".att"), &carrying(&layer, config), &[config, statement]);
    let artifact =
        json!({"mediaType": MANIFEST, "artifactType": "application/spdx+json", "size": 1, "digest": digest(b"a")});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [artifact]}).to_string();
    registry.add_manifest("app", &tag(""), index.as_bytes(), &[]);
    // What is known is not asked for again, unless a policy wants to be told.
    case.run(["pull", &name]).ok();
    assert_eq!(said(&case, &name), []);
    let source = shipped(&case, "image-source");
    install(&case, &[(&source, Some("require-sbom = true"))]);
    let run = || case.run(["run", "--rm", "--network", "none", "--pull", "never", &name, "true"]);
    run().refused(125, "IMG008");
    case.run(["pull", &name]).ok();
    let found = said(&case, &name);
    let slsa = ("application/vnd.dsse.envelope.v1+json".to_owned(), "https://slsa.dev/provenance/v1".to_owned());
    assert!(found.contains(&slsa) && found.contains(&("application/spdx+json".to_owned(), String::new())), "{found:?}");
    run().ok();
    install(&case, &[(&source, Some("require-signature = true"))]);
    run().refused(125, "IMG007");
    case.run(["rmi", &name]).ok();
    case.run(["system", "check", "-q"]).ok().prints("");
}

#[test]
fn what_a_builder_puts_beside_an_image_is_found() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    let name = format!("localhost:{}/built:1", registry.address.port());
    let (own, blobs) = image("built").oci_manifest("+gzip", gzip);
    let statement = b"{\"_type\":\"https://in-toto.io/Statement/v0.1\"}";
    let layer = descriptor(
        "application/vnd.in-toto+json",
        statement,
        &json!({"in-toto.io/predicate-type": "https://spdx.dev/Document"}),
    );
    let attestation = carrying(&layer, b"{}");
    registry.add_manifest("built", "attestation", &attestation, &[b"{}", statement]);
    registry.add_manifest("built", "image", &own, &blobs.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let mut listed = descriptor(MANIFEST, &own, &json!({}));
    listed["platform"] = json!({"os": "linux", "architecture": image("").architecture});
    let mut beside = descriptor(
        MANIFEST,
        &attestation,
        &json!({"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest(&own)}),
    );
    beside["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed, beside]}).to_string();
    registry.add_manifest("built", "1", index.as_bytes(), &[]);
    install(&case, &[(&shipped(&case, "image-source"), Some("require-sbom = true"))]);
    case.run(["pull", &name]).ok();
    let document = ("application/vnd.in-toto+json".to_owned(), "https://spdx.dev/Document".to_owned());
    assert_eq!(said(&case, &name), [document]);
    case.run(["run", "--rm", "--network", "none", &name, "cat", "/etc/which"]).ok().prints("built");
}
