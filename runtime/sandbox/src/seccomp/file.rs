//! `--security-opt seccomp=FILE`: profiles as docker and podman keep them, which is the OCI section with conditions
//! on capabilities, architecture and kernel. They are decided here, for this container on this machine.

use super::SeccompError;
use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};
use serde::Deserialize;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The usual profiles have 20 KiB.
const MAX_FILE: u64 = 4 << 20;

/// A misspelt key would drop a condition or a rule, so unknown ones are errors.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    default_errno: Option<String>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    architectures: Option<Vec<Arch>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<PathBuf>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchMap {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    names: Option<Vec<String>>,
    name: Option<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    errno: Option<String>,
    args: Option<Vec<Argument>>,
    includes: Option<Scope>,
    excludes: Option<Scope>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: usize,
    value: u64,
    value_two: Option<u64>,
    op: LinuxSeccompOperator,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Scope {
    caps: Option<Vec<Capability>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// What conditions are about.
struct Here<'a> {
    capabilities: &'a Capabilities,
    arch: &'static str,
    kernel: (u32, u32),
}

/// Reads a profile for a container whose bounding set is `capabilities`.
///
/// # Errors
/// When the file cannot be read, is no profile, or holds a key that this version does not know.
pub fn load_profile(path: &Path, capabilities: &Capabilities) -> Result<LinuxSeccomp, SeccompError> {
    let text = read(path).map_err(|source| SeccompError::Read { path: path.to_owned(), source })?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let here = Here { capabilities, arch: go_arch(std::env::consts::ARCH), kernel: version(&release) };
    decide(&text, &here).map_err(|why| SeccompError::NotAProfile { path: path.to_owned(), why })
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "larger than 4 MiB"));
    }
    Ok(text)
}

fn decide(text: &str, here: &Here<'_>) -> Result<LinuxSeccomp, String> {
    let profile: Profile = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let default_errno = errno(profile.default_errno_ret, profile.default_errno.as_deref())?;
    let mut rules = Vec::new();
    for rule in profile.syscalls.into_iter().flatten() {
        if applies(&rule, here) {
            rules.push(rule.into_oci()?);
        }
    }
    let mut section = LinuxSeccomp::default();
    section
        .set_default_action(profile.default_action)
        .set_default_errno_ret(default_errno)
        .set_architectures(architectures(profile.architectures, &profile.arch_map, here.arch))
        .set_flags(profile.flags.filter(|flags| !flags.is_empty()))
        .set_listener_path(profile.listener_path.filter(|path| !path.as_os_str().is_empty()))
        .set_listener_metadata(profile.listener_metadata.filter(|data| !data.is_empty()))
        .set_syscalls(Some(rules));
    Ok(section)
}

fn architectures(listed: Option<Vec<Arch>>, map: &[ArchMap], here: &str) -> Option<Vec<Arch>> {
    if let Some(listed) = listed.filter(|listed| !listed.is_empty()) {
        return Some(listed);
    }
    let entry = map.iter().find(|entry| native(entry.architecture) == Some(here))?;
    Some([entry.architecture].into_iter().chain(entry.sub_architectures.iter().flatten().copied()).collect())
}

fn native(arch: Arch) -> Option<&'static str> {
    match arch {
        Arch::ScmpArchX86_64 => Some("amd64"),
        Arch::ScmpArchAarch64 => Some("arm64"),
        Arch::ScmpArchRiscv64 => Some("riscv64"),
        Arch::ScmpArchPpc64le => Some("ppc64le"),
        Arch::ScmpArchS390x => Some("s390x"),
        _ => None,
    }
}

/// Profiles name architectures as Go does.
fn go_arch(arch: &'static str) -> &'static str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn applies(rule: &Rule, here: &Here<'_>) -> bool {
    let included = rule.includes.as_ref().is_none_or(|scope| {
        scope.caps.iter().flatten().all(|cap| here.capabilities.contains(cap))
            && scope.arches.as_deref().is_none_or(|arches| arches.is_empty() || arches.iter().any(|a| a == here.arch))
            && scope.min_kernel.as_deref().is_none_or(|min| here.kernel >= version(min))
    });
    let excluded = rule.excludes.as_ref().is_some_and(|scope| {
        scope.caps.iter().flatten().any(|cap| here.capabilities.contains(cap))
            || scope.arches.iter().flatten().any(|arch| arch == here.arch)
            || scope.min_kernel.as_deref().is_some_and(|min| here.kernel >= version(min))
    });
    included && !excluded
}

/// `4.8`, or a release like `6.1.0-18-amd64`.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

impl Rule {
    fn into_oci(self) -> Result<LinuxSyscall, String> {
        let names: Vec<String> = self.names.into_iter().flatten().chain(self.name).collect();
        if names.is_empty() {
            return Err("a rule names no system call".to_owned());
        }
        let args = self.args.into_iter().flatten().map(Argument::into_oci).collect::<Result<Vec<_>, _>>()?;
        let mut rule = LinuxSyscall::default();
        rule.set_names(names)
            .set_action(self.action)
            .set_errno_ret(errno(self.errno_ret, self.errno.as_deref())?)
            .set_args(Some(args).filter(|args| !args.is_empty()));
        Ok(rule)
    }
}

impl Argument {
    fn into_oci(self) -> Result<LinuxSeccompArg, String> {
        let arg = LinuxSeccompArgBuilder::default().index(self.index).op(self.op).value(self.value);
        arg.value_two(self.value_two.unwrap_or_default()).build().map_err(|e| e.to_string())
    }
}

/// podman writes the name beside the number.
fn errno(number: Option<u32>, name: Option<&str>) -> Result<Option<u32>, String> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(number) };
    let known = match name {
        "EPERM" => libc::EPERM,
        "ENOENT" => libc::ENOENT,
        "EIO" => libc::EIO,
        "EBADF" => libc::EBADF,
        "EAGAIN" => libc::EAGAIN,
        "ENOMEM" => libc::ENOMEM,
        "EACCES" => libc::EACCES,
        "EBUSY" => libc::EBUSY,
        "EINVAL" => libc::EINVAL,
        "ENOSYS" => libc::ENOSYS,
        "EOPNOTSUPP" | "ENOTSUP" => libc::EOPNOTSUPP,
        "EAFNOSUPPORT" => libc::EAFNOSUPPORT,
        _ => return Err(format!("{name} is not a known error")),
    };
    let known = known.unsigned_abs();
    match number {
        Some(number) if number != known => Err(format!("{name} is {known} and not {number}")),
        Some(_) | None => Ok(Some(known)),
    }
}

#[cfg(test)]
mod tests;
