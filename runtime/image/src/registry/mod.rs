//! Registries: which ones a name means (registries.conf), who we are there (auth.json), how to talk to them
//! (distribution spec 1.1).

mod client;
mod conf;
mod credentials;
mod download;
mod helper;
mod listing;
mod login;
mod lookaside;
mod outside;
mod pace;
mod redirect;
mod referrers;
mod retry;
mod tls;
mod token;
mod upload;

pub use login::{Kept, logged_in, login, logout};

pub(crate) use client::{Client, FetchedManifest, Purpose, is_insecure};
pub(crate) use conf::{Endpoint, Registries, config_home};
pub use credentials::Credentials;
pub(crate) use download::BlobRequest;
pub(crate) use lookaside::{Lookaside, MAX_SIGNATURE, MAX_SIGNATURES, RawSignature, read_signatures};
pub(crate) use outside::usable;
pub(crate) use upload::{Bytes, Sent, Upload};

/// For [`crate::fuzz`].
#[cfg(test)]
pub(crate) mod fuzz {
    use crate::reference::Reference;
    use std::path::Path;

    pub(crate) fn read(text: &str) {
        super::conf::fuzz_read(text);
        if let Ok(reference) = Reference::parse("a.io/b/c:1") {
            drop(super::credentials::in_file(text, Path::new("auth.json"), &reference));
        }
        drop(super::token::Challenge::parse(text));
        super::lookaside::fuzz_read(text);
        super::referrers::fuzz_read(text);
    }
}
