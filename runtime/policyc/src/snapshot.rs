//! The component as it is after `lifecycle.init`: parsed settings and filled tables become part of its initial memory,
//! so a later run starts where this one stopped.

use crate::{Purpose, engine};
use rlrun_admission::set_up::{SetUp, set_up};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use wasmtime::component::Component;
use wasmtime_wizer::{ComponentInstanceState, Wizer};

/// None when the component cannot be treated like that; nothing is lost then but time.
pub(crate) fn after_init(component: &[u8], settings: &str) -> Option<Vec<u8>> {
    if !names_lifecycle(component) {
        return None;
    }
    let wizer = Wizer::new();
    let (context, instrumented) = wizer.instrument_component(component).ok()?;
    let engine = engine(Purpose::Run).ok()?;
    let instrumented = Component::new(&engine, instrumented).ok()?;
    let mut state = State { policy: set_up(&engine, &instrumented, settings)?, failed: false };
    let snapshot = block_on(wizer.snapshot_component(&context, &mut state))?.ok()?;
    (!state.failed).then_some(snapshot)
}

/// A component without `init` is not worth a second compilation, and its bytes do not hold this name.
fn names_lifecycle(component: &[u8]) -> bool {
    let name = b"rlrun:policy/lifecycle@";
    component.windows(name.len()).any(|window| window == name)
}

struct State {
    policy: SetUp,
    failed: bool,
}

impl State {
    fn kept<T: Default>(&mut self, value: wasmtime::Result<T>) -> T {
        value.unwrap_or_else(|_| {
            self.failed = true;
            T::default()
        })
    }
}

impl ComponentInstanceState for State {
    async fn call_func_ret_list_u8(&mut self, instance: &str, function: &str, contents: impl FnOnce(&[u8]) + Send) {
        let bytes = self.policy.bytes(instance, function);
        contents(&self.kept(bytes));
    }

    async fn call_func_ret_s32(&mut self, instance: &str, function: &str) -> i32 {
        let value = self.policy.call(instance, function);
        self.kept(value)
    }

    async fn call_func_ret_s64(&mut self, instance: &str, function: &str) -> i64 {
        let value = self.policy.call(instance, function);
        self.kept(value)
    }

    async fn call_func_ret_f32(&mut self, instance: &str, function: &str) -> u32 {
        let value = self.policy.call(instance, function);
        self.kept::<f32>(value).to_bits()
    }

    async fn call_func_ret_f64(&mut self, instance: &str, function: &str) -> u64 {
        let value = self.policy.call(instance, function);
        self.kept::<f64>(value).to_bits()
    }
}

/// The futures here never wait: `State` answers at once.
fn block_on<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
