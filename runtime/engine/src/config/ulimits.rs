//! `--ulimit` against what the caller has: a hard limit can only be lowered without privilege (setrlimit(2)).

use oci_spec::runtime::{PosixRlimit, PosixRlimitType};
use rlrun_spec::{Failure, Kind, Stage};
use rustix::process::{Resource, getrlimit};

/// Whether each limit can be set.
///
/// # Errors
/// With the first one that is above the caller's own.
pub fn check(limits: &[PosixRlimit]) -> Result<(), Failure> {
    limits.iter().try_for_each(|limit| {
        let own = getrlimit(resource(limit.typ())).maximum;
        let Some(own) = own.filter(|own| *own < limit.hard()) else { return Ok(()) };
        let name = limit.typ().to_string().trim_start_matches("RLIMIT_").to_ascii_lowercase();
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
    fn a_limit_above_the_callers_own_is_named() {
        let own = getrlimit(Resource::Nofile).maximum;
        let Some(own) = own else { return };
        check(&[ulimit(&format!("nofile=1:{own}")).unwrap()]).unwrap();
        let failure = check(&[ulimit(&format!("nofile=1:{}", own + 1)).unwrap()]).unwrap_err();
        assert_eq!(failure.object, "--ulimit nofile");
        assert!(failure.to_string().contains(&own.to_string()), "{failure}");
    }
}
