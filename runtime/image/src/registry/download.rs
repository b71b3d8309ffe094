//! Blobs: streamed to disk, hashed on the way, resumed where a connection was lost.

use super::client::Client;
use super::retry::{Failed, with_retries};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::store::BlobWriter;
use crate::work::Event;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Read at a time; also how often progress is told.
const CHUNK: usize = 256 << 10;

/// One blob to fetch.
pub(crate) struct BlobRequest<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) size: u64,
    /// Where it is written.
    pub(crate) path: &'a Path,
    /// Another download failed, so that this one is for nothing.
    pub(crate) cancelled: &'a AtomicBool,
}

impl Client {
    /// Fetches a blob; what is at the path afterwards has the digest and the size that were promised.
    pub(crate) fn blob(
        &self,
        request: &BlobRequest<'_>,
        progress: &(dyn Fn(&Event) + Sync),
    ) -> Result<PathBuf, ImageError> {
        let name = request.digest.to_string();
        progress(&Event::BlobStarted { name: name.clone(), size: request.size });
        let mut writer = BlobWriter::at(request.path)?;
        with_retries(|| self.receive(request, &mut writer, progress))?;
        let (digest, size, path) = writer.finish();
        if size != request.size {
            return Err(ImageError::wrong_size(format!("blob {name}"), request.size, size));
        }
        if &digest != request.digest {
            return Err(ImageError::mismatch("blob", request.digest, digest));
        }
        progress(&Event::BlobDone(name));
        Ok(path)
    }

    /// One try, from where the last one ended.
    fn receive(
        &self,
        request: &BlobRequest<'_>,
        writer: &mut BlobWriter,
        progress: &(dyn Fn(&Event) + Sync),
    ) -> Result<(), Failed> {
        let url = self.blob_url(request.digest);
        let resumed = writer.size();
        let range = (resumed > 0).then(|| ("Range", format!("bytes={resumed}-")));
        let mut response = self.get(&url, range.as_slice())?;
        if resumed > 0 && response.status() != 206 {
            // It does not know ranges, and began from the start.
            writer.restart()?;
        }
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = body.read(&mut chunk).map_err(|e| self.failed(&ureq::Error::from(e)))?;
            if n == 0 {
                break;
            }
            if request.cancelled.load(Ordering::Relaxed) {
                return Err(self.broken("the download was given up".to_owned()).into());
            }
            writer.write(&chunk[..n])?;
            if writer.size() > request.size {
                let object = format!("blob {}", request.digest);
                return Err(ImageError::wrong_size(object, request.size, format!("at least {}", writer.size())).into());
            }
            progress(&Event::BlobProgress { name: request.digest.to_string(), done: writer.size() });
        }
        if writer.size() < request.size {
            let why = format!("blob {} ended after {} of {} bytes", request.digest, writer.size(), request.size);
            return Err(Failed::Passing(self.broken(why), None));
        }
        Ok(())
    }
}
