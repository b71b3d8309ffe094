//! The end-to-end tests: the real rlrun, black box, on the real kernel; one module an area.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test reports by panicking")]

mod attach;
mod bad_input;
mod confinement;
mod copy;
mod detach;
mod escape;
mod exec;
mod faults;
mod health;
mod hostile_layers;
mod image_verbs;
mod images;
mod introspection;
mod journal;
mod life;
mod limits;
mod looking;
mod memory;
mod named_volumes;
mod network;
mod policy;
mod pull;
mod rootfs;
mod round_trip;
mod run_basic;
mod signals;
mod signatures;
mod stdio;
mod store_upkeep;
mod top;
mod tty;
mod usage;
mod userns;
mod volumes;
