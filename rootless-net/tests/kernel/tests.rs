//! What must hold.

use crate::container::Container;
use crate::host::{ADDRESS, Host, METADATA, OTHER, this_program};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rlrun_net::slirp::{self, Running};
use rlrun_net::{Driver, NetError};
use rlrun_spec::container::{PortMapping, Protocol};
use rlrun_spec::plan::Slirp;
use rlrun_spec::{Stage, hint};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// A test of this program.
pub struct Test {
    pub name: &'static str,
    pub needs: &'static [&'static str],
    pub host: Host,
    pub body: fn(),
}

/// What fails at once takes no longer, even on a loaded machine; what is not answered takes seconds.
const AT_ONCE: Duration = Duration::from_millis(500);

const SLIRP: &[&str] = &["userns", "slirp", "tun"];
const EGRESS: &[&str] = &["userns", "slirp", "tun", "nftables"];

macro_rules! tests {
    ($($name:ident $needs:ident $host:ident;)*) => {
        pub fn all() -> Vec<Test> {
            vec![$(Test { name: stringify!($name), needs: $needs, host: Host::$host, body: $name }),*]
        }
    };
}

const USERNS: &[&str] = &["userns"];
const USERNS_SLIRP: &[&str] = &["userns", "slirp"];
const SLIRP_IPV6: &[&str] = &["userns", "slirp", "tun", "ipv6"];

tests! {
    none_has_loopback_only USERNS Usual;
    a_page_is_fetched SLIRP Usual;
    host_loopback_is_unreachable SLIRP Usual;
    metadata_is_unreachable_at_once SLIRP Usual;
    metadata_is_unreachable_through_the_device SLIRP Usual;
    ipv6_can_be_had SLIRP_IPV6 Usual;
    names_are_resolved SLIRP Resolver;
    ports_are_published SLIRP Usual;
    published_ports_keep_the_source_address SLIRP Usual;
    a_busy_port_is_named SLIRP Usual;
    a_privileged_port_is_named SLIRP Usual;
    a_long_path_of_the_socket SLIRP Usual;
    a_socket_left_behind_is_no_obstacle SLIRP Usual;
    stop_leaves_nothing SLIRP Usual;
    release_frees_the_ports_at_once SLIRP Usual;
    release_of_a_stuck_helper SLIRP Usual;
    a_stuck_helper_is_killed SLIRP Usual;
    dropping_ends_the_helper SLIRP Usual;
    a_killed_supervisor_takes_the_helper_along SLIRP Usual;
    a_killed_helper_is_noticed SLIRP Usual;
    egress_reaches_what_is_allowed EGRESS Usual;
    egress_of_nothing_reaches_nothing EGRESS Usual;
    egress_lets_published_ports_answer EGRESS Usual;
    egress_still_resolves EGRESS Resolver;
    a_missing_helper_is_named USERNS Usual;
    an_old_helper_is_named USERNS Usual;
    a_missing_target_is_told USERNS_SLIRP Usual;
    a_missing_tun_is_named USERNS_SLIRP NoTun;
    a_closed_tun_is_named USERNS_SLIRP ClosedTun;
}

fn plan() -> Slirp {
    Slirp { binary: which("slirp4netns"), mtu: 65520, ipv6: false }
}

fn which(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.exists()).unwrap()
}

fn wait_for(fd: BorrowedFd<'_>, events: PollFlags) {
    let mut fds = [PollFd::new(fd, events)];
    assert_eq!(poll(&mut fds, PollTimeout::from(20_000u16)), Ok(1));
}

/// Starts slirp4netns and waits as the supervisor does.
fn up(container: &Container, ports: &[PortMapping], directory: &Path) -> Result<Box<Running>, NetError> {
    let mut running = Box::new(slirp::start(&plan(), container.pid(), ports, directory)?);
    wait_for(running.ready_fd(), PollFlags::POLLIN);
    running.finish_ready()?;
    Ok(running)
}

/// A configured container with a network, its orders run before slirp4netns is ready.
fn connected(configure: &str) -> (Container, Box<Running>) {
    let mut container = Container::new();
    assert_eq!(container.order(configure), "configured");
    let running = up(&container, &[], Path::new("/nonexistent")).unwrap();
    (container, running)
}

/// Serves the page `text` for ever, on a port of the kernel's choice.
fn serve(address: impl Into<IpAddr>, text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((address.into(), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 64];
            // A client that only connects sends nothing.
            if matches!(stream.read(&mut request), Ok(count) if count > 0) {
                write!(stream, "HTTP/1.0 200 OK\r\n\r\n{text}").unwrap();
            }
        }
    });
    at
}

fn none_has_loopback_only() {
    let page = serve(ADDRESS, "host");
    let mut container = Container::new();
    assert_eq!(container.order("configure none"), "configured");
    assert_eq!(container.order("fetch 127.0.0.1:80"), "ECONNREFUSED");
    assert_eq!(container.order(&format!("fetch {page}")), "ENETUNREACH");
    assert_eq!(container.order("ping-socket"), "open");
    assert_eq!(container.order("read /proc/sys/net/ipv4/ping_group_range"), "0 0");
    assert_eq!(container.order("read /proc/sys/net/ipv4/ip_unprivileged_port_start"), "0");
}

fn a_page_is_fetched() {
    let page = serve(ADDRESS, "hello from the host");
    let (mut container, _running) = connected("configure slirp");
    assert_eq!(container.order(&format!("fetch {page}")), "hello from the host");
    assert_eq!(container.order(&format!("mtu-to {page}")), "65520");
}

fn host_loopback_is_unreachable() {
    let secret = serve(Ipv4Addr::LOCALHOST, "secret").port();
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let page = serve(ADDRESS, "page");
    let (mut container, _running) = connected("configure slirp");
    // The gateway, the resolver, broadcast, the container itself.
    for address in ["10.0.2.2", "10.0.2.3", "10.0.2.255", "127.0.0.1", "0.0.0.0", "10.0.2.100"] {
        let answer = container.order(&format!("fetch {address}:{secret}"));
        assert!(["ENETUNREACH", "ECONNREFUSED", "EACCES"].contains(&answer.as_str()), "{address}: {answer}");
    }
    // The page shows that slirp4netns has worked through the datagrams, which it takes in order.
    let port = datagrams.local_addr().unwrap().port();
    for address in ["10.0.2.2", "10.0.2.3"] {
        container.order(&format!("tell {address}:{port} secret"));
    }
    assert_eq!(container.order(&format!("fetch {page}")), "page");
    datagrams.set_nonblocking(true).unwrap();
    assert!(datagrams.recv(&mut [0; 16]).is_err());
}

fn metadata_is_unreachable_at_once() {
    let page = serve(Ipv4Addr::UNSPECIFIED, "credentials").port();
    let (mut container, _running) = connected("configure slirp");
    for address in METADATA {
        let start = Instant::now();
        assert_eq!(container.order(&format!("fetch {address}:{page}")), "EHOSTUNREACH", "{address}");
        assert!(start.elapsed() < AT_ONCE, "{address}: {:?}", start.elapsed());
    }
    // The same server, so it was the route that made the difference.
    assert_eq!(container.order(&format!("fetch {ADDRESS}:{page}")), "credentials");
}

fn metadata_is_unreachable_through_the_device() {
    let page = serve(Ipv4Addr::UNSPECIFIED, "credentials").port();
    let (mut container, _running) = connected("configure slirp");
    assert_eq!(container.order(&format!("bound-to tap0 {}:{page}", METADATA[0])), "EHOSTUNREACH");
}

fn ipv6_can_be_had() {
    let page = serve(ADDRESS, "four");
    let mut container = Container::new();
    assert_eq!(container.order("configure slirp6"), "configured");
    let plan = Slirp { ipv6: true, ..plan() };
    let mut running = slirp::start(&plan, container.pid(), &[], Path::new("/")).unwrap();
    wait_for(running.ready_fd(), PollFlags::POLLIN);
    running.finish_ready().unwrap();
    assert_eq!(container.order(&format!("fetch {page}")), "four");
    assert_eq!(container.order("fetch [fd00:ec2::254]:80"), "EHOSTUNREACH");
}

/// A resolver on the host's loopback that answers each datagram with `answer: ` and what it got.
fn resolver() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        loop {
            let (count, from) = socket.recv_from(&mut query).unwrap();
            socket.send_to(&[b"answer: ", &query[..count]].concat(), from).unwrap();
        }
    });
}

fn names_are_resolved() {
    resolver();
    let secret = serve(Ipv4Addr::LOCALHOST, "secret").port();
    let (mut container, _running) = connected("configure slirp");
    assert_eq!(container.order("ask 10.0.2.3:53 query"), "answer: query");
    // The resolver's address leads to port 53 only, though the resolver shares the host's loopback with others.
    assert_eq!(container.order(&format!("fetch 10.0.2.3:{secret}")), "ENETUNREACH");
}

/// Host ports that are free, for ports 80/tcp and 90/udp of the container.
fn mappings(host_ip: Ipv4Addr) -> [PortMapping; 2] {
    let request = |container_port, protocol| rlrun_net::ports::PortRequest {
        host_ip: Some(host_ip.into()),
        host_port: None,
        container_port,
        protocol,
    };
    let requests = [request(80, Protocol::Tcp), request(90, Protocol::Udp)];
    rlrun_net::ports::resolve(&requests).unwrap().try_into().unwrap()
}

fn ask_tcp(mapping: &PortMapping) -> String {
    let mut answer = String::new();
    let mut stream = TcpStream::connect((mapping.host_ip, mapping.host_port)).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn ask_udp(mapping: &PortMapping, text: &str) -> String {
    let socket = UdpSocket::bind((mapping.host_ip, 0)).unwrap();
    socket.connect((mapping.host_ip, mapping.host_port)).unwrap();
    socket.send(text.as_bytes()).unwrap();
    let mut answer = [0; 64];
    let count = socket.recv(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

fn ports_are_published() {
    let directory = tempfile::tempdir().unwrap();
    let ports = mappings(ADDRESS);
    let mut container = Container::new();
    container.order("configure slirp");
    assert_eq!(container.order("listen"), "listening");
    let running = up(&container, &ports, directory.path()).unwrap();
    container.send("serve-tcp");
    assert_eq!(ask_tcp(&ports[0]), container.answer());
    container.send("serve-udp");
    assert_eq!(ask_udp(&ports[1], "abc"), "cba");
    container.answer();
    running.stop().unwrap();
    let error = TcpStream::connect((ports[0].host_ip, ports[0].host_port)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

fn published_ports_keep_the_source_address() {
    let directory = tempfile::tempdir().unwrap();
    let ports = mappings(ADDRESS);
    let mut container = Container::new();
    container.order("configure slirp");
    container.order("listen");
    let _running = up(&container, &ports, directory.path()).unwrap();
    container.send("serve-tcp");
    // A connection to an address of the host's own comes from that address.
    assert_eq!(ask_tcp(&ports[0]), ADDRESS.to_string());
    assert_eq!(container.answer(), ADDRESS.to_string());
}

fn port_error(host_port: u16) -> NetError {
    let directory = tempfile::tempdir().unwrap();
    let mapping =
        PortMapping { host_ip: Ipv4Addr::LOCALHOST.into(), host_port, container_port: 80, protocol: Protocol::Tcp };
    let error = up(&Container::new(), &[mapping], directory.path()).unwrap_err();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the socket was left behind");
    error
}

fn a_busy_port_is_named() {
    let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let busy = holder.local_addr().unwrap().port();
    let failure = port_error(busy).into_failure(Stage::Supervisor);
    assert_eq!(failure.errno.unwrap().0, Errno::EADDRINUSE as i32);
    assert_eq!(failure.object, format!("127.0.0.1:{busy}:80/tcp"));
    assert!(failure.hint.unwrap().starts_with("take a free port: -p "));
}

fn a_privileged_port_is_named() {
    let failure = port_error(80).into_failure(Stage::Supervisor);
    assert_eq!(failure.errno.unwrap().0, Errno::EACCES as i32);
    let hint = failure.hint.unwrap();
    assert!(
        hint.contains("-p 127.0.0.1:8080:80/tcp") && hint.contains("net.ipv4.ip_unprivileged_port_start=80"),
        "{hint}"
    );
}

fn a_long_path_of_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&long).unwrap();
    let ports = mappings(ADDRESS);
    let mut container = Container::new();
    container.order("configure slirp");
    container.order("listen");
    let _running = up(&container, &ports, &long).unwrap();
    container.send("serve-tcp");
    assert_eq!(ask_tcp(&ports[0]), container.answer());
}

fn a_socket_left_behind_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("slirp.sock")).unwrap());
    up(&Container::new(), &mappings(ADDRESS), directory.path()).unwrap();
}

fn assert_reaped(pid: Pid) {
    assert_eq!(waitpid(pid, None), Err(Errno::ECHILD));
}

fn stop_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut container = Container::new();
    let running = up(&container, &mappings(ADDRESS), directory.path()).unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(container.order("device tap0"), "true");
    let (pid, start) = (running.pid(), Instant::now());
    running.stop().unwrap();
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    assert_reaped(pid);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    assert_eq!(container.order("device tap0"), "false");
}

fn release_frees_the_ports_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let container = Container::new();
    let [tcp, udp] = mappings(ADDRESS);
    let running = up(&container, &[tcp.clone(), udp.clone()], directory.path()).unwrap();
    let pid = running.pid();
    running.release().unwrap();
    TcpListener::bind((tcp.host_ip, tcp.host_port)).unwrap();
    UdpSocket::bind((udp.host_ip, udp.host_port)).unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    // It is left for this process to reap, as init would, and it ends.
    assert_eq!(waitpid(pid, None).unwrap().pid(), Some(pid));
}

fn release_of_a_stuck_helper() {
    let (_container, running) = connected("configure slirp");
    let pid = running.pid();
    kill(pid, Signal::SIGSTOP).unwrap();
    running.release().unwrap();
    assert_eq!(waitpid(pid, None).unwrap().pid(), Some(pid));
}

fn a_stuck_helper_is_killed() {
    let (_container, running) = connected("configure slirp");
    let pid = running.pid();
    kill(pid, Signal::SIGSTOP).unwrap();
    running.stop().unwrap();
    assert_reaped(pid);
}

fn dropping_ends_the_helper() {
    let (_container, running) = connected("configure slirp");
    let pid = running.pid();
    drop(running);
    assert_reaped(pid);
}

/// The body of a process that starts slirp4netns, tells its pid, and waits to be killed.
pub fn parent_stage(pid: &str) -> ExitCode {
    let target = Pid::from_raw(pid.parse().unwrap());
    let mut running = slirp::start(&plan(), target, &[], Path::new("/")).unwrap();
    wait_for(running.ready_fd(), PollFlags::POLLIN);
    running.finish_ready().unwrap();
    println!("{}", running.pid());
    // Reading ends only with the test.
    drop(std::io::stdin().lines().next());
    ExitCode::SUCCESS
}

fn a_killed_supervisor_takes_the_helper_along() {
    // The orphan becomes this process' child, so that its end can be waited for.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let container = Container::new();
    let mut command = Command::new(this_program());
    command.args(["stage-parent", &container.pid().to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut parent = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let slirp = Pid::from_raw(line.trim().parse().unwrap());
    parent.kill().unwrap();
    parent.wait().unwrap();
    // A slirp4netns that stays makes this wait for ever, which the deadline of the test turns into a failure.
    waitpid(slirp, None).unwrap();
}

fn a_killed_helper_is_noticed() {
    let (_container, mut running) = connected("configure slirp");
    kill(running.pid(), Signal::SIGKILL).unwrap();
    wait_for(running.death_fd().unwrap(), PollFlags::empty());
    let error = running.post_mortem();
    assert!(matches!(&error, NetError::HelperDied { status, .. } if status.contains("signal: 9")), "{error:?}");
    running.stop().unwrap();
}

fn egress_reaches_what_is_allowed() {
    let (allowed, same_host) = (serve(ADDRESS, "allowed"), serve(ADDRESS, "same host"));
    let other = serve(OTHER, "other");
    let rule = format!("configure egress {ADDRESS}/32,tcp,{}", allowed.port());
    let (mut container, _running) = connected(&rule);
    assert_eq!(container.order(&format!("fetch {allowed}")), "allowed");
    for refused in [same_host, other] {
        let start = Instant::now();
        assert_eq!(container.order(&format!("fetch {refused}")), "EHOSTUNREACH", "{refused}");
        assert!(start.elapsed() < AT_ONCE);
    }
    assert_eq!(container.order(&format!("bound-to tap0 {other}")), "EHOSTUNREACH");
    assert_eq!(container.order("fetch 127.0.0.1:80"), "ECONNREFUSED");

    // A block with bits that are not whole bytes, every protocol and port.
    let (mut container, _running) = connected("configure egress 198.51.100.0/30,any");
    assert_eq!(container.order(&format!("fetch {same_host}")), "same host");
    assert_eq!(container.order(&format!("fetch {other}")), "other");
    let (mut container, _running) = connected("configure egress 198.51.100.2/31,any");
    assert_eq!(container.order(&format!("fetch {same_host}")), "EHOSTUNREACH");
    assert_eq!(container.order(&format!("fetch {other}")), "other");

    // Everything is allowed, and metadata still is not.
    let (mut container, _running) = connected("configure egress 0.0.0.0/0,any");
    assert_eq!(container.order(&format!("fetch {other}")), "other");
    assert_eq!(container.order(&format!("fetch {}:80", METADATA[0])), "EHOSTUNREACH");
}

fn egress_of_nothing_reaches_nothing() {
    let page = serve(ADDRESS, "page");
    let (mut container, _running) = connected("configure egress");
    assert_eq!(container.order(&format!("fetch {page}")), "EHOSTUNREACH");
}

fn egress_lets_published_ports_answer() {
    let directory = tempfile::tempdir().unwrap();
    let ports = mappings(ADDRESS);
    let page = serve(ADDRESS, "page");
    let mut container = Container::new();
    assert_eq!(container.order("configure egress published"), "configured");
    container.order("listen");
    let _running = up(&container, &ports, directory.path()).unwrap();
    container.send("serve-tcp");
    assert_eq!(ask_tcp(&ports[0]), container.answer());
    container.send("serve-udp");
    assert_eq!(ask_udp(&ports[1], "abc"), "cba");
    container.answer();
    assert_eq!(container.order(&format!("fetch {page}")), "EHOSTUNREACH");
}

fn egress_still_resolves() {
    resolver();
    let (mut container, _running) = connected("configure egress 203.0.113.0/24,any");
    assert_eq!(container.order("ask 10.0.2.3:53 query"), "answer: query");
    assert_eq!(container.order("fetch 10.0.2.3:80"), "EHOSTUNREACH");
}

fn start_error(binary: &Path, target: Pid) -> NetError {
    let plan = Slirp { binary: binary.to_owned(), ..Slirp { binary: PathBuf::new(), mtu: 1500, ipv6: false } };
    match slirp::start(&plan, target, &[], Path::new("/")) {
        Err(error) => error,
        Ok(mut running) => {
            wait_for(running.ready_fd(), PollFlags::POLLIN);
            running.finish_ready().unwrap_err()
        }
    }
}

fn a_missing_helper_is_named() {
    let error = start_error(Path::new("/nonexistent/slirp4netns"), Container::new().pid());
    assert!(matches!(error, NetError::HelperMissing { .. }), "{error:?}");
}

fn an_old_helper_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let binary = directory.path().join("slirp4netns");
    let mut file = std::fs::File::create_new(&binary).unwrap();
    writeln!(file, "#!/bin/sh\necho \"$0: unrecognized option '--enable-sandbox'\" >&2; exit 1").unwrap();
    file.set_permissions(PermissionsExt::from_mode(0o755)).unwrap();
    drop(file);
    let error = start_error(&binary, Container::new().pid());
    assert!(matches!(&error, NetError::HelperTooOld { option, .. } if option == "--enable-sandbox"), "{error:?}");
}

fn a_missing_target_is_told() {
    // PID_MAX_LIMIT: no process has this id.
    let error = start_error(&which("slirp4netns"), Pid::from_raw(4_194_304));
    let NetError::HelperDied { log, status, .. } = error else { panic!("{error:?}") };
    assert!(log.contains("No such file") && status.contains("exit status"), "{status}: {log}");
}

fn tun_failure() -> rlrun_spec::Failure {
    start_error(&which("slirp4netns"), Container::new().pid()).into_failure(Stage::Supervisor)
}

fn a_missing_tun_is_named() {
    let failure = tun_failure();
    assert_eq!((failure.object.as_str(), failure.errno.unwrap().0), ("/dev/net/tun", Errno::ENOENT as i32));
    assert!(failure.hint.unwrap().contains("sudo modprobe tun"));
}

fn a_closed_tun_is_named() {
    let failure = tun_failure();
    assert_eq!((failure.object.as_str(), failure.errno.unwrap().0), ("/dev/net/tun", Errno::EACCES as i32));
    assert!(hint::for_failure(&failure).unwrap().contains("sudo chmod 0666 /dev/net/tun"));
}
