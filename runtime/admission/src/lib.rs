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
//! * Four tiers: *builtin* (baseline, on unless switched off), *user* (`~/.config/rlrun/policy.d`, `--policy FILE`),
//!   *project* (`.rlrun/policy.toml` above the working directory), *mandatory* ([`MANDATORY_DIR`]; no option and no
//!   variable leads around it).
//! * A directory holds `NAME.wasm`, optionally with settings in `NAME.toml` and data in `NAME.data/`. `NAME.toml`
//!   without `NAME.wasm` gives settings to the builtin policy of that name. `policy.toml` says what is
//!   required, what a policy's no does, and what it is granted; `policy.lock` what was added with `policy add`.
//! * Every evaluation has a fresh store with fuel, memory and output limits. A trap, an exhausted limit, an answer
//!   that cannot be read, a policy that cannot be loaded: denied, in the name of that policy.
//! * Machine code comes from `rlrun-policyc`, a confined child process, and is kept in a cache that is checked
//!   before anything of it is executed ([`code`]).
//!
//! This process must have one thread when it later unshares namespaces: nothing here starts one.

#[allow(missing_docs, unreachable_pub, reason = "generated from policy-sdk/wit, documented there")]
mod bindings {
    mod generated {
        wasmtime::component::bindgen!({
            path: ["../../policy-sdk/wit", "../../policy-sdk/wit-0.2"],
            world: "rlrun:policy/asked@0.2.0",
            // Whoever asks for too much is stopped.
            imports: { default: trappable },
        });
    }
    pub use generated::Asked;
    pub mod rlrun {
        pub use super::generated::rlrun::{policy0_1_0 as policy, policy0_2_0 as policy2};
    }
    pub mod exports {
        pub mod rlrun {
            pub use super::super::generated::exports::rlrun::{policy0_1_0 as policy, policy0_2_0 as policy2};
        }
    }
}
mod answer;
pub mod code;
pub mod engine;
mod error;
mod evaluate;
mod evaluate_parts;
mod file;
mod host;
mod inspect;
mod limits;
mod loader;
mod lock;
pub mod metadata;
mod mode;
mod policy;
mod project;
mod pulled;
mod request;
mod request_facts;
mod set;
pub mod set_up;
mod sources;
mod tier_config;
mod value;
mod workbench;

pub use code::Work;
pub use error::{LoadError, of_toml};
pub use inspect::{Inspection, Listed, check, list};
pub use lock::{LOCK, Lock, Locked};
pub use policy::{Hook, is_capability};
pub use pulled::{MANIFEST, pulled};
pub use set::PolicySet;
pub use sources::{Builtin, LogLine, LookInside, MANDATORY_DIR, Sources, Switch};
pub use workbench::{Function, Given, Reply, Unaskable, Workbench};
