//! How much an image may make of the disk before it is called a bomb.

use serde::{Deserialize, Serialize};

/// Bounds on unpacking. The defaults are far above any image in use and below what fills a machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes one layer may decompress to, and bytes its files may add up to.
    pub layer_bytes: u64,
    /// Entries in one layer.
    pub layer_entries: u64,
    /// Layers in one image; the kernel's overlay takes 500 (`OVL_MAX_STACK`).
    pub layers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { layer_bytes: 64 << 30, layer_entries: 4_000_000, layers: 500 }
    }
}
