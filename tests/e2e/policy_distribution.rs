//! Policies travel: pushed and pulled as artifacts, added with a lock, signed, tried out, of a project, told of ends.

use crate::policy::{install, shipped, with_mandatory};
use crate::signatures::{accept_only, make_key, sign};
use rlrun_tests::{BASE, Case, Registry, case};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn write(case: &Case, path: &Path, text: impl AsRef<[u8]>) {
    std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), text.as_ref()).unwrap();
    case.user().own(path);
}

fn policy_dir(case: &Case) -> PathBuf {
    case.home().join(".config/rlrun/policy.d")
}

/// What a registry holds under a tag.
fn manifest(registry: &Registry, repository: &str, tag: &str) -> Value {
    let storage = registry.storage.join("docker/registry/v2");
    let link = storage.join(format!("repositories/{repository}/_manifests/tags/{tag}/current/link"));
    let digest = std::fs::read_to_string(link).unwrap();
    let hex = digest.trim_start_matches("sha256:");
    let data = std::fs::read(storage.join(format!("blobs/sha256/{}/{hex}/data", &hex[..2]))).unwrap();
    serde_json::from_slice(&data).unwrap()
}

#[test]
fn a_policy_goes_to_a_registry_and_comes_back_the_same() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    let reference = format!("localhost:{}/team/cis:1", registry.address.port());
    let file = shipped(&case, "cis");
    let pushed = case.run(["policy", "push", file.to_str().unwrap(), &reference]).ok().out();
    let manifest = manifest(&registry, "team/cis", "1");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    // The same bytes have the same digest, whoever pushes them when.
    assert_eq!(case.run(["policy", "push", file.to_str().unwrap(), &reference]).ok().out(), pushed);
    let pulled = case.run(["policy", "pull", &reference]).ok().out();
    let path = pulled.lines().nth(1).unwrap();
    assert!(pulled.contains(pushed.trim()), "{pulled}");
    assert_eq!(std::fs::read(path).unwrap(), std::fs::read(&file).unwrap());
    // Not asked before it is added, asked when it is named.
    case.run_base(&[], ["true", "sshd"]).ok();
    case.run_base(&["--policy", &reference], ["true", "sshd"]).refused(125, "CIS-5.7");
    let pinned = format!("{}@{}", reference.trim_end_matches(":1"), pushed.trim());
    case.run_base(&["--policy", &pinned], ["true", "sshd"]).refused(125, "CIS-5.7");
    // What was pulled is looked at each time that it is used.
    let directory = Path::new(path).parent().unwrap();
    let manifest = directory.join("manifest.json");
    let spoil = |file: &Path, bytes: &[u8], told: &str| {
        let old = std::fs::read(file).ok();
        write(&case, file, bytes);
        case.run_base(&["--policy", &reference], ["true"]).refused(125, told);
        case.run_base(&["--policy", path], ["true"]).refused(125, told);
        old.map_or_else(|| std::fs::remove_file(file).unwrap(), |old| write(&case, file, old));
        case.run_base(&["--policy", &reference], ["true"]).ok();
    };
    spoil(Path::new(path), &std::fs::read(shipped(&case, "guardrails")).unwrap(), "cis");
    spoil(&manifest, b"{}", "its manifest was changed");
    spoil(&directory.join("cis.toml"), b"skip = ['5.7']\n", "its settings are others");
    std::fs::remove_file(&manifest).unwrap();
    case.run_base(&["--policy", &reference], ["true"]).refused(125, "its manifest is missing");
    case.run(["policy", "pull", &reference]).ok();
    case.run_base(&["--policy", &reference], ["true"]).ok();
    // An image is no policy, and a policy is no image.
    case.run(["pull", &reference]).code(125);
    let image = registry.add("app", "1", &rlrun_tests::Image::new("unused:1", rlrun_tests::base_rootfs().clone()));
    assert!(image.starts_with("sha256:"));
    let name = format!("localhost:{}/app:1", registry.address.port());
    case.run(["policy", "pull", &name]).refused(125, "is no policy");
    case.run(["policy", "pull", &format!("{reference}2")]).code(125);
    case.run(["policy", "push", file.to_str().unwrap(), "other.wasm"]).refused(125, "the last word is where to");
    case.run(["policy", "rm", &reference]).ok();
    assert!(!directory.exists());
    case.run(["policy", "rm", &reference]).refused(125, "was not pulled");
}

#[test]
fn a_policy_is_added_locked_and_removed() {
    let case = case!(Userns);
    let run = || case.run_base(&[], ["true", "sshd"]);
    run().ok();
    case.run(["policy", "add", "cis"]).ok().says("rlrun:policy/create@0.2.0");
    assert!(std::fs::read_to_string(policy_dir(&case).join("policy.lock")).unwrap().contains("[cis]"));
    case.run(["policy", "ls"]).ok().says("cis");
    run().refused(125, "CIS-5.7");
    // Another file in its place is not asked instead.
    let file = policy_dir(&case).join("cis.wasm");
    write(&case, &file, std::fs::read(shipped(&case, "image-source")).unwrap());
    run().refused(125, "not what was added");
    std::fs::remove_file(&file).unwrap();
    run().refused(125, "policy.lock");
    case.run(["policy", "add", "cis"]).ok();
    run().refused(125, "CIS-5.7");
    // Of another reach or with other hooks it needs another word.
    let other = shipped(&case, "house-rules");
    let other = other.to_str().unwrap();
    case.run(["policy", "add", "--name", "cis", other]).refused(125, "--grant clock");
    case.run(["policy", "add", "--name", "cis", "--grant", "clock", other]).refused(125, "--approve");
    run().refused(125, "CIS-5.7");
    case.run(["policy", "add", "--name", "cis", "--grant", "clock", "--approve", other]).ok().says("clock");
    run().ok();
    let tier = case.make_file("home/.config/rlrun/policy.d/policy.toml", "[modes]\ncis = \"warn\"\n");
    case.run(["policy", "rm", "cis"]).refused(125, "is named in").complains("[modes]");
    std::fs::remove_file(tier).unwrap();
    case.run(["policy", "rm", "cis"]).ok();
    case.run(["policy", "rm", "cis"]).refused(125, "not among your policies");
    case.run(["policy", "rm", "../../x"]).refused(125, "not the name");
    assert!(std::fs::read_dir(policy_dir(&case)).unwrap().all(|e| e.unwrap().file_name() == "policy.lock"));
}

#[test]
fn settings_come_along_and_wrong_ones_do_not_come_in() {
    let case = case!(Userns, Registry);
    let settings = case.make_file("s.toml", "skip = [\"5.7\"]\n");
    let wrong = case.make_file("w.toml", "skip = [\"9.9\"]\n");
    case.run(["policy", "add", "--settings", wrong.to_str().unwrap(), "cis"]).refused(125, "9.9");
    assert!(!policy_dir(&case).join("cis.wasm").exists());
    case.run(["policy", "add", "--settings", settings.to_str().unwrap(), "cis"]).ok();
    case.run_base(&[], ["true", "sshd"]).ok();
    case.run(["policy", "rm", "cis"]).ok();
    // A bundle: two policies, one with settings.
    let registry = Registry::http(case.directory());
    let reference = format!("localhost:{}/bundle:1", registry.address.port());
    let directory = case.make_dir("bundle");
    for name in ["cis", "guardrails"] {
        write(&case, &directory.join(format!("{name}.wasm")), std::fs::read(shipped(&case, name)).unwrap());
    }
    write(&case, &directory.join("cis.toml"), "skip = [\"5.7\"]\n");
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let push = ["policy", "push", "--with-settings", &file("cis.wasm"), &file("guardrails.wasm"), &reference];
    case.run(push).ok();
    case.run(["policy", "add", &reference]).ok().says("guardrails");
    assert_eq!(std::fs::read_to_string(policy_dir(&case).join("cis.toml")).unwrap(), "skip = [\"5.7\"]\n");
    case.run_base(&[], ["true", "sshd"]).ok();
    case.run_base(&["-e", "DB_PASSWORD=hunter2"], ["true"]).refused(125, "OWASP-12");
    case.run(["policy", "update"]).ok().says("unchanged");
}

#[test]
fn a_signed_policy_stays_signed() {
    let case = case!(Userns, Registry, Openssl);
    let registry = Registry::http(case.directory());
    let host = format!("localhost:{}", registry.address.port());
    let (reference, repository) = (format!("{host}/p:1"), format!("{host}/p"));
    let push = |name: &str| {
        let file = shipped(&case, name);
        case.run(["policy", "push", file.to_str().unwrap(), &reference]).ok().out().trim().to_owned()
    };
    let (private, public) = make_key(&case, "right");
    let (_, wrong) = make_key(&case, "wrong");
    let first = push("cis");
    let add = |key: &str| case.run(["policy", "add", "--name", "p", "--key", key, &reference]);
    add(&public).refused(125, "signature");
    sign(&case, &registry, "p", &first, (&private, &repository));
    add(&wrong).refused(125, "accepted key");
    add(&public).ok().says("verified");
    // What comes later has to be signed by the same key.
    let second = push("guardrails");
    case.run(["policy", "update", "--approve"]).refused(125, "signature");
    case.run_base(&[], ["true", "sshd"]).refused(125, "CIS-5.7");
    sign(&case, &registry, "p", &second, (&private, &repository));
    case.run(["policy", "update"]).refused(125, "--approve");
    case.run(["policy", "update", "--approve", "p"]).ok().says("updated");
    case.run_base(&[], ["true", "sshd"]).ok();
    // Nor can it be replaced by one that nobody signed.
    let file = shipped(&case, "guardrails");
    case.run(["policy", "add", "--name", "p", file.to_str().unwrap()]).refused(125, "another signer");
}

/// What policy.json demands of a name it demands of policies too, with no option on the command line.
#[test]
fn policy_json_decides_about_policies_too() {
    let case = case!(Userns, Registry, Openssl);
    let registry = Registry::http(case.directory());
    let host = format!("localhost:{}", registry.address.port());
    let (reference, repository) = (format!("{host}/p:1"), format!("{host}/p"));
    let file = shipped(&case, "cis");
    let manifest = case.run(["policy", "push", file.to_str().unwrap(), &reference]).ok().out().trim().to_owned();
    let (private, public) = make_key(&case, "right");
    let (other, _) = make_key(&case, "wrong");
    let add = || case.run(["policy", "add", "--name", "p", &reference]);
    accept_only(&case, &json!({"type": "sigstoreSigned", "fulcio": {}}));
    add().refused(125, "keyless");
    accept_only(&case, &json!({"type": "reject"}));
    add().refused(125, "rejects");
    accept_only(
        &case,
        &json!({"type": "sigstoreSigned", "keyPath": public, "signedIdentity": {"type": "matchRepository"}}),
    );
    add().refused(125, "no signature");
    sign(&case, &registry, "p", &manifest, (&other, &repository));
    add().refused(125, "accepted key");
    registry.remove_tag("p", &format!("{}.sig", manifest.replace(':', "-")));
    sign(&case, &registry, "p", &manifest, (&private, &repository));
    assert!(!policy_dir(&case).join("p.wasm").exists());
    add().ok().says("verified");
    case.run_base(&[], ["true", "sshd"]).refused(125, "CIS-5.7");
}

#[test]
fn a_policy_on_trial_is_told_and_not_obeyed() {
    let case = case!(Userns);
    install(&case, &[(&shipped(&case, "cis"), None)]);
    let config = policy_dir(&case).join("policy.toml");
    write(&case, &config, "[modes]\ncis = \"warn\"\n");
    case.run_base(&[], ["true", "sshd"]).ok().complains("would refuse");
    write(&case, &config, "[modes]\ncis = \"audit\"\n");
    let quiet = case.run_base(&[], ["true", "sshd"]);
    assert!(!quiet.ok().err().contains("CIS"), "{}", quiet.err());
    let journal = std::fs::read_to_string(case.data().join("journal")).unwrap();
    assert!(journal.contains("would-deny") && journal.contains("CIS-5.7"));
}

#[test]
fn a_user_can_only_be_stricter_than_the_administrator() {
    let case = case!(Userns, Root);
    let require = "echo 'required = [\"baseline\"]' > policy.toml";
    let audit = "printf 'required = [\"baseline\"]\n[modes]\nbaseline = \"audit\"\n' > policy.toml";
    let run = &["run", "--rm", "--network", "none", "--cap-add", "SYS_PTRACE", "--policy-baseline=off", BASE, "true"];
    install(&case, &[]);
    let own = policy_dir(&case).join("policy.toml");
    write(&case, &own, "[modes]\nbaseline = \"audit\"\n");
    with_mandatory(&case, require, run).refused(125, "BASE003");
    with_mandatory(&case, audit, run).ok();
    write(&case, &own, "[modes]\nbaseline = \"enforce\"\n");
    with_mandatory(&case, audit, run).refused(125, "BASE003");
}

#[test]
fn a_project_has_policies_of_its_own() {
    let case = case!(Userns);
    let project = case.user().private_directory(&case.directory().join("project"));
    let below = case.user().private_directory(&project.join("below"));
    let hidden = case.user().private_directory(&project.join(".rlrun"));
    let run = |command: &[&str], directory: &Path| case.base(&[], command).in_directory(directory).run();
    let login = &["true", "sshd"][..];
    run(login, &below).ok();
    write(&case, &hidden.join("policy.toml"), "[[policy]]\nuse = \"cis\"\n");
    run(login, &below).refused(125, "project policy cis").complains("policies of the project");
    run(&["true"], &below).ok();
    run(login, case.directory()).ok();
    // It cannot loosen: not the baseline, not by settings of the same name.
    write(
        &case,
        &hidden.join("policy.toml"),
        "[[policy]]\nuse = \"baseline\"\n[policy.settings]\nallow-privileged = true\n",
    );
    let privileged = case.base(&["--privileged"], ["true"]).in_directory(&below);
    privileged.run().refused(125, "builtin policy baseline");
    write(&case, &hidden.join("policy.toml"), "[[policy]]\nref = \"localhost:1/x\"\n");
    run(&["true"], &below).refused(125, "digest");
    write(&case, &hidden.join("policy.toml"), "allow = \"all\"\n");
    run(&["true"], &below).refused(125, "policy.toml");
}

#[test]
fn what_leaves_a_container_and_its_end_are_told() {
    let case = case!(Userns);
    let settings = "[copy-out]\ndeny-images = [\"*\"]\n";
    let file = case.make_file("h.toml", settings);
    case.run(["policy", "add", "--grant", "clock", "--settings", file.to_str().unwrap(), "house-rules"]).ok();
    case.rlrun(["run", "--name", "box", "--network", "none", BASE, "sh", "-c", "exit 3"]).run().code(3);
    case.run(["cp", "box:/etc/passwd", "-"]).refused(125, "HOUSE003");
    case.run(["export", "-o", case.home().join("x.tar").to_str().unwrap(), "box"]).refused(125, "HOUSE003");
    assert!(!case.home().join("x.tar").exists());
    let into = case.make_file("in", "x");
    case.run(["cp", into.to_str().unwrap(), "box:/in"]).ok();
    // Commands that asked policies have told of the end.
    let journal = std::fs::read_to_string(case.data().join("journal")).unwrap();
    assert!(journal.contains("box ended with 3"), "{journal}");
    assert_eq!(journal.matches("box ended with 3").count(), 1);
    case.run(["rm", "box"]).ok();
}
