//! `--ulimit` against what the caller has: a hard limit can only be lowered without privilege (setrlimit(2)).

use oci_spec::runtime::{PosixRlimit, PosixRlimitType};
use rlrun_spec::{Failure, Kind, Stage};
use rustix::process::{Resource, getrlimit};

/// With less memory to set up the kernel ends every program while it starts it.
const LEAST_MEMORY: u64 = 1 << 20;

/// Below this the kernel has no room for a program's arguments.
const LEAST_STACK: u64 = 16 << 10;

/// Whether each limit can be set.
///
/// # Errors
/// With the first one that is above the caller's own, or below what a start needs.
pub fn check(limits: &[PosixRlimit]) -> Result<(), Failure> {
    limits.iter().enumerate().try_for_each(|(index, limit)| {
        let name = limit.typ().to_string().trim_start_matches("RLIMIT_").to_ascii_lowercase();
        let least = match limit.typ() {
            PosixRlimitType::RlimitAs | PosixRlimitType::RlimitData => LEAST_MEMORY,
            PosixRlimitType::RlimitStack => LEAST_STACK,
            _ => 0,
        };
        if limit.soft() < least {
            return Err(Failure::new(Stage::Cli, Kind::Usage, "ulimit", "set the limit", format!("--ulimit {name}"))
                .why(format!("no program starts with less than {} KiB", least >> 10))
                .hint(format!("ask for at least {least}")));
        }
        if limits.iter().take(index).any(|before| before.typ() == limit.typ() && before != limit) {
            return Err(Failure::new(Stage::Cli, Kind::Usage, "ulimit", "set the limit", format!("--ulimit {name}"))
                .why("it is given twice, with different values")
                .hint("give it once"));
        }
        let own = getrlimit(resource(limit.typ())).maximum;
        let Some(own) = own.filter(|own| *own < limit.hard()) else { return Ok(()) };
        Err(Failure::new(Stage::Cli, Kind::Usage, "ulimit", "raise the limit", format!("--ulimit {name}"))
            .why(format!("your own hard limit is {own}"))
            .hint(format!("ask for at most {own}, or raise your own in /etc/security/limits.conf")))
    })
}

fn resource(kind: PosixRlimitType) -> Resource {
    use PosixRlimitType as T;
    match kind {
        T::RlimitAs => Resource::As,
        T::RlimitCore => Resource::Core,
        T::RlimitCpu => Resource::Cpu,
        T::RlimitData => Resource::Data,
        T::RlimitFsize => Resource::Fsize,
        T::RlimitLocks => Resource::Locks,
        T::RlimitMemlock => Resource::Memlock,
        T::RlimitMsgqueue => Resource::Msgqueue,
        T::RlimitNice => Resource::Nice,
        T::RlimitNofile => Resource::Nofile,
        T::RlimitNproc => Resource::Nproc,
        T::RlimitRss => Resource::Rss,
        T::RlimitRtprio => Resource::Rtprio,
        T::RlimitRttime => Resource::Rttime,
        T::RlimitSigpending => Resource::Sigpending,
        T::RlimitStack => Resource::Stack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::limits::ulimit;

    #[test]
    fn what_nothing_starts_with_is_refused() {
        for bad in ["as=1000", "data=4096:2000000", "stack=1"] {
            assert!(check(&[ulimit(bad).unwrap()]).unwrap_err().to_string().contains("KiB"), "{bad}");
        }
        check(&[ulimit("stack=16384").unwrap(), ulimit("data=2000000").unwrap()]).unwrap();
    }

    #[test]
    fn a_limit_that_is_given_twice_is_refused_where_it_differs() {
        let twice = |first, second| check(&[ulimit(first).unwrap(), ulimit(second).unwrap()]);
        twice("core=0", "core=0").unwrap();
        assert!(twice("nofile=10", "nofile=20").unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn a_limit_above_the_callers_own_is_named() {
        let own = getrlimit(Resource::Nofile).maximum;
        let Some(own) = own else { return };
        check(&[ulimit(&format!("nofile=1:{own}")).unwrap()]).unwrap();
        let failure = check(&[ulimit(&format!("nofile=1:{}", own + 1)).unwrap()]).unwrap_err();
        assert_eq!(failure.object, "--ulimit nofile");
        assert!(failure.to_string().contains(&own.to_string()), "{failure}");
    }
}
