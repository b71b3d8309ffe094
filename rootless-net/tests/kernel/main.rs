//! The network on a real kernel with a real slirp4netns, as an ordinary user.
//!
//! Each test runs in a host of its own: a user, network and mount namespace in which the test's user has an id other
//! than root and no capability. Its addresses, resolver and ports are the test's, so nothing depends on the machine
//! and nothing leaves it. Containers are namespaces below that one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod container;
mod host;
mod tests;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["stage-host", name] => host::enter(name),
        ["stage-test", name] => host::run_test(name),
        ["stage-parent", pid] => tests::parent_stage(pid),
        ["stage-container"] => container::serve(),
        filters => host::run_all(filters),
    }
}
