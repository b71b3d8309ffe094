//! `execve(2)` and the strings it needs.

use super::last;
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// A null-terminated array of C strings, prepared while allocation is still allowed.
pub struct CStrings {
    // Owns what `pointers` point to; never changed after construction.
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CStrings {
    /// Prepares `strings`.
    ///
    /// # Errors
    /// `EINVAL` when one holds a NUL byte.
    pub fn new<S: AsRef<[u8]>>(strings: &[S]) -> Result<Self, Errno> {
        let strings = strings
            .iter()
            .map(|s| CString::new(s.as_ref()).map_err(|_| Errno::INVAL))
            .collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.push(ptr::null());
        Ok(CStrings { _strings: strings, pointers })
    }
}

/// What `exec` replaces the process with.
pub enum Program<'a> {
    /// A path, resolved in the current root.
    Path(&'a CStr),
    /// An open file (`execveat(2)` with `AT_EMPTY_PATH`).
    File(BorrowedFd<'a>),
}

/// Replaces the process; returns only on failure, with the kernel's reason.
#[must_use]
pub fn exec(program: &Program<'_>, argv: &CStrings, envp: &CStrings) -> Errno {
    let (argv, envp) = (argv.pointers.as_ptr(), envp.pointers.as_ptr());
    match program {
        // execve and not execveat: a filter that is already on may know only the former.
        // SAFETY: `path` is nul-terminated; both arrays end in a null pointer and point into strings that the two
        // CStrings own and that outlive the call.
        Program::Path(path) => libc::c_long::from(unsafe { libc::execve(path.as_ptr(), argv, envp) }),
        // Not every libc has a function for it.
        // SAFETY: as above, with an empty path; the descriptor is borrowed for the call.
        Program::File(fd) => unsafe {
            libc::syscall(libc::SYS_execveat, fd.as_raw_fd(), c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH)
        },
    };
    last()
}
