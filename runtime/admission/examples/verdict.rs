//! What asking policies costs a fresh process: `verdict CACHE POLICYC POLICY.wasm...` prints microseconds from the
//! start of main to the loaded set, to the verdict, and the sum. The second run finds the cache warm.

use rlrun_admission::{PolicySet, Sources, Switch};
use rlrun_spec::container::{ImageIdentity, NetworkMode, UserNamespace};
use rlrun_spec::policy::SeccompOverlay;
use rlrun_spec::{Caller, ContainerSpec, SpecParts};
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (cache, policyc) = (arguments.next().ok_or("CACHE")?, arguments.next().ok_or("POLICYC")?);
    let files: Vec<PathBuf> = arguments.collect();
    let spec = spec()?;
    let caller = Caller { uid: 1000, gid: 1000, user: "alice".into(), origin: "cli".into(), tty: false, ci: false };
    let start = Instant::now();
    let sources = Sources {
        builtins: &[],
        builtin_tier: Switch::Off,
        user_dir: cache.with_file_name("policy.d"),
        files,
        data_dir: cache.with_file_name("data"),
        home: None,
        cache_dir: cache,
        policyc,
        log: None,
        shipped_dir: PathBuf::new(),
        moment: None,
        look_inside: None,
        project: None,
    };
    let set = PolicySet::load(&sources).map_err(|e| e.failure())?;
    let loaded = start.elapsed();
    let verdict = set.evaluate(spec.clone(), &caller);
    let first = start.elapsed() - loaded;
    let again = Instant::now();
    let repeated = set.evaluate(spec, &caller);
    let second = again.elapsed();
    if verdict.is_ok() != repeated.is_ok() {
        return Err("two verdicts on the same request differ".into());
    }
    let total = loaded + first;
    println!(
        "load {} evaluate {} total {} again {} {}",
        loaded.as_micros(),
        first.as_micros(),
        total.as_micros(),
        second.as_micros(),
        if verdict.is_ok() { "admitted" } else { "denied" }
    );
    Ok(())
}

/// About as much as `run -v ... busybox` makes.
fn spec() -> Result<ContainerSpec, Box<dyn Error>> {
    let capabilities = serde_json::json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETUID"]);
    let env: Vec<String> = (0..20).map(|i| format!("VARIABLE_{i}=a value of some length {i}")).collect();
    let bind = |i: usize| {
        serde_json::json!({"destination": format!("/data/{i}"), "type": "bind", "source": format!("/srv/data/{i}"),
            "options": ["rbind", "rw", "nosuid", "nodev"]})
    };
    let mounts: Vec<serde_json::Value> = (0..10).map(bind).collect();
    let oci = serde_json::json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/", "env": env, "noNewPrivileges": true,
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                           {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/sys"],
        },
    });
    Ok(ContainerSpec::new(SpecParts {
        id: "0".repeat(64),
        name: "measured".into(),
        image: Some(ImageIdentity {
            reference: "docker.io/library/busybox:latest".into(),
            digest: format!("sha256:{}", "a".repeat(64)),
            id: format!("sha256:{}", "a".repeat(64)),
            platform: "linux/amd64".into(),
        }),
        privileged: false,
        network: NetworkMode::None,
        ports: Vec::new(),
        dns: Vec::new(),
        egress: None,
        seccomp_overlay: SeccompOverlay::default(),
        userns: UserNamespace::Default,
        init: false,
        interactive: false,
        seccomp_profile: "default".into(),
        resolved_sources: (0..10).map(|i| (format!("/data/{i}"), format!("/srv/data/{i}"))).collect(),
        controls: Vec::new(),
        imposable: Vec::new(),
        beside: rlrun_spec::container::Beside::default(),
        oci: serde_json::from_value(oci)?,
    })?)
}
