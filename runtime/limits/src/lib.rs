//! Resource limits: cgroups where the caller has them ([`cgroup`]), and where no cgroup can be had: pure controllers that decide from measurements, and the agent that
//! measures and acts.
//!
//! The agent runs in the mapper, one pid namespace above the container: the container cannot see or signal it, one
//! kill(2) of everything below reaches every process at once, and when it dies the kernel ends the container, so that
//! nothing is ever left stopped. It costs nothing where nothing is limited: no timer, no sampling.

mod agent;
mod census;
pub mod cgroup;
mod guard;
mod memory;
mod oom;
mod signals;
mod stat;
mod throttle;

pub use agent::{Agent, Surroundings};
pub use guard::{Candidate, Guard, Look, Rough, victims};
pub use throttle::{Order, Throttle, Throttled};
