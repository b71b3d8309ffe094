//! The one place where machine code becomes callable.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::AsRawFd as _;
use wasmtime::Engine;
use wasmtime::component::Component;

/// A file of machine code that passed the checks of this module's parent; only its siblings make one.
pub(crate) struct TrustedCode {
    file: File,
}

impl TrustedCode {
    /// For `cache`, after its checks, and for `compile`, with what the child wrote.
    pub(super) fn vouch_for(file: File) -> Self {
        TrustedCode { file }
    }

    /// The bytes, to be stored.
    pub(super) fn bytes(&self) -> std::io::Result<Vec<u8>> {
        let (mut file, mut bytes) = (&self.file, Vec::new());
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Makes the code callable.
///
/// # Errors
/// When it was made by another version of the engine, with another configuration, for another processor, or is cut
/// off; the caller compiles anew.
#[allow(unsafe_code, reason = "the engine cannot tell its own machine code from anybody else's; `TrustedCode` can")]
pub(crate) fn load(engine: &Engine, code: &TrustedCode) -> wasmtime::Result<Component> {
    let path = format!("/proc/self/fd/{}", code.file.as_raw_fd());
    // SAFETY: `deserialize_file` requires that the file came from `Engine::precompile_component` and does not change
    // while it is mapped. Both follow from how a `TrustedCode` is made: either it is a memfd that our own child
    // `rlrun-policyc` filled and that was then sealed against writing; or it is a file in a directory that only
    // this uid can enter, owned by this uid, mode 0600, with the SHA-256 that was recorded when such a memfd was
    // copied there. `/proc/self/fd/N` names that very descriptor, so the checked file is the mapped file. The
    // mapping is private. What remains able to change the file is a process of the same uid, which could as well
    // ptrace this one.
    let mapped = unsafe { Component::deserialize_file(engine, &path) };
    match mapped {
        Ok(component) => Ok(component),
        // A file system mounted noexec can be read, not mapped executable.
        Err(error) => {
            let bytes = code.bytes().map_err(|_| error)?;
            // SAFETY: the bytes are those of the same `TrustedCode`, so they came from
            // `Engine::precompile_component` by the argument above; they are a copy that nothing else can change.
            unsafe { Component::deserialize(engine, bytes) }
        }
    }
}
