//! Registries as they are out there: behind token servers, mirrors and bad lines, with images for several machines.

use rlrun_tests::{
    Case, Exit, FileServer, Image, Registry, Reply, Request, Rootfs, Terminal, base_rootfs, case, digest, eventually,
    gzip,
};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn image(text: &str) -> Image {
    Image::new("unused:1", base_rootfs().clone()).layer(Rootfs::new().file("etc/which", 0o644, text))
}

fn which(case: &Case, name: &str) -> String {
    let run = ["run", "--rm", "--network", "none", "--pull", "never", name, "cat", "/etc/which"];
    case.run(run).ok().out()
}

fn configure(case: &Case, text: &str) {
    case.user().private_directory(&case.home().join(".config"));
    let directory = case.user().private_directory(&case.home().join(".config/containers"));
    let path = directory.join("registries.conf");
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    case.user().own(&path);
}

fn openssl(words: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {words:?}");
    output.stdout
}

fn base64(bytes: &[u8]) -> String {
    String::from_utf8(openssl(&["base64", "-A"], bytes)).unwrap()
}

fn base64url(bytes: &[u8]) -> String {
    base64(bytes).replace('+', "-").replace('/', "_").replace('=', "")
}

/// A token server (distribution, token authentication): everybody may read below `public/`, `tester` with `secret` may
/// read and write everything;
/// nobody read `closed/` once that is shut.
fn token_server(directory: &Path, shut: Arc<AtomicBool>) -> (FileServer, PathBuf) {
    let (key, certificate) = (directory.join("token.key"), directory.join("token.crt"));
    let (key_name, certificate_name) = (key.to_str().unwrap().to_owned(), certificate.to_str().unwrap().to_owned());
    let subject = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens"];
    openssl(&[&subject[..], &["-keyout", &key_name, "-out", &certificate_name]].concat(), b"");
    let chain = base64(&openssl(&["x509", "-in", &certificate_name, "-outform", "DER"], b""));
    let server = rlrun_tests::serve_requests(Ipv4Addr::LOCALHOST.into(), move |request: &Request| {
        // tester:secret
        let known = request.header("authorization") == Some("Basic dGVzdGVyOnNlY3JldA==");
        if request.header("authorization").is_some() && !known {
            return Reply { status: 401, ..Reply::not_found() };
        }
        let query = request.path.split_once('?').map_or("", |(_, query)| query);
        let decoded = query.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
        let scopes = decoded.split('&').filter_map(|pair| pair.strip_prefix("scope=repository:"));
        let access: Vec<Value> = scopes
            .filter_map(|scope| {
                let (name, actions) = scope.rsplit_once(':')?;
                let public = name.starts_with("public/");
                let granted = actions.split(',').filter(|action| match known {
                    true => !name.starts_with("closed/") || !shut.load(Ordering::Relaxed),
                    false => public && *action == "pull",
                });
                Some(json!({"type": "repository", "name": name, "actions": granted.collect::<Vec<_>>()}))
            })
            .collect();
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [chain]}).to_string();
        let claims = json!({"iss": "tests", "sub": "tester", "aud": "here", "exp": now + 60, "nbf": now - 5, "iat": now,
            "jti": "1", "access": access});
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.to_string().as_bytes()));
        let signature = openssl(&["dgst", "-sha256", "-sign", &key_name], signed.as_bytes());
        let token = json!({"token": format!("{signed}.{}", base64url(&signature))});
        Reply::ok("application/json", token.to_string())
    });
    (server, certificate)
}

#[test]
fn a_token_server_gives_what_is_needed_and_layers_are_lent_between_repositories() {
    let case = case!(Userns, Registry, Openssl);
    let shut = Arc::new(AtomicBool::new(false));
    let (tokens, certificate) = token_server(case.directory(), shut.clone());
    let registry = Registry::with_tokens(case.directory(), &format!("http://{}/token", tokens.address), &certificate);
    let host = format!("localhost:{}", registry.address.port());
    let (public, closed) = (format!("{host}/public/app:1"), format!("{host}/closed/app:1"));
    case.load(&{
        let mut image = image("by token");
        image.name.clone_from(&public);
        image
    });
    case.run(["push", &public]).refused(125, "login");
    let login = |password: &str| {
        case.rlrun(["login", "-u", "tester", "--password-stdin", &host]).stdin(format!("{password}\n")).run()
    };
    login("wrong").refused(125, &host);
    login("secret").ok();
    case.run(["push", &public]).ok();
    let other = format!("{host}/team/other:2");
    case.run(["tag", &public, &other]).ok();
    case.run(["push", &other]).ok();
    assert!(registry.has_logged(&["/v2/team/other/blobs/uploads/?", "mount=sha256", "from=public", "status\":201"]));
    // What may not be read where it is has to be sent.
    case.run(["tag", &public, &closed]).ok();
    case.run(["push", &closed]).ok();
    let third = format!("{host}/third/app:3");
    case.run(["untag", &closed, &public, &other]).ok();
    case.run(["tag", &closed, &third]).ok();
    shut.store(true, Ordering::Relaxed);
    case.run(["push", &third]).ok();
    case.run(["rmi", "-f", &third, &closed]).ok();
    case.run(["logout", &host]).ok();
    std::fs::remove_dir_all(case.runtime().join("containers")).unwrap();
    case.run(["pull", &third]).refused(125, "login");
    case.run(["pull", &public]).ok();
    assert_eq!(which(&case, &public), "by token");
}

/// Forwards to a server; the first answer that is long is cut off in the middle.
fn bad_line(to: SocketAddr) -> SocketAddr {
    static CUT: AtomicBool = AtomicBool::new(false);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let forward = |mut from: TcpStream, mut to: TcpStream, cut: bool| {
        let (mut chunk, mut sent) = (vec![0; 16 << 10], 0);
        while let Ok(n @ 1..) = from.read(&mut chunk) {
            sent += n;
            if cut && sent > 200_000 && !CUT.swap(true, Ordering::Relaxed) {
                break;
            }
            if to.write_all(&chunk[..n]).is_err() {
                break;
            }
        }
        drop((from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both)));
    };
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(to) else { continue };
            let (client2, server2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || forward(client, server, false));
            std::thread::spawn(move || forward(server2, client2, true));
        }
    });
    address
}

#[test]
fn a_download_goes_on_where_the_line_broke() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    // Does not compress, so that it is long on the way too.
    let mut noise = 1_u32;
    let noise: String = (0..2_000_000)
        .map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b' ' + u8::try_from(noise >> 26).unwrap())
        })
        .collect();
    registry.add("app", "1", &image(&noise));
    let name = format!("localhost:{}/app:1", bad_line(registry.address).port());
    case.run(["pull", &name]).ok();
    assert_eq!(which(&case, &name), noise);
    assert!(registry.has_logged(&["/blobs/sha256", "status\":206"]), "the rest alone is fetched again");
}

/// Bars and lines while a slow registry sends, and nothing of them where nobody looks.
#[test]
fn progress_is_shown_on_a_terminal_alone() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    registry.add("app", "1", &image(&"0123456789abcdef".repeat(200_000)));
    let name = format!("localhost:{}/app:1", registry.address.port());
    // Where nobody says which terminal it is, nothing is drawn on it.
    let terminal = Terminal::start(case.rlrun(["pull", &name]).env("TERM", "xterm"), 24, 100);
    terminal.wait_for("Copying blob");
    eventually("it is pulled", || !terminal.running.alive());
    // Bars are gone when it is over: the last line is what a script reads.
    let id = case.run(["images", "-q", "--no-trunc", &name]).ok().out();
    let id = id.trim().trim_start_matches("sha256:");
    terminal.wait_for(id);
    let screen = terminal.screen();
    for seen in ["Trying to pull localhost:", " done (", "Unpacking ", "[", "]", " / "] {
        assert!(screen.contains(seen), "{seen}: {screen:?}");
    }
    assert!(screen.trim_end().ends_with(id), "{screen:?}");
    assert_eq!(terminal.running.wait(), Exit::Code(0));
    case.run(["rmi", &name]).ok();
    let quiet = case.run(["pull", &name]);
    assert_eq!(String::from_utf8_lossy(&quiet.ok().stderr), "");
    case.run(["rmi", &name]).ok();
    let terminal = Terminal::start(case.rlrun(["system", "check"]).env("TERM", "xterm"), 24, 100);
    terminal.wait_for("extracted layers checked");
    assert!(terminal.screen().contains("Checking ["), "{:?}", terminal.screen());
    assert_eq!(terminal.running.wait(), Exit::Code(0));
    let terminal = Terminal::start(case.rlrun(["pull", "-q", &name]), 24, 100);
    terminal.wait_for(id);
    assert!(!terminal.screen().contains("Copying"), "{}", terminal.screen());
    assert_eq!(terminal.running.wait(), Exit::Code(0));
}

#[test]
fn short_names_that_other_tools_were_told_of_are_known() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    registry.add("team/app", "1", &image("aliased"));
    let cache = case.user().private_directory(&case.home().join(".cache"));
    let directory = case.user().private_directory(&cache.join("containers"));
    let path = directory.join("short-name-aliases.conf");
    let text = format!("[aliases]\n  \"short/app\" = \"localhost:{}/team/app\"\n", registry.address.port());
    std::fs::File::create(&path).and_then(|mut file| file.write_all(text.as_bytes())).unwrap();
    case.user().own(&path);
    case.run(["pull", "short/app:1"]).ok();
    assert_eq!(which(&case, "short/app:1"), "aliased");
    case.run(["image", "exists", &format!("localhost:{}/team/app:1", registry.address.port())]).ok();
}

#[test]
fn registries_conf_decides_who_is_asked() {
    let case = case!(Userns, Registry);
    let (main, mirror) = (case.make_dir("main"), case.make_dir("mirror"));
    let (main, mirror) = (Registry::http(&main), Registry::http(&mirror));
    let (there, here) = (format!("localhost:{}", main.address.port()), format!("localhost:{}", mirror.address.port()));
    let pinned = main.add("team/app", "1", &image("main"));
    mirror.add("copies/app", "1", &image("mirror"));
    mirror.add("copies/other", "1", &image("other"));
    mirror.add("short", "latest", &image("short"));
    let name = format!("{there}/team/app:1");
    let conf = |more: &str, tail: &str| {
        configure(
            &case,
            &format!(
                "{tail}\n[[registry]]\nprefix = '{there}/team'\nlocation = '{there}/team'\ninsecure = true\n{more}\n\
                 [[registry.mirror]]\nlocation = '{here}/copies'\ninsecure = true\n"
            ),
        );
    };
    conf("", "");
    case.run(["pull", &name]).ok();
    assert_eq!(which(&case, &name), "mirror");
    // What the mirror lacks the registry has; what only the mirror has is found there.
    case.run(["pull", &format!("{there}/team/app@{pinned}")]).ok();
    case.run(["pull", &format!("{there}/team/other:1")]).ok();
    conf("mirror-by-digest-only = true", "");
    case.run(["pull", &name]).ok();
    assert_eq!(which(&case, &name), "main");
    case.run(["pull", &format!("{there}/team/other:1")]).refused(125, "other");
    conf("blocked = true", "");
    case.run(["pull", &name]).refused(125, "blocks");
    case.run(["push", &name]).refused(125, "blocks");

    // Short names: an alias, one registry, several.
    conf("", &format!("unqualified-search-registries = ['{here}']\n[aliases]\n'tool' = '{here}/copies/app'"));
    case.run(["pull", "short"]).ok();
    assert_eq!(which(&case, "short"), "short");
    case.run(["pull", "tool:1"]).ok();
    assert_eq!(which(&case, "tool:1"), "mirror");
    let two = format!("unqualified-search-registries = ['{there}', '{here}']\nshort-name-mode = 'enforcing'");
    conf("", &two);
    case.run(["rmi", "short"]).ok();
    case.run(["pull", "short"]).refused(125, "enforcing");
    conf("", &two.replace("enforcing", "permissive"));
    case.run(["pull", "short"]).ok();
    // A mirror that is down is passed over.
    drop(mirror);
    conf("", "");
    case.run(["pull", &name]).ok();
    assert_eq!(which(&case, &name), "main");
}

#[test]
fn an_index_gives_each_machine_its_image_and_odd_layers_are_told_apart() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    let host = format!("localhost:{}", registry.address.port());
    let mut foreign = image("s390x");
    "s390x".clone_into(&mut foreign.architecture);
    let mut manifests = Vec::new();
    for each in [&foreign, &image("own")] {
        let (manifest, blobs) = each.oci_manifest("+gzip", gzip);
        registry.add_manifest("app", "part", &manifest, &blobs.iter().map(Vec::as_slice).collect::<Vec<_>>());
        registry.remove_tag("app", "part");
        manifests.push(json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&manifest),
            "size": manifest.len(), "platform": {"os": "linux", "architecture": each.architecture}}));
    }
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests});
    registry.add_manifest("app", "1", index.to_string().as_bytes(), &[]);
    let name = format!("{host}/app:1");
    case.run(["pull", &name]).ok();
    assert_eq!(which(&case, &name), "own");
    let architecture = || case.run(["image", "inspect", "-f", "{{.Architecture}}", &name]).ok().out();
    for words in [&["--platform", "linux/s390x"][..], &["--arch", "s390x"]] {
        case.run([&["pull"], words, &[&name]].concat()).ok().complains("s390x");
        assert_eq!(architecture(), "s390x\n");
        case.run(["pull", &name]).ok();
    }
    // The other one is not here, and does not go along.
    case.run(["push", &name, &format!("{host}/app:2")]).ok().complains("only the one that is here");
    case.run(["pull", "--platform", "linux/riscv64", &name]).refused(125, "it has linux/s390x");
    case.run(["pull", "--platform", "a/b/c/d", &name]).refused(125, "os/architecture");

    // A layer without files, twice, and an image without layers.
    registry.add("odd", "empty", &image("between").layer(Rootfs::new()).layer(Rootfs::new()));
    case.run(["pull", &format!("{host}/odd:empty")]).ok();
    assert_eq!(which(&case, &format!("{host}/odd:empty")), "between");
    let config = br#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    let bare = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [],
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": config.len()}});
    registry.add_manifest("odd", "bare", bare.to_string().as_bytes(), &[config]);
    case.run(["pull", &format!("{host}/odd:bare")]).ok();
    case.run(["push", &format!("{host}/odd:bare"), &format!("{host}/bare:2")]).ok();
    case.run(["run", "--rm", "--network", "none", &format!("{host}/odd:bare"), "/x"]).code(127);
}
