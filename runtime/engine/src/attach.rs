//! `rlrun attach`: this process becomes one that is small, and stands between the caller's terminal and the supervisor.

use crate::containers::Container;
use crate::place::own_program;
use rlrun_spec::attach::Attach;
use rlrun_spec::plan::VERSION;
use rlrun_spec::{Failure, Kind, Stage};
use std::path::Path;

/// How somebody attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attaching {
    /// What is typed goes to the container (`--no-stdin` turns it off).
    pub input: bool,
    /// Signals go to the container (`--sig-proxy`).
    pub sig_proxy: bool,
    /// `--detach-keys`.
    pub detach_keys: Vec<u8>,
}

/// Keys are looked for where somebody types.
#[must_use]
pub fn is_leavable(tty: bool, attaching: &Attaching) -> bool {
    let keys = tty && attaching.input && !attaching.detach_keys.is_empty();
    !attaching.sig_proxy || (keys && rustix::termios::isatty(std::io::stdin()))
}

/// What the process of somebody who starts a container and is attached to it is told.
pub(crate) fn accompanying(directory: &Path, name: &str, attaching: Attaching) -> Attach {
    let Attaching { input, sig_proxy, detach_keys } = attaching;
    let (directory, name) = (directory.to_owned(), name.to_owned());
    Attach { version: VERSION, directory, name, input, sig_proxy, detach_keys, accompanies: true }
}

/// Attaches to a container that runs; comes back only when that cannot be done.
#[must_use]
pub fn attach(container: &Container, attaching: Attaching) -> Failure {
    let name = &container.summary.name;
    if !container.status.is_alive() {
        return Failure::new(Stage::Cli, Kind::Usage, "attach", "attach to", name.clone())
            .why(format!("it is not running but {}", container.status.word()))
            .hint(format!("rlrun start {name}; rlrun logs {name} shows what it wrote"));
    }
    let supervisor = match own_program("rlrun-supervisor") {
        Ok(supervisor) => supervisor,
        Err(failure) => return failure,
    };
    let attach = Attach {
        version: VERSION,
        directory: container.directory.clone(),
        name: name.clone(),
        input: attaching.input && container.summary.interactive,
        sig_proxy: attaching.sig_proxy,
        detach_keys: attaching.detach_keys,
        accompanies: false,
    };
    rlrun_sandbox::replace_self_attaching(attach, &supervisor)
}
