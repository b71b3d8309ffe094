use super::*;
use crate::host::{idmap, test_facts};
use crate::request::{Launching, Network, UserNamespaceRequest, capability, limits, mount, security};
use crate::storage;
use rlrun_image::ImageConfig;
use rlrun_net::files::Dns;
use rlrun_spec::{IdMaps, ImageIdentity};

/// `rlrun run IMAGE`, nothing else said.
pub(crate) fn request() -> RunRequest {
    RunRequest {
        image: "busybox".to_owned(),
        command: Vec::new(),
        name: None,
        interactive: false,
        tty: false,
        env: Vec::new(),
        mounts: Vec::new(),
        image_volumes: crate::request::ImageVolumes::default(),
        workdir: None,
        user: None,
        groups: Vec::new(),
        entrypoint: None,
        hostname: None,
        read_only: ReadOnly::No,
        privileged: false,
        capabilities: capability::CapabilityRequest::default(),
        security: security::SecurityRequest::default(),
        network: Network {
            mode: NetworkMode::Slirp4netns,
            ports: Vec::new(),
            dns: Dns::default(),
            hosts: Vec::new(),
            exposed: Vec::new(),
            publish_all: false,
        },
        userns: UserNamespaceRequest::Default,
        init: false,
        stop_signal: None,
        umask: 0o022,
        sysctls: Vec::new(),
        labels: Vec::new(),
        annotations: Vec::new(),
        limits: limits::LimitRequest::default(),
        secrets: Vec::new(),
        devices: Vec::new(),
        shared: crate::request::share::Shared::default(),
        own_files: crate::request::OwnFiles::default(),
        env_changes: crate::request::env::Changes::default(),
        personality: None,
        rootfs: None,
        launching: Launching::default(),
        bundle: None,
    }
}

pub(crate) fn ids() -> IdMaps {
    idmap::plan(&test_facts(), &UserNamespace::Default).unwrap().maps
}

fn image() -> ResolvedImage {
    ResolvedImage {
        identity: ImageIdentity {
            reference: "docker.io/library/busybox:latest".to_owned(),
            digest: format!("sha256:{}", "d".repeat(64)),
            id: format!("sha256:{}", "1".repeat(64)),
            platform: "linux/amd64".to_owned(),
        },
        config: ImageConfig {
            cmd: vec!["sh".to_owned()],
            labels: [("io.podman.annotations.seccomp".to_owned(), "unconfined".to_owned())].into(),
            stop_signal: Some("SIGQUIT".to_owned()),
            ..ImageConfig::default()
        },
        layers: vec!["/store/layers/a".into()],
        passwd: Some("root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n".to_owned()),
        group: Some("root:x:0:\nstaff:x:50:ann\n".to_owned()),
        provenance: rlrun_image::Provenance::default(),
    }
}

fn build_on(request: &RunRequest, image: &ResolvedImage, host: &HostFacts) -> Result<Built, Failure> {
    let userns = request.userns.decide(host).unwrap();
    let ids = idmap::plan(host, &userns).unwrap();
    let storage = storage::choose(None, host, &userns).unwrap();
    build(Inputs {
        request,
        image,
        host,
        ids: &ids,
        userns: &userns,
        storage: &storage,
        id: &"0123456789abcdef".repeat(4),
        name: "quiet_otter",
        volumes: "/data/volumes".as_ref(),
        images: &[],
        ports: &[],
        host_name: "host.example",
        dns: &["10.0.2.3".to_owned()],
    })
}

fn without_cgroups() -> HostFacts {
    let mut host = test_facts();
    host.cgroup.keep(|_| false);
    host
}

fn built(request: &RunRequest) -> Built {
    build_on(request, &image(), &test_facts()).unwrap()
}

/// As JSON with sets in one order, so that it can be compared.
fn json(built: &Built) -> String {
    let mut value = serde_json::to_value(&built.spec).unwrap();
    rlrun_spec::container::sort_sets(&mut value["oci"]);
    // The profile has tests of its own, and hundreds of lines.
    if let Some(seccomp) = value.pointer_mut("/oci/linux/seccomp").filter(|s| !s.is_null()) {
        *seccomp = "the default profile".into();
    }
    serde_json::to_string_pretty(&value).unwrap()
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

#[test]
fn a_plain_run() {
    insta::assert_snapshot!(json(&built(&request())));
}

#[test]
fn a_run_with_everything() {
    let mut request = request();
    request.command = words(&["echo", "a"]);
    request.tty = true;
    request.interactive = true;
    request.user = Some("ann".to_owned());
    request.groups = words(&["7"]);
    request.read_only = ReadOnly::WithTmpfs;
    request.capabilities = capability::request(&words(&["net_raw"]), &words(&["ALL"])).unwrap();
    request.security = security::request(&words(&["no-new-privileges=false", "mask=/proc/cpuinfo"])).unwrap();
    request.network.mode = NetworkMode::None;
    request.mounts = vec![mount::tmpfs("/scratch:size=1m").unwrap(), mount::volume("/usr:/mnt:ro").unwrap()];
    request.limits.memory = Some(1 << 20);
    request.limits.cpu_millis = Some(1500);
    request.limits.pids = Some(limits::Pids::AtMost(10));
    request.limits.ulimits = vec![limits::ulimit("nofile=10:20").unwrap()];
    request.init = true;
    request.sysctls = vec![("net.ipv4.ip_forward".to_owned(), "1".to_owned())];
    request.annotations = vec![("a".to_owned(), "b".to_owned())];
    let built = build_on(&request, &image(), &without_cgroups()).unwrap();
    assert_eq!(built.warnings.len(), 2, "{:?}", built.warnings);
    insta::assert_snapshot!(json(&built));
}

#[test]
fn privileged_shows_in_the_configuration() {
    let mut request = request();
    request.privileged = true;
    let parts = built(&request).spec.into_parts();
    assert!(parts.privileged);
    let linux = parts.oci.linux().as_ref().unwrap();
    assert!(linux.masked_paths().as_ref().unwrap().is_empty());
    let sets = parts.oci.process().as_ref().unwrap().capabilities().as_ref().unwrap();
    assert_eq!(sets.bounding().as_ref().unwrap().len(), 41);
    assert_eq!(parts.oci.process().as_ref().unwrap().no_new_privileges(), Some(true));
}

#[test]
fn keep_id_runs_as_the_caller_with_a_name() {
    let mut request = request();
    request.userns = UserNamespaceRequest::KeepId { uid: None, gid: None };
    let built = built(&request);
    let user = built.spec.parts().oci.process().as_ref().unwrap().user().clone();
    assert_eq!((user.uid(), user.gid()), (1500, 1500));
    let text = |path: &str| {
        let (_, bytes) = built.account_files.iter().find(|(p, _)| p == path).unwrap();
        String::from_utf8(bytes.clone()).unwrap()
    };
    assert!(text("/etc/passwd").ends_with("\nann:*:1500:1500:ann:/:/bin/sh\n"));
    assert!(text("/etc/group").ends_with("\nann:*:1500:\n"));
}

#[test]
fn a_user_that_is_not_mapped_is_an_error_that_names_the_file() {
    let mut request = request();
    request.user = Some("70000".to_owned());
    let failure = build_on(&request, &image(), &test_facts()).unwrap_err();
    assert!(failure.to_string().contains("/etc/subuid"), "{failure}");
    assert!(failure.hint.unwrap().contains("usermod"));
}

#[test]
fn a_single_id_has_one_warning_and_no_groups() {
    let mut host = test_facts();
    host.subuids.clear();
    let built = build_on(&request(), &image(), &host).unwrap();
    assert_eq!(built.warnings.len(), 1);
    let control = built.spec.parts().controls.iter().find(|c| c.name == "user-namespace").unwrap();
    assert_eq!(control.enforced, rlrun_spec::Enforced::Partly);
}

#[test]
fn no_command_at_all_is_an_error_with_advice() {
    let mut image = image();
    image.config.cmd.clear();
    let failure = build_on(&request(), &image, &test_facts()).unwrap_err();
    assert!(failure.to_string().contains("no command"), "{failure}");
    assert_eq!(failure.hint.as_deref(), Some("name a command after the image"));
    image.config.cmd = vec![String::new()];
    assert_eq!(build_on(&request(), &image, &test_facts()).unwrap_err().kind, Kind::NotFound);
}

#[test]
fn required_limits_that_do_not_hold_stop_the_start() {
    let mut request = request();
    request.limits.memory = Some(64 << 20);
    request.limits.level = crate::request::LimitsLevel::Require;
    let failure = build_on(&request, &image(), &without_cgroups()).unwrap_err();
    assert_eq!((failure.kind, failure.object.as_str()), (Kind::Host, "--memory"));
    let mut host = test_facts();
    let access = rlrun_spec::host::CgroupAccess::Directory("/x".into());
    host.cgroup = rlrun_spec::host::Cgroup::V2 { delegated: vec!["memory".to_owned()], access };
    build_on(&request, &image(), &host).unwrap();
}

#[test]
fn a_network_that_cannot_be_had_stops_the_start() {
    let mut host = test_facts();
    host.dev_net_tun = false;
    let failure = build_on(&request(), &image(), &host).unwrap_err();
    assert!(failure.hint.unwrap().contains("chmod 0666 /dev/net/tun"));
    host.slirp4netns = None;
    assert!(build_on(&request(), &image(), &host).unwrap_err().to_string().contains("is not installed"));
    let mut none = request();
    none.network.mode = NetworkMode::None;
    assert!(build_on(&none, &image(), &host).is_ok());
}

#[test]
fn the_stop_signal_is_the_users_then_the_images() {
    let mut request = request();
    assert_eq!(built(&request).stop_signal, 3);
    request.stop_signal = Some(9);
    assert_eq!(built(&request).stop_signal, 9);
}

#[test]
fn labels_of_an_image_change_nothing() {
    let mut bare = image();
    bare.config.labels.clear();
    let without = build_on(&request(), &bare, &test_facts()).unwrap().spec;
    let mut with = built(&request()).spec.into_parts();
    // Policies are told, and nobody else.
    with.beside.image.as_mut().unwrap().labels.clear();
    assert_eq!(with, without.into_parts());
}
