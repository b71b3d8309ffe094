//! A container as the tests see it: a process in namespaces of its own that does one thing a line.

use crate::host::this_program;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, connect, getsockopt, setsockopt, socket, sockopt,
};
use nix::unistd::Pid;
use rlrun_net::inside;
use rlrun_spec::container::{EgressRule, NetworkMode};
use rlrun_spec::ids::IdMapping;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

/// Long enough for a loaded machine; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// The test's end.
pub struct Container {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Container {
    /// In new user and network namespaces, its id map written.
    pub fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--kill-child", "--fork", "--pid"]);
        command.arg(this_program()).arg("stage-container");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut container = Container { child, orders, answers };
        // Its answer means that the maps are written: unshare(1) writes them before it executes anything.
        assert_eq!(container.order("hello"), "hello");
        container
    }

    /// A process in the container's namespaces: unshare(1) itself, which waits for its child.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// One order, its answer.
    pub fn order(&mut self, order: &str) -> String {
        self.send(order);
        self.answer()
    }

    /// An order whose answer is fetched later.
    pub fn send(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// The answer to the oldest order that has none.
    pub fn answer(&mut self) -> String {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The container's end: reads orders until nobody gives any.
pub fn serve() -> ExitCode {
    let mut listeners = Listeners::default();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let answer = obey(&words, &mut listeners).unwrap_or_else(|error| error);
        println!("{answer}");
    }
    ExitCode::SUCCESS
}

#[derive(Default)]
struct Listeners {
    tcp: Option<TcpListener>,
    udp: Option<UdpSocket>,
}

fn obey(words: &[&str], listeners: &mut Listeners) -> Result<String, String> {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    match *words {
        ["hello"] => Ok("hello".to_owned()),
        ["configure", network, ref rules @ ..] => configure(network, rules),
        ["fetch", to] => fetch(address(to)),
        ["ask", to, text] => ask(address(to), text),
        ["tell", to, text] => tell(address(to), text),
        ["bound-to", device, to] => connect_through(device, to.parse().unwrap()),
        ["listen"] => {
            // Port 80 shows that low ports are open to a user without capabilities in no namespace but its own.
            listeners.tcp = Some(TcpListener::bind("0.0.0.0:80").map_err(show)?);
            listeners.udp = Some(UdpSocket::bind("0.0.0.0:90").map_err(show)?);
            Ok("listening".to_owned())
        }
        ["serve-tcp"] => serve_tcp(listeners.tcp.as_ref().unwrap()),
        ["serve-udp"] => serve_udp(listeners.udp.as_ref().unwrap()),
        ["ping-socket"] => {
            let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp);
            fd.map(|_| "open".to_owned()).map_err(|e| e.to_string())
        }
        ["read", path] => std::fs::read_to_string(path).map(|text| text.trim().replace('\t', " ")).map_err(show),
        ["device", name] => Ok(nix::net::if_::if_nametoindex(name).is_ok().to_string()),
        ["mtu-to", to] => mtu_to(address(to)),
        _ => Err(format!("what is {words:?}?")),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the form of map_err")]
fn show(error: std::io::Error) -> String {
    error.raw_os_error().map_or(error.to_string(), |errno| format!("{:?}", Errno::from_raw(errno)))
}

/// `none`, `slirp`, `slirp6`, or `egress` with rules such as `10.0.0.0/8,tcp,80`; `published` among the rules is not one.
fn configure(network: &str, words: &[&str]) -> Result<String, String> {
    let rule = |word: &&str| {
        let mut parts = word.split(',');
        let (cidr, protocol) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some(EgressRule { cidr, protocol, ports: parts.map(|port| port.parse().unwrap()).collect() })
    };
    let rules: Vec<EgressRule> = words.iter().filter_map(rule).collect();
    let config = inside::Config {
        network: if network == "none" { NetworkMode::None } else { NetworkMode::Slirp4netns },
        ipv6: network == "slirp6",
        egress: (network == "egress").then_some(rules.as_slice()),
        published: words.contains(&"published"),
        gids: &[IdMapping { container: 0, host: 0, count: 1 }],
    };
    let weaker = inside::configure(&config).map_err(|error| error.to_string())?;
    if weaker.is_empty() { Ok("configured".to_owned()) } else { Err(format!("{weaker:?}")) }
}

fn fetch(from: SocketAddr) -> Result<String, String> {
    let mut stream = TcpStream::connect_timeout(&from, PATIENCE).map_err(show)?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(show)?;
    let mut page = String::new();
    stream.read_to_string(&mut page).map_err(show)?;
    Ok(page.lines().last().unwrap_or_default().to_owned())
}

fn ask(whom: SocketAddr, text: &str) -> Result<String, String> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).map_err(show)?;
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(whom).map_err(show)?;
    socket.send(text.as_bytes()).map_err(show)?;
    let mut answer = [0; 512];
    let count = socket.recv(&mut answer).map_err(show)?;
    Ok(String::from_utf8_lossy(&answer[..count]).into_owned())
}

fn mtu_to(whom: SocketAddr) -> Result<String, String> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).map_err(show)?;
    socket.connect(whom).map_err(show)?;
    Ok(getsockopt(&socket, sockopt::IpMtu).unwrap().to_string())
}

fn tell(whom: SocketAddr, text: &str) -> Result<String, String> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).map_err(show)?;
    socket.send_to(text.as_bytes(), whom).map_err(show)?;
    Ok("told".to_owned())
}

/// Connects a socket that is bound to a device, which makes the kernel overlook a missing or unreachable route.
fn connect_through(device: &str, to: SocketAddrV4) -> Result<String, String> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    setsockopt(&fd, sockopt::BindToDevice, &device.into()).map_err(|e| format!("{e:?}"))?;
    match connect(fd.as_raw_fd(), &SockaddrIn::from(to)) {
        Ok(()) => return Ok("connected".to_owned()),
        Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(format!("{errno:?}")),
    }
    // Nothing tells that a packet was not answered, so this waits out the neighbour's three unanswered probes.
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::try_from(PATIENCE).unwrap()).unwrap();
    match getsockopt(&fd, sockopt::SocketError).unwrap() {
        0 => Ok("connected".to_owned()),
        errno => Err(format!("{:?}", Errno::from_raw(errno))),
    }
}

/// Answers one connection with the address it came from.
fn serve_tcp(listener: &TcpListener) -> Result<String, String> {
    let (mut stream, from) = listener.accept().map_err(show)?;
    stream.write_all(from.ip().to_string().as_bytes()).map_err(show)?;
    Ok(from.ip().to_string())
}

/// Answers one datagram with itself, backwards.
fn serve_udp(socket: &UdpSocket) -> Result<String, String> {
    let mut text = [0; 512];
    let (count, from) = socket.recv_from(&mut text).map_err(show)?;
    text[..count].reverse();
    socket.send_to(&text[..count], from).map_err(show)?;
    Ok(from.ip().to_string())
}
