//! The files of containers, running or not: `cp`, `export`, `diff`, and what `commit` makes a layer of.
//!
//! A job of rlrun's own does the work as root of the container's id map ([`crate::id_map_job`]). Of a container that
//! rests it mounts the files for itself; of one that runs it is given the root, opened through /proc, and enters the
//! user namespace and nothing else: no process of the container can see it. It has no power on the host that the
//! caller lacks, and every path inside is resolved from the root's descriptor.

mod copy;
mod inside;
mod reach;

pub use copy::{End, Options as CopyOptions, copy, end};
pub(crate) use inside::inside;
pub use rlrun_image::files::{Change, ChangeKind};

use crate::containers::{Container, DISK};
use crate::images::Store;
use crate::place::Place;
use crate::policies::may_leave;
use crate::volumes::{Volume, backing};
use inside::Task;
use reach::{Reach, View, Working};
use rlrun_image::files::{Style, Upper};
use rlrun_sandbox::Lent;
use rlrun_spec::container::UserNamespace;
use rlrun_spec::policy::Outward;
use rlrun_spec::{Failure, Kind, Stage};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

fn failure(operation: &str, object: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Runtime, "copy-files", operation, object)
}

/// The directory of the host in the place of an image (`--rootfs DIRECTORY:O`), if there is one.
pub(crate) fn root_directory(container: &Container) -> Result<Option<PathBuf>, Failure> {
    Ok(reach::details(container)?.request.rootfs.map(|root| root.path))
}

/// Two ends of a pipe: to read from, and to write to.
fn pipe(object: &str) -> Result<(OwnedFd, OwnedFd), Failure> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| failure("make a pipe for", object).errno(errno.raw_os_error()))
}

/// `rlrun export`: the whole root file system as a tar archive, without what is mounted in it. The destination is what
/// policies are told; it is opened when they have agreed.
///
/// # Errors
/// When a policy refuses, the container cannot be read, or the destination not be written.
pub fn export(
    place: &Place,
    container: &Container,
    destination: &str,
    open: impl FnOnce() -> Result<OwnedFd, Failure>,
) -> Result<(), Failure> {
    may_leave(place, container, (Outward::Export, "/", destination))?;
    let out = Lent::of(open()?)?;
    let task = Task::Pack { path: b"/".to_vec(), name: Vec::new(), out: out.number() };
    Reach::open(place, container, View::Files)?.start(task, vec![out])?.finish().map(drop)
}

/// A layer of what a container has changed, or of all its files, as a tar stream; and the job that writes it.
pub(crate) fn layer(place: &Place, container: &Container, whole: bool) -> Result<(OwnedFd, Working), Failure> {
    let (read, write) = pipe(&container.summary.name)?;
    let out = Lent::of(write)?;
    let working = if whole {
        let task = Task::Pack { path: b"/".to_vec(), name: Vec::new(), out: out.number() };
        Reach::open(place, container, View::Files)?.start(task, vec![out])?
    } else {
        owners_are_the_images(container)?;
        let reach = Reach::open(place, container, View::Changes)?;
        let task = Task::Layer { upper: reach.upper(container)?, out: out.number() };
        reach.start(task, vec![out])?
    };
    Ok((read, working))
}

/// On a file system of its own the changes have the owners that the container's id map shows, shifted by keep-id.
fn owners_are_the_images(container: &Container) -> Result<(), Failure> {
    if !container.directory.join(DISK).exists() || reach::details(container)?.spec.userns == UserNamespace::Default {
        return Ok(());
    }
    Err(failure("make a layer of the changes of", &container.summary.name)
        .why("with --userns=keep-id and --storage-opt size= their owners are not those of the image")
        .hint("rlrun export writes all of its files, and rlrun import makes an image of them"))
}

/// `rlrun volume export`: what is in a volume, as a tar archive.
///
/// # Errors
/// When it cannot be read, or `out` not be written.
pub fn export_volume(place: &Place, volume: &Volume, out: OwnedFd) -> Result<(), Failure> {
    let out = Lent::of(out)?;
    let task = Task::Pack { path: path_of(place, volume)?, name: Vec::new(), out: out.number() };
    Reach::nowhere(place)?.start(task, vec![out])?.finish().map(drop)
}

/// `rlrun volume import`: a tar archive, unpacked into a volume.
///
/// # Errors
/// When it is no archive, or the volume cannot be written.
pub fn import_volume(place: &Place, volume: &Volume, input: OwnedFd) -> Result<(), Failure> {
    let input = Lent::of(input)?;
    let path = path_of(place, volume)?;
    let task = Task::Receive { path, copy: None, owner: None, overwrite: true, input: input.number() };
    Reach::nowhere(place)?.start(task, vec![input])?.finish().map(drop)
}

fn path_of(place: &Place, volume: &Volume) -> Result<Vec<u8>, Failure> {
    Ok(backing::directory(place, volume)?.as_os_str().as_encoded_bytes().to_vec())
}

/// `rlrun diff`: what differs from the image, without what rlrun itself put there for mounts.
///
/// # Errors
/// When the container cannot be read.
pub fn diff(place: &Place, container: &Container) -> Result<Vec<Change>, Failure> {
    let reach = Reach::open(place, container, View::Changes)?;
    let task = Task::Changes(reach.upper(container)?);
    let answer = reach.start(task, Vec::new())?.finish()?;
    let mut all: Vec<Change> = serde_json::from_slice(&answer)
        .map_err(|e| failure("read the changes of", &container.summary.name).why(e.to_string()))?;
    let details = reach::details(container)?;
    let mounts = details.spec.oci.mounts().as_deref().unwrap_or_default();
    all.retain(|change| {
        let ours = mounts.iter().any(|m| m.destination().as_os_str().as_encoded_bytes() == change.path)
            || OWN.contains(&change.path.as_slice());
        change.kind == ChangeKind::Deleted || !ours
    });
    Ok(all)
}

/// `rlrun diff IMAGE`: what its last layer changed of those below.
///
/// # Errors
/// When there is no such image, or it cannot be read.
pub fn diff_image(place: &Place, name: &str) -> Result<Vec<Change>, Failure> {
    let store = Store::new(&place.data);
    let _pin = store.pin()?;
    let mut layers = store.resolve(name)?.layers.into_iter();
    let Some(directory) = layers.next() else { return Ok(Vec::new()) };
    let task = Task::Changes(Upper { style: Style::Overlay, directory, lowers: layers.collect() });
    let answer = Reach::nowhere(place)?.start(task, Vec::new())?.finish()?;
    serde_json::from_slice(&answer).map_err(|e| failure("read the changes of", name).why(e.to_string()))
}

/// Places of rlrun's own files and mounts.
const OWN: [&[u8]; 7] = [b"/dev", b"/proc", b"/sys", b"/run", b"/etc/hosts", b"/etc/hostname", b"/etc/resolv.conf"];
