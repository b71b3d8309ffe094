//! The entry of the process inside the id map.

use super::failure::{on, system};
use super::idmap::IdMap;
use super::layer::{self, Extracted, Rules};
use super::merged::Merged;
use super::{ImageFacts, Job, LayerFacts, LayerJob, UnpackJob, UnpackReply, copy, implied, measure, remove, verify};
use crate::parallel;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

/// The most that `/etc/passwd` and `/etc/group` are kept for.
const MAX_ACCOUNTS: u64 = 1 << 20;

/// Runs one job; called by the process that [`crate::InIdMap::run`] starts, as mapped root.
///
/// # Errors
/// Why the job could not be done. What it made so far is removed.
pub fn inner_main(job: &[u8]) -> Result<Vec<u8>, Failure> {
    let job: Job = serde_json::from_slice(job)
        .map_err(|e| Failure::new(Stage::Cli, Kind::Internal, "unpack", "read the job", "").why(e.to_string()))?;
    prepare_process();
    match job {
        Job::Unpack(job) => answer(&unpack(&job)?),
        Job::Remove(job) => remove::run(&job).and_then(|()| answer(&())),
        Job::Measure(paths) => answer(&measure::run(&paths)?),
        Job::Verify(job) => answer(&verify::run(&job)?),
        Job::CopyRootfs { lowers, target } => copy::rootfs(&lowers, &target).and_then(|()| answer(&())),
    }
}

fn answer(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value)
        .map_err(|e| Failure::new(Stage::Cli, Kind::Internal, "unpack", "write the answer", "").why(e.to_string()))
}

/// Modes are set exactly, and a tree may be 512 directories deep in a hundred layers.
fn prepare_process() {
    rustix::process::umask(Mode::empty());
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // Without it, only very deep trees fail, and say so.
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
}

fn unpack(job: &UnpackJob) -> Result<UnpackReply, Failure> {
    let map = |file| IdMap::read(file).map_err(on("read the id map", Path::new(file)));
    let rules = Rules { uids: map("/proc/self/uid_map")?, gids: map("/proc/self/gid_map")?, limits: job.limits };
    let done = parallel::for_each(&job.extract, |layer| extract_one(layer, &job.stage, &rules)).and_then(|extracted| {
        let images = job.finish.iter().map(|ids| finish(job, ids)).collect::<Result<_, _>>()?;
        Ok(UnpackReply { extracted, images })
    });
    if done.is_err() {
        // Later batches have nothing to build on. The caller sweeps what cannot be removed here.
        if let (Some(parent), Some(name)) = (job.stage.parent(), job.stage.file_name())
            && let Ok(dir) = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        {
            remove::remove_tree(&dir, name.as_encoded_bytes()).ok();
        }
    }
    done
}

fn extract_one(layer: &LayerJob, stage: &Path, rules: &Rules) -> Result<LayerFacts, Failure> {
    let Extracted { facts, implied } = layer::extract(layer, stage, rules)?;
    write_implied(stage, &layer.id, &implied)?;
    let json = answer(&facts)?;
    write_new(&stage.join(format!("{}.json", layer.id)), &json)?;
    Ok(facts)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let open = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, open, Mode::RUSR | Mode::WUSR).map_err(on("write the layer's facts", path))?;
    fs::File::from(fd)
        .write_all(bytes)
        .map_err(|e| system("write the layer's facts", path.display().to_string(), super::failure::errno(&e)))
}

/// Paths hold no NUL bytes, so those part them. The root's path is empty.
fn write_implied(stage: &Path, id: &str, implied: &BTreeSet<Vec<u8>>) -> Result<(), Failure> {
    let list: Vec<&[u8]> = implied.iter().map(Vec::as_slice).collect();
    let bytes = if list.is_empty() { Vec::new() } else { [&list.join(&0)[..], b"\0"].concat() };
    write_new(&stage.join(format!("{id}.implied")), &bytes)
}

fn read_implied(stage: &Path, id: &str) -> Result<BTreeSet<Vec<u8>>, Failure> {
    let path = stage.join(format!("{id}.implied"));
    let bytes = fs::read(&path)
        .map_err(|e| system("read the layer's facts", path.display().to_string(), super::failure::errno(&e)))?;
    let list = bytes.strip_suffix(b"\0").map(|b| b.split(|&b| b == 0).map(<[u8]>::to_vec).collect());
    Ok(list.unwrap_or_default())
}

/// Puts an image's layers into the store, lowest first, and looks at what the image is from inside.
fn finish(job: &UnpackJob, ids: &[String]) -> Result<ImageFacts, Failure> {
    for (index, id) in ids.iter().enumerate().rev() {
        if job.stage.join(id).is_dir() {
            finish_layer(job, id, &ids[index + 1..])?;
        }
    }
    let mut visible = ids.len();
    for (index, id) in ids.iter().enumerate() {
        if read_facts(&job.layers.join(format!("{id}.json")))?.opaque_root {
            visible = index + 1;
            break;
        }
    }
    let fail = || on("read the accounts of the image", &job.layers);
    let merged = Merged::open(ids[..visible].iter().map(|id| job.layers.join(id))).map_err(fail())?;
    let text = |path: &[u8]| {
        let bytes = merged.read_file(path, MAX_ACCOUNTS).map_err(fail())?;
        Ok::<_, Failure>(bytes.map(|b| String::from_utf8_lossy(&b).into_owned()))
    };
    Ok(ImageFacts { passwd: text(b"etc/passwd")?, group: text(b"etc/group")?, visible })
}

fn read_facts(path: &Path) -> Result<LayerFacts, Failure> {
    let bytes = fs::read(path)
        .map_err(|e| system("read the layer's facts", path.display().to_string(), super::failure::errno(&e)))?;
    serde_json::from_slice(&bytes).map_err(|e| {
        let object = path.display().to_string();
        Failure::new(Stage::Cli, Kind::Runtime, "unpack", "read the layer's facts", object).why(e.to_string())
    })
}

fn finish_layer(job: &UnpackJob, id: &str, below: &[String]) -> Result<(), Failure> {
    let staged = job.stage.join(id);
    let implied = read_implied(&job.stage, id)?;
    if !implied.is_empty() && !below.is_empty() {
        let fail = || on("finish the layer", &staged);
        let root = rustix::fs::open(&staged, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let merged = Merged::open(below.iter().map(|id| job.layers.join(id))).map_err(fail())?;
        implied::adopt(&root.map_err(fail())?, &implied, &merged).map_err(fail())?;
    }
    publish(job, id).map_err(on("put the layer into the store", &staged))
}

/// Facts first: a directory without them is never reused, one with them is complete.
fn publish(job: &UnpackJob, id: &str) -> Result<(), Errno> {
    let facts = format!("{id}.json");
    let (staged, published) = (job.stage.join(id), job.layers.join(id));
    if published.is_dir() && !job.layers.join(&facts).exists() {
        // Half of a removal that was interrupted.
        rustix::fs::rename(&published, job.stage.join(format!("{id}.old")))?;
    }
    rustix::fs::rename(job.stage.join(&facts), job.layers.join(&facts))?;
    match rustix::fs::rename(&staged, &published) {
        // Another process extracted the same layer meanwhile: one is as good as the other.
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            let stage =
                rustix::fs::open(&job.stage, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            remove::remove_tree(&stage, id.as_bytes())
        }
        other => other,
    }
}
