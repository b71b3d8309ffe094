//! The vocabulary that every rlrun stage shares: host facts, the container's configuration, controls,
//! policy answers and their merge, the sealed plan, the launch protocol, failures and hints.
//!
//! Nothing here does I/O. Data flows one way, one type a stage:
//! `Request -> ResolvedImage -> ContainerSpec -> Admitted -> SealedPlan -> Running -> Exit`.

pub mod attach;
pub mod cgroup;
pub mod container;
pub mod control;
pub mod exec;
pub mod failure;
pub mod health;
pub mod hint;
pub mod host;
pub mod ids;
pub mod life;
pub mod limits;
pub mod plan;
pub mod plan_from_oci;
pub mod policy;
pub mod protocol;
pub mod state;
pub mod supervision;
pub mod time;
pub mod usage;

pub use container::{Caller, ContainerSpec, ImageIdentity, SpecParts};
pub use control::{Control, Enforced, Level};
pub use exec::SealedExec;
pub use failure::{Errno, Failure, Kind, Stage};
pub use host::HostFacts;
pub use ids::{IdMapping, IdMaps, IdRange, MapWriter};
pub use life::Life;
pub use plan::{Launch, SealedPlan};
pub use state::State;
