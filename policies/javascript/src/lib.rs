//! `javascript`: a policy in JavaScript as text in the settings; no compiler is needed. See `rlrun_policy_script` for
//! what its functions get and say, and `prelude.js` for what it finds there beside the language.

use boa_engine::context::time::FixedClock;
use boa_engine::{Context, JsError, JsObject, JsValue, Source};
use rlrun_policy::policy;
use rlrun_policy_script::{Language, script};
use serde_json::Value;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

/// Boa.
pub struct JavaScript;

const PRELUDE: &str = include_str!("prelude.js");

thread_local! {
    static CONTEXT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

fn with<T>(work: impl FnOnce(&mut Context) -> Result<T, String>) -> Result<T, String> {
    CONTEXT.with(|kept| match kept.borrow_mut().as_mut() {
        Some(context) => work(context),
        None => Err("there is no policy".to_owned()),
    })
}

fn told(error: &JsError) -> String {
    error.to_string()
}

fn function(name: &str, context: &mut Context) -> Option<JsObject> {
    // Not every function is a property of the global object; `const create = ...` is none.
    let found = context.eval(Source::from_bytes(&format!("typeof {name} === 'function' ? {name} : null"))).ok()?;
    found.as_object()
}

impl Language for JavaScript {
    const CODE: &'static str = "JAVASCRIPT";

    fn load(text: &str) -> Result<(), String> {
        let builder = Context::builder().clock(Rc::new(FixedClock::from_millis(0)));
        let mut context = builder.build().map_err(|e| told(&e))?;
        for (name, text) in [("prelude.js", PRELUDE), ("policy.js", text)] {
            let source = Source::from_bytes(text).with_path(Path::new(name));
            context.eval(source).map_err(|e| told(&e))?;
        }
        CONTEXT.with(|kept| *kept.borrow_mut() = Some(context));
        Ok(())
    }

    fn has(name: &str) -> bool {
        with(|context| Ok(function(name, context).is_some())).unwrap_or(false)
    }

    fn call(name: &str, argument: &Value) -> Result<Value, String> {
        with(|context| {
            let function = function(name, context).ok_or_else(|| format!("there is no function {name}"))?;
            let argument = JsValue::from_json(argument, context).map_err(|e| told(&e))?;
            let said = function.call(&JsValue::undefined(), &[argument], context).map_err(|e| told(&e))?;
            said.to_json(context).map(Option::unwrap_or_default).map_err(|e| told(&e))
        })
    }
}

/// There is no chance: whatever would ask for it fails.
#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, reason = "the name that the crate getrandom looks for, by its contract")]
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(_: *mut u8, _: usize) -> Result<(), getrandom::Error> {
    Err(getrandom::Error::UNSUPPORTED)
}

script!(JavaScript);
policy!(JavaScript: create, validate, image, exec, publish, mount, secret, copy_out, exit);

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        rlrun_policy::fixtures::check::<super::JavaScript>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }
}
