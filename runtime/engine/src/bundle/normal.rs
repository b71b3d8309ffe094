//! A configuration as the sandbox takes it: paths absolute, devices bound from the host, what an ordinary user cannot
//! have refused or told.

use super::{Bundle, refused};
use crate::host::idmap::IdPlan;
use crate::request::RunRequest;
use oci_spec::runtime::{Capabilities, Linux, LinuxDevice, LinuxNamespaceType, Mount, Process, Spec};
use rlrun_spec::container::NetworkMode;
use rlrun_spec::host::{Cgroup, HostFacts};
use rlrun_spec::{Failure, MapWriter};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Those that every container has.
const STANDARD: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// The configuration, and for each bind mount destination and source with every symlink resolved.
pub(super) struct Normal {
    pub(super) oci: Spec,
    pub(super) resolved: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
}

pub(super) fn normal(bundle: &Bundle, request: &RunRequest, host: &HostFacts, ids: &IdPlan) -> Result<Normal, Failure> {
    let mut oci = (*bundle.config).clone();
    refuse_foreign(&oci)?;
    let Some(mut linux) = oci.linux().clone() else { return Err(refused("/linux", "is missing")) };
    let Some(mut process) = oci.process().clone() else { return Err(refused("/process", "is missing")) };
    let at = bundle.root.display().to_string();
    let mut normal = Normal { oci: Spec::default(), resolved: vec![("/".to_owned(), at)], warnings: Vec::new() };
    if let Some(mut root) = oci.root().clone() {
        root.set_path(bundle.root.clone());
        oci.set_root(Some(root));
    }
    namespaces(&linux)?;
    process_of(&mut process, ids, &mut normal.warnings)?;
    let mut mounts = Vec::new();
    for (index, mount) in oci.mounts().iter().flatten().enumerate() {
        let field = format!("/mounts/{index}");
        mounts.extend(self::mount(&field, mount.clone(), bundle, request, host, &mut normal)?);
    }
    let wanted = linux.devices().clone().unwrap_or_default();
    let wanted = wanted.into_iter().filter(|d| !STANDARD.iter().any(|path| d.path() == Path::new(path)));
    let wanted: Vec<LinuxDevice> = wanted.collect();
    for device in &wanted {
        mounts.push(device_mount(device)?);
        let path = device.path().display().to_string();
        normal.resolved.push((path.clone(), path));
    }
    linux.set_devices((!wanted.is_empty()).then_some(wanted));
    linux.set_resources(Some(crate::config::limits::resources(&request.limits)));
    if linux.cgroups_path().is_some() {
        normal.warnings.push("config.json: /linux/cgroupsPath is passed over: rlrun chooses the cgroup".to_owned());
        linux.set_cgroups_path(None);
    }
    oci.set_hooks(None).set_mounts(Some(mounts)).set_linux(Some(linux)).set_process(Some(process));
    normal.oci = oci;
    Ok(normal)
}

fn refuse_foreign(oci: &Spec) -> Result<(), Failure> {
    if let Some(hooks) = oci.hooks() {
        // An empty object asks for nothing.
        let lists = serde_json::to_value(hooks).unwrap_or_default();
        let any =
            lists.as_object().is_some_and(|all| all.values().any(|l| l.as_array().is_some_and(|l| !l.is_empty())));
        if any {
            return Err(refused("/hooks", "rlrun runs no programs of a configuration outside of the container")
                .hint("leave the hooks out of config.json; policies are what rlrun asks before a start"));
        }
    }
    let others = [
        ("/solaris", oci.solaris().is_some()),
        ("/windows", oci.windows().is_some()),
        ("/vm", oci.vm().is_some()),
        ("/zos", oci.zos().is_some()),
    ];
    match others.into_iter().find(|(_, there)| *there) {
        Some((field, _)) => Err(refused(field, "is of another platform")),
        None => Ok(()),
    }
}

fn namespaces(linux: &Linux) -> Result<(), Failure> {
    let all = linux.namespaces().as_deref().unwrap_or_default();
    if let Some((index, namespace)) = all.iter().enumerate().find(|(_, n)| n.path().is_some()) {
        let kind = namespace.typ();
        let field = format!("/linux/namespaces/{index}/path");
        return Err(refused(&field, format!("joining a {kind} namespace that is there is not supported"))
            .hint("leave out the path, to have a new one"));
    }
    for needed in [LinuxNamespaceType::User, LinuxNamespaceType::Mount, LinuxNamespaceType::Pid] {
        if !all.iter().any(|n| n.typ() == needed) {
            return Err(refused("/linux/namespaces", format!("there is no {needed} namespace of its own"))
                .hint("an ordinary user makes containers in a user namespace, as `runc spec --rootless` writes it"));
        }
    }
    Ok(())
}

fn process_of(process: &mut Process, ids: &IdPlan, warnings: &mut Vec<String>) -> Result<(), Failure> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(refused("/process/args", "names no command"));
    }
    let user = process.user();
    let (uid, gid) = (user.uid(), user.gid());
    if ids.maps.host_uid(uid).is_none() {
        return Err(refused("/process/user/uid", format!("{uid} is not mapped")));
    }
    if ids.maps.host_gid(gid).is_none() {
        return Err(refused("/process/user/gid", format!("{gid} is not mapped")));
    }
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    if ids.maps.writer == MapWriter::Single && !groups.is_empty() {
        return Err(refused("/process/user/additionalGids", "with a single id mapped the kernel gives no others"));
    }
    if let Some(missing) = groups.iter().find(|gid| ids.maps.host_gid(**gid).is_none()) {
        return Err(refused("/process/user/additionalGids", format!("{missing} is not mapped")));
    }
    let Some(mut sets) = process.capabilities().clone() else { return Ok(()) };
    let kept = |set: &Option<Capabilities>| set.clone().unwrap_or_default();
    let (ambient, inheritable, permitted) = (kept(sets.ambient()), kept(sets.inheritable()), kept(sets.permitted()));
    // What is not inheritable cannot be ambient (capabilities(7)).
    let possible: Capabilities =
        ambient.iter().filter(|c| inheritable.contains(c) && permitted.contains(c)).copied().collect();
    if possible.len() < ambient.len() && uid != 0 {
        warnings.push(
            "config.json: ambient capabilities that are not inheritable too are lost when the command is executed"
                .to_owned(),
        );
    }
    sets.set_ambient(Some(possible));
    process.set_capabilities(Some(sets));
    Ok(())
}

/// None for a mount that cannot be had and is told.
fn mount(
    field: &str,
    mut mount: Mount,
    bundle: &Bundle,
    request: &RunRequest,
    host: &HostFacts,
    normal: &mut Normal,
) -> Result<Option<Mount>, Failure> {
    let options = mount.options().clone().unwrap_or_default();
    let binds = options.iter().any(|word| word == "bind" || word == "rbind");
    let destination = mount.destination().display().to_string();
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        return Err(refused(field, "a mount with ids mapped of its own is not supported"));
    }
    if binds || mount.typ().as_deref() == Some("bind") {
        let Some(source) = mount.source() else { return Err(refused(field, "a bind mount without a source")) };
        let source = bundle.directory.join(source);
        let source = source.canonicalize().map_err(|e| refused(field, format!("{}: {e}", source.display())))?;
        normal.resolved.push((destination, source.display().to_string()));
        mount.set_typ(Some("bind".to_owned())).set_source(Some(source));
        return Ok(Some(mount));
    }
    if !matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2")) {
        return Ok(Some(mount));
    }
    let own = request.network.mode != NetworkMode::Host && !request.shared.cgroup;
    if !matches!(host.cgroup, Cgroup::V2 { .. }) || !own {
        let why = match own {
            true => "on cgroup version 1 there is nothing for a container of an ordinary user",
            false => "the kernel mounts it only for who owns the cgroup and the network namespace",
        };
        normal.warnings.push(format!("config.json: {field}: {destination} is left out: {why}"));
        return Ok(None);
    }
    mount.set_typ(Some("cgroup2".to_owned()));
    Ok(Some(mount))
}

/// A user namespace cannot make device nodes; the host's is bound if it is the same.
fn device_mount(device: &LinuxDevice) -> Result<Mount, Failure> {
    let path = device.path();
    let field = "/linux/devices";
    let found = std::fs::symlink_metadata(path).map_err(|e| refused(field, format!("{}: {e}", path.display())))?;
    let numbers = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
    let is_node = found.file_type().is_char_device() || found.file_type().is_block_device();
    let wanted = (u32::try_from(device.major()), u32::try_from(device.minor()));
    if !is_node || wanted != (Ok(numbers.0), Ok(numbers.1)) {
        return Err(refused(field, format!("{} is another device on this host", path.display())));
    }
    let mut mount = Mount::default();
    mount
        .set_destination(path.clone())
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(PathBuf::from(path)))
        .set_options(Some(["bind", "rprivate", "nosuid", "noexec"].map(str::to_owned).to_vec()));
    Ok(mount)
}
