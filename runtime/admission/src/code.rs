//! From a policy file to machine code that may be executed.
//!
//! Machine code is trusted blindly by the engine: a changed byte in it is executed like any other. So it is only
//! ever taken from two places: straight from the compiler, a child of this process, through a sealed memfd; or from
//! the user's cache, after these checks, all on open descriptors:
//!
//! * the directory is the caller's own, mode 0700; the file is a regular file of the caller's, mode 0600, not a link;
//! * its SHA-256 is the one that the index recorded when this user's rlrun wrote it; a file that has not been
//!   touched since (device, inode, size, mtime, ctime) need not be hashed again;
//! * its name tells engine version, engine configuration and processor features, and the engine checks them again.
//!
//! Whatever fails a check is compiled anew and replaced. This does not protect a user from themselves: who can write
//! their cache as them is them. A container that mounts the cache writable would be in that place, which is why the
//! baseline policy refuses such mounts.

mod cache;
mod compile;
mod digest;
mod load;

pub(crate) use cache::Cache;
pub(crate) use compile::compile;
pub(crate) use digest::Digest;
pub(crate) use load::{TrustedCode, load};

/// How `rlrun-policyc` says that its input is not a policy; stderr tells why. Any other failure is its own.
pub const EXIT_REFUSED: u8 = 2;
