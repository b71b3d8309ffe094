//! Registries: which ones a name means (registries.conf), who we are there (auth.json), how to talk to them
//! (distribution spec 1.1).

mod client;
mod conf;
mod credentials;
mod download;
mod retry;
mod tls;
mod token;

pub(crate) use client::{Client, FetchedManifest};
pub(crate) use conf::Registries;
pub(crate) use credentials::Credentials;
pub(crate) use download::BlobRequest;
