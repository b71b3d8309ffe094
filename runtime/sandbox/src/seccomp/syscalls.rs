//! Names of system calls that are newer than the libseccomp that is linked. From 424 on every architecture has the
//! same numbers (syscalls(2)); without this table an old library would turn "allow" and "refuse" into nothing.

use libseccomp::{ScmpArch, ScmpSyscall};

const NEWER: &[(&str, i32)] = &[
    ("set_mempolicy_home_node", 450),
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
];

/// A name's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// The library knows it, at least for one architecture.
    Known(ScmpSyscall),
    /// Only its number is known, the same for every architecture.
    Newer(i32),
    /// Nobody knows it.
    Unknown,
}

pub(super) fn resolve(name: &str) -> Call {
    match ScmpSyscall::from_name_by_arch(name, ScmpArch::Native) {
        Ok(call) if !call.is_error() => Call::Known(call),
        Ok(_) | Err(_) => {
            NEWER.iter().find(|(newer, _)| *newer == name).map_or(Call::Unknown, |(_, number)| Call::Newer(*number))
        }
    }
}
