//! Registries: which ones a name means (registries.conf), who we are there (auth.json), how to talk to them
//! (distribution spec 1.1).

mod client;
mod conf;
mod credentials;
mod download;
mod helper;
mod login;
mod retry;
mod tls;
mod token;
mod upload;

pub use login::{Kept, logged_in, login, logout};

pub(crate) use client::{Client, FetchedManifest, Purpose};
pub(crate) use conf::{Registries, config_home};
pub use credentials::Credentials;
pub(crate) use download::BlobRequest;
pub(crate) use upload::{Bytes, Sent, Upload};
