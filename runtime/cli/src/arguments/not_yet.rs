//! Options and verbs of podman that rlrun knows and does not have: an error that says why, and what to do instead, is
//! worth more than `unexpected argument`.

use rlrun_spec::{Failure, Kind, Stage};

/// Its name, why rlrun does not have it, and what to do instead, where there is something.
type Missing = (&'static str, &'static str, &'static str);

const ONLY_SUBIDS: &str = "such a map lacks your own id, to which the files that make up a container belong";
const MAP_HINT: &str = "--uidmap 0:1:65536 --uidmap 65536:0:1 gives your subordinate ids and yours behind them";
const NO_NET: &str = "a container's network has no other members, and its addresses are the network helper's";
const NET_HINT: &str = "-p publishes ports on addresses of the host";
const NO_PODS: &str = "there are no pods";
const NO_CRIU: &str = "CRIU, which it needs, does not work for ordinary users";
const NO_REAL_TIME: &str = "real-time scheduling is root's alone (sched_setscheduler(2))";
const CPU_HINT: &str = "--cpu-shares and --cpus share the processors";
const ASKED_AGAIN: &str = "a registry that does not answer is asked again three times by itself";

/// Options of `podman run`, sorted.
#[rustfmt::skip]
const OPTIONS: &[Missing] = &[
    ("--blkio-weight-device", "a container has one weight, for all devices", "--blkio-weight sets it; --device-read-bps and its like limit one device"),
    ("--cert-dir", "certificates of registries are read from certs.d", "put them into ~/.config/containers/certs.d/HOST/"),
    ("--cgroup-conf", "cgroups are rlrun's own, with nothing set but the limits", "the options of limits (-m, --cpus, --pids-limit) say what is set"),
    ("--cgroup-parent", "a cgroup is made below the caller's own, and by the user's systemd where there is one", "start rlrun in the cgroup that its containers are to be below: systemd-run --user --scope --slice NAME"),
    ("--chrootdirs", "nothing reads configuration files of directories inside", ""),
    ("--conmon-pidfile", "there is no conmon; the supervisor's pid is State.ConmonPid of `rlrun inspect`", "--pidfile writes the pid of the container's pid 1"),
    ("--cpu-rt-period", NO_REAL_TIME, CPU_HINT),
    ("--cpu-rt-runtime", NO_REAL_TIME, CPU_HINT),
    ("--cpuset-mems", "which memory nodes are used is decided by a cgroup of root's", "--cpuset-cpus keeps a container on CPUs, whose memory the kernel prefers"),
    ("--decryption-key", "encrypted images are not read", ""),
    ("--device-cgroup-rule", "devices are given as mounts; rules need a cgroup of root's", "--device PATH gives a device"),
    ("--disable-content-trust", "podman ignores it too", "leave it out"),
    ("--hostuser", "users inside are the image's", "-v /etc/passwd:/etc/passwd:ro shows the host's"),
    ("--init-ctr", NO_PODS, "run it before: rlrun run --rm"),
    ("--init-path", "the init of --init is a part of rlrun, which nothing inside can change", "--init alone"),
    ("--ip", NO_NET, NET_HINT),
    ("--ip6", NO_NET, NET_HINT),
    ("--mac-address", NO_NET, NET_HINT),
    ("--passwd-entry", "the line is made of --user and the image's files", "-v FILE:/etc/passwd mounts another file"),
    ("--pod", NO_PODS, ""),
    ("--pod-id-file", NO_PODS, ""),
    ("--preserve-fd", "descriptors are passed on by their number", "--preserve-fds N passes on those from 3 on"),
    ("--rdt-class", "cache allocation (resctrl) is root's alone", ""),
    ("--requires", "containers of a pod can require each other, and there are no pods", "rlrun wait --condition running CONTAINER waits for one"),
    ("--retry", ASKED_AGAIN, ""),
    ("--retry-delay", ASKED_AGAIN, ""),
    ("--seccomp-policy", "an image never selects its own filter: its words are hostile input", "--security-opt seccomp=FILE takes a profile of yours"),
    ("--subgidname", ONLY_SUBIDS, MAP_HINT),
    ("--subuidname", ONLY_SUBIDS, MAP_HINT),
];

const FROM_THE_START: &str = "it holds from the start of a container on";
const ANEW: &str = "rlrun run --replace makes the container anew, with all of its options";

/// Options of other verbs, after the verb and sorted.
#[rustfmt::skip]
const OF_VERBS: &[Missing] = &[
    ("generate systemd --pod-prefix", NO_PODS, ""),
    ("secret create --driver-opts", "secrets are files of rlrun's own", "leave it out: rlrun secret create NAME FILE"),
    ("update --blkio-weight-device", "a container has one weight, for all devices", "--blkio-weight sets it; --device-read-bps and its like limit one device"),
    ("update --cpu-rt-period", NO_REAL_TIME, CPU_HINT),
    ("update --cpu-rt-runtime", NO_REAL_TIME, CPU_HINT),
    ("update --cpuset-mems", "which memory nodes are used is decided by a cgroup of root's", "--cpuset-cpus keeps a container on CPUs, whose memory the kernel prefers"),
    ("update --memory-swappiness", FROM_THE_START, ANEW),
];

/// Verbs of podman, sorted.
#[rustfmt::skip]
const VERBS: &[Missing] = &[
    ("artifact", "images are all that the store holds", ""),
    ("auto-update", "nothing in rlrun runs when no command does", "rlrun pull IMAGE, then rlrun run --replace"),
    ("build", "builds are for another version", "podman build or buildah bud make images; rlrun load -i takes them over"),
    ("checkpoint", NO_CRIU, ""),
    ("cleanup", "what a container leaves behind is cleaned by the next command", "rlrun container prune removes containers that have ended"),
    ("clone", "a container is made by its command line alone", "rlrun inspect -f '{{json .Config.CreateCommand}}' CONTAINER prints it, to be run with another --name"),
    ("compose", "there are no networks between containers yet", ""),
    ("farm", "builds are for another version", ""),
    ("init", "what is prepared is started at once", "rlrun create, then rlrun start"),
    ("kube", NO_PODS, ""),
    ("machine", "rlrun runs where it is called", ""),
    ("manifest", "lists of images are read, and not made yet", ""),
    ("migrate", "the store has had one layout only", ""),
    ("network", "there are no networks between containers yet", "-p publishes ports, --network host shares the host's"),
    ("play", NO_PODS, ""),
    ("pod", NO_PODS, ""),
    ("renumber", "there are no numbers of locks", ""),
    ("restore", NO_CRIU, ""),
    ("runlabel", "an image never says what is run on the host", "rlrun image inspect -f '{{json .Labels}}' IMAGE prints its labels"),
];

fn find(table: &'static [Missing], name: &str) -> Option<&'static Missing> {
    table.binary_search_by_key(&name, |(name, _, _)| name).ok().and_then(|at| table.get(at))
}

/// Says that an option of podman's is known and missing, when `word` is one: `--pod`, `--pod=x`.
pub(crate) fn option(word: &str) -> Option<Failure> {
    find(OPTIONS, word.split('=').next().unwrap_or(word)).map(failure)
}

/// The same for an option of another verb: `update`, `secret create`.
pub(crate) fn option_of(verb: &str, word: &str) -> Option<Failure> {
    let option = word.split('=').next().unwrap_or(word);
    let (_, why, hint) = find(OF_VERBS, &format!("{verb} {option}"))?;
    Some(missing(option, why, hint))
}

/// The same for a verb.
pub(crate) fn verb(word: &str) -> Option<Failure> {
    find(VERBS, word).map(failure)
}

fn failure((what, why, hint): &Missing) -> Failure {
    missing(what, why, hint)
}

fn missing(what: &str, why: &str, hint: &str) -> Failure {
    let failure = Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "understand the command line", what);
    let failure = failure.why(format!("rlrun does not have this: {why}"));
    if hint.is_empty() { failure } else { failure.hint(hint) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted_and_say_why() {
        for table in [OPTIONS, OF_VERBS, VERBS] {
            assert!(table.is_sorted_by_key(|(name, _, _)| name));
            assert!(table.iter().all(|(_, why, _)| !why.is_empty()));
        }
    }

    #[test]
    fn an_option_is_found_in_every_spelling() {
        assert!(option("--pod=x").unwrap().to_string().contains("--pod: rlrun does not have this: there are no pods"));
        assert!(option("--nonsense").is_none());
        assert!(
            option_of("update", "--cpuset-mems=0").unwrap().to_string().contains(": --cpuset-mems: rlrun does not")
        );
        assert!(option_of("rm", "--cpuset-mems").is_none());
        assert!(verb("compose").is_some() && verb("run").is_none());
    }
}
