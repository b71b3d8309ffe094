//! A policy after `lifecycle.init`, so that `rlrun-policyc` can keep that state with the code.

use crate::evaluate::{Session, State};
use crate::limits;
use crate::loader::linker;
use crate::policy::{Hook, Policy, is_capability};
use rlrun_spec::policy::{PolicyId, Tier};
use wasmtime::component::{Component, Instance, Lift, WasmList};
use wasmtime::{Engine, Store};

/// A policy that has accepted its settings.
pub struct SetUp {
    store: Store<State>,
    instance: Instance,
}

impl std::fmt::Debug for SetUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetUp").finish_non_exhaustive()
    }
}

/// Runs `init` under the limits of an evaluation. None when the policy has no `init`, fails, refuses its settings or
/// could have looked at what may differ next time; then `init` is called, and its errors told, each time.
#[must_use]
pub fn set_up(engine: &Engine, component: &Component, settings: &str) -> Option<SetUp> {
    let changing = |import: &str| is_capability(import) && !import.starts_with("rlrun:policy/log@");
    if component.component_type().imports(engine).any(|(import, _)| changing(import)) {
        return None;
    }
    let id = PolicyId { name: String::new(), digest: String::new(), tier: Tier::User };
    let linker = linker(engine).ok()?;
    let policy = Policy::link(&linker, component, id, Some(settings.to_owned()), None).ok()?;
    if !policy.has(Hook::Lifecycle) {
        return None;
    }
    let (mut store, instance) = Session::open(engine, &policy, None, None).ok()?.into_parts();
    // What follows copies memory out and runs none of the policy's own code.
    store.set_hostcall_fuel(usize::MAX);
    store.set_fuel(limits::INIT_FUEL).ok()?;
    Some(SetUp { store, instance })
}

impl SetUp {
    /// The list of bytes that an exported function returns.
    ///
    /// # Errors
    /// When there is no such function, or it fails.
    pub fn bytes(&mut self, interface: &str, function: &str) -> wasmtime::Result<Vec<u8>> {
        let list: WasmList<u8> = self.call(interface, function)?;
        Ok(list.as_le_slice(&self.store).to_vec())
    }

    /// What an exported function without parameters returns.
    ///
    /// # Errors
    /// When there is no such function, or it fails.
    pub fn call<R: Lift + 'static>(&mut self, interface: &str, function: &str) -> wasmtime::Result<R> {
        let missing = || wasmtime::format_err!("there is no {interface}#{function}");
        let (_, interface) = self.instance.get_export(&mut self.store, None, interface).ok_or_else(missing)?;
        let (_, function) =
            self.instance.get_export(&mut self.store, Some(&interface), function).ok_or_else(missing)?;
        let function = self.instance.get_typed_func::<(), (R,)>(&mut self.store, function)?;
        let (value,) = function.call(&mut self.store, ())?;
        Ok(value)
    }
}
