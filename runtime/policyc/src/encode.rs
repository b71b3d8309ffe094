//! A component as it is, a core module wrapped: compilers without a component linker embed the WIT in a section of
//! the module, and that is enough to make the component here.

use std::borrow::Cow;

const MAGIC: &[u8; 4] = b"\0asm";
/// Version and layer (component-model/design/mvp/Binary.md).
const CORE_MODULE: [u8; 4] = [1, 0, 0, 0];
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];

/// # Errors
/// In words, when the bytes are neither.
pub(crate) fn component(input: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if input.is_empty() {
        return Err("is empty".to_owned());
    }
    let version = input.strip_prefix(MAGIC).ok_or("is not WebAssembly")?.first_chunk::<4>();
    match version {
        Some(&COMPONENT) => Ok(Cow::Borrowed(input)),
        Some(&CORE_MODULE) => encode(input).map(Cow::Owned),
        Some(other) => Err(format!("has the unknown WebAssembly version {other:02x?}")),
        None => Err("is cut off".to_owned()),
    }
}

fn encode(module: &[u8]) -> Result<Vec<u8>, String> {
    let encoded = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|e| format!("is a core module that cannot be made a component: {}", e.root_cause()))?;
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use super::component;

    #[test]
    fn what_is_no_wasm_is_named() {
        assert_eq!(component(b"").unwrap_err(), "is empty");
        assert_eq!(component(b"#!/bin/sh\n").unwrap_err(), "is not WebAssembly");
        assert_eq!(component(b"\0asm\x01").unwrap_err(), "is cut off");
        assert!(component(b"\0asm\x09\0\0\0").unwrap_err().starts_with("has the unknown"));
    }

    #[test]
    fn a_module_without_wit_has_no_exports_as_a_component() {
        let module = wat::parse_str("(module (func (export \"create\")))").unwrap();
        let encoded = component(&module);
        assert!(encoded.is_err() || encoded.unwrap().starts_with(b"\0asm\x0d"));
    }
}
