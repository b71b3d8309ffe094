//! The author's loop: a new project, built, tested, looked at, used.

use rlrun_tests::{BASE, Case, case};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A new project of a template, in a directory that the user may write.
fn project(case: &Case, name: &str, language: &str) -> PathBuf {
    let dir = case.make_dir("work").join(name);
    case.run(["policy", "new", name, "--lang", language, "--dir", dir.to_str().unwrap()]).ok().says("next:");
    dir
}

/// Writes a file of the user's, whatever was there before.
fn put(case: &Case, name: &str, text: &str) -> PathBuf {
    let path = case.directory().join(name);
    // It may be the first.
    std::fs::remove_file(&path).unwrap_or_default();
    case.make_file(name, text)
}

fn policy(case: &Case, verb: &str, words: &[&str]) -> rlrun_tests::Output {
    patiently(case, &[&["policy", verb], words].concat())
}

/// A large policy is compiled once, which takes its time where the compiler itself was built without optimisation.
fn patiently(case: &Case, words: &[&str]) -> rlrun_tests::Output {
    case.rlrun(words).within(200).run()
}

/// What every template has to do: its cases pass, it says what it is, it is asked.
fn works(case: &Case, dir: &Path, name: &str, build: &[&str]) {
    let shown = dir.to_str().unwrap();
    policy(case, "test", &[&[shown], build].concat()).ok().says("deny-root").says("hooks: create:").says("0 failed");
    let component = dir.join(format!("{name}.wasm"));
    let component = component.to_str().unwrap();
    policy(case, "inspect", &[component]).ok().says("ROOT001").says("reaches:").says("nothing");
    patiently(case, &["run", "--rm", "--network", "none", "--policy", component, BASE, "true"])
        .refused(125, name)
        .complains("the container runs as root")
        .complains("--user 1000:1000");
    patiently(case, &["run", "--rm", "--network", "none", "--user", "1000", "--policy", component, BASE, "true"]).ok();
}

#[test]
fn a_policy_in_c_from_nothing() {
    let case = case!(Userns, WasmC);
    let dir = project(&case, "no-root", "c");
    works(&case, &dir, "no-root", &[]);
}

#[test]
fn a_policy_in_javascript_from_nothing_needs_no_compiler() {
    let case = case!(Userns);
    let dir = project(&case, "no-root", "js");
    works(&case, &dir, "no-root", &[]);
    let component = dir.join("no-root.wasm");
    settings_are_checked(&case, component.to_str().unwrap());
    let text = dir.join("policy.js");
    let wrong = |text: &str| {
        put(&case, "work/no-root/policy.js", text);
        policy(&case, "build", &[dir.to_str().unwrap()])
    };
    let good = std::fs::read_to_string(&text).unwrap();
    wrong("function create( {").refused(125, "no-root").complains("SyntaxError");
    wrong("function exec() {}").refused(125, "there is no function `create`, which `hooks` names");
    wrong(&(good.clone() + "const exec = () => abstain();\n")).refused(125, "`exec`, which `hooks` does not name");
    wrong("while (true) {}\nfunction create() {}").refused(125, "did not come to an end");
    wrong("const a = []; while (true) a.push('x'.repeat(65536));\nfunction create() {}").refused(125, "no-root");
}

#[test]
fn a_policy_in_python_from_nothing() {
    let case = case!(Userns, WasmPython);
    let dir = project(&case, "no-root", "python");
    // Compiling all of CPython a second time, for a start, would show nothing new.
    let tested = policy(&case, "test", &[dir.to_str().unwrap()]);
    tested.ok().says("deny-root").says("hooks: create:").says("3 passed, 0 failed");
}

/// Rust's own tool belongs to whoever runs the tests, so that user builds.
#[test]
fn a_policy_in_rust_from_nothing() {
    let case = case!(Userns);
    let dir = project(&case, "no-root", "rust");
    let share = case.program().ancestors().nth(2).unwrap().join("share/rlrun/policy-sdk");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("template-rust");
    let built = Command::new("sh")
        .arg("build.sh")
        .current_dir(&dir)
        .env("RLRUN_POLICY_SDK", share)
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let made = dir.join("no_root.wasm");
    std::fs::copy(target.join("wasm32-unknown-unknown/release/no_root.wasm"), &made).unwrap();
    case.user().own(&made);
    let description = dir.join("policy.toml");
    let text = std::fs::read_to_string(&description).unwrap();
    let text = text.replace(r#"command = ["sh", "build.sh"]"#, r#"command = ["true"]"#);
    let text = text.replace("target/wasm32-unknown-unknown/release/no_root.wasm", "no_root.wasm");
    let text = text.replace(r#"program = "cargo""#, r#"program = "true""#);
    std::io::Write::write_all(&mut std::fs::File::create(&description).unwrap(), text.as_bytes()).unwrap();
    works(&case, &dir, "no-root", &[]);
    let component = dir.join("no-root.wasm");
    settings_are_checked(&case, component.to_str().unwrap());
}

/// The template has the setting `allow`.
fn settings_are_checked(case: &Case, component: &str) {
    case.make_dir("given");
    let settings = |text: &str| put(case, "given/settings.toml", text);
    let wrong = settings("allows = []\n");
    policy(case, "fmt", &[component, "--settings", wrong.to_str().unwrap()])
        .refused(125, "allows")
        .complains("did you mean `allow`?");
    let untidy = settings("allow=[ 'docker.io/' ]   \n\n\n");
    let path = untidy.to_str().unwrap();
    policy(case, "fmt", &[component, "--settings", path, "--check"]).code(1).says("would be changed");
    policy(case, "fmt", &[component, "--settings", path]).ok().says("formatted");
    assert_eq!(std::fs::read_to_string(&untidy).unwrap(), "allow = [ 'docker.io/' ]\n");
    policy(case, "fmt", &[component, "--settings", path, "--check"]).ok().says("fits sha256:");
}

#[test]
fn a_case_that_fails_says_how_and_is_the_exit_code() {
    let case = case!(Userns);
    let shipped = case.program().ancestors().nth(2).unwrap().join("share/rlrun/policies/baseline.wasm");
    let shipped = shipped.to_str().unwrap();
    let cases = case.make_dir("cases");
    let write = |text: &str| put(&case, "cases/one.json", text);
    let test = || policy(&case, "test", &[shipped, "--cases", cases.to_str().unwrap()]);
    write(r#"{"hook": "create", "request": {"privileged": true}, "expect": {"decision": "allow"}}"#);
    test().code(1).says("FAILED: expected allow [], not deny [BASE001]").says("0 passed, 1 failed");
    write(r#"{"hook": "create", "request": {"privilegd": true}, "expect": {"decision": "deny"}}"#);
    test().code(1).says("did you mean `privileged`?");
    write(r#"{"hook": "no-such", "expect": {"decision": "deny"}}"#);
    test().code(1).says("does not have the hook no-such").says("NOT TESTED");
    write("{");
    test().refused(125, "one.json");
    write(
        r#"{"hook": "create", "request": {"privileged": true}, "expect": {"decision": "deny", "codes": ["BASE001"]}}"#,
    );
    test().ok().says("1 passed, 0 failed");
    let json = policy(&case, "test", &[shipped, "--cases", cases.to_str().unwrap(), "--format", "json"]).ok().out();
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(rows[0]["Passed"], true);
    let one = cases.join("one.json");
    let one = one.to_str().unwrap();
    policy(&case, "trace", &[shipped, "--request", one]).ok().says("#on-create").says("BASE001").says("fuel:");
    let asked = policy(&case, "eval", &["--request", one]);
    asked.code(125).says("BASE001").complains("baseline").complains("`expect` is not compared");
    let other = put(&case, "cases/other.json", r#"{"hook": "create", "settings": {}, "request": {}}"#);
    policy(&case, "eval", &["--request", other.to_str().unwrap()]).refused(125, "`settings`");
    policy(&case, "bench", &[shipped, "--rounds", "2"]).ok().says("compile").says("again");
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let case = case!(Userns);
    let work = case.make_dir("work");
    let at = |name: &str| work.join(name).to_str().unwrap().to_owned();
    policy(&case, "new", &["x", "--lang", "cobol", "--dir", &at("x")]).refused(125, "cobol").complains("rust");
    policy(&case, "new", &["../x", "--dir", &at("y")]).refused(125, "../x");
    policy(&case, "new", &["x", "--dir", work.to_str().unwrap()]).refused(125, "File exists");
    policy(&case, "build", &[work.to_str().unwrap()]).refused(125, "policy.toml").complains("policy new");
    policy(&case, "test", &["/nowhere.wasm"]).refused(125, "/nowhere.wasm");
    put(&case, "work/policy.toml", "name = 'p'\n[build]\ncommand = ['false']\noutput = 'p.core'\n");
    policy(&case, "build", &[work.to_str().unwrap()]).refused(125, "false");
    put(
        &case,
        "work/policy.toml",
        "name = 'p'\n[build]\ncommand = ['true']\noutput = 'p.core'\n[[build.needs]]\nprogram = 'nobody-has-this'\n\
         get = 'write it'\n",
    );
    policy(&case, "build", &[work.to_str().unwrap()]).refused(125, "nobody-has-this").complains("write it");
    put(&case, "work/policy.toml", "name = 'p'\n[build]\ncommand = ['true']\noutput = 'p.core'\n");
    policy(&case, "build", &[work.to_str().unwrap()]).refused(125, "p.core");
    put(&case, "work/p.core", "no wasm");
    policy(&case, "build", &[work.to_str().unwrap()]).refused(125, "is not WebAssembly");
    assert!(!work.join("p.wasm").exists());
}

/// The cases of a shipped policy, asked of the component.
fn its_cases_pass(case: &Case, name: &str) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies").join(name).join("fixtures");
    let cases = case.make_dir(name);
    for entry in std::fs::read_dir(fixtures).unwrap() {
        let entry = entry.unwrap();
        let file = format!("{name}/{}", entry.file_name().to_str().unwrap());
        put(case, &file, &std::fs::read_to_string(entry.path()).unwrap());
    }
    let component = case.program().ancestors().nth(2).unwrap().join(format!("share/rlrun/policies/{name}.wasm"));
    policy(case, "test", &[component.to_str().unwrap(), "--cases", cases.to_str().unwrap()]).ok().says("0 failed");
}

#[test]
fn a_rule_in_cel_needs_no_compiler() {
    let case = case!(Userns);
    its_cases_pass(&case, "cel");
    case.make_dir("rules");
    let text = put(&case, "rules/no-root.cel", "container.uid != 0\n");
    policy(&case, "build", &[text.to_str().unwrap()]).ok().says("no-root.wasm");
    let component = text.with_extension("wasm");
    let component = component.to_str().unwrap();
    patiently(&case, &["run", "--rm", "--network", "none", "--policy", component, BASE, "true"])
        .refused(125, "NO-ROOT");
    patiently(&case, &["run", "--rm", "--network", "none", "--user", "7", "--policy", component, BASE, "true"]).ok();
    let wrong = put(&case, "rules/wrong.cel", "container.uid !=\n");
    policy(&case, "build", &[wrong.to_str().unwrap()]).refused(125, "wrong");
    // What a policy was built with cannot be changed afterwards.
    put(&case, "rules/no-root.toml", "rule = []\n");
    patiently(&case, &["run", "--rm", "--network", "none", "--user", "7", "--policy", component, BASE, "true"])
        .refused(125, "no-root");
}

#[test]
fn existing_rego_needs_no_compiler() {
    let case = case!(Userns);
    its_cases_pass(&case, "rego");
    case.make_dir("rules");
    let rule = "package x\nimport rego.v1\ndeny contains {\"code\": \"R1\", \"msg\": \"as root\", \"path\": \"/uid\", \
                \"help\": \"use --user\"} if input.container.uid == 0\n";
    let text = put(&case, "rules/no-root.rego", rule);
    policy(&case, "build", &[text.to_str().unwrap()]).ok().says("no-root.wasm");
    let component = text.with_extension("wasm");
    let component = component.to_str().unwrap();
    patiently(&case, &["run", "--rm", "--network", "none", "--policy", component, BASE, "true"])
        .refused(125, "as root");
    policy(&case, "explain", &[]).ok().says("no-root").says("[R1] as root").says("/uid").says("use --user");
    policy(&case, "explain", &["R1"]).ok().says("no-root");
    patiently(&case, &["run", "--rm", "--network", "none", "--user", "7", "--policy", component, BASE, "true"]).ok();
    policy(&case, "explain", &["no-such-thing"]).refused(125, "no-such-thing");
    policy(&case, "explain", &["CIS-5.7"]).ok().says("was not said of anything yet").says("cis:");
}

/// What a new policy would have said of what was started, and what cannot be known of it.
#[test]
fn the_past_is_asked_again() {
    let case = case!(Userns);
    let rows = |words: &[&str], code: i32| -> Vec<serde_json::Value> {
        let json = policy(&case, "replay", &[words, &["--format", "json"]].concat()).code(code).out();
        serde_json::from_str(&json).unwrap()
    };
    // Others may have been started before.
    let before = rows(&[], 0).len();
    let run = |words: &[&str]| case.run_base(&[&["--network", "none"], words].concat(), ["true"]);
    run(&["--name", "first", "-e", "PASS=hunter2"]).ok();
    run(&["--name", "second", "--user", "7"]).ok();
    run(&["--name", "third", "--privileged"]).refused(125, "baseline");
    let told = |words: &str, more: usize| words.replace('N', &(before + more).to_string());
    let begun = policy(&case, "replay", &[]);
    begun
        .ok()
        .says(&told("N asked again", 3))
        .says("1 refused, 0 cannot be told")
        .says("values of environment variables");
    case.make_dir("rules");
    let rule = "package x\nimport rego.v1\ndeny contains {\"code\": \"R1\", \"msg\": \"as root\"} if \
                input.container.uid == 0\n";
    let text = put(&case, "rules/no-root.rego", rule);
    policy(&case, "build", &[text.to_str().unwrap()]).ok();
    let component = text.with_extension("wasm");
    let component = component.to_str().unwrap();
    let table = patiently(&case, &["policy", "replay", component]);
    table.code(1).says("R1").says(&told("N would be refused that were let pass", 1));
    table.says("hooks that are not asked again: image, exec");
    let changed = rows(&[component, "--changed"], 1);
    assert_eq!(changed.len(), before + 1, "{changed:?}");
    let first = changed.last().unwrap();
    assert_eq!((&first["Name"], &first["Then"], &first["Now"]), (&"first".into(), &"allow".into(), &"deny".into()));
    assert_eq!(first["RefusedBy"][0], "no-root");
    assert!(first["NotReplayed"].to_string().contains("environment"), "{first}");
    policy(&case, "replay", &["--since", "2099-01-01"]).ok().says("0 asked again");
    policy(&case, "replay", &["--until", "2001-01-01"]).ok().says("0 asked again");
    policy(&case, "replay", &["--since", "soon"]).refused(125, "soon");
    let kept = case.data().join("journal.requests");
    let all: Vec<_> = std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in &all {
        assert!(!std::fs::read_to_string(path).unwrap().contains("hunter2"));
        std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), b"{}").unwrap();
    }
    policy(&case, "replay", &[component]).ok().says("unknown: was changed since").says(&told("N cannot be told", 3));
    // The same run writes anew what is not what it was.
    run(&["--user", "7"]).ok();
    policy(&case, "replay", &[component]).ok().says("2 allowed").says(&told("N cannot be told", 2));
    all.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    policy(&case, "replay", &[component]).ok().says("is not kept any more").says(&told("N cannot be told", 4));
    case.run(["system", "reset", "--force"]).ok();
    assert!(kept.is_dir());
}

#[test]
fn a_text_is_asked_at_the_hooks_that_its_project_names() {
    let case = case!(Userns).keeping_containers();
    let work = case.make_dir("work");
    let project = |hooks: &str, file: &str, text: &str| {
        put(&case, "work/policy.toml", &format!("name = 'p'\n[build]\ntext = '{file}'\nhooks = {hooks}\n"));
        put(&case, &format!("work/{file}"), text);
        policy(&case, "build", &[work.to_str().unwrap()])
    };
    project("['bogus']", "p.cel", "true").refused(125, "bogus");
    project("[]", "p.cel", "true").refused(125, "never be asked");
    project("['exec']", "p.cel", "exec.args[0] != \"sh\"").ok();
    let component = work.join("p.wasm");
    let component = component.to_str().unwrap();
    let added = policy(&case, "add", &[component]);
    assert!(!added.ok().says("exec").out().contains("publish"), "{}", added.out());
    let list = policy(&case, "ls", &[]);
    assert!(!list.ok().says("GRANTS").out().contains("publish"), "{}", list.out());
    let id = case.detached(&["--name", "box"], ["sleep", "1000"]);
    assert_eq!(id.len(), 64);
    case.run(["exec", "box", "true"]).ok();
    case.run(["exec", "box", "sh", "-c", "true"]).refused(125, "p does not hold");
    policy(&case, "rm", &["p"]).ok();
    // As Rego was written before `import rego.v1`; where the files go is told.
    project("['copy-out']", "p.rego", "package x\ndeny[msg] { msg := input.copy.destination }\n").ok();
    policy(&case, "add", &[component]).ok().says("copy-out");
    let file = case.directory().join("box.tar");
    let file = file.to_str().unwrap();
    case.run(["export", "-o", file, "box"]).refused(125, file);
    assert!(!Path::new(file).exists());
    policy(&case, "rm", &["p"]).ok();
    project("['create']", "p.rego", "package x\ndeny contains m if {\n").refused(125, "import rego.v1");
    case.run(["rm", "-f", "-t", "0", "box"]).ok();
}
