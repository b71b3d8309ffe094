//! A configuration with something of everything that a policy can tighten.

use crate::container::{ImageIdentity, NetworkMode, PortMapping, Protocol, SpecParts, UserNamespace};

pub(super) const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn port(host_ip: &str, host_port: u16, container_port: u16) -> PortMapping {
    PortMapping { host_ip: host_ip.parse().unwrap(), host_port, container_port, protocol: Protocol::Tcp }
}

pub(crate) fn parts() -> SpecParts {
    let caps = serde_json::json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]);
    let oci = serde_json::json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "box",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["sleep", "1"],
            "cwd": "/",
            "env": ["PATH=/bin", "A=1", "B=2"],
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": caps, "effective": caps, "permitted": caps, "inheritable": [], "ambient": [],
            },
            "rlimits": [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
            {"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "ro", "nosuid"]},
            {"destination": "/work", "type": "bind", "source": "/srv/work", "options": ["rbind", "rw"]},
            {"destination": "/work/cache", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
            {"destination": "/dev/fuse", "type": "bind", "source": "/dev/fuse", "options": ["bind"]},
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "mount"}],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "devices": [{"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232}],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
                        "syscalls": [{"names": ["read", "write", "execve"], "action": "SCMP_ACT_ALLOW"}]},
            "resources": {
                "memory": {"limit": 1_000_000},
                "pids": {"limit": 100},
                "devices": [{"allow": false, "access": "rwm"},
                            {"allow": true, "type": "c", "major": 10, "minor": 232, "access": "rwm"}],
            },
        },
    });
    SpecParts {
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
        ports: vec![port("127.0.0.1", 8080, 80), port("0.0.0.0", 8443, 443), port("10.0.0.1", 8443, 443)],
        dns: vec![],
        egress: None,
        seccomp_overlay: super::SeccompOverlay::default(),
        userns: UserNamespace::Default,
        init: false,
        interactive: false,
        seccomp_profile: "default".into(),
        resolved_sources: vec![("/data".into(), "/srv/data".into()), ("/work".into(), "/srv/work".into())],
        controls: vec![],
        imposable: vec![],
        beside: crate::container::Beside::default(),
        oci: serde_json::from_value(oci).unwrap(),
    }
}
