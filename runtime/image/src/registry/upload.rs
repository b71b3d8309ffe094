//! Pushing: blobs that the registry lacks, then the manifest (distribution spec 1.1, "Push").

use super::client::{Client, header};
use super::retry::{Failed, with_retries};
use crate::digest::Digest;
use crate::error::{ImageError, store_io};
use crate::work::Event;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use ureq::SendBody;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};

/// Where the bytes of a blob are.
#[derive(Clone, Copy)]
pub(crate) enum Bytes<'a> {
    File(&'a Path),
    Memory(&'a [u8]),
}

/// One blob to send.
#[derive(Clone, Copy)]
pub(crate) struct Upload<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) size: u64,
    pub(crate) bytes: Bytes<'a>,
    /// Another repository of this registry that may have it.
    pub(crate) mount_from: Option<&'a str>,
}

/// How a blob came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It was there, or another repository lent it.
    Present,
    Sent,
}

/// Told of every step.
pub(crate) type Progress<'a> = &'a (dyn Fn(&Event) + Sync);

/// A file that says how much of it was read.
struct Told<'a> {
    file: File,
    name: String,
    done: u64,
    progress: Progress<'a>,
}

impl Read for Told<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf)?;
        self.done += n as u64;
        (self.progress)(&Event::BlobProgress { name: self.name.clone(), done: self.done });
        Ok(n)
    }
}

impl Client {
    /// Makes sure that the repository has a blob.
    pub(crate) fn send_blob(&self, upload: &Upload<'_>, progress: Progress<'_>) -> Result<Sent, ImageError> {
        with_retries(|| {
            if self.has(&self.blob_url(upload.digest))? {
                return Ok(Sent::Present);
            }
            let begun = match self.begin(upload, upload.mount_from) {
                // Who may not read there may still write here.
                Err(Failed::For(_)) if upload.mount_from.is_some() => self.begin(upload, None),
                other => other,
            };
            match begun? {
                None => Ok(Sent::Present),
                Some(location) => self.put_blob(upload, &location, progress).map(|()| Sent::Sent),
            }
        })
    }

    fn has(&self, url: &str) -> Result<bool, Failed> {
        let response = self.exchange(&|authorization| {
            let mut request = self.agent.head(url);
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            request.call().map_err(|e| self.failed(&e))
        })?;
        match response.status().as_u16() {
            404 => Ok(false),
            _ => self.check(response).map(|_| true),
        }
    }

    /// Where to send a blob; None when it need not be sent.
    fn begin(&self, upload: &Upload<'_>, mount_from: Option<&str>) -> Result<Option<String>, Failed> {
        let mut url = format!("{}/v2/{}/blobs/uploads/", self.base, self.reference.path());
        if let Some(from) = mount_from {
            url = format!("{url}?mount={}&from={from}", upload.digest);
        }
        let response = self.exchange(&|authorization| {
            let mut request = self.agent.post(&url);
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            request.send_empty().map_err(|e| self.failed(&e))
        })?;
        let response = self.check(response)?;
        if response.status() == 201 {
            return Ok(None);
        }
        let location =
            header(&response, LOCATION).ok_or_else(|| self.broken("it gives no place for an upload".into()))?;
        Ok(Some(self.absolute(&location)))
    }

    fn absolute(&self, location: &str) -> String {
        if location.starts_with('/') { format!("{}{location}", self.base) } else { location.to_owned() }
    }

    fn put_blob(&self, upload: &Upload<'_>, location: &str, progress: Progress<'_>) -> Result<(), Failed> {
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={}", upload.digest);
        // The place may be another server's, which our password is not for.
        let ours = url.strip_prefix(&self.base).is_some_and(|rest| rest.starts_with('/'));
        let response = self.exchange(&|authorization| {
            let mut request = self.agent.put(&url).header(CONTENT_TYPE, "application/octet-stream");
            request = request.header(CONTENT_LENGTH, upload.size.to_string());
            if let Some(authorization) = authorization.filter(|_| ours) {
                request = request.header(AUTHORIZATION, authorization);
            }
            let sent = match upload.bytes {
                Bytes::Memory(bytes) => request.send(bytes),
                Bytes::File(path) => {
                    let file = File::open(path).map_err(store_io("read a blob", path))?;
                    let name = upload.digest.to_string();
                    let mut told = Told { file, name, done: 0, progress };
                    request.send(SendBody::from_reader(&mut told))
                }
            };
            sent.map_err(|e| self.failed(&e))
        })?;
        self.check(response).map(drop)
    }

    /// Names what was sent: from here on the image can be pulled.
    pub(crate) fn put_manifest(&self, name: &str, bytes: &[u8], media_type: &str) -> Result<(), ImageError> {
        let url = format!("{}/v2/{}/manifests/{name}", self.base, self.reference.path());
        with_retries(|| {
            let response = self.exchange(&|authorization| {
                let mut request = self.agent.put(&url).header(CONTENT_TYPE, media_type);
                if let Some(authorization) = authorization {
                    request = request.header(AUTHORIZATION, authorization);
                }
                request.send(bytes).map_err(|e| self.failed(&e))
            })?;
            self.check(response).map(drop)
        })
    }
}
