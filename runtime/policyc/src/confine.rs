//! What this process gives up before it reads anything.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Address space; the largest policies measured (an embedded Python) need a third of it.
const MEMORY_BYTES: u64 = 1 << 30;
/// Processor time; the same policies take 11 s.
const CPU_SECONDS: u64 = 60;
/// Of the code that is written.
const OUTPUT_BYTES: u64 = 512 << 20;

/// # Errors
/// When the kernel refuses any of it; nothing is compiled then.
pub(crate) fn confine() -> rustix::io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let limits = [
        (Resource::As, MEMORY_BYTES),
        (Resource::Cpu, CPU_SECONDS),
        (Resource::Fsize, OUTPUT_BYTES),
        (Resource::Core, 0),
        // For everyone but root, no fork and no thread from here on.
        (Resource::Nproc, 0),
        // Descriptors 0, 1 and 2 are open and stay usable; any new one, a file or a socket, fails with EMFILE.
        (Resource::Nofile, 0),
    ];
    for (resource, limit) in limits {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}
