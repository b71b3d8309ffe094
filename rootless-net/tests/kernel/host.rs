//! Running the tests: needs, the user, the namespaces that play the host.

use crate::tests::{Test, all};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, socket};
use nix::unistd::{Uid, User};
use rlrun_net::inside;
use rlrun_spec::container::NetworkMode;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The host's address that containers reach.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// A second one.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// Played by the host, so that a container that reaches them is noticed.
pub const METADATA: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
];

/// How a test's host differs from the usual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Nothing.
    Usual,
    /// Every port may be bound, and the resolver is on loopback.
    Resolver,
    /// There is no `/dev/net/tun`.
    NoTun,
    /// `/dev/net/tun` is for its owner only.
    ClosedTun,
}

/// Where every stage finds this program, also when its path is closed to the user.
const SELF: &str = "RLRUN_TEST_SELF";

pub fn this_program() -> PathBuf {
    std::env::var_os(SELF).unwrap().into()
}

pub fn run_all(filters: &[&str]) -> ExitCode {
    let wanted = |name: &str| {
        let mut words = filters.iter().filter(|f| !f.starts_with('-')).peekable();
        words.peek().is_none() || words.any(|f| name.contains(f))
    };
    if filters.contains(&"--list") {
        all().iter().for_each(|test| println!("{}: test", test.name));
        return ExitCode::SUCCESS;
    }
    let program = std::fs::File::open("/proc/self/exe").unwrap();
    fcntl(&program, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let program = PathBuf::from(format!("/proc/self/fd/{}", program.as_raw_fd()));

    let tests: Vec<Test> = all().into_iter().filter(|test| wanted(test.name)).collect();
    let must_have = std::env::var("RLRUN_MUST_HAVE").unwrap_or_default();
    let missing = missing_needs(&program);
    let mut failed = Vec::new();
    for test in &tests {
        let unmet = test.needs.iter().find_map(|need| missing.iter().find(|(name, _)| name == need));
        match unmet {
            Some((need, why)) if must_have.split(',').any(|word| word.trim() == *need) => {
                println!("test {} ... FAILED: needs {need}: {why}", test.name);
                failed.push(test.name);
            }
            Some((need, why)) => println!("test {} ... skipped: needs {need}: {why}", test.name),
            None if run_in_host(&program, test.name) => println!("test {} ... ok", test.name),
            None => {
                println!("test {} ... FAILED", test.name);
                failed.push(test.name);
            }
        }
    }
    println!("{} tests, {} failed {failed:?}", tests.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the machine lacks, and how that was seen.
fn missing_needs(program: &Path) -> Vec<(&'static str, String)> {
    let mut missing = Vec::new();
    let mut need = |name, command: &mut Command| {
        let why = match command.env(SELF, program).output() {
            Ok(output) if output.status.success() => return,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
            Err(error) => error.to_string(),
        };
        missing.push((name, format!("{}: {why}", command.get_program().display())));
    };
    need("userns", as_user("unshare").args(["--user", "--map-current-user", "--net", "--mount", "true"]));
    need("slirp", as_user("slirp4netns").arg("--version"));
    need("tun", as_user("sh").args(["-c", "exec 3<>/dev/net/tun"]));
    let mut container = as_user("sh");
    let script =
        "echo 'configure egress' | unshare --user --map-root-user --net \"$0\" stage-container | grep -qx configured";
    need("nftables", container.args(["-c", script]).arg(program));
    need("ipv6", as_user("test").args(["-e", "/proc/net/if_inet6"]));
    missing
}

/// `program` as the user of the tests.
fn as_user(program: &str) -> Command {
    let mut command = Command::new(program);
    if Uid::effective().is_root() {
        let name = std::env::var("RLRUN_TEST_USER").unwrap_or_else(|_| "rlrun-test".to_owned());
        let user = User::from_name(&name).unwrap().unwrap_or_else(|| panic!("no user {name}: set RLRUN_TEST_USER"));
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command.current_dir("/");
    command
}

fn run_in_host(program: &Path, name: &str) -> bool {
    // The deadline turns a hang into a failure; nothing waits for it otherwise.
    let mut command = as_user("timeout");
    command.args(["--signal=KILL", "60", "unshare", "--user", "--map-current-user", "--keep-caps"]);
    command.args(["--net", "--mount"]);
    command.arg(program).args(["stage-host", name]).env(SELF, program);
    command.status().unwrap().success()
}

/// With every capability in the new namespaces: makes the host, then gives the capabilities up.
pub fn enter(name: &str) -> ExitCode {
    let test = all().into_iter().find(|test| test.name == name).unwrap();
    let loopback =
        inside::Config { network: NetworkMode::None, ipv6: false, egress: None, published: false, gids: &[] };
    inside::configure(&loopback).unwrap();
    for address in [ADDRESS, OTHER].iter().chain(&METADATA) {
        add_address(*address);
    }
    let unprivileged_ports = if test.host == Host::Resolver { "0" } else { "1024" };
    write("/proc/sys/net/ipv4/ip_unprivileged_port_start", unprivileged_ports);
    if test.host == Host::Resolver {
        over("/etc", "resolv.conf", "nameserver 127.0.0.1\n");
    }
    if test.host == Host::ClosedTun {
        over("/dev/net", "tun", "");
    }
    if test.host == Host::NoTun {
        mount_tmpfs("/dev/net");
    }
    let mut command = Command::new("setpriv");
    command.args(["--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"]);
    panic!("{}", command.arg(this_program()).args(["stage-test", name]).exec());
}

fn mount_tmpfs(directory: &str) {
    mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

/// Puts an otherwise empty directory with one file that its owner cannot write over `directory`.
fn over(directory: &str, file: &str, text: &str) {
    mount_tmpfs(directory);
    let mode = if text.is_empty() { 0 } else { 0o644 };
    let path = Path::new(directory).join(file);
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
}

fn write(path: &str, text: &str) {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}

/// `ip address add ADDRESS/32 dev lo`, by rtnetlink(7).
fn add_address(address: Ipv4Addr) {
    let mut message = vec![48, 0, 0, 0, 20, 0, 0x05, 0x06, 1, 0, 0, 0, 0, 0, 0, 0];
    // struct ifaddrmsg for device 1, then IFA_LOCAL and IFA_ADDRESS.
    message.extend([2, 32, 0, 0, 1, 0, 0, 0]);
    for kind in [2, 1] {
        message.extend([8, 0, kind, 0]);
        message.extend(address.octets());
    }
    message.splice(0..4, u32::try_from(message.len()).unwrap().to_ne_bytes());
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute).unwrap();
    send(fd.as_raw_fd(), &message, MsgFlags::empty()).unwrap();
    let bound = std::net::TcpListener::bind((address, 0));
    assert!(bound.is_ok(), "{address}: {bound:?}");
}

/// Runs the body of a test as its host's ordinary user.
pub fn run_test(name: &str) -> ExitCode {
    let test = all().into_iter().find(|test| test.name == name).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    assert!(!Uid::effective().is_root());
    (test.body)();
    ExitCode::SUCCESS
}
