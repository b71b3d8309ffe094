//! `--network none`, `host` and `slirp4netns`, and published ports.

use nix::sys::signal::Signal;
use rlrun_tests::{BASE, Case, Reply, Spawned, case, eventually, host_address, serve, until};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// A container on slirp4netns that has printed `ready`.
fn spawn(case: &Case, options: &[&str], command: &[&str]) -> Spawned {
    let spawned = case.rlrun(["run", "--rm"]).args(options).args([BASE]).args(command).spawn();
    spawned.wait_for("ready");
    spawned
}

fn stop(container: Spawned) {
    container.signal(Signal::SIGKILL);
    container.finish();
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn fetch(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

#[test]
fn none_has_only_loopback_and_it_is_up() {
    let case = case!(Userns);
    case.in_base(["sh", "-c", "ls /sys/class/net 2>/dev/null || tail -n +3 /proc/net/dev | cut -d: -f1"])
        .ok()
        .says("lo");
    // Nobody listens there, and only an interface that is up says so.
    case.in_base(["probe", "connect", "127.0.0.1", "1"]).ok().prints("connect ECONNREFUSED");
    let address = host_address().expect("this host has an address").to_string();
    case.in_base(["probe", "connect", &address, "80"]).ok().says("ENETUNREACH");
}

#[test]
fn host_shares_the_hosts_network() {
    let case = case!(Userns);
    let server = serve(Ipv4Addr::LOCALHOST.into(), |_, _| Reply::ok("text/plain", "from the host\n"));
    let url = format!("http://{}/", server.address);
    // `baseline` refuses the host's namespaces unless it is told otherwise.
    case.run(["run", "--rm", "--network", "host", BASE, "true"]).refused(125, "baseline");
    let options = ["run", "--rm", "--network", "host", "--policy-baseline=off"];
    case.rlrun(options).args([BASE, "wget", "-q", "-O", "-", &url]).run().ok().prints("from the host");
}

#[test]
fn slirp_fetches_a_page_from_the_host_network() {
    let case = case!(Userns, Slirp);
    let server = serve(host_address().expect("this host has an address"), |_, _| Reply::ok("text/plain", "a page\n"));
    let url = format!("http://{}/", server.address);
    case.run(["run", "--rm", BASE, "wget", "-q", "-O", "-", &url]).ok().prints("a page");
    case.run(["run", "--rm", "--network", "slirp4netns", BASE, "wget", "-q", "-O", "-", &url]).ok().prints("a page");
}

#[test]
fn the_network_is_ready_before_the_payload_starts() {
    let case = case!(Userns, Slirp);
    let address = host_address().expect("this host has an address");
    let server = serve(address, |_, _| Reply::ok("text/plain", "x"));
    let (ip, port) = (server.address.ip().to_string(), server.address.port().to_string());
    // No tool that retries, no shell that takes its time: the first call of the payload.
    case.run(["run", "--rm", BASE, "probe", "connect", &ip, &port]).ok().prints("connect ok");
}

#[test]
fn the_hosts_loopback_is_out_of_reach() {
    let case = case!(Userns, Slirp);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    for ip in ["10.0.2.2", "127.0.0.1"] {
        let out = case.run(["run", "--rm", BASE, "probe", "connect", ip, &port]);
        assert!(!out.ok().out().contains("ok"), "the host's loopback answers at {ip}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody connected");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    for ip in ["10.0.2.2", "127.0.0.1"] {
        case.run(["run", "--rm", BASE, "probe", "send-udp", ip, &port]);
    }
    // Whatever slirp4netns had let through was sent before it ended.
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 4]).is_err(), "somebody wrote");
}

#[test]
fn cloud_metadata_is_out_of_reach() {
    let case = case!(Userns, Slirp);
    for ip in ["169.254.169.254", "169.254.170.23", "169.254.42.42", "100.100.100.200", "168.63.129.16", "192.0.0.192"]
    {
        let out = case.run(["run", "--rm", BASE, "probe", "connect", ip, "80"]).ok().out();
        // Refused at once by a route, not left to a timeout of some network.
        assert!(!out.contains("ok") && !out.contains("ETIMEDOUT"), "{ip}: {out}");
    }
}

#[test]
fn the_containers_root_cannot_lift_that() {
    let case = case!(Userns, Slirp);
    // With CAP_NET_ADMIN it could, which `who_may_change_the_network...` is about.
    let script = "ip route del unreachable 169.254.0.0/16 && echo deleted; \
        ip addr add 169.254.1.1/16 dev tap0 && echo added; ip route add 169.254.169.254 via 10.0.2.2 && echo added; \
        ip route; probe connect 169.254.169.254 80";
    let out = case.run(["run", "--rm", BASE, "sh", "-c", script]);
    out.ok().says("unreachable 169.254.0.0/16").complains("not permitted");
    let text = out.out();
    assert!(!["deleted", "added", "connect ok", "ETIMEDOUT"].iter().any(|word| text.contains(word)), "{text}");
}

#[test]
fn a_policy_can_confine_a_container_to_some_addresses() {
    let case = case!(Userns, Slirp);
    let address = host_address().expect("this host has an address");
    let serve = || serve(address, |_, _| Reply::ok("text/plain", "x"));
    let (open, closed) = (serve(), serve());
    let shipped = case.program().ancestors().nth(2).unwrap().join("share/rlrun/policies/guardrails.wasm");
    let policy = std::fs::read(shipped).unwrap();
    let policy = case.make_file("confine.wasm", policy);
    let port = open.address.port();
    case.make_file(
        "confine.toml",
        format!("[[egress]]\ncidr = \"{address}/32\"\nports = [{port}]\nprotocol = \"tcp\"\n"),
    );
    let connect = |server: SocketAddr| {
        let (ip, port) = (server.ip().to_string(), server.port().to_string());
        let run =
            case.rlrun(["run", "--rm", "--policy", policy.to_str().unwrap(), BASE, "probe", "connect", &ip, &port]);
        run.run().ok().out()
    };
    assert_eq!(connect(open.address), "connect ok\n");
    assert!(!connect(closed.address).contains("ok"), "a port that no rule names is reached");
    case.run(["run", "--rm", BASE, "probe", "connect", &address.to_string(), &closed.address.port().to_string()])
        .ok()
        .prints("connect ok");
}

#[test]
fn who_may_change_the_network_can_lift_its_rules_and_that_is_said() {
    let case = case!(Userns, Slirp);
    let enforced = |options: &[&str]| {
        let out = case.rlrun(["plan", "--policy-baseline=off"]).args(options).args([BASE, "true"]).run();
        let plan: serde_json::Value = serde_json::from_str(&out.ok().out()).unwrap();
        let controls = plan["controls"].as_array().unwrap();
        let rules = controls.iter().find(|control| control["name"] == "network-rules").unwrap();
        (rules["enforced"].as_str().unwrap().to_owned(), rules["why"].as_str().unwrap().to_owned())
    };
    assert_eq!(enforced(&[]), ("yes".to_owned(), String::new()));
    for capability in ["NET_ADMIN", "NET_RAW"] {
        let (held, why) = enforced(&["--cap-add", capability]);
        assert!(held == "partly" && why.contains(&format!("CAP_{capability}")), "{held}: {why}");
    }
    // The proof that `yes` would be a lie with it: the route goes. Without it the route stays.
    let script = "ip route del unreachable 169.254.0.0/16 2>/dev/null; ip route";
    let run = |options: &[&str], script: &str| {
        let command = case.rlrun(["run", "--rm", "--policy-baseline=off"]).args(options);
        command.args([BASE, "sh", "-c", script]).run()
    };
    let given = run(&["--cap-add", "NET_ADMIN"], script);
    assert!(!given.ok().out().contains("169.254."), "{}", given.out());
    given.complains("CAP_NET_ADMIN");
    run(&[], script).ok().says("unreachable 169.254.0.0/16");
    // What slirp4netns itself refuses is out of the container's hands.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let attack = format!(
        "ip addr add 10.0.2.7/24 dev tap0; ip route flush type unreachable 2>/dev/null; ip link set lo down; \
         probe connect 10.0.2.2 {port}; ip route add 127.0.0.0/8 via 10.0.2.2 2>/dev/null; probe connect 127.0.0.1 {port}"
    );
    run(&["--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"], &attack);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "the host's loopback was reached");
}

/// A resolver that knows one name, on an address of loopback where no other listens.
fn resolver(name: &'static str, address: Ipv4Addr) -> Ipv4Addr {
    let own = Ipv4Addr::new(127, 0, 83, 1);
    let socket = UdpSocket::bind((own, 53)).unwrap();
    let question: Vec<u8> = name
        .split('.')
        .flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat())
        .chain([0])
        .collect();
    std::thread::spawn(move || {
        let mut data = [0; 512];
        while let Ok((n, from)) = socket.recv_from(&mut data) {
            let asked = &data[12..n];
            let known = asked.starts_with(&question) && asked.get(question.len()..question.len() + 2) == Some(&[0, 1]);
            // RFC 1035, 4.1.1: an answer, recursion available, one question, one answer or NXDOMAIN.
            let flags: &[u8] =
                if known { &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0] } else { &[0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0] };
            let answer: &[u8] = if known { &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4] } else { &[] };
            let address = address.octets();
            let last: &[u8] = if known { &address } else { &[] };
            let reply = [&data[..2], flags, &asked[..question_length(asked)], answer, last].concat();
            socket.send_to(&reply, from).unwrap();
        }
    });
    own
}

/// Of the first question: its name, type and class.
fn question_length(asked: &[u8]) -> usize {
    asked.iter().position(|byte| *byte == 0).map_or(asked.len(), |end| (end + 5).min(asked.len()))
}

#[test]
fn names_are_asked_of_the_hosts_resolver() {
    let case = case!(Userns, Slirp, Root);
    let server = resolver("known.example", Ipv4Addr::new(192, 0, 2, 77));
    let file = case.make_file("resolv.conf", format!("nameserver {server}\nsearch example\n"));
    // In place of the host's, whether that is a file or a link.
    let prepare = format!("mount --bind {} $(readlink -f /etc/resolv.conf)", file.display());
    let ask = |name: &str| case.on_changed_host(&prepare, &["run", "--rm", BASE, "nslookup", "-type=a", name]).run();
    ask("known.example").ok().says("Address: 192.0.2.77");
    ask("unknown.example").code(1).says("NXDOMAIN");
    // A resolver of the container's own is asked itself, and only the helper reaches the host's loopback.
    let given = ["run", "--rm", "--dns", "127.0.83.1", BASE, "nslookup", "-type=a", "known.example"];
    assert!(!case.on_changed_host(&prepare, &given).run().out().contains("192.0.2.77"));
}

#[test]
fn names_and_resolvers_can_be_given() {
    let case = case!(Userns, Slirp);
    case.run(["run", "--rm", BASE, "wget", "-q", "-O", "-", "http://localhost:1/"])
        .code(1)
        .complains("connection refused");
    case.run(["run", "--rm", "--dns", "192.0.2.53", BASE, "cat", "/etc/resolv.conf"])
        .ok()
        .says("nameserver 192.0.2.53");
    case.run(["run", "--rm", "--add-host", "db:192.0.2.7", BASE, "cat", "/etc/hosts"])
        .ok()
        .says("192.0.2.7")
        .says("db");
}

#[test]
fn a_tcp_port_is_published() {
    let case = case!(Userns, Slirp);
    let port = free_port();
    let container = spawn(&case, &["-p", &format!("127.0.0.1:{port}:8080")], &["probe", "serve-tcp", "8080"]);
    let answer = until(10, || fetch((Ipv4Addr::LOCALHOST, port).into()));
    assert!(answer.is_some_and(|text| text.starts_with("hello ")), "nothing on the published port");
    stop(container);
    drop(case.keeping_containers());
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(), "the port outlives the container");
}

#[test]
fn a_published_port_works_from_the_first_moment() {
    let case = case!(Userns, Slirp);
    let port = free_port();
    let container = spawn(&case, &["-p", &format!("127.0.0.1:{port}:8080")], &["probe", "serve-tcp", "8080"]);
    // No second try: `ready` was printed after listen(2), and the forward was there before the payload.
    assert!(fetch((Ipv4Addr::LOCALHOST, port).into()).is_some());
    stop(container);
    drop(case.keeping_containers());
}

#[test]
fn a_port_is_published_on_every_address_unless_one_is_named() {
    let case = case!(Userns, Slirp);
    let address = host_address().expect("this host has an address");
    let (open, closed) = (free_port(), free_port());
    let container = spawn(
        &case,
        &["-p", &format!("{open}:8080"), "-p", &format!("127.0.0.1:{closed}:8080/tcp")],
        &["probe", "serve-tcp", "8080"],
    );
    assert!(fetch((address, open).into()).is_some());
    assert!(fetch((Ipv4Addr::LOCALHOST, closed).into()).is_some());
    assert!(fetch((address, closed).into()).is_none());
    stop(container);
    drop(case.keeping_containers());
}

#[test]
fn a_udp_port_is_published() {
    let case = case!(Userns, Slirp);
    let port = free_port();
    let address = host_address().expect("this host has an address");
    // slirp4netns loses answers to UDP clients on loopback: rlrun says so instead of publishing there.
    case.run(["run", "--rm", "-p", &format!("127.0.0.1:{port}:53/udp"), BASE, "true"]).refused(125, "loopback");
    for publish in
        [format!("{address}:{port}:5353/udp"), format!("{port}:5353/udp"), format!("0.0.0.0:{port}:5353/udp")]
    {
        let container = spawn(&case, &["-p", &publish], &["probe", "serve-udp", "5353"]);
        for client in [address, Ipv4Addr::UNSPECIFIED.into()] {
            let socket = UdpSocket::bind((client, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            // Datagrams may be lost: ask again.
            let answer = until(10, || {
                socket.send_to(b"echo", (address, port)).unwrap();
                let mut data = [0; 16];
                socket.recv(&mut data).ok().map(|n| data[..n].to_vec())
            });
            assert_eq!(answer.as_deref(), Some(&b"echo"[..]), "{publish}");
        }
        // On every address there is loopback too, which is told.
        let told = container.stderr_so_far().contains("clients on the host's loopback");
        assert_eq!(told, !publish.starts_with(&address.to_string()), "{publish}");
        stop(container);
    }
    let plan = case.run(["plan", "-p", &format!("{port}:5353/udp"), BASE, "true"]);
    plan.ok().says("publish-udp").complains("clients on the host's loopback");
    drop(case.keeping_containers());
}

#[test]
fn a_port_in_use_is_refused_and_named() {
    let case = case!(Userns, Slirp);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let out = case.run(["run", "--rm", "-p", &format!("127.0.0.1:{port}:80"), BASE, "echo", "must not run"]);
    out.refused(125, &port.to_string());
}

#[test]
fn a_container_that_is_replaced_hands_on_its_ports() {
    let case = case!(Userns, Slirp).keeping_containers();
    let publish = format!("127.0.0.1:{}:80", free_port());
    let start = |more: &[&str]| {
        let run = case.rlrun(["run", "-d", "-p", &publish]).args(more).args([BASE, "probe", "wait"]);
        run.leaving_processes().run()
    };
    let first = start(&["--name", "web"]).ok().out();
    start(&["--name", "other"]).refused(125, &publish["127.0.0.1:".len()..publish.len() - ":80".len()]);
    // A replacement that cannot start leaves the first one alone.
    start(&["--name", "web", "--replace", "--memory", "1k"]).refused(125, "1m");
    case.run(["inspect", "-f", "{{.Id}} {{.State.Status}}", "web"]).ok().prints(&format!("{} running", first.trim()));
    let second = start(&["--name", "web", "--replace"]).ok().out();
    case.run(["ps", "-a", "-q", "--no-trunc"]).ok().prints(&second);
    case.run(["rm", "-f", "web"]).ok();
}

#[test]
fn a_privileged_port_is_refused_with_the_sysctl() {
    let case = case!(Userns, Slirp);
    let start = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if start.trim() == "0" {
        return;
    }
    case.run(["run", "--rm", "-p", "127.0.0.1:81:80", BASE, "true"])
        .refused(125, "81")
        .complains("ip_unprivileged_port_start");
}

#[test]
fn ports_without_a_network_are_refused() {
    let case = case!(Userns);
    case.run_base(&["-p", "8080:80"], ["true"]).refused(125, "");
}

#[test]
fn malformed_ports_are_refused() {
    let case = case!(Userns);
    for port in ["0", "http", "80:80:80:80", "70000:80", "80/sctp", "-1:80", "1.2.3.4.5:80:80"] {
        case.run(["run", "--rm", "-p", port, BASE, "true"]).refused(125, port);
    }
}

#[test]
fn an_unknown_network_is_refused() {
    let case = case!(Userns);
    case.run(["run", "--rm", "--network", "carrier-pigeon", BASE, "true"]).refused(125, "carrier-pigeon");
}

#[test]
fn slirp_is_sandboxed_and_ends_with_the_container() {
    let case = case!(Userns, Slirp);
    let mut container = case.rlrun(["run", "--rm", "-i", BASE, "sh", "-c", "echo ready; cat"]).spawn();
    container.wait_for("ready");
    let slirp = rlrun_tests::payload_of(container.running.pid, "slirp4netns");
    let status = std::fs::read_to_string(format!("/proc/{slirp}/status")).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let line = std::fs::read(format!("/proc/{slirp}/cmdline")).unwrap();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    for option in ["--enable-sandbox", "--enable-seccomp", "--disable-host-loopback"] {
        assert!(line.contains(option), "{line}");
    }
    container.stdin.take().unwrap().write_all(b"bye\n").unwrap();
    container.finish().ok();
    let gone = format!("/proc/{slirp}");
    eventually("slirp4netns ends", || !std::path::Path::new(&gone).exists());
}

#[test]
fn helpers_do_not_pile_up_where_pid_1_reaps_nothing() {
    let case = case!(Userns, Slirp, Root);
    // As in a container whose command is `sleep infinity`.
    let mut outer = std::process::Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "600"])
        .spawn()
        .unwrap();
    let outer_pid = nix::unistd::Pid::from_raw(i32::try_from(outer.id()).unwrap());
    let init = rlrun_tests::payload_of(outer_pid, "sleep");
    let user = case.user();
    for _ in 0..20 {
        let run = case.invoke_as_root("/usr/bin/nsenter".as_ref()).args([
            &format!("--target={init}"),
            "--pid",
            "--mount",
            "setpriv",
            &format!("--reuid={}", user.uid),
            &format!("--regid={}", user.gid),
            "--clear-groups",
        ]);
        run.args([case.program()]).args(["run", "--rm", BASE, "true"]).leaving_processes().run().ok();
        // Eight are left, and on a busy machine some that had not died when the next start looked.
        let zombies = || rlrun_tests::descendants(init).len();
        eventually("a few helpers are left at most", || zombies() <= 12);
    }
    outer.kill().unwrap();
    outer.wait().unwrap();
}

#[test]
fn the_death_of_the_network_helper_is_never_silent() {
    let case = case!(Userns, Slirp).keeping_containers();
    let container = spawn(&case, &[], &["probe", "wait"]);
    let slirp = rlrun_tests::payload_of(container.running.pid, "slirp4netns");
    nix::sys::signal::kill(slirp, Signal::SIGKILL).unwrap();
    let told = until(10, || container.stderr_so_far().contains("slirp4netns").then_some(()));
    assert!(told.is_some(), "the network died and nobody said so");
    container.finish().code(125);
}
