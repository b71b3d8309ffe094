//! What the tests share: sources of their own, a configuration, WAT to files.

#![allow(dead_code, reason = "each test program uses a part of it")]

use rlrun_admission::{PolicySet, Sources, Switch};
use rlrun_spec::container::{ImageIdentity, NetworkMode, UserNamespace};
use rlrun_spec::policy::{Denied, SeccompOverlay};
use rlrun_spec::{Caller, ContainerSpec, SpecParts};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub const DIGEST: &str = "sha256:9ae97d36d26566ff84e8893c64a6dc4fe8ca6d1144bf5b87b2b85a32def253c7";

/// xorshift64*: the same changes on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}

/// A user's directories in a temporary place.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn sources(&self) -> Sources {
        Sources {
            builtins: &[],
            builtin_tier: Switch::On,
            user_dir: self.path("config/policy.d"),
            files: Vec::new(),
            cache_dir: self.path("cache/policy"),
            policyc: PathBuf::from(env!("CARGO_BIN_EXE_rlrun-policyc")),
            data_dir: self.path("data"),
            home: None,
            log: None,
            shipped_dir: self.path("share"),
            moment: None,
            look_inside: None,
            project: None,
        }
    }

    /// A file in the user's directory of policies.
    pub fn install(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let dir = self.path("config/policy.d");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).unwrap();
        let path = dir.join(name);
        write(&path, bytes);
        path
    }

    pub fn load(&self) -> PolicySet {
        PolicySet::load(&self.sources()).unwrap()
    }
}

pub fn write(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
}

pub fn caller() -> Caller {
    Caller { uid: 1000, gid: 1000, user: "alice".into(), origin: "cli".into(), tty: true, ci: false }
}

pub fn spec() -> ContainerSpec {
    let caps = serde_json::json!(["CAP_CHOWN", "CAP_KILL"]);
    let oci = serde_json::json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": false},
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/", "env": ["PATH=/bin"],
            "noNewPrivileges": true,
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps, "inheritable": [], "ambient": []},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
            {"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "rw"]},
        ],
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
        ]},
    });
    ContainerSpec::new(SpecParts {
        id: "0".repeat(64),
        name: "fixture".into(),
        image: Some(ImageIdentity {
            reference: "docker.io/library/busybox:latest".into(),
            digest: DIGEST.into(),
            id: DIGEST.into(),
            platform: "linux/amd64".into(),
        }),
        privileged: false,
        network: NetworkMode::Slirp4netns,
        ports: vec![],
        dns: vec![],
        egress: None,
        seccomp_overlay: SeccompOverlay::default(),
        userns: UserNamespace::Default,
        init: false,
        interactive: false,
        seccomp_profile: "default".into(),
        resolved_sources: vec![("/data".into(), "/srv/data".into())],
        controls: vec![],
        imposable: vec![],
        beside: rlrun_spec::container::Beside::default(),
        oci: serde_json::from_value(oci).unwrap(),
    })
    .unwrap()
}

/// Who denied, with which codes.
pub fn told(denied: &Denied) -> Vec<(&str, Vec<&str>)> {
    denied
        .refusals()
        .iter()
        .map(|r| (r.policy.name.as_str(), r.diagnostics.iter().map(|d| d.code.as_str()).collect()))
        .collect()
}
