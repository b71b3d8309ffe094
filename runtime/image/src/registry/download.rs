//! Blobs: streamed to disk, hashed on the way, resumed where a connection was lost.

use super::client::{Client, header};
use super::outside::{self, Nearness};
use super::pace::Paced;
use super::retry::{Failed, pause};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::reference::Reference;
use crate::store::BlobWriter;
use crate::work::Event;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use ureq::Body;
use ureq::http::header::CONTENT_RANGE;
use ureq::http::{Response, Uri};

/// Read at a time; also how often progress is told.
const CHUNK: usize = 256 << 10;
/// After so many further bytes a download is worth as many tries as in the beginning.
const HOPE: u64 = 1 << 20;

/// One blob to fetch.
pub(crate) struct BlobRequest<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) size: u64,
    /// Where it is written.
    pub(crate) path: &'a Path,
    /// Where the manifest says that it is; the registry is asked last.
    pub(crate) urls: &'a [Uri],
    /// Another download failed, so that this one is for nothing.
    pub(crate) cancelled: &'a AtomicBool,
}

/// Makes a request for the blob, with these headers.
type Open<'a> = &'a dyn Fn(&[(&str, String)]) -> Result<Response<Body>, Failed>;

/// What became of a request whose answer broke off.
type Lost<'a> = &'a dyn Fn(ureq::Error) -> Failed;

/// A blob on its way.
struct Download<'a> {
    request: &'a BlobRequest<'a>,
    /// The image, with its registry.
    object: &'a Reference,
    writer: BlobWriter,
    progress: &'a (dyn Fn(&Event) + Sync),
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
        let mut download =
            Download { request, object: &self.reference, writer: BlobWriter::at(request.path)?, progress };
        let publisher = match download.publishers(self.reference.domain()) {
            Some(Ok(())) => {
                progress(&Event::BlobDone(name));
                return Ok(download.writer.finish().2);
            }
            Some(Err(e)) => Some(e),
            None => None,
        };
        let url = self.blob_url(request.digest);
        let open = |headers: &[(&str, String)]| self.get(&url, headers);
        // Few registries have what only its publisher distributes: what he answers says more.
        download.whole(&open, &|e| self.failed(&e)).map_err(|e| publisher.unwrap_or(e))?;
        progress(&Event::BlobDone(name));
        Ok(download.writer.finish().2)
    }
}

impl Download<'_> {
    /// From where the manifest says; the first failure if none of these places gives it, None if there is none.
    fn publishers(&mut self, registry: &str) -> Option<Result<(), ImageError>> {
        let urls = self.request.urls;
        let allowed = urls.first().map(|_| Nearness::of_registry(registry))?;
        let mut first = None;
        for url in urls {
            let tried = outside::agent(url, allowed).and_then(|agent| {
                let open = |headers: &[(&str, String)]| outside::get(&agent, url, headers);
                self.whole(&open, &|e| outside::failed(url, &e))
            });
            match tried.or_else(|e| self.writer.restart().and(Err(e))) {
                Ok(()) => return Some(Ok(())),
                Err(e) => first.get_or_insert(e),
            };
        }
        first.map(Err)
    }

    /// From one place: all of it, with the right digest. Where a connection is lost it is taken up again.
    fn whole(&mut self, open: Open<'_>, lost: Lost<'_>) -> Result<(), ImageError> {
        let (promised, expected) = (self.request.digest, self.request.size);
        let mut resumed = false;
        loop {
            resumed |= self.patiently(open, lost)?;
            let (size, digest) = (self.writer.size(), self.writer.digest());
            if size != expected {
                return Err(ImageError::wrong_size(format!("{}: blob {promised}", self.object), expected, size));
            }
            if &digest == promised {
                return Ok(());
            }
            if !resumed {
                return Err(ImageError::mismatch(format!("{}: blob", self.object), promised, digest));
            }
            // Perhaps what came later was not the rest of what came first. Once more, in one piece if it can be.
            self.writer.restart()?;
            resumed = false;
        }
    }

    /// As long as something comes there is hope: only tries in a row that bring next to nothing are counted. Whether it
    /// came in pieces.
    fn patiently(&mut self, open: Open<'_>, lost: Lost<'_>) -> Result<bool, ImageError> {
        let (mut tries, mut resumed) = (0, false);
        loop {
            let before = self.writer.size();
            match self.receive(open, lost) {
                Ok(()) => return Ok(resumed),
                Err(Failed::For(e)) => return Err(e),
                Err(Failed::Passing(e, asked)) => {
                    if self.writer.size() >= before.saturating_add(HOPE) {
                        tries = 0;
                    }
                    std::thread::sleep(pause(tries, asked).ok_or(e)?);
                    tries += 1;
                    resumed = true;
                }
            }
        }
    }

    /// One try, from where the last one ended.
    fn receive(&mut self, open: Open<'_>, lost: Lost<'_>) -> Result<(), Failed> {
        let Download { request, writer, progress, .. } = self;
        let so_far = writer.size();
        if so_far > 0 && so_far == request.size {
            // The connection broke behind the last byte.
            return Ok(());
        }
        let broken = |why: String| ImageError::Registry { object: format!("blob {}", request.digest), why, hint: None };
        let range = (so_far > 0).then(|| ("Range", format!("bytes={so_far}-")));
        let mut response = open(range.as_slice())?;
        if so_far > 0 && response.status() != 206 {
            // It does not know ranges, and began from the start.
            writer.restart()?;
        } else if so_far > 0 && header(&response, CONTENT_RANGE).is_some_and(|range| !begins_at(&range, so_far)) {
            writer.restart()?;
            return Err(Failed::Passing(broken("another part of it came than was asked for".to_owned()), None));
        }
        let mut body = Paced::new(response.body_mut().with_config().limit(u64::MAX).reader());
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = body.read(&mut chunk).map_err(|e| lost(ureq::Error::from(e)))?;
            if n == 0 {
                break;
            }
            if request.cancelled.load(Ordering::Relaxed) {
                return Err(broken("the download was given up".to_owned()).into());
            }
            writer.write(&chunk[..n])?;
            if writer.size() > request.size {
                let object = format!("blob {}", request.digest);
                return Err(ImageError::wrong_size(object, request.size, format!("at least {}", writer.size())).into());
            }
            progress(&Event::BlobProgress { name: request.digest.to_string(), done: writer.size() });
        }
        if writer.size() < request.size {
            let why = format!("it ended after {} of {} bytes", writer.size(), request.size);
            return Err(Failed::Passing(broken(why), None));
        }
        Ok(())
    }
}

/// `bytes 100-199/200` (RFC 9110, 14.4).
fn begins_at(range: &str, at: u64) -> bool {
    let first = range.trim().strip_prefix("bytes").and_then(|rest| rest.trim_start().split('-').next());
    first.is_some_and(|first| first.trim().parse() == Ok(at))
}
