//! The way to the files of one container.

use super::failure;
use super::inside::{Job, Target, Task};
use crate::containers::{Container, Status};
use crate::host::cause::Surroundings;
use crate::host::{idmap, probe};
use crate::id_map_job::{IdMapJobs, Started};
use crate::images::Store;
use crate::place::Place;
use crate::record::{Details, lock};
use crate::request::StorageDriver;
use crate::storage;
use rlrun_image::files::{Style, Upper};
use rlrun_sandbox::{Lent, Resting};
use rlrun_spec::container::UserNamespace;
use rlrun_spec::plan::{Home, Mount, MountSource, Rootfs};
use rlrun_spec::{Failure, HostFacts, IdMaps, plan_from_oci};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// As a process inside sees it, with volumes.
    Inside,
    /// The root file system alone.
    Files,
    /// What lies over the image, as it is on disk.
    Changes,
}

/// What it wrote, where that is limited and lasts, as its mapper or a job sees it.
const DISK_UPPER: &str = "disk/upper";

/// The way to the files of one container, open as long as this is.
pub(super) struct Reach {
    target: Target,
    home: Home,
    jobs: IdMapJobs,
    lent: Vec<Lent>,
    lowers: Vec<PathBuf>,
    /// Where its changes are, if not in its directory.
    changes: Option<PathBuf>,
    /// Of a container that rests: nobody starts or removes it meanwhile.
    _lock: Option<File>,
}

/// All of a container's record.
pub(super) fn details(container: &Container) -> Result<Details, Failure> {
    Details::read(&container.directory)
        .map_err(|e| failure("read the record of", &container.summary.name).why(e.to_string()))
}

impl Reach {
    pub(super) fn open(place: &Place, container: &Container, view: View) -> Result<Reach, Failure> {
        let details = details(container)?;
        let host = probe(&place.data);
        let lowers = match &container.summary.image {
            Some(image) => Store::new(&place.data).resolve(&image.id)?.layers,
            None => details.request.rootfs.iter().map(|root| root.path.clone()).collect(),
        };
        let is_fuse = container.summary.storage_driver == StorageDriver::FuseOverlayfs;
        let userns = match view {
            // fuse-overlayfs shifts owners: on disk they are always the image's.
            View::Changes if is_fuse => UserNamespace::Default,
            View::Changes | View::Inside | View::Files => details.spec.userns.clone(),
        };
        let maps = maps(&host, &userns)?;
        let mut reach = Reach {
            target: Target::Nowhere,
            home: Home::New,
            jobs: IdMapJobs::new(maps.clone()),
            lent: Vec::new(),
            lowers,
            changes: None,
            _lock: None,
        };
        let limits = &details.request.limits;
        let disk = storage::disk(limits, details.request.launching.remove, &host)?;
        let on_disk = disk.as_ref().is_some_and(|disk| disk.file.is_some());
        if view == View::Changes && !on_disk {
            // A removal at the same time would leave half of the changes.
            reach._lock = (!container.status.is_alive()).then(|| taken(container)).transpose()?;
            return Ok(reach);
        }
        if container.status.is_alive() {
            let live = Live::find(container, view)?;
            let (root, owner) = (Lent::of(live.root)?, Lent::of(live.user_namespace)?);
            (reach.target, reach.home) = (Target::Root(root.number()), Home::Of(owner.number()));
            if view == View::Changes {
                reach.changes = Some(format!("/proc/self/fd/{}/.", root.number()).into());
                reach.target = Target::Nowhere;
            }
            reach.lent = vec![root, owner];
            return Ok(reach);
        }
        reach._lock = Some(taken(container)?);
        let mounts = match view {
            View::Inside => details.spec.oci.mounts().clone().unwrap_or_default(),
            View::Files | View::Changes => Vec::new(),
        };
        let mounts: Vec<_> = mounts.into_iter().filter(|m| !plan_from_oci::is_layered(m)).collect();
        let volumes = place.data.join(crate::volumes::DIRECTORY);
        let user = details.spec.oci.process().as_ref().map_or((0, 0), |p| (p.user().uid(), p.user().gid()));
        let places = plan_from_oci::Places { volumes: &volumes, container: &container.directory, layered: &[] };
        let mut mounts = plan_from_oci::mounts(&mounts, places)
            .map_err(|e| failure("find the mounts of", &container.summary.name).why(e.to_string()))?;
        // What the host shows of itself belongs to nobody's files, and mounting it needs a living container.
        let kernels =
            |m: &Mount| ["/proc", "/sys", "/dev"].iter().any(|top| Path::new(&m.destination).starts_with(top));
        // Whose source is gone keeps the container from starting, but not its files from being reached.
        mounts.retain(|m| !kernels(m) && !matches!(&m.source, MountSource::Bind { path, .. } if !path.exists()));
        reach.home = Home::Apart;
        let resting = Box::new(Resting {
            rootfs: rootfs(container, &host, &details.spec.userns, &maps, &reach.lowers)?,
            container_dir: container.directory.clone(),
            disk,
            mounts,
            user,
        });
        reach.target = if view == View::Changes {
            reach.changes = Some(container.directory.join(DISK_UPPER));
            Target::Changes(resting)
        } else {
            Target::Resting(resting)
        };
        Ok(reach)
    }

    /// For a task that names directories of the store itself.
    pub(super) fn nowhere(place: &Place) -> Result<Reach, Failure> {
        let maps = maps(&probe(&place.data), &UserNamespace::Default)?;
        let jobs = IdMapJobs::new(maps);
        Ok(Reach {
            target: Target::Nowhere,
            home: Home::New,
            jobs,
            lent: Vec::new(),
            lowers: Vec::new(),
            changes: None,
            _lock: None,
        })
    }

    /// What lies over the image.
    pub(super) fn upper(&self, container: &Container) -> Result<Upper, Failure> {
        if !container.directory.join("sized").exists() {
            return self.upper_on_disk(container);
        }
        Err(failure("find the changes of", &container.summary.name)
            .why("they are in memory, where only the container sees them (--storage-opt size=)"))
    }

    fn upper_on_disk(&self, container: &Container) -> Result<Upper, Failure> {
        let (style, directory) = match container.summary.storage_driver {
            StorageDriver::Overlay | StorageDriver::FuseOverlayfs => (Style::Overlay, "upper"),
            StorageDriver::Copy | StorageDriver::Directory => (Style::Whole, "merged"),
        };
        let directory = self.changes.clone().unwrap_or_else(|| container.directory.join(directory));
        Ok(Upper { style, directory, lowers: self.lowers.clone() })
    }

    /// Starts a job there.
    pub(super) fn start(self, task: Task, mut lent: Vec<Lent>) -> Result<Working, Failure> {
        let job = serde_json::to_vec(&Job { target: self.target, task })
            .map_err(|e| failure("write", "a job").why(e.to_string()))?;
        lent.extend(self.lent);
        Ok(Working { started: self.jobs.start_files(self.home, &job, lent)?, _lock: self._lock })
    }
}

/// A job at work.
pub(crate) struct Working {
    started: Started,
    _lock: Option<File>,
}

impl Working {
    /// What it answers, or its failure.
    pub(crate) fn finish(self) -> Result<Vec<u8>, Failure> {
        self.started.finish()
    }
}

pub(super) fn maps(host: &HostFacts, userns: &UserNamespace) -> Result<IdMaps, Failure> {
    let plan = idmap::plan(host, userns).map_err(|cause| cause.failure(host, &Surroundings::read()))?;
    Ok(plan.maps)
}

/// The lock of a container that nobody looks after.
pub(super) fn taken(container: &Container) -> Result<File, Failure> {
    let name = &container.summary.name;
    match lock::take(&container.directory) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(failure("reach the files of", name)
            .why("it is being started, or another command has it")
            .hint("try again when that is done")),
        Err(e) => Err(crate::record::failed("copy-files", "lock", &container.directory, &e)),
    }
}

/// How the root file system is mounted, as at its last start.
pub(super) fn rootfs(
    container: &Container,
    host: &HostFacts,
    userns: &UserNamespace,
    own: &IdMaps,
    lowers: &[PathBuf],
) -> Result<Rootfs, Failure> {
    let lowers = lowers.to_vec();
    Ok(match container.summary.storage_driver {
        StorageDriver::Overlay => Rootfs::Overlay { lowers },
        StorageDriver::Copy | StorageDriver::Directory => {
            Rootfs::Directory { path: container.directory.join("merged") }
        }
        StorageDriver::FuseOverlayfs => {
            let Some(binary) = host.fuse_overlayfs.clone() else {
                return Err(failure("mount the files of", &container.summary.name)
                    .why("fuse-overlayfs, which it was made with, is not installed any more"));
            };
            let (uids, gids) = match userns {
                UserNamespace::Default => (Vec::new(), Vec::new()),
                UserNamespace::KeepId { .. } | UserNamespace::Mapped { .. } => {
                    let unpacked = maps(host, &UserNamespace::Default)?;
                    (storage::shown(&unpacked.uids, &own.uids), storage::shown(&unpacked.gids, &own.gids))
                }
            };
            Rootfs::FuseOverlay { lowers, binary, uids, gids }
        }
    })
}

/// Doors into a running container.
struct Live {
    root: OwnedFd,
    user_namespace: OwnedFd,
}

impl Live {
    /// Opens them through the directories of its processes in /proc, which answer for these processes alone, whatever
    /// becomes of their numbers; and looks again whether they were the container's.
    fn find(container: &Container, view: View) -> Result<Live, Failure> {
        let name = &container.summary.name;
        let gone = || failure("reach the files of", name).why("it has just ended");
        let process = |pid: i32| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).map_err(|_| gone())
        };
        let open = |process: &OwnedFd, path: &str, flags: OFlags| {
            openat(process, path, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| failure("reach the files of", name).errno(errno.raw_os_error()))
        };
        let init = process(container.state.pid)?;
        let parent = parent(&init).ok_or_else(gone)?;
        let mapper = process(parent)?;
        let user_namespace = open(&mapper, "ns/user", OFlags::RDONLY)?;
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        let root = match view {
            View::Inside => open(&init, "root", directory)?,
            // Where the mapper mounted it, nothing is mounted in it.
            View::Files | View::Changes => {
                let merged = match view {
                    View::Changes => container.directory.join(DISK_UPPER),
                    View::Inside | View::Files => container.mount_point(),
                };
                let below = merged.strip_prefix("/").unwrap_or(&merged);
                open(&mapper, &format!("root/{}", below.display()), directory)?
            }
        };
        let again = Container::read(container.directory.clone());
        let same = again.is_some_and(|c| c.state.pid == container.state.pid && c.status.is_alive());
        // Its parent is still the same: so long as init lives, the mapper does.
        if same && self::parent(&init) == Some(parent) && container.status != Status::Exited {
            return Ok(Live { root, user_namespace });
        }
        Err(gone())
    }
}

/// The parent of a process, by its directory in /proc.
fn parent(process: &OwnedFd) -> Option<i32> {
    let status = openat(process, "status", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(status).read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}
