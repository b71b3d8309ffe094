#!/usr/bin/env bash
# Shows rlrun at work: an image made from busybox on the spot, run as an ordinary user, and a run that a policy refuses.
#
#   scripts/demo.sh STAGE
set -euo pipefail
stage=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
readonly IMAGE=localhost/demo:1

# A place that the ordinary user reaches, whoever owns the clone.
work=$(mktemp -d /var/tmp/rlrun-demo-XXXXXX)
server_pid=
finish() {
    [ -z "$server_pid" ] || kill "$server_pid" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
chmod 0755 "$work"
mkdir -m 0700 "$work/home" "$work/run"
cp -r "$stage/." "$work/prefix"

# Root runs everything below as a user without privilege: rootless is the point.
as_user=()
if [ "$(id -u)" = 0 ]; then
    user=${RLRUN_ORDINARY_USER:-rlrun-test}
    chown -R "$user:" "$work/home" "$work/run" "$work/prefix"
    as_user=(setpriv --reuid "$(id -u "$user")" --regid "$(id -g "$user")" --init-groups)
else
    user=$(id -un)
fi

rlrun() {
    "${as_user[@]}" env -i HOME="$work/home" XDG_RUNTIME_DIR="$work/run" USER="$user" TERM="${TERM:-dumb}" \
        PATH="$work/prefix/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" rlrun "$@"
}

# show COMMAND...: prints it as a user would type it, then runs it.
show() {
    printf '\n$'
    local word
    for word; do case $word in *[!A-Za-z0-9/:=._-]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac; done
    printf '\n'
    "$@"
}

title() { printf '\n=== %s\n' "$*"; }

make_image() {
    local rootfs=$work/rootfs applet
    mkdir -p "$rootfs"/{bin,etc,proc,sys,dev,tmp,root}
    cp "$(command -v busybox)" "$rootfs/bin/busybox"
    for applet in sh id cat grep wget echo ls; do ln -s busybox "$rootfs/bin/$applet"; done
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$rootfs/etc/passwd"
    printf 'root:x:0:\n' >"$rootfs/etc/group"
    tar --create --file "$work/rootfs.tar" --owner=0 --group=0 --numeric-owner --directory "$rootfs" .
    chmod 0644 "$work/rootfs.tar"
}

# An address of this host that is not loopback: loopback is what a container must not reach.
host_address() { ip -4 -o addr show scope global | awk '{ sub("/.*", "", $4); print $4; exit }'; }

start_server() {
    local address=$1 port
    mkdir "$work/www"
    printf 'Hello from a server on the host.\n' >"$work/www/index.html"
    for port in $(shuf -i 20000-60000 -n 20); do
        busybox httpd -f -p "$address:$port" -h "$work/www" 2>/dev/null &
        server_pid=$!
        until busybox wget -q -O /dev/null "http://$address:$port/" 2>/dev/null; do
            kill -0 "$server_pid" 2>/dev/null || continue 2
        done
        url=http://$address:$port/
        return
    done
    echo 'demo: no free port' >&2
    exit 1
}

refused() {
    local code=0
    show "$@" 2>&1 || code=$?
    printf '(exit code %s)\n' "$code"
    [ "$code" = 125 ] || { echo 'demo: this should have been refused with exit code 125' >&2; exit 1; }
}

"$here/provision.sh" build run
make_image

title "rlrun runs as $user, uid $("${as_user[@]}" id -u); the image is made from busybox"
show rlrun import "$work/rootfs.tar" "$IMAGE"
show rlrun images

title 'Inside: root of its own user namespace, on an overlay'
# The limit on processes is a user namespace below the first, and shows ids of that one; without it the host's are seen.
# shellcheck disable=SC2016 # for the shell inside
show rlrun run --rm --network none --pids-limit -1 "$IMAGE" sh -c \
    'echo "I am $(id)"; echo "ids inside, outside, count:"; cat /proc/self/uid_map; grep " / " /proc/mounts | cut -c1-60'

title 'A page over the slirp4netns network'
address=$(host_address)
if [ -n "$address" ]; then
    start_server "$address"
    show rlrun run --rm --network slirp4netns "$IMAGE" wget -q -O - "$url"
else
    echo 'this host has no address but loopback, which containers do not reach: skipped'
fi

title 'What the kernel enforces'
show rlrun run --rm --network none "$IMAGE" grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status

title 'A policy is asked before anything starts: this one refuses'
refused rlrun run --rm --network none --privileged "$IMAGE" echo 'this must not be printed'
refused rlrun run --rm --network none --volume /etc:/host-etc "$IMAGE" cat /host-etc/shadow

printf '\nThe demo ended as it should.\n'
