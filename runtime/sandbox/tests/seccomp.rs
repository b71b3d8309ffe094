//! The default filter in a real kernel: what is denied is denied, and ordinary programs do not notice. A filter binds
//! the thread that installs it and all that comes from it, so each test has its own.

#![cfg(feature = "seccomp-compile")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use oci_spec::runtime::{Capabilities, LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};
use rlrun_sandbox::seccomp::{default_profile, filters};
use rlrun_sandbox::sys::install_seccomp;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};

/// Installs the filters for the rest of this thread.
fn confine(sections: &[&LinuxSeccomp]) {
    let cache = tempfile::tempdir().unwrap();
    let filters = filters(sections, cache.path()).unwrap();
    rustix::thread::set_no_new_privs(true).unwrap();
    for filter in &filters {
        install_seccomp(filter).unwrap();
    }
}

fn confine_by_default() {
    confine(&[&default_profile(&Capabilities::new())]);
}

fn sh(script: &str) -> Output {
    Command::new("/bin/sh").args(["-c", script]).env("LC_ALL", "C").output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn ordinary_programs_do_not_notice() {
    confine_by_default();
    let shell =
        sh("set -e; x=$(ls / | sort | head -n 3 | wc -l); test $x = 3; sleep 0.01; (exit 3) || test $? = 3; id -u");
    assert!(shell.status.success(), "{}", said(&shell));
    // A thread: clone3 is answered with ENOSYS, and the C library goes on to clone.
    let sum: u64 = (0..4).map(|n| std::thread::spawn(move || n)).map(|t| t.join().unwrap()).sum();
    assert_eq!(sum, 6);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"over").unwrap();
    drop(client);
    let mut heard = String::new();
    server.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "over");
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("a", dir.path().join("b")).unwrap();
    std::fs::File::create(dir.path().join("a")).unwrap().write_all(b"1").unwrap();
    assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"1");
}

#[test]
fn the_filter_is_there_for_children_too() {
    confine_by_default();
    let status = said(&sh("grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status"));
    assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
}

#[test]
fn sockets_past_the_network_namespace_look_absent() {
    confine_by_default();
    for family in [38, 40, 21, 29, 44] {
        let socket = rustix::net::socket(AddressFamily::from_raw(family), SocketType::SEQPACKET, None);
        assert_eq!(socket.unwrap_err(), Errno::AFNOSUPPORT, "family {family}");
    }
    rustix::net::socket(AddressFamily::INET6, SocketType::DGRAM, None)
        .map(drop)
        .or_else(|e| match e {
            // A kernel without IPv6.
            Errno::AFNOSUPPORT => Ok(()),
            other => Err(other),
        })
        .unwrap();
    rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
}

/// Both work for an ordinary user of most hosts without a filter; where they do not, the test proves nothing and
/// says so.
#[test]
fn namespaces_and_execution_domains_are_closed() {
    let commands =
        [("unshare -r true", "Operation not permitted"), ("setarch $(uname -m) -R true", "Function not implemented")];
    let works = commands.map(|(command, _)| sh(command).status.success());
    confine_by_default();
    for ((command, reason), worked) in commands.into_iter().zip(works) {
        if !worked {
            println!("skipped: {command} does not work here without a filter either");
            continue;
        }
        let output = sh(command);
        assert!(!output.status.success() && said(&output).contains(reason), "{command}: {}", said(&output));
    }
}

#[test]
fn a_policys_filter_stands_on_top() {
    let mut rule = LinuxSyscall::default();
    rule.set_names(vec!["mkdir".to_owned(), "mkdirat".to_owned()])
        .set_action(LinuxSeccompAction::ScmpActErrno)
        .set_errno_ret(Some(95));
    let mut overlay = LinuxSeccomp::default();
    overlay.set_default_action(LinuxSeccompAction::ScmpActAllow).set_syscalls(Some(vec![rule]));
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("before")).unwrap();
    confine(&[&default_profile(&Capabilities::new()), &overlay]);
    let refused = std::fs::create_dir(dir.path().join("after")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(95));
}
