//! From an OCI section to the programs that seccomp(2) takes, by libseccomp.

use super::SeccompError;
use super::syscalls::{Call, resolve};
use libseccomp::error::SeccompErrno;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek};

const EPERM: u32 = 1;

/// Errors other than EPERM are cut off by the kernel (MAX_ERRNO).
const MAX_ERRNO: u32 = 4095;

/// Per call, each with its conditions; none means always.
type Rules = BTreeMap<String, Vec<(ScmpAction, Vec<ScmpArgCompare>)>>;

/// Compiles a section. The programs are to be installed in this order, all of them; there is at least one.
///
/// # Errors
/// When the section asks for what cannot be enforced: nothing in it is skipped, but permissions for calls that
/// nobody knows.
pub fn compile(section: &LinuxSeccomp) -> Result<Vec<Vec<u8>>, SeccompError> {
    check_supported(section)?;
    let default = action(section.default_action(), section.default_errno_ret())?;
    let archs = section.architectures().iter().flatten().map(|arch| scmp_arch(*arch)).collect::<Result<Vec<_>, _>>()?;
    let draft = Draft::new(section.syscalls().iter().flatten(), default)?;
    let mut programs = Vec::new();
    if !draft.refused.is_empty() {
        programs.push(build(ScmpAction::Allow, &archs, &draft.refused)?);
    }
    if !draft.newer.is_empty() {
        programs.push(by_number(&draft.newer)?);
    }
    programs.push(build(default, &archs, &draft.base)?);
    Ok(programs)
}

fn check_supported(section: &LinuxSeccomp) -> Result<(), SeccompError> {
    let unsupported = |what: &str| Err(SeccompError::Unsupported(what.to_owned()));
    if section.listener_path().is_some() || section.listener_metadata().is_some() {
        return unsupported("a listener");
    }
    for flag in section.flags().iter().flatten() {
        match flag {
            // The payload has one thread when the filter is installed.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => {}
            LinuxSeccompFilterFlag::SeccompFilterFlagLog
            | LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow
            | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => return unsupported(&flag.to_string()),
        }
    }
    Ok(())
}

/// The rules of a section, put where they keep their force.
struct Draft {
    /// On top of the section's default.
    base: Rules,
    /// Refusals of calls that the base also permits: on top of "allow", in a program of their own, since within one
    /// program a permission without conditions swallows every condition.
    refused: Rules,
    /// Refusals of calls whose name libseccomp does not know.
    newer: Vec<(u32, ScmpAction)>,
}

impl Draft {
    fn new<'a>(
        rules: impl Iterator<Item = &'a LinuxSyscall> + Clone,
        default: ScmpAction,
    ) -> Result<Self, SeccompError> {
        let permitted: BTreeSet<&String> =
            rules.clone().filter(|rule| permits(rule.action())).flat_map(LinuxSyscall::names).collect();
        let mut draft = Draft { base: Rules::new(), refused: Rules::new(), newer: Vec::new() };
        for rule in rules {
            for name in rule.names() {
                draft.take(rule, name, default, permitted.contains(name))?;
            }
        }
        Ok(draft)
    }

    fn take(
        &mut self,
        rule: &LinuxSyscall,
        name: &str,
        default: ScmpAction,
        permitted: bool,
    ) -> Result<(), SeccompError> {
        let action = action(rule.action(), rule.errno_ret())?;
        let args = rule.args().as_deref().unwrap_or_default();
        let refusal = !permits(rule.action());
        let overrides = refusal && permitted;
        match resolve(name) {
            Call::Known(_) if overrides => add(self.refused.entry(name.to_owned()).or_default(), action, args),
            Call::Newer(number) if overrides || (refusal && !refuses(default)) => {
                if !args.is_empty() {
                    return Err(SeccompError::Unsupported(format!("conditions on {name}")));
                }
                self.newer.push((number.unsigned_abs(), action));
                Ok(())
            }
            Call::Known(_) | Call::Newer(_) => add(self.base.entry(name.to_owned()).or_default(), action, args),
            // What nobody knows falls to the default. That is as good as permitting nothing, and as refusing only
            // where the default refuses.
            Call::Unknown if refusal && !refuses(default) => Err(SeccompError::UnknownCall { name: name.to_owned() }),
            Call::Unknown => Ok(()),
        }
    }
}

/// Adds to the rules of one call, so that none contradicts another: an unconditional rule needs no conditional ones
/// beside it, and of two for the same condition the stricter stays.
fn add(
    rules: &mut Vec<(ScmpAction, Vec<ScmpArgCompare>)>,
    action: ScmpAction,
    args: &[LinuxSeccompArg],
) -> Result<(), SeccompError> {
    for conditions in alternatives(args)? {
        let unconditional = rules.first().is_some_and(|(_, conditions)| conditions.is_empty());
        if let Some(same) = rules.iter_mut().find(|(_, known)| *known == conditions) {
            if strictness(action) > strictness(same.0) {
                same.0 = action;
            }
        } else if conditions.is_empty() {
            *rules = vec![(action, conditions)];
        } else if !unconditional {
            rules.push((action, conditions));
        }
    }
    Ok(())
}

/// Conditions of one rule hold together, unless two are about the same argument: then each is an alternative, as in
/// the runtimes that profiles in the wild were written for.
fn alternatives(args: &[LinuxSeccompArg]) -> Result<Vec<Vec<ScmpArgCompare>>, SeccompError> {
    let compared = args.iter().map(compare).collect::<Result<Vec<_>, _>>()?;
    let indexes: BTreeSet<usize> = args.iter().map(LinuxSeccompArg::index).collect();
    if indexes.len() < args.len() {
        return Ok(compared.into_iter().map(|condition| vec![condition]).collect());
    }
    Ok(vec![compared])
}

fn compare(arg: &LinuxSeccompArg) -> Result<ScmpArgCompare, SeccompError> {
    let index = u32::try_from(arg.index()).ok().filter(|index| *index < 6);
    let index = index.ok_or_else(|| SeccompError::Unsupported(format!("argument {} of a call", arg.index())))?;
    let (op, datum) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or_default())
        }
    };
    Ok(ScmpArgCompare::new(index, op, datum))
}

fn permits(action: LinuxSeccompAction) -> bool {
    match action {
        LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog => true,
        LinuxSeccompAction::ScmpActKill
        | LinuxSeccompAction::ScmpActKillThread
        | LinuxSeccompAction::ScmpActKillProcess
        | LinuxSeccompAction::ScmpActTrap
        | LinuxSeccompAction::ScmpActErrno
        | LinuxSeccompAction::ScmpActNotify
        | LinuxSeccompAction::ScmpActTrace => false,
    }
}

fn refuses(action: ScmpAction) -> bool {
    !matches!(action, ScmpAction::Allow | ScmpAction::Log)
}

/// The kernel's own order (seccomp(2), RETURN VALUES).
fn strictness(action: ScmpAction) -> u8 {
    match action {
        ScmpAction::KillProcess => 5,
        ScmpAction::KillThread => 4,
        ScmpAction::Trap => 3,
        ScmpAction::Errno(_) => 2,
        ScmpAction::Log => 1,
        _ => 0,
    }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction, SeccompError> {
    let unsupported = |what: &str| Err(SeccompError::Unsupported(what.to_owned()));
    match action {
        LinuxSeccompAction::ScmpActAllow => Ok(ScmpAction::Allow),
        LinuxSeccompAction::ScmpActLog => Ok(ScmpAction::Log),
        LinuxSeccompAction::ScmpActTrap => Ok(ScmpAction::Trap),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Ok(ScmpAction::KillThread),
        LinuxSeccompAction::ScmpActKillProcess => Ok(ScmpAction::KillProcess),
        LinuxSeccompAction::ScmpActErrno => {
            let errno = errno.unwrap_or(EPERM);
            // Zero would be success of a call that never happened.
            if !(1..=MAX_ERRNO).contains(&errno) {
                return unsupported(&format!("{errno} as an error number"));
            }
            i32::try_from(errno).map(ScmpAction::Errno).or_else(|_| unsupported("such an error number"))
        }
        LinuxSeccompAction::ScmpActNotify => unsupported("SCMP_ACT_NOTIFY"),
        LinuxSeccompAction::ScmpActTrace => unsupported("SCMP_ACT_TRACE"),
    }
}

fn scmp_arch(arch: Arch) -> Result<ScmpArch, SeccompError> {
    match arch {
        Arch::ScmpArchNative => Ok(ScmpArch::Native),
        Arch::ScmpArchX86 => Ok(ScmpArch::X86),
        Arch::ScmpArchX86_64 => Ok(ScmpArch::X8664),
        Arch::ScmpArchX32 => Ok(ScmpArch::X32),
        Arch::ScmpArchArm => Ok(ScmpArch::Arm),
        Arch::ScmpArchAarch64 => Ok(ScmpArch::Aarch64),
        Arch::ScmpArchRiscv64 => Ok(ScmpArch::Riscv64),
        Arch::ScmpArchPpc64le => Ok(ScmpArch::Ppc64Le),
        Arch::ScmpArchS390x => Ok(ScmpArch::S390X),
        other => Err(SeccompError::Unsupported(other.to_string())),
    }
}

fn library<T>(result: Result<T, libseccomp::error::SeccompError>, operation: &str) -> Result<T, SeccompError> {
    result.map_err(|e| SeccompError::Library { operation: operation.to_owned(), why: e.to_string() })
}

fn build(default: ScmpAction, archs: &[ScmpArch], rules: &Rules) -> Result<Vec<u8>, SeccompError> {
    let mut filter = library(ScmpFilterContext::new(default), "begin a filter")?;
    // Code of another architecture has other numbers for its calls: nothing is decided for it, so it does not run.
    library(filter.set_act_badarch(ScmpAction::KillProcess), "refuse other architectures")?;
    if !archs.is_empty() {
        library(filter.remove_arch(ScmpArch::Native), "drop the native architecture")?;
        for arch in archs {
            library(filter.add_arch(*arch), "add an architecture")?;
        }
    }
    // A tree instead of a list of comparisons: 9 instead of some 200 for a call in the middle. It is only speed, and
    // a libseccomp before 2.5 has none.
    filter.set_ctl_optimize(2).map(drop).unwrap_or_default();
    for (name, alternatives) in rules {
        for (action, conditions) in alternatives.iter().filter(|(action, _)| *action != default) {
            add_rule(&mut filter, *action, name, conditions)?;
        }
    }
    export(&filter)
}

fn add_rule(
    filter: &mut ScmpFilterContext,
    action: ScmpAction,
    name: &str,
    conditions: &[ScmpArgCompare],
) -> Result<(), SeccompError> {
    let (call, newer) = match resolve(name) {
        Call::Known(call) => (call, false),
        Call::Newer(number) => (ScmpSyscall::from_raw_syscall(number), true),
        Call::Unknown => return Ok(()),
    };
    let added = filter.add_rule_conditional(action, call, conditions).map(drop);
    match added {
        // A number without a name cannot be translated to the second architecture, and needs not: a permission less.
        Err(e) if newer && e.errno() == Some(SeccompErrno::EFAULT) => Ok(()),
        other => library(other, &format!("add a rule for {name}")),
    }
}

fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>, SeccompError> {
    let failed = |e: std::io::Error| SeccompError::Library { operation: "export a filter".into(), why: e.to_string() };
    let memory = rustix::fs::memfd_create("rlrun-seccomp", rustix::fs::MemfdFlags::CLOEXEC);
    let mut memory = memory.map(File::from).map_err(|e| failed(e.into()))?;
    library(filter.export_bpf(&memory), "export a filter")?;
    let mut program = Vec::new();
    memory.rewind().and_then(|()| memory.read_to_end(&mut program)).map_err(failed)?;
    Ok(program)
}

/// A program that refuses calls by number alone. Only for numbers that every architecture shares, so it does not ask
/// which one it is; the bit that marks x32 is dropped before comparing.
fn by_number(refusals: &[(u32, ScmpAction)]) -> Result<Vec<u8>, SeccompError> {
    // Opcodes of linux/bpf_common.h: load word, and, jump if equal, return.
    const LD_W_ABS: u16 = 0x20;
    const AND_K: u16 = 0x54;
    const JEQ_K: u16 = 0x15;
    const RET_K: u16 = 0x06;
    const X32_BIT: u32 = 0x4000_0000;
    let step = |code: u16, if_false: u8, k: u32| {
        let [code_low, code_high] = code.to_ne_bytes();
        let [a, b, c, d] = k.to_ne_bytes();
        [code_low, code_high, 0, if_false, a, b, c, d]
    };
    let mut program = vec![step(LD_W_ABS, 0, 0), step(AND_K, 0, !X32_BIT)];
    for (number, action) in refusals {
        program.push(step(JEQ_K, 1, *number));
        program.push(step(RET_K, 0, answer(*action)?));
    }
    program.push(step(RET_K, 0, answer(ScmpAction::Allow)?));
    Ok(program.concat())
}

/// SECCOMP_RET_* of linux/seccomp.h.
fn answer(action: ScmpAction) -> Result<u32, SeccompError> {
    match action {
        ScmpAction::Allow => Ok(0x7fff_0000),
        ScmpAction::Log => Ok(0x7ffc_0000),
        ScmpAction::Errno(errno) => Ok(0x0005_0000 | errno.unsigned_abs()),
        ScmpAction::Trap => Ok(0x0003_0000),
        ScmpAction::KillThread => Ok(0),
        ScmpAction::KillProcess => Ok(0x8000_0000),
        other => Err(SeccompError::Unsupported(format!("{other:?}"))),
    }
}
