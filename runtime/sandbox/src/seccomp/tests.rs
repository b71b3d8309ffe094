//! Every decision of the compiled filters, by running them as the kernel does: for each call number of each
//! architecture, without a kernel and for architectures that this machine is not.

use super::*;
use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompOperator,
    LinuxSyscall,
};

const X86_64: u32 = 0xC000_003E;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xC000_00B7;
const ARM: u32 = 0x4000_0028;

const ALLOW: u32 = 0x7FFF_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const LOG: u32 = 0x7FFC_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = ERRNO | 1;
const EINVAL: u32 = ERRNO | 22;
const ENOSYS: u32 = ERRNO | 38;
const EAFNOSUPPORT: u32 = ERRNO | 97;

fn halves(argument: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = argument.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// One program on one call: classic BPF as seccomp(2) has it.
fn run(program: &[u8], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let words: Vec<u32> = [number, arch, 0, 0].into_iter().chain(args.iter().flat_map(|a| halves(*a))).collect();
    let steps: Vec<(u16, u8, u8, u32)> = program
        .chunks_exact(8)
        .map(|c| (u16::from_ne_bytes([c[0], c[1]]), c[2], c[3], u32::from_ne_bytes([c[4], c[5], c[6], c[7]])))
        .collect();
    let (mut accumulator, mut at) = (0_u32, 0_usize);
    loop {
        let (code, if_true, if_false, k) = steps[at];
        at += 1;
        let taken = match code {
            0x20 => {
                accumulator = words[k as usize / 4];
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x06 => return k,
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if taken { if_true } else { if_false });
    }
}

/// All programs on one call: the strictest answer, of equals the one installed last (seccomp(2)).
fn decide(programs: &[Vec<u8>], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let order = |answer: u32| (answer & 0xFFFF_0000).cast_signed();
    programs
        .iter()
        .rev()
        .map(|program| run(program, arch, number, args))
        .fold(ALLOW, |strictest, answer| if order(answer) < order(strictest) { answer } else { strictest })
}

fn number(name: &str, arch: ScmpArch) -> u32 {
    let call = ScmpSyscall::from_name_by_arch(name, arch).unwrap();
    u32::try_from(call.as_raw_syscall()).unwrap_or_else(|_| panic!("{name} is not a call of {arch:?}"))
}

/// A container's answer to a call of this machine's own architecture.
struct Answers {
    programs: Vec<Vec<u8>>,
}

impl Answers {
    fn with(capabilities: &[Capability]) -> Self {
        let capabilities: Capabilities = capabilities.iter().copied().collect();
        let mut section = default_profile(&capabilities);
        section.set_architectures(Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]));
        Answers { programs: compile(&section).unwrap() }
    }

    fn to(&self, name: &str) -> u32 {
        self.with_args(name, [0; 6])
    }

    fn with_args(&self, name: &str, args: [u64; 6]) -> u32 {
        decide(&self.programs, X86_64, number(name, ScmpArch::X8664), args)
    }

    fn in_32_bits(&self, name: &str, args: [u64; 6]) -> u32 {
        decide(&self.programs, I386, number(name, ScmpArch::X86), args)
    }
}

/// podman's eleven.
const USUAL: [Capability; 11] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

#[test]
fn what_every_program_needs_is_allowed() {
    let usual = Answers::with(&USUAL);
    for name in [
        "read",
        "write",
        "openat",
        "close",
        "mmap",
        "mprotect",
        "brk",
        "execve",
        "exit_group",
        "clone",
        "fork",
        "vfork",
        "futex",
        "rt_sigaction",
        "rt_sigreturn",
        "getrandom",
        "prlimit64",
        "rseq",
        "set_robust_list",
        "socket",
        "connect",
        "epoll_wait",
        "statx",
        "newfstatat",
        "faccessat2",
        "ioctl",
        "prctl",
        "seccomp",
        "ptrace",
        "setuid",
        "chroot",
        "arch_prctl",
        "io_setup",
        "memfd_create",
        "landlock_create_ruleset",
    ] {
        assert_eq!(usual.to(name), ALLOW, "{name}");
    }
}

#[test]
fn each_deliberate_absence_is_absent() {
    let usual = Answers::with(&USUAL);
    let absent = [
        "keyctl",
        "add_key",
        "request_key",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "modify_ldt",
        "kexec_load",
        "kexec_file_load",
        "init_module",
        "finit_module",
        "delete_module",
        "swapon",
        "swapoff",
        "acct",
        "iopl",
        "ioperm",
        "nfsservctl",
        "lookup_dcookie",
        "uselib",
        "ustat",
        "sysfs",
        "_sysctl",
        "clone3",
    ];
    for name in absent {
        assert_eq!(usual.to(name), ENOSYS, "{name}");
    }
    let refused = [
        "bpf",
        "userfaultfd",
        "perf_event_open",
        "open_by_handle_at",
        "mount",
        "umount2",
        "pivot_root",
        "unshare",
        "setns",
        "open_tree",
        "move_mount",
        "fsopen",
        "fsmount",
        "mount_setattr",
        "sethostname",
        "setdomainname",
        "settimeofday",
        "clock_settime",
        "syslog",
        "reboot",
        "kcmp",
        "pidfd_getfd",
        "process_madvise",
        "mbind",
        "set_mempolicy",
        "quotactl",
        "fanotify_init",
        "vhangup",
    ];
    for name in refused {
        assert_eq!(usual.to(name), EPERM, "{name}");
    }
}

#[test]
fn a_capability_opens_its_calls_and_no_others() {
    let opens = [
        (Capability::SysAdmin, vec!["mount", "unshare", "setns", "clone3", "sethostname", "fsopen"]),
        (Capability::SysPtrace, vec!["kcmp", "pidfd_getfd"]),
        (Capability::SysTime, vec!["clock_settime", "settimeofday"]),
        (Capability::SysNice, vec!["mbind", "set_mempolicy"]),
        (Capability::SysBoot, vec!["reboot"]),
        (Capability::Syslog, vec!["syslog"]),
        (Capability::DacReadSearch, vec!["open_by_handle_at"]),
        (Capability::SysTtyConfig, vec!["vhangup"]),
        (Capability::Bpf, vec!["bpf"]),
        (Capability::Perfmon, vec!["perf_event_open"]),
    ];
    for (capability, _) in &opens {
        let one = Answers::with(&[*capability]);
        for (other, names) in &opens {
            for name in names {
                assert_eq!(one.to(name) == ALLOW, other == capability, "{name} with {capability}");
            }
        }
        assert_eq!(one.to("chroot"), EPERM, "{capability}");
    }
}

#[test]
fn clone_makes_threads_and_processes_but_no_namespaces() {
    let usual = Answers::with(&USUAL);
    let thread = 0x003D_0F00;
    assert_eq!(usual.with_args("clone", [thread, 0, 0, 0, 0, 0]), ALLOW);
    for bit in [17, 25, 26, 27, 28, 29, 30] {
        let flags = thread | 1 << bit;
        assert_eq!(usual.with_args("clone", [flags, 0, 0, 0, 0, 0]), EPERM, "bit {bit}");
        assert_eq!(usual.in_32_bits("clone", [flags, 0, 0, 0, 0, 0]), EPERM, "bit {bit}");
    }
    let admin = Answers::with(&[Capability::SysAdmin]);
    assert_eq!(admin.with_args("clone", [1 << 28, 0, 0, 0, 0, 0]), ALLOW);
}

/// The kernel looks at 32 bits of these arguments; the upper half is the caller's to fill.
const DIRT: [u64; 3] = [0, 1 << 32, 0xDEAD_BEEF << 32];

#[test]
fn socket_families_are_an_allow_list_also_with_a_dirty_upper_half() {
    let usual = Answers::with(&USUAL);
    let kept = [0, 1, 2, 10, 16, 17];
    for (family, dirt) in (0..64).flat_map(|family| DIRT.map(|dirt| (family, dirt))) {
        let expected = if kept.contains(&family) { ALLOW } else { EAFNOSUPPORT };
        assert_eq!(usual.with_args("socket", [family | dirt, 1, 0, 0, 0, 0]), expected, "family {family} {dirt:#x}");
        assert_eq!(usual.with_args("socketpair", [family | dirt, 1, 0, 0, 0, 0]), expected, "family {family}");
        // The 32-bit calls of their own, beside the multiplexer: 359 and 360 (Linux 4.3).
        for narrow in [359, 360] {
            assert_eq!(decide(&usual.programs, I386, narrow, [family, 1, 0, 0, 0, 0]), expected, "family {family}");
        }
    }
}

#[test]
fn audit_sockets_look_absent_without_the_right_to_audit() {
    let netlink = |answers: &Answers, protocol: u64| answers.with_args("socket", [16, 3, protocol, 0, 0, 0]);
    let usual = Answers::with(&USUAL);
    assert_eq!(netlink(&usual, 0), ALLOW);
    for dirt in DIRT {
        assert_eq!(netlink(&usual, 9 | dirt), EINVAL);
    }
    assert_eq!(usual.with_args("socket", [2, 2, 9, 0, 0, 0]), ALLOW);
    assert_eq!(netlink(&Answers::with(&[Capability::AuditWrite]), 9), ALLOW);
}

#[test]
fn nobody_types_into_a_shared_terminal() {
    let usual = Answers::with(&[Capability::SysAdmin]);
    for dirt in DIRT {
        assert_eq!(usual.with_args("ioctl", [0, 0x5412 | dirt, 0, 0, 0, 0]), EPERM);
        assert_eq!(usual.with_args("ioctl", [0, 0x541C | dirt, 0, 0, 0, 0]), EPERM);
        assert_eq!(usual.with_args("ioctl", [0, 0x5413 | dirt, 0, 0, 0, 0]), ALLOW);
    }
    assert_eq!(usual.in_32_bits("ioctl", [0, 0x5412, 0, 0, 0, 0]), EPERM);
}

#[test]
fn personality_is_plain_linux() {
    let usual = Answers::with(&USUAL);
    let personality = |persona: u64| usual.with_args("personality", [persona, 0, 0, 0, 0, 0]);
    for persona in [0, 8, 0x20000, 0x20008, 0xFFFF_FFFF, u64::MAX] {
        assert_eq!(personality(persona), ALLOW, "{persona:#x}");
    }
    // ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC, MMAP_PAGE_ZERO.
    for persona in [0x0004_0000, 0x0040_0000, 0x0010_0000, 1] {
        assert_eq!(personality(persona), ENOSYS, "{persona:#x}");
    }
}

/// What a 32-bit program of the same kernel may do is no more than what a 64-bit one may: no call that is closed to
/// the one is open to the other under the same name.
#[test]
fn the_32_bit_entry_is_no_way_around() {
    let usual = Answers::with(&USUAL);
    let mut compared = 0;
    for n in 0..=500 {
        let Ok(name) = ScmpSyscall::from(n).get_name_by_arch(ScmpArch::X86) else { continue };
        let Ok(native) = ScmpSyscall::from_name_by_arch(&name, ScmpArch::X8664) else { continue };
        let Ok(native) = u32::try_from(native.as_raw_syscall()) else { continue };
        let (narrow, wide) =
            (decide(&usual.programs, I386, n.unsigned_abs(), [0; 6]), decide(&usual.programs, X86_64, native, [0; 6]));
        assert_eq!(narrow, wide, "{name}");
        compared += 1;
    }
    assert!(compared > 300, "{compared}");
}

/// The multiplexer of 32-bit sockets hides its arguments in memory, so creating a socket through it is refused
/// altogether; C libraries of the last ten years do not use it.
#[test]
fn the_32_bit_socket_multiplexer_creates_nothing() {
    let usual = Answers::with(&USUAL);
    const SYS_SOCKET: u64 = 1;
    const SYS_BIND: u64 = 2;
    const SYS_SOCKETPAIR: u64 = 8;
    assert_ne!(usual.in_32_bits("socketcall", [SYS_SOCKET, 0, 0, 0, 0, 0]), ALLOW);
    assert_ne!(usual.in_32_bits("socketcall", [SYS_SOCKETPAIR, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(usual.in_32_bits("socketcall", [SYS_BIND, 0, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn x32_and_foreign_code_do_not_run() {
    let usual = Answers::with(&USUAL);
    for name in ["read", "mount", "execve"] {
        assert_eq!(decide(&usual.programs, X86_64, number(name, ScmpArch::X8664) | 0x4000_0000, [0; 6]), KILL_PROCESS);
    }
    assert_eq!(decide(&usual.programs, AARCH64, 0, [0; 6]), KILL_PROCESS);
}

#[test]
fn calls_newer_than_the_profile_look_absent() {
    let usual = Answers::with(&USUAL);
    for n in 470..1000 {
        assert_eq!(decide(&usual.programs, X86_64, n, [0; 6]), ENOSYS, "{n}");
    }
    // fchmodat2, newer than Debian 12's library, by number.
    assert_eq!(decide(&usual.programs, X86_64, 452, [0; 6]), ALLOW);
    // statmount, left out on purpose.
    assert_eq!(decide(&usual.programs, X86_64, 457, [0; 6]), ENOSYS);
}

#[test]
fn arm_gets_the_same_profile() {
    let mut section = default_profile(&USUAL.into());
    section.set_architectures(Some(vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]));
    let programs = compile(&section).unwrap();
    let answer = |name: &str, args| decide(&programs, AARCH64, number(name, ScmpArch::Aarch64), args);
    assert_eq!(answer("openat", [0; 6]), ALLOW);
    assert_eq!(answer("execve", [0; 6]), ALLOW);
    assert_eq!(answer("mount", [0; 6]), EPERM);
    assert_eq!(answer("clone3", [0; 6]), ENOSYS);
    assert_eq!(answer("keyctl", [0; 6]), ENOSYS);
    assert_eq!(answer("clone", [1 << 28, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(answer("socket", [38 | 1 << 32, 0, 0, 0, 0, 0]), EAFNOSUPPORT);
    assert_eq!(answer("ioctl", [0, 0x5412, 0, 0, 0, 0]), EPERM);
    assert_eq!(decide(&programs, ARM, number("openat", ScmpArch::Arm), [0; 6]), ALLOW);
    assert_eq!(decide(&programs, ARM, number("mount", ScmpArch::Arm), [0; 6]), EPERM);
    assert_eq!(decide(&programs, X86_64, 0, [0; 6]), KILL_PROCESS);
}

#[test]
fn every_name_in_the_data_is_a_system_call() {
    // Names of calls that libseccomp leaves to the C library, or that it does not know by that name.
    let section = default_profile(&Capabilities::new());
    let unknown: Vec<&String> = section
        .syscalls()
        .iter()
        .flatten()
        .flat_map(LinuxSyscall::names)
        .filter(|name| syscalls::resolve(name) == syscalls::Call::Unknown)
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let mut groups = default::group_names();
    groups.sort_unstable();
    assert!(groups.is_sorted_by(|a, b| a < b), "a group's name is taken twice");
}

#[test]
fn a_call_is_permitted_in_one_group_only() {
    let section = default_profile(&Capabilities::new());
    let permits = section
        .syscalls()
        .iter()
        .flatten()
        .filter(|r| r.action() == LinuxSeccompAction::ScmpActAllow && r.args().is_none());
    let mut names: Vec<&String> = permits.flat_map(LinuxSyscall::names).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn the_programs_are_small_and_shallow() {
    let usual = Answers::with(&USUAL);
    for program in &usual.programs {
        assert!(program.len() % 8 == 0 && program.len() / 8 <= 2048, "{} instructions", program.len() / 8);
    }
}

fn rule(names: &[&str], action: LinuxSeccompAction, errno: Option<u32>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.iter().map(|&n| n.to_owned()).collect()).set_action(action).set_errno_ret(errno);
    rule
}

fn section(default: LinuxSeccompAction, rules: Vec<LinuxSyscall>) -> LinuxSeccomp {
    let mut section = LinuxSeccomp::default();
    section.set_default_action(default).set_syscalls(Some(rules)).set_architectures(Some(vec![Arch::ScmpArchX86_64]));
    section
}

fn answer(section: &LinuxSeccomp, name: &str, args: [u64; 6]) -> u32 {
    decide(&compile(section).unwrap(), X86_64, number(name, ScmpArch::X8664), args)
}

use LinuxSeccompAction::{ScmpActAllow, ScmpActErrno, ScmpActKillProcess, ScmpActLog};

#[test]
fn a_policys_refusals_stand_on_top_of_allow() {
    let overlay = section(
        ScmpActAllow,
        vec![
            rule(&["ptrace"], ScmpActErrno, Some(38)),
            rule(&["bpf"], ScmpActKillProcess, None),
            rule(&["kcmp"], ScmpActLog, None),
            rule(&["mseal", "file_setattr"], ScmpActErrno, None),
        ],
    );
    assert_eq!(answer(&overlay, "read", [0; 6]), ALLOW);
    assert_eq!(answer(&overlay, "ptrace", [0; 6]), ENOSYS);
    assert_eq!(answer(&overlay, "bpf", [0; 6]), KILL_PROCESS);
    assert_eq!(answer(&overlay, "kcmp", [0; 6]), LOG);
    // Newer than the library, refused by number, whatever the architecture calls itself.
    let programs = compile(&overlay).unwrap();
    assert_eq!(decide(&programs, X86_64, 462, [0; 6]), EPERM);
    assert_eq!(decide(&programs, X86_64, 469, [0; 6]), EPERM);
    assert_eq!(decide(&programs, X86_64, 463, [0; 6]), ALLOW);
}

#[test]
fn a_refusal_that_nobody_could_enforce_is_an_error() {
    let typo = section(ScmpActAllow, vec![rule(&["ptrase"], ScmpActErrno, None)]);
    assert!(matches!(compile(&typo), Err(SeccompError::UnknownCall { name }) if name == "ptrase"));
    // Where the default refuses anyway, nothing is lost; nor by a permission for nothing.
    let strict =
        section(ScmpActErrno, vec![rule(&["ptrase"], ScmpActErrno, None), rule(&["raed"], ScmpActAllow, None)]);
    assert!(compile(&strict).is_ok());
}

#[test]
fn a_permission_keeps_its_conditions_when_only_the_number_is_known() {
    let mut sealed = rule(&["mseal"], ScmpActAllow, None);
    let flags = LinuxSeccompArgBuilder::default().index(2_usize).op(LinuxSeccompOperator::ScmpCmpEq).value(0_u64);
    sealed.set_args(Some(vec![flags.build().unwrap()]));
    let programs = compile(&section(ScmpActErrno, vec![sealed])).unwrap();
    assert_eq!(decide(&programs, X86_64, 462, [0, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(decide(&programs, X86_64, 462, [0, 0, 1, 0, 0, 0]), EPERM);
}

#[test]
fn a_refusal_wins_over_a_permission_in_any_order() {
    let mut conditional = rule(&["socket"], ScmpActErrno, Some(97));
    let family = LinuxSeccompArgBuilder::default().index(0_usize).op(LinuxSeccompOperator::ScmpCmpEq).value(40_u64);
    conditional.set_args(Some(vec![family.build().unwrap()]));
    let permission = rule(&["socket", "bind"], ScmpActAllow, None);
    let refusal = rule(&["bind"], ScmpActErrno, Some(22));
    let rules = vec![permission, conditional, refusal];
    for turned in 0..3 {
        let mut rules = rules.clone();
        rules.rotate_left(turned);
        let mixed = section(ScmpActErrno, rules);
        assert_eq!(answer(&mixed, "socket", [40, 0, 0, 0, 0, 0]), EAFNOSUPPORT);
        assert_eq!(answer(&mixed, "socket", [2, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(answer(&mixed, "bind", [0; 6]), EINVAL);
    }
}

#[test]
fn of_two_refusals_the_stricter_stays() {
    let twice = section(
        ScmpActAllow,
        vec![
            rule(&["bpf", "bpf"], ScmpActErrno, None),
            rule(&["bpf"], ScmpActKillProcess, None),
            rule(&["bpf"], ScmpActErrno, Some(38)),
        ],
    );
    assert_eq!(answer(&twice, "bpf", [0; 6]), KILL_PROCESS);
}

#[test]
fn two_conditions_on_one_argument_are_alternatives() {
    let value = |v: u64| {
        LinuxSeccompArgBuilder::default().index(0_usize).op(LinuxSeccompOperator::ScmpCmpEq).value(v).build().unwrap()
    };
    let mut either = rule(&["personality"], ScmpActAllow, None);
    either.set_args(Some(vec![value(0), value(8)]));
    let section = section(ScmpActErrno, vec![either]);
    assert_eq!(answer(&section, "personality", [8, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(answer(&section, "personality", [9, 0, 0, 0, 0, 0]), EPERM);
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    type Change = fn(&mut LinuxSeccomp);
    let bad: [(&str, Change); 5] = [
        ("a listener", |s| {
            s.set_listener_path(Some("/run/agent".into()));
        }),
        ("SCMP_ACT_NOTIFY", |s| {
            s.set_syscalls(Some(vec![rule(&["read"], LinuxSeccompAction::ScmpActNotify, None)]));
        }),
        ("0 as an error", |s| {
            s.set_syscalls(Some(vec![rule(&["read"], ScmpActErrno, Some(0))]));
        }),
        ("4096 as an error", |s| {
            s.set_default_action(ScmpActErrno).set_default_errno_ret(Some(4096));
        }),
        ("SCMP_ARCH_MIPS", |s| {
            s.set_architectures(Some(vec![Arch::ScmpArchMips]));
        }),
    ];
    for (what, change) in bad {
        let mut section = section(ScmpActAllow, Vec::new());
        change(&mut section);
        let error = compile(&section).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}
