//! What the plan of a container that was admitted is sealed with: where everything is on this host.

use super::Prepared;
use crate::config::seccomp;
use crate::host::cause::Surroundings;
use crate::host::idmap;
use crate::place::Place;
use crate::request::life::LogRequest;
use crate::request::{RunRequest, StorageDriver};
use crate::storage::{self, Storage};
use crate::underlay;
use rlrun_net::files as net_files;
use rlrun_spec::container::{NetworkMode, UserNamespace};
use rlrun_spec::life::{DEFAULT_STOP_SECONDS, Hold, Life, Log, Restart};
use rlrun_spec::plan::{LaunchFacts, Rootfs, Slirp};
use rlrun_spec::{Failure, Stage, plan_from_oci};
use std::path::{Path, PathBuf};

/// slirp4netns' own recommendation for throughput (slirp4netns(1)).
const MTU: u32 = 65520;

pub(super) fn resolv_conf(request: &RunRequest, network: NetworkMode) -> String {
    let of_host = match network {
        NetworkMode::None => String::new(),
        // A host without one has no name servers to pass on.
        NetworkMode::Slirp4netns | NetworkMode::Host => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
    };
    net_files::resolv_conf(network, &request.network.dns, &of_host)
}

/// Whose ids files have on disk.
#[derive(Clone, Copy)]
enum Owners {
    /// Those of the map in which images are unpacked.
    OfImage,
    /// The host's.
    OfHost,
}

impl Prepared {
    /// What the plan is sealed with, but for the times.
    ///
    /// # Errors
    /// When there is no seccomp filter to be had, or `/etc/hosts` cannot hold what was asked for.
    pub fn facts(&self, place: &Place, request: &RunRequest, directory: &Path) -> Result<LaunchFacts, Failure> {
        let parts = self.admitted.spec().parts();
        let slirp = match (parts.network, &self.host.slirp4netns) {
            (NetworkMode::Slirp4netns, Some(binary)) => Some(Slirp { binary: binary.clone(), mtu: MTU, ipv6: false }),
            (NetworkMode::Slirp4netns | NetworkMode::None | NetworkMode::Host, _) => None,
        };
        let seccomp_filters = self.seccomp_filters(place)?;
        let secrets = crate::secrets::give(place, &request.secrets)?;
        // Whoever made a bundle has said all that is to be in it.
        let files = if request.bundle.is_some() { Vec::new() } else { self.files(request)? };
        Ok(LaunchFacts {
            id_maps: self.ids.maps.clone(),
            rootfs: match self.directory(request) {
                Some(root) => Rootfs::Directory { path: root.to_owned() },
                None => {
                    let lowers = self.lowers(place, &files)?;
                    self.made_of(lowers, &self.storage, directory, Owners::OfImage)?
                }
            },
            layered: self.layered(directory)?,
            preserved: request.launching.preserve_fds,
            container_dir: directory.to_owned(),
            journal: crate::journal::path(place),
            volumes: place.data.join(crate::volumes::DIRECTORY),
            disk: storage::disk(&request.limits, request.launching.remove, &self.host)?,
            name_link: place.data.join("names").join(&parts.name),
            live_link: place.data.join("live").join(&parts.id),
            remove: request.launching.remove,
            // What may be started again is not removed by a start that fails.
            remove_unstarted: request.launching.life.restart == Restart::No && request.launching.life.hold == Hold::No,
            life: self.life(request, directory),
            seccomp_unconfined: seccomp_filters.is_empty(),
            seccomp_filters,
            cgroup: None,
            slirp,
            files,
            secrets: secrets.files,
            secret_variables: secrets.variables,
            pidfile: request.launching.pidfile.clone(),
            trace: request.launching.trace,
            trace_marks: Vec::new(),
        })
    }

    /// How it lives. Its log is kept unless it is to leave nothing and somebody watches it anyway.
    #[must_use]
    pub fn life(&self, request: &RunRequest, directory: &Path) -> Life {
        let life = &request.launching.life;
        let watched = request.launching.remove && !life.detach && !life.leavable;
        let log = match (&life.log, watched) {
            (None, true) | (Some(LogRequest::None), _) => Log::None,
            (None, false) => log_file(&LogRequest::default(), directory),
            (Some(file), _) => log_file(file, directory),
        };
        Life {
            detached: life.detach || life.leavable,
            accompanied: life.leavable,
            hold: life.hold,
            log,
            restart: life.restart,
            stop_signal: self.stop_signal,
            stop_seconds: life.stop_seconds.unwrap_or(DEFAULT_STOP_SECONDS),
            timeout_seconds: life.timeout_seconds,
            health: self.health.clone(),
        }
    }

    /// The profile's filters, then the one that policies asked for.
    fn seccomp_filters(&self, place: &Place) -> Result<Vec<Vec<u8>>, Failure> {
        let parts = self.admitted.spec().parts();
        let profile = parts.oci.linux().as_ref().and_then(|l| l.seccomp().as_ref());
        let overlay = parts.seccomp_overlay.to_oci(profile);
        let sections: Vec<_> = profile.into_iter().chain(&overlay).collect();
        rlrun_sandbox::seccomp::filters(&sections, &place.cache).map_err(|e| seccomp::failure(&e))
    }

    /// The directory of the host that is the root, if one is.
    #[must_use]
    pub fn directory<'a>(&'a self, request: &'a RunRequest) -> Option<&'a Path> {
        match (&request.bundle, &request.rootfs) {
            (Some(bundle), _) => Some(&bundle.root),
            (None, Some(root)) if !root.overlay => self.image.layers.first().map(PathBuf::as_path),
            (None, _) => None,
        }
    }

    /// Mounts that are made of layers, as they were admitted.
    fn layered(&self, directory: &Path) -> Result<Vec<(String, Rootfs)>, Failure> {
        let mounts = self.admitted.spec().parts().oci.mounts().as_deref().unwrap_or_default();
        let mut all = Vec::new();
        for mount in mounts.iter().filter(|m| plan_from_oci::is_layered(m)) {
            let destination = mount.destination().to_string_lossy().into_owned();
            let (lowers, owners) = if mount.typ().as_deref() == Some("image") {
                // A bundle's: the words of its mount are no way into the store, and the seal refuses it.
                let Some(image) = self.images.iter().find(|i| i.destination == destination) else { continue };
                (image.layers.clone(), Owners::OfImage)
            } else {
                (mount.source().clone().into_iter().collect(), Owners::OfHost)
            };
            let storage = storage::overlays(&self.storage, &self.host)?;
            all.push((destination, self.made_of(lowers, &storage, directory, owners)?));
        }
        Ok(all)
    }

    /// The image's layers, above one with the places of `files`. That one belongs to the caller, who is root inside
    /// only where the map is the usual one; fuse-overlayfs makes its copies as fast without it.
    fn lowers(&self, place: &Place, files: &[(String, Vec<u8>)]) -> Result<Vec<PathBuf>, Failure> {
        let mut lowers = self.image.layers.clone();
        let usual = self.storage.driver == StorageDriver::Overlay && self.userns == UserNamespace::Default;
        if usual && underlay::is_covered(files) {
            lowers.push(underlay::layer(place)?);
        }
        Ok(lowers)
    }

    fn made_of(
        &self,
        lowers: Vec<PathBuf>,
        storage: &Storage,
        directory: &Path,
        owners: Owners,
    ) -> Result<Rootfs, Failure> {
        Ok(match (storage.driver, &storage.fuse_binary) {
            (StorageDriver::Overlay, _) => Rootfs::Overlay { lowers },
            (StorageDriver::FuseOverlayfs, Some(binary)) => {
                let (uids, gids) = match owners {
                    Owners::OfImage => self.shown_owners()?,
                    Owners::OfHost => (Vec::new(), Vec::new()),
                };
                Rootfs::FuseOverlay { lowers, binary: binary.clone(), uids, gids }
            }
            (StorageDriver::FuseOverlayfs, None) | (StorageDriver::Copy | StorageDriver::Directory, _) => {
                Rootfs::Directory { path: directory.join("merged") }
            }
        })
    }

    /// Nothing to shift in the default namespace, in whose map the layers were unpacked.
    fn shown_owners(&self) -> Result<(Vec<rlrun_spec::IdMapping>, Vec<rlrun_spec::IdMapping>), Failure> {
        // A directory of the host (`--rootfs`) was not unpacked.
        if self.userns == UserNamespace::Default || self.image.identity.id.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let unpacked = idmap::plan(&self.host, &UserNamespace::Default)
            .map_err(|cause| cause.failure(&self.host, &Surroundings::read()))?
            .maps;
        let own = &self.ids.maps;
        Ok((storage::shown(&unpacked.uids, &own.uids), storage::shown(&unpacked.gids, &own.gids)))
    }

    /// Files of rlrun's own, but for those that the user mounts over.
    fn files(&self, request: &RunRequest) -> Result<Vec<(String, Vec<u8>)>, Failure> {
        let parts = self.admitted.spec().parts();
        let hostname = parts.oci.hostname().as_deref().unwrap_or_default();
        let (host, of_host) = match parts.network {
            NetworkMode::Slirp4netns => (net_files::host_address(), String::new()),
            NetworkMode::Host => (None, std::fs::read_to_string("/etc/hosts").unwrap_or_default()),
            NetworkMode::None => (None, String::new()),
        };
        let hosts = net_files::hosts(&net_files::Hosts {
            network: parts.network,
            hostname,
            name: &parts.name,
            added: &request.network.hosts,
            host,
            of_host: &of_host,
        })
        .map_err(|e| e.into_failure(Stage::Cli))?;
        // Behind, because the first match wins (hosts(5)).
        let hosts = hosts + request.own_files.hosts.as_deref().unwrap_or_default();
        let mut files = vec![
            ("/etc/hosts".to_owned(), hosts.into_bytes()),
            ("/etc/hostname".to_owned(), format!("{hostname}\n").into_bytes()),
            ("/etc/resolv.conf".to_owned(), resolv_conf(request, parts.network).into_bytes()),
        ];
        let own = &request.own_files;
        files.retain(|(path, _)| !(own.no_hosts && path == "/etc/hosts"));
        files.extend(own.timezone.iter().map(|zone| ("/etc/localtime".to_owned(), zone.clone())));
        if !own.no_passwd {
            files.extend(self.account_files.iter().cloned());
        }
        files.retain(|(path, _)| !request.mounts.iter().any(|m| m.destination() == path));
        Ok(files)
    }
}

fn log_file(request: &LogRequest, directory: &Path) -> Log {
    match request {
        LogRequest::None => Log::None,
        LogRequest::File { path, max_size, max_file } => Log::File {
            path: path.clone().unwrap_or_else(|| directory.join("ctr.log")),
            max_size: *max_size,
            max_file: *max_file,
        },
        LogRequest::Journald { tag } => Log::Journald { tag: tag.clone() },
    }
}
