use super::*;
use crate::host::test_facts;
use serde_json::json;

/// What `runc spec --rootless` writes, in short.
fn config() -> Value {
    json!({
        "ociVersion": "1.0.2-dev",
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "cwd": "/",
            "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"]},
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime"]},
            {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "user"}]
        }
    })
}

fn write(directory: &Path, text: &str) {
    let mut file = File::create(directory.join("config.json")).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}

fn bundle(config: &Value) -> (tempfile::TempDir, Result<(Bundle, Vec<String>), Failure>) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("rootfs")).unwrap();
    write(directory.path(), &config.to_string());
    let read = Bundle::read(directory.path());
    (directory, read)
}

fn built(config: &Value) -> Result<Built, Failure> {
    let (_directory, read) = bundle(config);
    let (bundle, _) = read?;
    let host = test_facts();
    let ids = bundle.ids(&host)?;
    let request = bundle.request("web", LimitsLevel::Prefer)?;
    let (userns, bundle) = (UserNamespace::Default, request.bundle.as_ref().unwrap());
    build(Inputs { request: &request, bundle, host: &host, ids: &ids, userns: &userns, id: "0", name: "web" })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut config = config();
    match config.pointer_mut(pointer) {
        Some(there) => *there = value,
        None => {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            config.pointer_mut(parent).unwrap()[name] = value;
        }
    }
    config
}

fn why(config: &Value) -> String {
    built(config).unwrap_err().to_string()
}

#[test]
fn what_runc_writes_is_taken() {
    let built = built(&config()).unwrap();
    let parts = built.spec.parts();
    assert_eq!((parts.network, parts.image.as_ref()), (NetworkMode::Host, None));
    let mounts = parts.oci.mounts().as_ref().unwrap();
    let sys = mounts.iter().find(|m| m.destination() == Path::new("/sys")).unwrap();
    assert_eq!(sys.typ().as_deref(), Some("bind"));
    assert!(parts.resolved_sources.contains(&("/sys".to_owned(), "/sys".to_owned())));
    assert!(built.warnings.iter().any(|told| told.contains("/sys/fs/cgroup is left out")), "{:?}", built.warnings);
    let sets = parts.oci.process().as_ref().unwrap().capabilities().clone().unwrap();
    assert!(sets.ambient().as_ref().unwrap().is_empty());
}

#[test]
fn limits_of_a_configuration_go_the_same_way() {
    let resources = json!({
        "memory": {"limit": 67_108_864, "swap": 67_108_864},
        "cpu": {"quota": 20_000, "period": 100_000, "shares": 512},
        "pids": {"limit": 9}
    });
    let built = built(&with("/linux/resources", resources)).unwrap();
    let names: Vec<_> = built.spec.parts().controls.iter().map(|c| (c.name.as_str(), c.requested.as_str())).collect();
    assert!(names.contains(&("pids-limit", "9")), "{names:?}");
    assert!(names.iter().any(|(name, asked)| *name == "memory-limit" && asked.contains("67108864")), "{names:?}");
    assert!(names.iter().any(|(name, _)| *name == "cpu-shares"), "{names:?}");
}

#[test]
fn what_cannot_be_honoured_is_refused_by_its_field() {
    let refused = [
        ("/hooks", json!({"prestart": [{"path": "/bin/true"}]}), "/hooks"),
        ("/linux/namespaces", json!([{"type": "pid"}, {"type": "mount"}]), "user namespace"),
        ("/linux/namespaces/0", json!({"type": "pid", "path": "/proc/1/ns/pid"}), "/linux/namespaces/0/path"),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), "/linux/uidMappings"),
        ("/linux/resources", json!({"cpu": {"burst": 5}}), "cpu/burst"),
        ("/linux/resources", json!({"cpu": {"period": 1}}), "cpu/period"),
        ("/linux/resources", json!({"unified": {"memory.high": "1"}}), "unified"),
        ("/linux/resources", json!({"memory": {"kernel": 5}}), "memory/kernel"),
        ("/linux/resources", json!({"memory": {"limit": 5}}), "nothing starts in less"),
        ("/process/args", json!([]), "/process/args"),
        ("/process/user", json!({"uid": 4_000_000_000_u32, "gid": 0}), "/process/user/uid"),
        ("/mounts/0", json!({"destination": "/x", "type": "bind", "source": "/not/there"}), "/mounts/0"),
        ("/ociVersion", json!("2.0.0"), "/ociVersion"),
        ("/windows", json!({"layerFolders": ["x"]}), "/windows"),
    ];
    for (pointer, value, part) in refused {
        let told = why(&with(pointer, value));
        assert!(told.contains(part), "{pointer}: {told}");
    }
}

#[test]
fn properties_that_nobody_knows_are_told() {
    let (_directory, read) = bundle(&with("/process/mood", json!("fine")));
    assert_eq!(read.unwrap().1, ["config.json: /process/mood is not known and passed over"]);
    let (_directory, read) = bundle(&with("/process/nothing", json!(false)));
    assert_eq!(read.unwrap().1, Vec::<String>::new());
}

#[test]
fn no_configuration_is_a_failure_and_no_panic() {
    for text in ["", "{", "[]", "{}", "null", r#"{"ociVersion":"1.0.0","root":{"path":"/not/there"}}"#] {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), text);
        assert!(Bundle::read(directory.path()).is_err(), "{text}");
    }
}

#[test]
fn an_update_leaves_what_it_does_not_name() {
    use crate::request::limits::{LimitRequest, Pids, Swap};
    let mut limits = LimitRequest {
        memory: Some(64 << 20),
        memory_swap: Some(Swap::AtMost(64 << 20)),
        cpu_millis: Some(500),
        pids: Some(Pids::AtMost(20)),
        ..LimitRequest::default()
    };
    change(&json!({"memory": {"limit": 128 << 20}}), &mut limits).unwrap();
    assert_eq!((limits.memory, limits.memory_swap), (Some(128 << 20), None));
    assert_eq!((limits.cpu_quota, limits.cpu_period), (Some(50_000), Some(100_000)));
    assert_eq!(limits.pids, Some(Pids::AtMost(20)));
    change(&json!({"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": 0}}), &mut limits).unwrap();
    assert_eq!((limits.memory, limits.memory_swap, limits.cpu_quota), (None, None, None));
    assert_eq!(limits.pids, Some(Pids::Unlimited));
    for bad in [json!({"memory": 5}), json!({"cpu": {"shares": 1}}), json!({"unified": {"pids.max": "5"}})] {
        assert!(change(&bad, &mut limits).is_err(), "{bad}");
    }
}
