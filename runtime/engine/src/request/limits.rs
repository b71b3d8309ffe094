//! Sizes, `--ulimit`, `--memory`, `--cpus`, `--pids-limit` and their relatives, and signals.

use super::{Invalid, LimitsLevel};
use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType};
use serde::{Deserialize, Serialize};

/// What `--pids-limit` is unless the user says otherwise, as in podman.
pub const DEFAULT_PIDS: u32 = 2048;

/// What `/dev/shm` holds unless the user says otherwise, as in podman.
pub const DEFAULT_SHM: u64 = 64 << 20;

/// Limits that the user asked for; None means nothing was said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitRequest {
    /// `--limits`.
    pub level: LimitsLevel,
    /// `--cgroups`.
    #[serde(default)]
    pub cgroups: Cgroups,
    /// `--memory`, bytes.
    pub memory: Option<u64>,
    /// `--memory-swap`, bytes of memory and swap together.
    pub memory_swap: Option<Swap>,
    /// `--memory-reservation`, bytes.
    pub memory_reservation: Option<u64>,
    /// `--memory-swappiness`.
    #[serde(default)]
    pub memory_swappiness: Option<u64>,
    /// `--oom-kill-disable`.
    pub oom_kill_disable: bool,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i32>,
    /// `--cpus`, thousandths.
    pub cpu_millis: Option<u32>,
    /// `--cpu-period`, microseconds.
    pub cpu_period: Option<u64>,
    /// `--cpu-quota`, microseconds; None also for -1, no limit.
    pub cpu_quota: Option<u64>,
    /// `--cpu-shares`.
    pub cpu_shares: Option<u64>,
    /// `--cpuset-cpus`.
    pub cpuset: Option<String>,
    /// Options that only a cgroup's io controller has, as they were written: `--blkio-weight` and [`DEVICE_RATES`].
    pub block_io: Vec<(String, String)>,
    /// `--pids-limit`.
    pub pids: Option<Pids>,
    /// `--shm-size`, bytes.
    pub shm: Option<u64>,
    /// `--storage-opt size=`, bytes.
    #[serde(default)]
    pub disk: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<PosixRlimit>,
}

/// `--cgroups`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cgroups {
    /// Where a limit holds better in one.
    #[default]
    Enabled,
    /// Never: all limits are kept without.
    Disabled,
}

/// `--memory-swap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Swap {
    /// `-1`.
    Unlimited,
    /// Memory and swap together.
    AtMost(u64),
}

/// `--pids-limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pids {
    /// `0` or `-1`.
    Unlimited,
    /// At most so many processes and threads.
    AtMost(u32),
}

/// A number of bytes with an optional unit, `64m`, `1.5GiB`; units are powers of 1024 as in podman.
#[must_use]
pub fn bytes(word: &str) -> Option<u64> {
    let number = word.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = word.split_at(number);
    let shift: u32 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = u32::try_from(part.len()).ok().filter(|digits| (1..=9).contains(digits))?;
    if shift == 0 && number.contains('.') {
        // There is no half a byte.
        return None;
    }
    let part = (u128::from(part.parse::<u32>().ok()?) << shift) / 10_u128.pow(digits);
    whole.parse::<u64>().ok()?.checked_mul(1 << shift)?.checked_add(u64::try_from(part).ok()?)
}

/// A size option.
///
/// # Errors
/// When it is not a positive size.
pub fn size(option: &'static str, word: &str) -> Result<u64, Invalid> {
    bytes(word)
        .filter(|n| *n > 0)
        .ok_or_else(|| Invalid::new(option, word, "is not a size").hint("write a number with b, k, m or g"))
}

/// `--cpus 1.5`, in thousandths.
///
/// # Errors
/// When it is not a positive number with at most three decimals that matter.
pub fn cpus(word: &str) -> Result<u32, Invalid> {
    let invalid = || Invalid::new("--cpus", word, "is not a number of CPUs").hint("write for example 0.5 or 2");
    let (whole, part) = word.split_once('.').unwrap_or((word, ""));
    if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid());
    }
    let whole = if whole.is_empty() && !part.is_empty() { 0 } else { whole.parse::<u32>().map_err(|_| invalid())? };
    let part = format!("{part:0<3}").parse::<u32>().map_err(|_| invalid())?;
    whole.checked_mul(1000).and_then(|w| w.checked_add(part)).filter(|m| *m > 0).ok_or_else(invalid)
}

/// `--memory-swap`; `-1` means no limit on swap.
///
/// # Errors
/// When it is not a size.
pub fn swap(word: &str) -> Result<Swap, Invalid> {
    if word == "-1" { Ok(Swap::Unlimited) } else { size("--memory-swap", word).map(Swap::AtMost) }
}

/// `--storage-opt size=10m`.
///
/// # Errors
/// When it is another option, or no size.
pub fn storage(word: &str) -> Result<u64, Invalid> {
    match word.split_once('=') {
        Some(("size", value)) => size("--storage-opt", value),
        _ => Err(Invalid::new("--storage-opt", word, "is not an option of a container").hint("write size=SIZE")),
    }
}

/// `--memory-swappiness`; `-1` leaves it as it is.
///
/// # Errors
/// When it is not a number from 0 to 100.
pub fn swappiness(word: &str) -> Result<Option<u64>, Invalid> {
    if word == "-1" { Ok(None) } else { number("--memory-swappiness", word, 0..=100).map(Some) }
}

/// `--cpu-period`, `--cpu-quota` and `--cpu-shares` within what the kernel's cgroups take.
///
/// # Errors
/// When it is not a number within `range`.
pub fn number(option: &'static str, word: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, Invalid> {
    word.parse().ok().filter(|n| range.contains(n) && word.bytes().all(|b| b.is_ascii_digit())).ok_or_else(|| {
        let (first, last) = (range.start(), range.end());
        Invalid::new(option, word, "is not a number that it takes")
            .hint(format!("write a number from {first} to {last}"))
    })
}

/// Microseconds that `--cpu-period` may be.
pub const PERIODS: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
/// `--cpu-shares`.
pub const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// `--cpu-quota`; `-1` and `0` mean no limit.
///
/// # Errors
/// When it is less than the millisecond that a cgroup takes.
pub fn quota(word: &str) -> Result<Option<u64>, Invalid> {
    match word {
        "-1" | "0" => Ok(None),
        _ => number("--cpu-quota", word, 1_000..=1_000_000_000_000).map(Some),
    }
}

/// `--cpuset-cpus`.
///
/// # Errors
/// When it is no list like `0-2,5`.
pub fn cpuset(word: &str) -> Result<String, Invalid> {
    match rlrun_spec::limits::cpu_list(word) {
        Some(cpus) if !cpus.is_empty() => Ok(word.to_owned()),
        Some(_) | None => {
            Err(Invalid::new("--cpuset-cpus", word, "is not a list of CPUs").hint("write for example 0-2,5"))
        }
    }
}

/// Options that limit a device, and whether they count bytes; else operations.
pub const DEVICE_RATES: [(&str, bool); 4] = [
    ("--device-read-bps", true),
    ("--device-write-bps", true),
    ("--device-read-iops", false),
    ("--device-write-iops", false),
];

/// `/dev/sda:1mb` or, of operations, `/dev/sda:100`: the device and how much of it in a second.
#[must_use]
pub fn device_rate<'a>(option: &str, word: &'a str) -> Option<(&'a str, u64)> {
    let (_, of_bytes) = DEVICE_RATES.into_iter().find(|(name, _)| *name == option)?;
    let (path, rate) = word.rsplit_once(':').filter(|(path, _)| path.starts_with('/'))?;
    let digits = !rate.is_empty() && rate.bytes().all(|b| b.is_ascii_digit());
    let rate = if of_bytes { bytes(rate) } else { rate.parse().ok().filter(|_| digits) };
    rate.map(|rate| (path, rate))
}

/// `--device-read-bps /dev/sda:1mb`.
///
/// # Errors
/// When it is not a device and a rate.
pub fn rate(option: &'static str, word: &str) -> Result<(), Invalid> {
    match device_rate(option, word) {
        Some((_, rate)) if rate > 0 => Ok(()),
        Some(_) | None => {
            let unit = if option.ends_with("bps") { "1mb" } else { "1000" };
            Err(Invalid::new(option, word, "is not a device and a rate").hint(format!("write /dev/NAME:{unit}")))
        }
    }
}

/// `--blkio-weight`.
///
/// # Errors
/// When it is not from 10 to 1000.
pub fn block_weight(word: &str) -> Result<u64, Invalid> {
    number("--blkio-weight", word, 10..=1000)
}

/// `--oom-score-adj`.
///
/// # Errors
/// When it is not within what `proc_pid_oom_score_adj(5)` takes.
pub fn oom_score_adj(word: &str) -> Result<i32, Invalid> {
    word.parse().ok().filter(|n| (-1000..=1000).contains(n)).ok_or_else(|| {
        Invalid::new("--oom-score-adj", word, "is not a score").hint("write a number from -1000 to 1000")
    })
}

/// `--pids-limit`.
///
/// # Errors
/// When it is not a number.
pub fn pids(word: &str) -> Result<Pids, Invalid> {
    match word.parse::<i64>().map(u32::try_from) {
        Ok(Ok(0)) => Ok(Pids::Unlimited),
        Ok(Ok(limit)) => Ok(Pids::AtMost(limit)),
        _ if word == "-1" => Ok(Pids::Unlimited),
        _ => Err(Invalid::new("--pids-limit", word, "is not a number of processes")),
    }
}

/// `--ulimit name=soft[:hard]`; `-1` and `unlimited` mean no limit.
///
/// # Errors
/// When the name is unknown, a number is none, or soft is above hard.
pub fn ulimit(word: &str) -> Result<PosixRlimit, Invalid> {
    let invalid = |why: &str| Invalid::new("--ulimit", word, why);
    let Some((name, limits)) = word.split_once('=') else {
        return Err(invalid("has no value").hint("write name=soft or name=soft:hard"));
    };
    let Some(resource) = resource(name) else { return Err(invalid("no such limit").hint("getrlimit(2) lists them")) };
    let value = |v: &str| match v {
        "-1" | "unlimited" => Some(u64::MAX),
        _ => v.parse::<u64>().ok(),
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (Some(soft), Some(hard)) = (value(soft), value(hard)) else { return Err(invalid("is not a number")) };
    if soft > hard {
        return Err(invalid("the soft limit is above the hard one"));
    }
    PosixRlimitBuilder::default().typ(resource).soft(soft).hard(hard).build().map_err(|e| invalid(&e.to_string()))
}

fn resource(name: &str) -> Option<PosixRlimitType> {
    use PosixRlimitType as T;
    Some(match name.to_ascii_lowercase().as_str() {
        "as" => T::RlimitAs,
        "core" => T::RlimitCore,
        "cpu" => T::RlimitCpu,
        "data" => T::RlimitData,
        "fsize" => T::RlimitFsize,
        "locks" => T::RlimitLocks,
        "memlock" => T::RlimitMemlock,
        "msgqueue" => T::RlimitMsgqueue,
        "nice" => T::RlimitNice,
        "nofile" => T::RlimitNofile,
        "nproc" => T::RlimitNproc,
        "rss" => T::RlimitRss,
        "rtprio" => T::RlimitRtprio,
        "rttime" => T::RlimitRttime,
        "sigpending" => T::RlimitSigpending,
        "stack" => T::RlimitStack,
        _ => return None,
    })
}

/// Signal numbers of Linux on every architecture but mips, alpha, sparc and parisc (`signal(7)`).
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// A signal by number or name, with or without `SIG`, in any case; `RTMIN+n` too. None when there is none such.
#[must_use]
pub fn signal_number(word: &str) -> Option<i32> {
    if let Ok(number) = word.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        // glibc keeps 32 and 33 for itself.
        let offset = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse::<i32>().ok()? };
        return (0..=30).contains(&offset).then(|| 34 + offset);
    }
    SIGNALS.iter().zip(1..).find_map(|(n, number)| (*n == name).then_some(number))
}

/// `--stop-signal`.
///
/// # Errors
/// When there is no such signal.
pub fn signal(word: &str) -> Result<i32, Invalid> {
    signal_number(word)
        .ok_or_else(|| Invalid::new("--stop-signal", word, "no such signal").hint("signal(7) lists them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        assert_eq!(bytes("64m"), Some(64 << 20));
        assert_eq!(bytes("1GiB"), Some(1 << 30));
        assert_eq!(bytes("512"), Some(512));
        assert_eq!((bytes("1.5g"), bytes("0.25k")), (Some(3 << 29), Some(256)));
        for bad in ["", "m", ".5g", "1.g", "1.5", "1.2.3g", "1.+5g", "-1", "1x", "99999999999999g", " 1"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
        assert!(size("--memory", "0").is_err());
    }

    #[test]
    fn cpus_are_exact() {
        assert_eq!(cpus("1.5").unwrap(), 1500);
        assert_eq!(cpus(".25").unwrap(), 250);
        assert_eq!(cpus("2").unwrap(), 2000);
        for bad in ["", ".", "0", "-1", "1.2345", "1e3", "x", "0.000", "99999999999"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pids_may_be_unlimited() {
        assert_eq!(pids("0").unwrap(), Pids::Unlimited);
        assert_eq!(pids("-1").unwrap(), Pids::Unlimited);
        assert_eq!(pids("7").unwrap(), Pids::AtMost(7));
        for bad in ["", "-2", "x", "4294967296"] {
            assert!(pids(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ulimits_have_a_soft_and_a_hard_side() {
        let limit = ulimit("nofile=10:20").unwrap();
        assert_eq!((limit.soft(), limit.hard()), (10, 20));
        assert_eq!(ulimit("core=unlimited").unwrap().hard(), u64::MAX);
        for bad in ["nofile", "x=1", "nofile=2:1", "nofile=a", "nofile=-1:5"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_have_a_device_and_a_unit_of_their_own() {
        assert_eq!(device_rate("--device-read-bps", "/dev/sda:1mb"), Some(("/dev/sda", 1 << 20)));
        assert_eq!(device_rate("--device-write-iops", "/dev/x:y:100"), Some(("/dev/x:y", 100)));
        for (option, bad) in [
            ("--device-read-bps", "sda:1"),
            ("--device-read-bps", "/dev/sda"),
            ("--device-read-iops", "/dev/sda:1mb"),
            ("--device-read-iops", "/dev/sda:+1"),
            ("--blkio-weight", "/dev/sda:1"),
        ] {
            assert_eq!(device_rate(option, bad), None, "{option} {bad}");
        }
        assert!(rate("--device-read-bps", "/dev/sda:0").is_err());
    }

    #[test]
    fn signals_by_name_and_number() {
        for (word, number) in [("TERM", 15), ("sigkill", 9), ("3", 3), ("RTMIN+3", 37), ("SIGSYS", 31)] {
            assert_eq!(signal_number(word), Some(number), "{word}");
        }
        for bad in ["", "0", "65", "SIGNONE", "RTMIN+31", "-9"] {
            assert_eq!(signal_number(bad), None, "{bad}");
        }
    }
}
