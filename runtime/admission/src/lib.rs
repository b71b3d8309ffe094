//! Asks the policies: WebAssembly components in wasmtime, without a compiler in this process.
//!
//! ```no_run
//! # use rlrun_admission::*;
//! # fn demo(sources: Sources, spec: rlrun_spec::ContainerSpec, caller: rlrun_spec::Caller) -> Option<()> {
//! let policies = PolicySet::load(&sources).ok()?; // an error here is a denial: it names the policy
//! let admitted = policies.evaluate(spec, &caller).ok()?; // the only way to a sealed plan
//! # Some(()) }
//! ```
//!
//! * Three tiers: *builtin* (baseline, on unless switched off), *user* (`~/.config/rlrun/policy.d`, `--policy FILE`),
//!   *mandatory* ([`MANDATORY_DIR`]; no option and no variable leads around it).
//! * A directory holds `NAME.wasm`, optionally with settings in `NAME.toml` and data in `NAME.data/`. `NAME.toml`
//!   without `NAME.wasm` gives settings to the builtin policy of that name. In the mandatory directory
//!   `policy.toml` may say `required = ["baseline"]`.
//! * Every evaluation has a fresh store with fuel, memory and output limits. A trap, an exhausted limit, an answer
//!   that cannot be read, a policy that cannot be loaded: denied, in the name of that policy.
//! * Machine code comes from `rlrun-policyc`, a confined child process, and is kept in a cache that is checked
//!   before anything of it is executed ([`code`]).
//!
//! This process must have one thread when it later unshares namespaces: nothing here starts one.

#[allow(missing_docs, unreachable_pub, reason = "generated from policy-sdk/wit, documented there")]
mod bindings {
    wasmtime::component::bindgen!({ path: "../../policy-sdk/wit", world: "asked" });
}
mod answer;
pub mod code;
pub mod engine;
mod error;
mod evaluate;
mod file;
mod host;
mod inspect;
mod limits;
pub mod metadata;
mod policy;
mod request;
mod set;
pub mod set_up;
mod sources;
mod value;
mod workbench;

pub use code::Work;
pub use error::LoadError;
pub use inspect::{Inspection, Listed, check, list};
pub use policy::Hook;
pub use set::PolicySet;
pub use sources::{Builtin, LogLine, MANDATORY_DIR, Sources, Switch};
pub use workbench::{Function, Given, Reply, Unaskable, Workbench};
