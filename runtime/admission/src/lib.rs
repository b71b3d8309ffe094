//! asks the policies: WebAssembly components, without a compiler.
