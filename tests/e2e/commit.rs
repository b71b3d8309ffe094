//! `commit`: a container's files and configuration as an image, which is one like any other.

use rlrun_tests::{BASE, Case, Exit, case};
use serde_json::Value;

fn ended(case: &Case, options: &[&str], script: &str) -> String {
    let id = case.detached(options, ["sh", "-c", script]);
    rlrun_tests::eventually("the container ends", || {
        case.run(["inspect", "-f", "{{.State.Status}}", &id]).out().trim() == "exited"
    });
    id
}

const SCRIPT: &str = "echo new > /etc/new; rm /etc/base-image; rm -r /home; mkdir /home; echo y > /home/y; \
    chown 1000:50 /home/y; chmod 4755 /home/y; ln /home/y /home/z; ln -s /x /etc/link";
const CHECK: &str =
    "cat /etc/new; test ! -e /etc/base-image && echo gone; stat -c '%u:%g %a %h' /home/y; readlink /etc/link";
const WANT: &str = "new\ngone\n1000:50 4755 2\n/x";

#[test]
fn what_a_container_has_become_is_an_image() {
    for driver in ["overlay", "fuse-overlayfs", "copy"] {
        let case = case!(Userns, Subid, Overlay, Fuse).keeping_containers();
        let id = ended(&case, &["--storage-driver", driver], SCRIPT);
        for (name, options) in [("localhost/one:1", &["-q"][..]), ("localhost/flat:1", &["--squash"])] {
            case.rlrun(["commit"]).args(options).args([&id, name]).run().ok();
            let out = case.run(["run", "--rm", "--network", "none", name, "sh", "-c", CHECK]);
            if out.exit != Exit::Code(0) || out.out().trim() != WANT {
                out.fail(&format!("{driver} {name}: expected {WANT}"));
            }
        }
        let layers = |name: &str| -> usize {
            let out = case.run(["image", "inspect", "-f", "{{json .RootFS.Layers}}", name]).ok().out();
            serde_json::from_str::<Value>(&out).unwrap().as_array().unwrap().len()
        };
        assert_eq!(layers("localhost/flat:1"), 1);
        assert_eq!(layers("localhost/one:1"), layers(BASE) + 1);
        case.run(["system", "check"]).ok();
    }
}

#[test]
fn what_was_asked_of_it_is_asked_of_the_next() {
    let case = case!(Userns).keeping_containers();
    let options = ["-e", "A=from user", "-u", "1000", "-w", "/tmp", "-l", "k=v", "--stop-signal", "INT"];
    let id = case.rlrun(["run", "-d", "--network", "none"]).args(options).args([BASE, "echo", "hello"]);
    let id = id.env("https_proxy", "http://me:pw@proxy").leaving_processes().run().ok().out().trim().to_owned();
    let file = case.make_dir("ids").join("id");
    let printed = case
        .rlrun([
            "commit",
            "--iidfile",
            file.to_str().unwrap(),
            "-a",
            "Ann",
            "-m",
            "a message",
            "--change",
            "ENV B=2 C=\"d e\"",
        ])
        .args(["-c", "EXPOSE 80", "-c", "VOLUME /data", "-c", "LABEL l=m", &id, "localhost/next:1"])
        .run()
        .ok()
        .out();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("sha256:{}", printed.trim()));
    let out = case.run(["image", "inspect", "localhost/next:1"]).ok().out();
    let image: Value = serde_json::from_str(&out).unwrap();
    let config = &image[0]["Config"];
    let env = config["Env"].to_string();
    for want in ["\"A=from user\"", "\"B=2\"", "\"C=d e\"", "\"FROM_IMAGE=yes\""] {
        assert!(env.contains(want), "{want} in {env}");
    }
    assert!(!env.contains("proxy") && !env.contains("HOSTNAME"), "what belongs to this host stays here: {env}");
    assert_eq!(config["Cmd"], serde_json::json!(["echo", "hello"]));
    assert_eq!((&config["User"], &config["WorkingDir"]), (&"1000".into(), &"/tmp".into()));
    assert_eq!((&config["Labels"]["k"], &config["Labels"]["l"]), (&"v".into(), &"m".into()));
    assert!(config["ExposedPorts"]["80/tcp"].is_object() && config["Volumes"]["/data"].is_object(), "{config}");
    case.run(["run", "--rm", "--network", "none", "localhost/next:1"]).ok().prints("hello");
    case.run(["history", "--no-trunc", "localhost/next:1"]).ok().says("a message");

    case.run(["commit", &id, "-c", "RUN x"]).refused(125, "no such instruction");
    case.run(["commit", &id, "-c", "ONBUILD RUN x"]).refused(125, "no place in an OCI image");
    case.run(["commit", "-f", "docker", "-c", "ONBUILD RUN x", &id, "localhost/docker:1"]).ok();
    case.run(["commit", "--format", "zip", &id]).refused(125, "no such format");
    case.run(["commit", &id, "Bad Name"]).refused(125, "");
    case.run(["commit", "nosuch"]).refused(125, "no such container");
}

#[test]
fn other_tools_take_such_an_image() {
    let case = case!(Userns, Subid, Skopeo).keeping_containers();
    let id = ended(&case, &[], SCRIPT);
    for (format, kind) in [("oci", "oci.image"), ("docker", "docker.distribution")] {
        let name = format!("localhost/{format}:1");
        case.run(["commit", "--format", format, &id, &name]).ok();
        let directory = case.make_dir(&format!("dir-{format}"));
        case.run([
            "save",
            "--format",
            if format == "oci" { "oci-dir" } else { "docker-dir" },
            "-o",
            directory.to_str().unwrap(),
            &name,
        ])
        .ok();
        let transport = if format == "oci" { "oci" } else { "dir" };
        let out = case
            .invoke("/usr/bin/skopeo".as_ref())
            .args(["inspect", "--raw", &format!("{transport}:{}", directory.display())])
            .run();
        out.ok().says(kind);
    }
}

#[test]
fn a_running_container_can_be_committed() {
    let case = case!(Userns).keeping_containers();
    let id = case.detached(&[], ["sh", "-c", "echo x > /tmp/x; exec sleep 1000"]);
    rlrun_tests::eventually("the file is there", || {
        case.run(["cp", &format!("{id}:/tmp/x"), "-"]).exit == Exit::Code(0)
    });
    case.run(["commit", "--change", "CMD cat /tmp/x", &id, "localhost/live:1"]).ok();
    case.run(["run", "--rm", "--network", "none", "localhost/live:1"]).ok().prints("x");
}
