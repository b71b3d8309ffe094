//! What can go wrong with a network, shaped by what the user can do about it, and its way to the one failure frame.

use rlrun_spec::container::{PortMapping, Protocol};
use rlrun_spec::{Failure, Kind, Stage};
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

/// `[ip:]host:container/proto`, as a user would type it.
pub(crate) fn describe_port(mapping: &PortMapping) -> String {
    let proto = match mapping.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{}:{}/{proto}", std::net::SocketAddr::new(mapping.host_ip, mapping.host_port), mapping.container_port)
}

const TUN_HINT: &str = "sudo chmod 0666 /dev/net/tun; to keep it: echo 'KERNEL==\"tun\", MODE=\"0666\"' | sudo tee \
                        /etc/udev/rules.d/99-tun.rules; or run without a network: --network none";
const TUN_MISSING_HINT: &str = "sudo modprobe tun; to keep it: echo tun | sudo tee /etc/modules-load.d/tun.conf; or run \
                                without a network: --network none";
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
                failure(Kind::Host, "start-network", "start the network helper", binary.display().to_string())
                    .why("not found")
                    .hint(SLIRP_HINT)
            }
            NetError::HelperTooOld { binary, option } => {
                failure(Kind::Host, "start-network", "start the network helper", binary.display().to_string())
                    .why(format!("too old: it does not know {option}"))
                    .hint(SLIRP_HINT)
            }
            NetError::Tun { errno } => {
                let hint = if errno == nix::libc::ENOENT { TUN_MISSING_HINT } else { TUN_HINT };
                failure(Kind::Host, "open-tun", "make the container's network device", "/dev/net/tun".to_owned())
                    .errno(errno)
                    .hint(hint)
            }
            NetError::HelperDied { binary, status, log } => {
                failure(Kind::Runtime, "start-network", "run the network helper", binary.display().to_string())
                    .why(format!("ended early ({status}): {log}"))
            }
            NetError::Port { mapping, errno, free } => port_failure(stage, &mapping, errno, free),
            NetError::System { step, operation, object, errno } => {
                failure(Kind::Runtime, step, operation, object).errno(errno)
            }
            NetError::Protocol { peer, answer } => {
                failure(Kind::Runtime, "talk-network", "set up the network", peer.to_owned())
                    .why(format!("answered {answer}"))
            }
        }
    }
}

fn port_failure(stage: Stage, mapping: &PortMapping, errno: i32, free: Option<u16>) -> Failure {
    let failure =
        Failure::new(stage, Kind::Runtime, "publish-port", "publish a port", describe_port(mapping)).errno(errno);
    let port = mapping.host_port;
    let instead = free.map(|free| format!("-p {free}:{}", mapping.container_port));
    match (errno, instead) {
        (nix::libc::EACCES, instead) => {
            let other = instead.map_or_else(String::new, |flag| format!("take a free port: {flag}; or "));
            failure.hint(format!("{other}sudo sysctl net.ipv4.ip_unprivileged_port_start={port}"))
        }
        (nix::libc::EADDRINUSE, instead) => {
            let other = instead.map_or_else(String::new, |flag| format!("take a free port: {flag}; or "));
            failure.hint(format!("{other}see who has it: ss -lnp 'sport = :{port}'"))
        }
        (nix::libc::EADDRNOTAVAIL, _) => failure.hint("the address is none of this host: ip -brief address"),
        (_, Some(flag)) => failure.hint(format!("take a free port: {flag}")),
        (_, None) => failure,
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
