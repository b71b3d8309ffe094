//! What can go wrong with a network, shaped by what the user can do about it, and its way to the one failure frame.

use rlrun_spec::container::{PortMapping, Protocol};
use rlrun_spec::{Failure, Kind, Stage};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A network failure.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NetError {
    /// The user typed what cannot be understood.
    #[error("{flag} {text}: {why}")]
    Invalid {
        /// The flag: `-p`, `--dns`, `--add-host`.
        flag: &'static str,
        /// What followed it.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Understood, but this driver or kernel cannot do it; never ignored.
    #[error("{what}: {why}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Why it cannot be had.
        why: String,
        /// What to do instead.
        hint: Option<String>,
    },
    /// The helper's program is not where the plan says.
    #[error("{}: not found", binary.display())]
    HelperMissing {
        /// Its path.
        binary: PathBuf,
    },
    /// The helper lacks an option that rlrun needs.
    #[error("{}: too old: it does not know {option}", binary.display())]
    HelperTooOld {
        /// Its path.
        binary: PathBuf,
        /// The option.
        option: String,
    },
    /// `/dev/net/tun` cannot be opened.
    #[error("/dev/net/tun: {}", std::io::Error::from_raw_os_error(*errno))]
    Tun {
        /// Why.
        errno: i32,
    },
    /// The helper ended although it should run.
    #[error("{}: ended early ({status}): {log}", binary.display())]
    HelperDied {
        /// Its path.
        binary: PathBuf,
        /// The network had been ready.
        ready: bool,
        /// How it ended.
        status: String,
        /// The end of what it wrote.
        log: String,
    },
    /// A host port cannot be bound.
    #[error("{}: {}", describe_port(mapping), std::io::Error::from_raw_os_error(*errno))]
    Port {
        /// The mapping.
        mapping: PortMapping,
        /// Why: EADDRINUSE, EACCES below the first unprivileged port, EADDRNOTAVAIL.
        errno: i32,
        /// A host port that was free a moment ago.
        free: Option<u16>,
    },
    /// A system call failed.
    #[error("{operation}: {object}: {}", std::io::Error::from_raw_os_error(*errno))]
    System {
        /// Key of the hint table.
        step: &'static str,
        /// What was being done.
        operation: &'static str,
        /// On what.
        object: String,
        /// Why.
        errno: i32,
    },
    /// The helper or the kernel answered what no version of it documents.
    #[error("{peer}: {answer}")]
    Protocol {
        /// Who.
        peer: &'static str,
        /// What it said.
        answer: String,
    },
}

/// `ip:host:container/proto`, as a user would type it.
fn describe_port(mapping: &PortMapping) -> String {
    let proto = match mapping.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{}:{}/{proto}", SocketAddr::new(mapping.host_ip, mapping.host_port), mapping.container_port)
}

const TUN_MISSING_HINT: &str = "sudo modprobe tun; to keep it: echo tun | sudo tee /etc/modules-load.d/tun.conf";
const SLIRP_HINT: &str = "install slirp4netns 0.4.0 or later (Debian: sudo apt install slirp4netns), or run without a \
                          private network: --network none or --network host";

impl NetError {
    pub(crate) fn system(
        step: &'static str,
        operation: &'static str,
        object: impl Into<String>,
        errno: impl Into<ErrnoNumber>,
    ) -> Self {
        NetError::System { step, operation, object: object.into(), errno: errno.into().0 }
    }

    /// The failure that reaches the user, told as of `stage`.
    #[must_use]
    pub fn into_failure(self, stage: Stage) -> Failure {
        let failure = |kind, step, operation, object: String| Failure::new(stage, kind, step, operation, object);
        match self {
            NetError::Invalid { flag, text, why } => {
                failure(Kind::Usage, "parse-network", "read the command line", format!("{flag} {text}")).why(why)
            }
            NetError::Unsupported { what, why, hint } => {
                Failure { hint, ..failure(Kind::Host, "check-network", "set up the network", what).why(why) }
            }
            NetError::HelperMissing { binary } => {
                failure(Kind::Host, "slirp-start", "start the network helper", binary.display().to_string())
                    .why("not found")
                    .hint(SLIRP_HINT)
            }
            NetError::HelperTooOld { binary, option } => {
                failure(Kind::Host, "slirp-start", "start the network helper", binary.display().to_string())
                    .why(format!("too old: it does not know {option}"))
                    .hint(SLIRP_HINT)
            }
            NetError::Tun { errno } => Failure {
                // A device that is there and closed has a row in the table of hints.
                hint: (errno == nix::libc::ENOENT).then(|| TUN_MISSING_HINT.to_owned()),
                ..failure(Kind::Host, "slirp-start", "make the container's network device", "/dev/net/tun".to_owned())
                    .errno(errno)
            },
            NetError::HelperDied { binary, ready, status, log } => {
                let said = if log.is_empty() { "it said nothing" } else { &log };
                let (step, doing, before) = if ready {
                    ("slirp-run", "run the network helper", "the container")
                } else {
                    ("slirp-start", "start the network helper", "the network was ready")
                };
                failure(Kind::Runtime, step, doing, binary.display().to_string())
                    .why(format!("it ended before {before} ({status}): {said}"))
            }
            NetError::Port { mapping, errno, free } => port_failure(stage, &mapping, errno, free),
            NetError::System { step, operation, object, errno } => {
                failure(Kind::Runtime, step, operation, object).errno(errno)
            }
            NetError::Protocol { peer, answer } => {
                failure(Kind::Runtime, "slirp-port", "set up the network", peer.to_owned())
                    .why(format!("answered {answer}"))
            }
        }
    }
}

fn port_failure(stage: Stage, mapping: &PortMapping, errno: i32, free: Option<u16>) -> Failure {
    let failure =
        Failure::new(stage, Kind::Runtime, "slirp-port", "publish a port", describe_port(mapping)).errno(errno);
    // Without a free port to offer, the table of hints has general advice.
    let Some(free) = free else { return failure };
    // With the address: without it the port would be open to more of the world than was asked for.
    let other = PortMapping { host_port: free, ..mapping.clone() };
    let instead = format!("take a free port: -p {}", describe_port(&other));
    match errno {
        nix::libc::EACCES => failure.hint(format!(
            "{instead}; or allow low ports to everybody: sudo sysctl -w net.ipv4.ip_unprivileged_port_start={}",
            mapping.host_port
        )),
        _ => failure.hint(format!("{instead}; ss -lntup shows who listens")),
    }
}

/// A kernel error number out of either error type that carries one.
pub(crate) struct ErrnoNumber(i32);

impl From<nix::errno::Errno> for ErrnoNumber {
    fn from(errno: nix::errno::Errno) -> Self {
        ErrnoNumber(errno as i32)
    }
}

impl From<&std::io::Error> for ErrnoNumber {
    fn from(error: &std::io::Error) -> Self {
        // EIO stands for the rare error that std made up itself, such as an unexpected end of file.
        ErrnoNumber(error.raw_os_error().unwrap_or(nix::libc::EIO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlrun_spec::hint;

    fn port(errno: i32, free: Option<u16>) -> (String, String) {
        let mapping = PortMapping {
            host_ip: "127.0.0.1".parse().unwrap(),
            host_port: 80,
            container_port: 8000,
            protocol: Protocol::Udp,
        };
        let failure = NetError::Port { mapping, errno, free }.into_failure(Stage::Supervisor);
        (failure.to_string(), hint::for_failure(&failure).unwrap())
    }

    #[test]
    fn a_port_that_cannot_be_had_comes_with_one_that_can() {
        let (what, hint) = port(nix::libc::EACCES, Some(8080));
        assert_eq!(what, "publish a port: 127.0.0.1:80:8000/udp: Permission denied (os error 13)");
        assert_eq!(
            hint,
            "take a free port: -p 127.0.0.1:8080:8000/udp; or allow low ports to everybody: \
             sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80"
        );
        let (_, hint) = port(nix::libc::EADDRINUSE, Some(81));
        assert_eq!(hint, "take a free port: -p 127.0.0.1:81:8000/udp; ss -lntup shows who listens");
    }

    /// The table of hints knows the steps that this crate leaves without a hint of its own.
    #[test]
    fn every_failure_of_the_host_has_a_hint() {
        let binary = || PathBuf::from("/usr/bin/slirp4netns");
        for error in [
            NetError::HelperMissing { binary: binary() },
            NetError::HelperTooOld { binary: binary(), option: "--enable-sandbox".to_owned() },
            NetError::Tun { errno: nix::libc::ENOENT },
            NetError::Tun { errno: nix::libc::EACCES },
            NetError::system("slirp-start", "start the network helper", "x", nix::errno::Errno::EAGAIN),
        ] {
            let failure = error.into_failure(Stage::Supervisor);
            assert!(hint::for_failure(&failure).is_some(), "{failure:?}");
        }
        assert!(!port(nix::libc::EADDRNOTAVAIL, None).1.is_empty());
    }
}
