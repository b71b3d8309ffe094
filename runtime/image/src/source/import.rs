//! `import`: the tar archive of a root file system becomes an image of one layer.

use super::spool::{layer_media_type, tar_error};
use crate::decompress::{Bounded, decompressed};
use crate::digest::{Digest, HashingReader};
use crate::error::ImageError;
use crate::manifest;
use crate::reference::Reference;
use crate::store::{BlobWriter, Ingest, NewImage, Stored, read_config};
use crate::tarball::{TarError, TarReader};
use rlrun_spec::time::utc;
use serde_json::{Map, Value};
use std::io::{self, BufReader, Read};

/// Changes the `config` object of an image configuration.
pub type ChangeConfig<'a> = &'a dyn Fn(&mut Map<String, Value>);

/// What is said about a root file system that becomes an image.
#[derive(Clone, Copy, Default)]
pub struct Import<'a> {
    /// Its name; without one it can be used by its id.
    pub name: Option<&'a str>,
    /// Instead of where it is from.
    pub message: Option<&'a str>,
    /// `linux/arm64`; this machine's when None.
    pub platform: Option<&'a str>,
    /// Changes what it says about containers made from it.
    pub change: Option<ChangeConfig<'a>>,
}

impl std::fmt::Debug for Import<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Import").field("name", &self.name).field("platform", &self.platform).finish_non_exhaustive()
    }
}

pub(super) fn import(
    ingest: Ingest<'_>,
    rootfs: &mut (dyn Read + Send),
    object: &str,
    how: &Import<'_>,
) -> Result<Stored, ImageError> {
    let name = how.name;
    let names: Vec<Reference> = name.map(Reference::parse_local).transpose()?.into_iter().collect();
    if names.iter().any(|n| n.digest().is_some()) {
        return Err(ImageError::reference(name.unwrap_or_default(), "an image cannot be given a digest, it has one"));
    }
    let (digest, size, diff_id) = spool(&ingest, rootfs, object, Empty::Refused)?;
    let config = config(&diff_id, object, how)?;
    let config_digest = ingest.add_blob(&config)?;
    let contents = read_config(&config, object, vec![(digest.clone(), size)], &ingest.work.limits)?;
    let media_type = layer_media_type(&ingest, &digest);
    let manifest = manifest::write((&config_digest, config.len() as u64), &[(digest, size, media_type)]);
    let image = NewImage {
        manifest: ingest.add_blob(&manifest)?,
        config_digest,
        contents,
        others: Vec::new(),
        names,
        found: None,
    };
    ingest.approve(&image)?;
    let stored = ingest.commit(vec![image])?;
    stored.into_iter().next().ok_or_else(|| ImageError::malformed(object, "nothing was imported"))
}

/// Whether an archive without entries will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Empty {
    /// A container may have changed nothing.
    Allowed,
    /// A root file system is not empty.
    Refused,
}

/// Keeps what arrives as a blob and computes what it decompresses to, in one pass; also reads all headers, so that a cut-off
/// archive is refused here: nobody promised a digest for it.
pub(super) fn spool(
    ingest: &Ingest<'_>,
    rootfs: &mut (dyn Read + Send),
    object: &str,
    empty: Empty,
) -> Result<(Digest, u64, Digest), ImageError> {
    let mut writer = BlobWriter::new(ingest, "rootfs")?;
    let mut write_error = None;
    let read = {
        let tee = Tee { inner: rootfs, writer: &mut writer, error: &mut write_error };
        read_all(tee, ingest.work.limits.layer_bytes, empty)
    };
    if let Some(error) = write_error {
        return Err(error);
    }
    let diff_id = read.map_err(|e| tar_error(object, e))?;
    let (digest, size) = writer.keep(ingest)?;
    Ok((digest, size, diff_id))
}

fn read_all(mut tee: Tee<'_>, limit: u64, empty: Empty) -> Result<Digest, TarError> {
    let plain = decompressed(&mut tee)?;
    let mut reader =
        TarReader::new(BufReader::with_capacity(256 << 10, HashingReader::new(Bounded::new(plain, limit))));
    let mut entries = 0u64;
    while reader.next_entry()?.is_some() {
        entries += 1;
    }
    if entries == 0 && empty == Empty::Refused {
        return Err(TarError::malformed("it is no tar archive, or an empty one"));
    }
    if !reader.ended() {
        return Err(TarError::malformed("it is truncated: its end mark is missing"));
    }
    let mut rest = reader.into_inner();
    io::copy(&mut rest, &mut io::sink())?;
    let digest = rest.into_inner().digest();
    // Bytes after a compressed stream belong to the blob all the same.
    io::copy(&mut tee, &mut io::sink())?;
    Ok(digest)
}

/// Writes what is read through it.
struct Tee<'a> {
    inner: &'a mut (dyn Read + Send),
    writer: &'a mut BlobWriter,
    /// What went wrong with writing, which the reader's side cannot tell from a broken archive.
    error: &'a mut Option<ImageError>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.writer.write(&buf[..n]).map_err(|e| {
            *self.error = Some(e);
            io::Error::other("the blob could not be written")
        })?;
        Ok(n)
    }
}

fn config(diff_id: &Digest, object: &str, how: &Import<'_>) -> Result<Vec<u8>, ImageError> {
    let created = now();
    let platform = match how.platform {
        None => manifest::Platform::host(),
        Some(text) => text.parse().map_err(|why: String| ImageError::reference(text, why))?,
    };
    let mut inner = Map::new();
    if let Some(change) = how.change {
        change(&mut inner);
    }
    let comment = how.message.map_or_else(|| format!("imported from {object}"), str::to_owned);
    let mut config = serde_json::json!({
        "created": created,
        "architecture": platform.architecture(),
        "os": platform.os(),
        "config": inner,
        "rootfs": {"type": "layers", "diff_ids": [diff_id.as_str()]},
        "history": [{"created": created, "comment": comment}],
    });
    if let Some(variant) = platform.variant().filter(|_| how.platform.is_some()) {
        config["variant"] = variant.into();
    }
    Ok(config.to_string().into_bytes())
}

/// The time, as image configurations write it.
pub(super) fn now() -> String {
    rfc3339(std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs()))
}

/// Seconds since the epoch as a UTC time.
fn rfc3339(seconds: u64) -> String {
    utc(seconds) + "Z"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_other_tools_write_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(rfc3339(1_767_225_599), "2025-12-31T23:59:59Z");
    }
}
