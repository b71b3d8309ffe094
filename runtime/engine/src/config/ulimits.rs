//! `--ulimit` against what the caller has: a hard limit can only be lowered without privilege (setrlimit(2)).

use oci_spec::runtime::{PosixRlimit, PosixRlimitType};
use rlrun_spec::{Failure, Kind, Stage};
use rustix::process::{Resource, getrlimit};

/// With less memory to set up the kernel ends every program while it starts it.
const LEAST_MEMORY: u64 = 1 << 20;

/// Whether each limit can be set.
///
/// # Errors
/// With the first one that is above the caller's own, or below what a start needs.
pub fn check(limits: &[PosixRlimit]) -> Result<(), Failure> {
    limits.iter().try_for_each(|limit| {
        let name = limit.typ().to_string().trim_start_matches("RLIMIT_").to_ascii_lowercase();
        if matches!(limit.typ(), PosixRlimitType::RlimitAs | PosixRlimitType::RlimitData) && limit.soft() < LEAST_MEMORY
        {
            return Err(Failure::new(Stage::Cli, Kind::Usage, "ulimit", "set the limit", format!("--ulimit {name}"))
                .why("no program starts with less than 1 MiB")
                .hint(format!("ask for at least {LEAST_MEMORY}")));
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
        for bad in ["as=1000", "data=4096:2000000"] {
            assert!(check(&[ulimit(bad).unwrap()]).unwrap_err().to_string().contains("1 MiB"), "{bad}");
        }
        check(&[ulimit("stack=1").unwrap(), ulimit("data=2000000").unwrap()]).unwrap();
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
