//! Jobs that run as mapped root inside the user's id map, in a process of their own: it parses hostile layers, holds no
//! credentials, and can touch nothing that the user could not.

mod copy;
mod entry;
mod failure;
mod idmap;
mod implied;
mod layer;
mod measure;
mod merged;
mod pipe;
mod privileged;
mod remove;
mod run;
mod tree;
mod verify;
mod whiteout;

pub use run::inner_main;

pub(crate) use entry::is_harmless;
pub(crate) use merged::Uppers;
pub(crate) use privileged::Privileged;
pub(crate) use remove::remove_tree;
pub(crate) use tree::{clean, split};
pub(crate) use whiteout::{is_opaque, is_whiteout, open_dir, stat};

use crate::digest::Digest;
use crate::limits::Limits;
use crate::work::InIdMap;
use rlrun_spec::{Failure, Kind, Stage};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What [`inner_main`] is asked to do; travels as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Extracts layers, and finishes images whose layers are all there.
    Unpack(UnpackJob),
    /// Removes what only mapped root can remove.
    Remove(RemoveJob),
    /// Tells how much is below each of these directories.
    Measure(Vec<PathBuf>),
    /// Compares extracted layers with their archives.
    Verify(VerifyJob),
    /// Copies layers together into one directory (driver `copy`).
    CopyRootfs {
        /// Extracted layers, top first.
        lowers: Vec<PathBuf>,
        /// Missing or an empty directory.
        target: PathBuf,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UnpackJob {
    /// Layers are extracted to `<stage>/<id>`.
    pub(crate) stage: PathBuf,
    /// Finished layers are renamed to `<layers>/<id>`.
    pub(crate) layers: PathBuf,
    pub(crate) extract: Vec<LayerJob>,
    /// Images to finish, each as the ids of its layers, top first.
    pub(crate) finish: Vec<Vec<String>>,
    pub(crate) limits: Limits,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LayerJob {
    /// Directory name.
    pub(crate) id: String,
    /// The layer as it came; compression is told by its first bytes.
    pub(crate) blob: PathBuf,
    /// What it must decompress to.
    pub(crate) diff_id: Digest,
    /// Digest over this layer's diff-id and all below it.
    pub(crate) chain_id: Digest,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct UnpackReply {
    pub(crate) extracted: Vec<LayerFacts>,
    pub(crate) images: Vec<ImageFacts>,
}

/// What is known of an extracted layer; kept beside it as `<id>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerFacts {
    pub(crate) chain_id: Digest,
    pub(crate) diff_id: Digest,
    /// Bytes it decompressed to.
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    pub(crate) skipped_devices: u64,
    pub(crate) squashed_owners: u64,
    /// The layer hides everything below it. Overlay file systems do not look at the mark on a layer's root.
    pub(crate) opaque_root: bool,
    /// Its files with set-user-ID bits and the like; None where that was not looked for when it was extracted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) privileged: Option<Privileged>,
}

/// What a finished image looks like from inside.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ImageFacts {
    pub(crate) passwd: Option<String>,
    pub(crate) group: Option<String>,
    /// How many of its layers, from the top, are to be mounted.
    pub(crate) visible: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VerifyJob {
    pub(crate) layers: Vec<VerifyLayer>,
    pub(crate) limits: Limits,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VerifyLayer {
    pub(crate) directory: PathBuf,
    /// The layer as it came.
    pub(crate) blob: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RemoveJob {
    /// Directories to remove.
    pub(crate) paths: Vec<PathBuf>,
    /// Where each is renamed to first, so that no half of it is taken for a layer; same file system.
    pub(crate) trash: PathBuf,
}

/// The job that copies `lowers` (top first) together into `target`, for storage driver `copy`. Give it to
/// [`crate::InIdMap::run`]; whiteouts and opaque directories are applied, hard links kept, nothing is answered.
///
/// # Errors
/// When a path is not UTF-8.
pub fn copy_rootfs_job(lowers: &[PathBuf], target: &Path) -> Result<Vec<u8>, Failure> {
    encode(&Job::CopyRootfs { lowers: lowers.to_vec(), target: target.to_owned() })
}

/// Bytes of the files below each directory, whoever owns them.
///
/// # Errors
/// When one cannot be read, or the id map cannot be entered.
pub fn measure(ids: &dyn InIdMap, paths: Vec<PathBuf>) -> Result<Vec<u64>, Failure> {
    let answer = ids.run(&encode(&Job::Measure(paths))?)?;
    serde_json::from_slice(&answer).map_err(|e| {
        Failure::new(Stage::Cli, Kind::Internal, "unpack", "read the answer of the id map", "").why(e.to_string())
    })
}

/// What is wrong with each extracted layer; None where nothing is.
pub(crate) fn verify(ids: &dyn InIdMap, layers: Vec<VerifyLayer>) -> Result<Vec<Option<String>>, Failure> {
    if layers.is_empty() {
        return Ok(Vec::new());
    }
    let answer = ids.run(&encode(&Job::Verify(VerifyJob { layers, limits: Limits::default() }))?)?;
    serde_json::from_slice(&answer).map_err(|e| {
        Failure::new(Stage::Cli, Kind::Internal, "unpack", "read the answer of the id map", "").why(e.to_string())
    })
}

pub(crate) fn encode(job: &Job) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(job).map_err(|e| {
        Failure::new(Stage::Cli, Kind::Internal, "unpack", "write the job for the id map", "").why(e.to_string())
    })
}

/// For [`crate::fuzz`].
#[cfg(test)]
pub(crate) mod fuzz {
    use super::idmap::IdMap;
    use super::layer::{self, Rules};
    use super::{LayerJob, Limits, Path};
    use crate::digest::Digest;

    /// Needs no user namespace where the owner of every entry is the one who runs it.
    pub(crate) fn extract(blob: &Path, stage: &Path, limits: Limits, digest: &Digest) {
        let all = IdMap::read("/proc/self/uid_map").unwrap();
        let rules = Rules { uids: all.clone(), gids: all, limits };
        let job = LayerJob { id: "layer".into(), blob: blob.into(), diff_id: digest.clone(), chain_id: digest.clone() };
        drop(layer::extract(&job, stage, &rules));
    }
}
