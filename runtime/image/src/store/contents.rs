//! What is in an image's layers, for policies: read only when one of them asks.

use super::Store;
use super::record::{Record, RecordName};
use crate::unpack::Uppers;
use rlrun_spec::ImageIdentity;
use rlrun_spec::policy::{PrivilegedFile, PrivilegedFiles};

/// Files that are told of one image.
const FILES: usize = 2048;
/// Looks into layers above, for all files together; those beyond are told as if nothing hid them.
const LOOKS: usize = 8192;

impl Store {
    /// The files of an image that have a set-user-ID or set-group-ID bit or capabilities, top layer first, without those
    /// that a layer above hides as far as that can be told. An image that is gone is unknown.
    #[must_use]
    pub fn privileged_files(&self, identity: &ImageIdentity) -> PrivilegedFiles {
        let Some(record) = self.record_of(identity) else {
            return PrivilegedFiles { unknown: true, ..PrivilegedFiles::default() };
        };
        let mut told = PrivilegedFiles::default();
        let mut uppers = Uppers::new(LOOKS);
        for id in &record.layers {
            let facts = self.layer_facts(id).ok().flatten();
            let Some((diff_id, privileged)) = facts.and_then(|facts| Some((facts.diff_id, facts.privileged?))) else {
                told.unknown = true;
                uppers.put_below(self.layers().join(id));
                continue;
            };
            told.truncated |= privileged.truncated;
            for file in privileged.files {
                if !file.escaped && uppers.hide(file.path.as_bytes()) {
                    continue;
                }
                if told.files.len() == FILES {
                    told.truncated = true;
                    return told;
                }
                told.files.push(PrivilegedFile {
                    path: format!("/{}", file.path),
                    set_user_id: file.set_user_id,
                    set_group_id: file.set_group_id,
                    file_capabilities: file.capabilities,
                    uid: file.uid,
                    gid: file.gid,
                    layer: diff_id.to_string(),
                });
            }
            uppers.put_below(self.layers().join(id));
        }
        told
    }

    /// Whether [`Store::privileged_files`] knows the image.
    #[must_use]
    pub fn holds(&self, identity: &ImageIdentity) -> bool {
        self.record_of(identity).is_some()
    }

    fn record_of(&self, identity: &ImageIdentity) -> Option<Record> {
        let name = RecordName { id: identity.id.parse().ok()?, manifest: identity.digest.parse().ok()? };
        Record::read(&self.record_path(&name)).ok().flatten()
    }
}
