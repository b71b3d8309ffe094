//! Compiled filters, kept in the user's cache: a run reads a few kilobytes instead of compiling. The key is the
//! content of the section itself and everything else that the outcome depends on, so an entry is never stale; a file
//! that is not ours, or not whole, is compiled anew.

use super::SeccompError;
use super::compile::compile;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Raised with every change of this file, of `compile` or of the table of newer calls.
const FORMAT: u8 = 1;

const MAGIC: &[u8; 8] = b"rlrunbpf";

/// The kernel takes at most 4096 instructions of 8 bytes a filter.
const MAX_PROGRAM: usize = 4096 * 8;

/// No section compiles to more than three filters.
const MAX_FILE: u64 = 4 * MAX_PROGRAM as u64;

/// The compiled filters of several sections, to be installed in this order. `cache` is the directory of rlrun's
/// cache; it may be missing or read-only, which costs time only.
///
/// # Errors
/// As [`compile`].
pub fn filters(sections: &[&LinuxSeccomp], cache: &Path) -> Result<Vec<Vec<u8>>, SeccompError> {
    let directory = cache.join("seccomp");
    let compiled = sections.iter().map(|section| cached(section, &directory));
    Ok(compiled.collect::<Result<Vec<_>, _>>()?.concat())
}

fn cached(section: &LinuxSeccomp, directory: &Path) -> Result<Vec<Vec<u8>>, SeccompError> {
    let path = directory.join(name(section));
    if let Some(programs) = read(&path).ok().and_then(|bytes| decode(&bytes)) {
        return Ok(programs);
    }
    let programs = compile(section)?;
    // A cache that cannot be written is a slower run, not a failed one.
    write(directory, &path, &encode(&programs)).ok();
    Ok(programs)
}

/// Only a file that this user wrote and nobody else may write.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0;
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if !ours || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || size > MAX_FILE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1);
    File::from(file).take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let temporary = directory.join(format!(".{}", std::process::id()));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let opened = match rustix::fs::openat(CWD, &temporary, flags, Mode::RUSR | Mode::WUSR) {
        // Left by a process of the same number that was killed here.
        Err(rustix::io::Errno::EXIST) => {
            std::fs::remove_file(&temporary)?;
            rustix::fs::openat(CWD, &temporary, flags, Mode::RUSR | Mode::WUSR)?
        }
        other => other?,
    };
    // No fsync: after a crash the checksum tells a torn file, and it is compiled again.
    let written = File::from(opened).write_all(bytes).and_then(|()| std::fs::rename(&temporary, path));
    written.or_else(|e| std::fs::remove_file(&temporary).and(Err(e)))
}

/// Magic, checksum of the rest, then each program with its length.
fn encode(programs: &[Vec<u8>]) -> Vec<u8> {
    let lengths = programs.iter().map(|program| u32::try_from(program.len()).unwrap_or(u32::MAX).to_le_bytes());
    let body: Vec<u8> =
        lengths.zip(programs).flat_map(|(length, program)| [&length, program.as_slice()].concat()).collect();
    [MAGIC.as_slice(), &Sha256::digest(&body), &body].concat()
}

fn decode(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (checksum, mut rest) = bytes.strip_prefix(MAGIC)?.split_at_checked(32)?;
    if Sha256::digest(rest).as_slice() != checksum {
        return None;
    }
    let mut programs = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (program, tail) = tail.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let whole = !program.is_empty() && program.len() % 8 == 0 && program.len() <= MAX_PROGRAM;
        programs.push(whole.then(|| program.to_vec())?);
        rest = tail;
    }
    (rest.is_empty() && !programs.is_empty()).then_some(programs)
}

/// Hashes the section as it lies in memory: serialising it first would cost more than reading the cache.
fn name(section: &LinuxSeccomp) -> String {
    let mut key = Key(Sha256::new());
    let version = libseccomp::ScmpVersion::current().map(|v| (v.major, v.minor, v.micro)).unwrap_or_default();
    key.text(&format!("{FORMAT} {version:?} {}", std::env::consts::ARCH));
    key.number(section.default_action() as u64);
    key.optional(section.default_errno_ret().map(u64::from));
    key.list(section.architectures().as_deref(), |key, arch| key.number(*arch as u64));
    key.list(section.flags().as_deref(), |key, flag| key.number(*flag as u64));
    key.text(&section.listener_path().as_deref().map(Path::to_string_lossy).unwrap_or_default());
    key.text(section.listener_metadata().as_deref().unwrap_or_default());
    key.list(section.syscalls().as_deref(), Key::rule);
    let digest = key.0.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + ".bpf"
}

/// Every part with its length, so that no two sections run together to the same bytes.
struct Key(Sha256);

impl Key {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn optional(&mut self, number: Option<u64>) {
        self.number(u64::from(number.is_some()));
        self.number(number.unwrap_or_default());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn list<T>(&mut self, items: Option<&[T]>, mut each: impl FnMut(&mut Self, &T)) {
        self.optional(items.map(|items| items.len() as u64));
        for item in items.unwrap_or_default() {
            each(self, item);
        }
    }

    fn rule(&mut self, rule: &LinuxSyscall) {
        self.number(rule.action() as u64);
        self.optional(rule.errno_ret().map(u64::from));
        self.list(Some(rule.names()), |key, name| key.text(name));
        self.list(rule.args().as_deref(), Key::arg);
    }

    fn arg(&mut self, arg: &LinuxSeccompArg) {
        self.number(arg.index() as u64);
        self.number(arg.op() as u64);
        self.number(arg.value());
        self.optional(arg.value_two());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::default_profile;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn only_file(directory: &Path) -> std::path::PathBuf {
        let mut entries = std::fs::read_dir(directory.join("seccomp")).unwrap();
        let path = entries.next().unwrap().unwrap().path();
        assert!(entries.next().is_none());
        path
    }

    #[test]
    fn the_second_time_comes_from_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let section = default_profile(&[].into());
        let compiled = filters(&[&section], cache.path()).unwrap();
        let path = only_file(cache.path());
        // Proof that it is read: another whole entry in its place is believed.
        let other = encode(&[vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f]]);
        write(path.parent().unwrap(), &path, &other).unwrap();
        assert_ne!(filters(&[&section], cache.path()).unwrap(), compiled);
    }

    #[test]
    fn what_is_not_ours_or_not_whole_is_compiled_anew() {
        let cache = tempfile::tempdir().unwrap();
        let section = default_profile(&[].into());
        let compiled = filters(&[&section], cache.path()).unwrap();
        let path = only_file(cache.path());
        let whole = std::fs::read(&path).unwrap();
        let other = encode(&[vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f]]);
        let elsewhere = cache.path().join("elsewhere");
        File::create(&elsewhere).unwrap().write_all(&other).unwrap();
        let spoil: [&dyn Fn(); 5] = [
            &|| File::create(&path).unwrap().write_all(&whole[..whole.len() - 8]).unwrap(),
            &|| File::create(&path).unwrap().write_all(b"").unwrap(),
            &|| File::create(&path).unwrap().write_all(&[whole.as_slice(), &[0; 8]].concat()).unwrap(),
            &|| {
                File::create(&path).unwrap().write_all(&other).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o620)).unwrap();
            },
            &|| {
                std::fs::remove_file(&path).unwrap();
                symlink(&elsewhere, &path).unwrap();
            },
        ];
        for (case, spoil) in spoil.iter().enumerate() {
            spoil();
            assert_eq!(filters(&[&section], cache.path()).unwrap(), compiled, "case {case}");
            assert_eq!(std::fs::read(&path).unwrap(), whole, "case {case} was not mended");
        }
    }

    #[test]
    fn a_cache_that_cannot_be_written_costs_time_only() {
        let section = default_profile(&[].into());
        assert!(!filters(&[&section, &section], Path::new("/proc/no/such")).unwrap().is_empty());
    }

    #[test]
    fn every_part_of_a_section_is_in_its_name() {
        let base = default_profile(&[].into());
        let changed: [fn(&mut LinuxSeccomp); 6] = [
            |s| {
                s.set_default_errno_ret(None);
            },
            |s| {
                s.set_default_action(oci_spec::runtime::LinuxSeccompAction::ScmpActKillProcess);
            },
            |s| {
                s.set_architectures(None);
            },
            |s| {
                s.set_flags(Some(Vec::new()));
            },
            |s| {
                s.set_listener_metadata(Some("x".to_owned()));
            },
            |s| {
                s.set_syscalls(Some(Vec::new()));
            },
        ];
        let mut names = vec![name(&base)];
        for change in changed {
            let mut section = base.clone();
            change(&mut section);
            names.push(name(&section));
        }
        let rules = base.syscalls().clone().unwrap();
        for index in 0..rules.len() {
            let mut fewer = rules.clone();
            fewer.remove(index);
            let mut section = base.clone();
            section.set_syscalls(Some(fewer));
            names.push(name(&section));
        }
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
