//! The mounts of a container: /proc, /sys, /dev and what is below them, then the user's. A mount of the user in the
//! place of a default one replaces it.

use crate::request::limits::DEFAULT_SHM;
use crate::request::mount::{Flags, KernelFs, MountRequest};
use crate::request::{ImageVolumes, ReadOnly, RunRequest};
use crate::volumes::{self, backing};
use oci_spec::runtime::Mount;
use rlrun_image::ImageConfig;
use rlrun_spec::container::NetworkMode;
use rlrun_spec::host::{Cgroup, HostFacts};
use rlrun_spec::{Failure, IdMaps, ImageIdentity, Kind, Stage};
use std::path::{Path, PathBuf};

/// The group that owns terminals, in every distribution's /etc/group.
const TTY_GID: u32 = 5;

/// Mounts, and for each bind its source with every symlink resolved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mounts {
    /// In the order in which they are made: a parent before what is below it.
    pub all: Vec<Mount>,
    /// Destination and resolved source.
    pub resolved: Vec<(String, String)>,
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(destination))
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(PathBuf::from(source)))
        .set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
    mount
}

/// Whose mounts they are.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The command line.
    pub request: &'a RunRequest,
    /// The container's id.
    pub id: &'a str,
    /// Where volumes are.
    pub volumes: &'a Path,
    /// The images that it mounts, found.
    pub images: &'a [MountedImage],
}

/// An image that a container mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedImage {
    /// Where.
    pub destination: String,
    /// Which.
    pub identity: ImageIdentity,
    /// Extracted layers, top first.
    pub layers: Vec<PathBuf>,
}

/// All mounts of a container.
///
/// # Errors
/// When a source is not there, or two mounts of the user have one destination.
pub fn plan(around: Around<'_>, image: &ImageConfig, host: &HostFacts, ids: &IdMaps) -> Result<Mounts, Failure> {
    let Around { request, id, volumes, images } = around;
    let mut mounts = Mounts { all: defaults(request, host, ids), ..Mounts::default() };
    let mut taken: Vec<&str> = Vec::new();
    for wanted in &request.mounts {
        let destination = wanted.destination();
        if taken.contains(&destination) {
            return Err(Failure::new(Stage::Cli, Kind::Usage, "plan-mounts", "plan the mounts", destination)
                .why("two mounts have this destination"));
        }
        taken.push(destination);
        let made = user_mount(wanted, around, ids, &mut mounts.resolved)?;
        mounts.all.retain(|m| m.destination() != made.destination());
        mounts.all.push(made);
    }
    for device in &request.devices {
        let made =
            mount(&device.inside, "bind", &device.source.to_string_lossy(), &["bind", "rprivate", "nosuid", "noexec"]);
        mounts.resolved.push((device.inside.clone(), device.source.to_string_lossy().into_owned()));
        mounts.all.retain(|m| m.destination() != made.destination());
        mounts.all.push(made);
    }
    for destination in image_volumes(image) {
        if mounts.all.iter().any(|m| m.destination() == Path::new(&destination)) {
            continue;
        }
        match request.image_volumes {
            ImageVolumes::Ignore => {}
            ImageVolumes::Tmpfs => {
                mounts.all.push(mount(&destination, "tmpfs", "tmpfs", &["nosuid", "nodev", "tmpcopyup"]));
            }
            ImageVolumes::Anonymous => {
                let flags = Flags::default();
                let volume = MountRequest::Volume { name: None, destination, flags, subpath: None };
                mounts.all.push(user_mount(
                    &volume,
                    Around { volumes, id, request, images },
                    ids,
                    &mut mounts.resolved,
                )?);
            }
        }
    }
    // Stable: mounts of the same depth stay in the order given, and depth is all that one can hide another by.
    mounts.all.sort_by_key(|m| m.destination().components().count());
    Ok(mounts)
}

fn defaults(request: &RunRequest, host: &HostFacts, ids: &IdMaps) -> Vec<Mount> {
    const QUIET: [&str; 3] = ["nosuid", "noexec", "nodev"];
    let shm = format!("size={}", request.limits.shm.unwrap_or(DEFAULT_SHM));
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    // Naming a group that is not mapped makes the mount fail with EINVAL.
    let gid = format!("gid={TTY_GID}");
    if ids.host_gid(TTY_GID).is_some() {
        pts.push(&gid);
    }
    let shared = ["rbind", "rprivate", "nosuid", "noexec", "nodev", "rw"];
    let (shm, mqueue) = match request.shared.ipc {
        // The kernel lets only the owner of an IPC namespace mount its queues.
        true => (mount("/dev/shm", "bind", "/dev/shm", &shared), mount("/dev/mqueue", "bind", "/dev/mqueue", &shared)),
        false => (
            mount("/dev/shm", "tmpfs", "shm", &[&QUIET[..], &["mode=1777", &shm]].concat()),
            mount("/dev/mqueue", "mqueue", "mqueue", &QUIET),
        ),
    };
    let mut all = vec![
        mount("/proc", "proc", "proc", &QUIET),
        // nodev is left out: the standard nodes live here, bound from the host.
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "noexec", "mode=755", "size=65536k"]),
        sys(request),
        mount("/dev/pts", "devpts", "devpts", &pts),
        shm,
        mqueue,
    ];
    // On version 1 there is nothing that a container of an ordinary user could use.
    // The kernel lets only the owner of a cgroup namespace mount it.
    let own_cgroup = request.network.mode != NetworkMode::Host && !request.shared.cgroup;
    if matches!(host.cgroup, Cgroup::V2 { .. }) && own_cgroup {
        all.push(mount("/sys/fs/cgroup", "cgroup2", "cgroup", &[&QUIET[..], &["ro"]].concat()));
    }
    // A host may have no queues mounted, as other containers have not.
    all.retain(|m| m.typ().as_deref() != Some("bind") || m.source().as_ref().is_none_or(|source| source.exists()));
    if request.read_only == ReadOnly::WithTmpfs {
        for place in ["/run", "/tmp", "/var/tmp"] {
            all.push(mount(place, "tmpfs", "tmpfs", &["nosuid", "nodev", "tmpcopyup"]));
        }
    }
    all
}

/// A new sysfs shows the network namespace of whoever mounts it, and can be mounted only by who owns that namespace
/// (sysfs(5)); with the host's network the host's own is bound. It has file systems mounted below it that a user
/// namespace may not uncover, so the bind is recursive (mount_namespaces(7)).
fn sys(request: &RunRequest) -> Mount {
    let access = if request.privileged { "rw" } else { "ro" };
    match request.network.mode {
        NetworkMode::Host => mount("/sys", "bind", "/sys", &["rbind", "rprivate", "nosuid", "noexec", "nodev", access]),
        NetworkMode::Slirp4netns | NetworkMode::None => {
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access])
        }
    }
}

fn user_mount(
    wanted: &MountRequest,
    around: Around<'_>,
    ids: &IdMaps,
    resolved: &mut Vec<(String, String)>,
) -> Result<Mount, Failure> {
    match wanted {
        MountRequest::Bind { source, destination, flags } => {
            let real = real_path(source)?;
            // Devices are what /dev is for; anywhere else a device node on a volume is a surprise.
            let nodev = flags.nodev.unwrap_or(!real.starts_with("/dev"));
            let kind = if flags.not_recursive { "bind" } else { "rbind" };
            let mut options = vec![kind, if flags.slave { "rslave" } else { "rprivate" }];
            options.extend(words(flags, flags.nosuid.unwrap_or(true), nodev));
            let text = real.to_string_lossy().into_owned();
            resolved.push((destination.clone(), text.clone()));
            Ok(mount(destination, "bind", &text, &options))
        }
        MountRequest::Volume { name, destination, flags, subpath } => {
            let about = (flags, subpath.as_deref());
            let made = name.as_deref().map(|name| backing::of(around.volumes, name, destination, about)).transpose()?;
            if let Some(made) = made.flatten() {
                return user_mount(&made, around, ids, resolved);
            }
            let own = volumes::own_name(around.id, destination);
            let mut options = words(flags, flags.nosuid.unwrap_or(true), flags.nodev.unwrap_or(true));
            options.extend(name.is_none().then_some(volumes::ANONYMOUS));
            options.extend((!flags.no_copy_up).then_some("copy"));
            let subpath = subpath.as_ref().map(|path| format!("subpath={path}"));
            options.extend(subpath.as_deref());
            let name = name.as_deref().unwrap_or(&own);
            let path = around.volumes.join(name).join(volumes::DATA);
            resolved.push((destination.clone(), path.to_string_lossy().into_owned()));
            Ok(mount(destination, "volume", name, &options))
        }
        MountRequest::Overlay { source, destination, flags } => {
            let real = real_path(source)?;
            if !real.is_dir() {
                return Err(Failure::new(
                    Stage::Cli,
                    Kind::Usage,
                    "open-volume",
                    "make an overlay of",
                    source.as_str(),
                )
                .why("it is no directory")
                .hint("ro in the place of O keeps a file as it is"));
            }
            let mut options = vec!["bind", "rprivate", "O"];
            options.extend(words(flags, flags.nosuid.unwrap_or(true), flags.nodev.unwrap_or(true)));
            let text = real.to_string_lossy().into_owned();
            resolved.push((destination.clone(), text.clone()));
            Ok(mount(destination, "bind", &text, &options))
        }
        MountRequest::Image { image, destination, flags, .. } => {
            let mut options = words(flags, flags.nosuid.unwrap_or(true), flags.nodev.unwrap_or(true));
            let found = around.images.iter().find(|i| i.destination == *destination);
            let id = found.map(|i| format!("id={}", i.identity.id));
            options.extend(id.as_deref());
            Ok(mount(destination, "image", found.map_or(image, |i| &i.identity.reference), &options))
        }
        MountRequest::Kernel { kind, destination, flags, data } => {
            // A terminal is a device.
            let nodev = flags.nodev.unwrap_or(*kind != KernelFs::Devpts);
            let mut options = words(flags, flags.nosuid.unwrap_or(true), nodev);
            options.extend(data.iter().map(String::as_str));
            let says = |name: &str| data.iter().any(|word| word.starts_with(name));
            let gid = format!("gid={TTY_GID}");
            if *kind == KernelFs::Devpts {
                options.extend(["noexec", "newinstance", "ptmxmode=0666"]);
                options.extend((!says("mode=")).then_some("mode=0620"));
                options.extend((!says("gid=") && ids.host_gid(TTY_GID).is_some()).then_some(gid.as_str()));
            }
            Ok(mount(destination, kind.name(), kind.name(), &options))
        }
        MountRequest::Tmpfs { destination, flags, data } => {
            let mut options = words(flags, flags.nosuid.unwrap_or(true), flags.nodev.unwrap_or(true));
            if !flags.no_copy_up {
                options.push("tmpcopyup");
            }
            options.extend(data.iter().map(String::as_str));
            Ok(mount(destination, "tmpfs", "tmpfs", &options))
        }
    }
}

fn words(flags: &Flags, nosuid: bool, nodev: bool) -> Vec<&'static str> {
    let mut words = vec![if flags.read_only == Some(true) { "ro" } else { "rw" }];
    words.extend(nosuid.then_some("nosuid"));
    words.extend(nodev.then_some("nodev"));
    words.extend((flags.noexec == Some(true)).then_some("noexec"));
    words.extend(flags.chown.then_some("U"));
    words
}

/// The host path without symlinks, so that policies judge what is really mounted.
fn real_path(source: &str) -> Result<PathBuf, Failure> {
    let failure = || Failure::new(Stage::Cli, Kind::Usage, "open-volume", "open the volume", source);
    let real = std::fs::canonicalize(source).map_err(|e| match e.raw_os_error() {
        Some(errno) => failure().errno(errno),
        None => failure().why(e.to_string()),
    })?;
    if real.to_str().is_none() {
        return Err(failure().why("its real path is not UTF-8"));
    }
    Ok(real)
}

/// The image's volumes, those that may be ones: an image must not put an empty file system over what confines it.
fn image_volumes(image: &ImageConfig) -> impl Iterator<Item = String> {
    image.volumes.iter().filter_map(|word| {
        let parts: Vec<&str> = word.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
        let plain = word.starts_with('/') && !parts.contains(&"..") && !word.contains('\0');
        let first = parts.first().copied()?;
        (plain && !matches!(first, "proc" | "sys" | "dev")).then(|| format!("/{}", parts.join("/")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{ids, request};
    use crate::host::test_facts;
    use crate::request::mount::{tmpfs, volume};

    fn around(request: &RunRequest) -> Around<'_> {
        Around { request, id: "aa", volumes: Path::new("/data/volumes"), images: &[] }
    }

    fn plan_of(request: &RunRequest, image: &ImageConfig) -> Mounts {
        plan(around(request), image, &test_facts(), &ids()).unwrap()
    }

    fn options<'a>(mounts: &'a Mounts, destination: &str) -> Vec<&'a str> {
        let found = mounts.all.iter().find(|m| m.destination() == Path::new(destination)).unwrap();
        found.options().iter().flatten().map(String::as_str).collect()
    }

    #[test]
    fn parents_come_before_what_is_below_them() {
        let mut request = request();
        request.mounts = vec![tmpfs("/a/b/c").unwrap(), tmpfs("/a").unwrap(), tmpfs("/dev/shm/x").unwrap()];
        let all = plan_of(&request, &ImageConfig::default()).all;
        for (i, m) in all.iter().enumerate() {
            let below = all.iter().skip(i + 1).find(|later| m.destination().starts_with(later.destination()));
            assert!(below.is_none(), "{m:?} hides under {below:?}");
        }
    }

    #[test]
    fn a_mount_of_the_user_replaces_the_default_one() {
        let mut request = request();
        request.mounts = vec![tmpfs("/dev/shm:size=1m,exec").unwrap()];
        let mounts = plan_of(&request, &ImageConfig::default());
        assert_eq!(options(&mounts, "/dev/shm"), ["rw", "nosuid", "nodev", "tmpcopyup", "size=1m"]);
        assert_eq!(mounts.all.iter().filter(|m| m.destination() == Path::new("/dev/shm")).count(), 1);
    }

    #[test]
    fn two_mounts_at_one_place_are_an_error() {
        let mut request = request();
        request.mounts = vec![tmpfs("/a").unwrap(), tmpfs("/a/.").unwrap()];
        let failure = plan(around(&request), &ImageConfig::default(), &test_facts(), &ids()).unwrap_err();
        assert_eq!(failure.object, "/a");
    }

    #[test]
    fn symlinks_of_a_source_are_resolved_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        let mut request = request();
        request.mounts = vec![volume(&format!("{}/link:/v:ro", dir.path().display())).unwrap()];
        let mounts = plan_of(&request, &ImageConfig::default());
        let real = dir.path().canonicalize().unwrap().to_str().unwrap().to_owned();
        assert_eq!(mounts.resolved, [("/v".to_owned(), real)]);
        assert_eq!(options(&mounts, "/v"), ["rbind", "rprivate", "ro", "nosuid", "nodev"]);
        request.mounts = vec![volume("/nonexistent/x:/v").unwrap()];
        let failure = plan(around(&request), &ImageConfig::default(), &test_facts(), &ids()).unwrap_err();
        assert_eq!((failure.object.as_str(), failure.errno), ("/nonexistent/x", Some(rlrun_spec::Errno(2))));
        assert!(rlrun_spec::hint::for_failure(&failure).is_some());
    }

    #[test]
    fn a_volume_is_named_and_its_place_is_told() {
        let mut request = request();
        request.mounts = vec![volume("data:/d:ro").unwrap(), volume("/own:nocopy").unwrap()];
        let mounts = plan_of(&request, &ImageConfig::default());
        assert_eq!(options(&mounts, "/d"), ["ro", "nosuid", "nodev", "copy"]);
        assert_eq!(options(&mounts, "/own"), ["rw", "nosuid", "nodev", volumes::ANONYMOUS]);
        assert_eq!(mounts.resolved[0], ("/d".to_owned(), "/data/volumes/data/_data".to_owned()));
        // The same container finds its volume again.
        assert_eq!(plan_of(&request, &ImageConfig::default()), mounts);
    }

    #[test]
    fn a_device_keeps_being_one() {
        let mut request = request();
        request.mounts = vec![volume("/dev/null:/dev/x").unwrap()];
        assert!(!options(&plan_of(&request, &ImageConfig::default()), "/dev/x").contains(&"nodev"));
    }

    #[test]
    fn an_image_cannot_mount_over_what_confines_it() {
        let volumes = ["/proc", "/", "/sys/x", "//dev", "/a/../proc", "rel", "/data/", "/dev/shm"];
        let image = ImageConfig { volumes: volumes.map(str::to_owned).to_vec(), ..ImageConfig::default() };
        let made = |image_volumes: ImageVolumes| {
            let all = plan_of(&RunRequest { image_volumes, ..request() }, &image).all;
            let of_image = |m: &&Mount| m.destination().starts_with("/data") || m.destination() == Path::new("/a");
            all.iter().filter(of_image).map(|m| m.typ().clone().unwrap_or_default()).collect::<Vec<_>>()
        };
        assert_eq!(made(ImageVolumes::Anonymous), ["volume"]);
        assert_eq!(made(ImageVolumes::Tmpfs), ["tmpfs"]);
        assert!(made(ImageVolumes::Ignore).is_empty());
    }

    #[test]
    fn the_terminal_group_is_named_only_when_it_is_mapped() {
        let mounts = plan_of(&request(), &ImageConfig::default());
        assert!(options(&mounts, "/dev/pts").contains(&"gid=5"));
        let mut single = ids();
        single.gids.truncate(1);
        let mounts = plan(around(&request()), &ImageConfig::default(), &test_facts(), &single).unwrap();
        assert!(!options(&mounts, "/dev/pts").contains(&"gid=5"));
    }

    #[test]
    fn the_hosts_network_comes_with_the_hosts_sysfs() {
        let mut request = request();
        request.network.mode = NetworkMode::Host;
        assert!(options(&plan_of(&request, &ImageConfig::default()), "/sys").contains(&"rbind"));
    }
}
