//! The verbs of rlrun and the records of containers: from a request to a sealed plan, and what is kept of it.
//!
//! Everything is decided here and nothing is confined here: the sandbox accepts only the sealed plan.

pub mod attach;
pub mod bundle;
pub mod cgroup;
pub mod config;
pub mod containers;
pub mod exec;
pub mod files;
pub mod host;
pub mod id_map_job;
pub mod images;
pub mod info;
pub mod journal;
pub mod life;
pub mod logs;
pub mod names;
pub mod place;
pub mod plan;
pub mod policies;
pub mod prepare;
pub mod record;
pub mod request;
pub mod run;
pub mod running;
pub mod secrets;
pub mod start;
pub mod storage;
mod store_ids;
pub mod supervisor;
pub mod top;
pub mod trace;
mod underlay;
pub mod unshare;
pub mod update;
pub mod usage;
pub mod volumes;
pub mod wait;

/// Tells the user something that stops nothing.
pub fn warn(text: &str) {
    eprintln!("warning: {text}");
}
