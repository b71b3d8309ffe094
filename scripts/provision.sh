#!/usr/bin/env bash
# Installs what building, running, testing or measuring rlrun needs on Debian 12, and nothing that is there already.
#
#   scripts/provision.sh NEED...        NEED: build run test check bench vm
#
# Root does it directly, an ordinary user through `sudo -n`. Where neither works, it prints the commands for an
# administrator and fails. When nothing is missing it only looks at files: no package manager, no network.
set -euo pipefail
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# NEED  what must exist (a command, or an absolute path)  Debian package
readonly TABLE='
build cc                          gcc
build /usr/include/string.h       libc6-dev
build pkg-config                  pkg-config
build /usr/include/seccomp.h      libseccomp-dev
run   newuidmap                   uidmap
run   slirp4netns                 slirp4netns
run   fuse-overlayfs              fuse-overlayfs
run   fuse2fs                     fuse2fs
run   busybox                     busybox-static
run   ip                          iproute2
run   setpriv                     util-linux
test  docker-registry             docker-registry
test  openssl                     openssl
test  zstd                        zstd
test  gpg                         gpg
test  gpg-agent                   gpg-agent
test  gpgv                        gpgv
test  skopeo                      skopeo
test  umoci                       umoci
test  podman                      podman
test  runc                        runc
test  clang                       clang
test  wasm-ld                     lld
test  /usr/include/wasm32-wasi    wasi-libc
test  /usr/lib/llvm-14/lib/clang/14.0.6/lib/wasi libclang-rt-dev-wasm32
test  /usr/share/doc/python3-venv python3-venv
check codespell                   codespell
check shellcheck                  shellcheck
bench podman                      podman
bench runc                        runc
bench crun                        crun
bench conmon                      conmon
bench bwrap                       bubblewrap
bench hyperfine                   hyperfine
bench jq                          jq
bench cpulimit                    cpulimit
vm    mmdebstrap                  mmdebstrap
vm    qemu-system-x86_64          qemu-system-x86
vm    mke2fs                      e2fsprogs
'
# Root runs the tests and the demo as this user: rootless is what they are about.
readonly ORDINARY_USER=${RLRUN_ORDINARY_USER:-rlrun-test}
readonly IDS=65536

say() { printf 'provision: %s\n' "$*" >&2; }

exists() {
    case $1 in
        /*) [ -e "$1" ] ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

missing_packages() {
    local need thing package
    while read -r need thing package; do
        [ -n "$need" ] || continue
        case " $* " in *" $need "*) exists "$thing" || printf '%s\n' "$package" ;; esac
    done <<<"$TABLE"
}

# The devices are 0666 on stock distributions; minimal machines create them for root only.
closed_devices() {
    local dev
    for dev in /dev/fuse /dev/net/tun; do
        if [ -c "$dev" ] && [ "$(stat -c %a "$dev")" != 666 ]; then printf '%s\n' "$dev"; fi
    done
}

# has_range FILE USER: a range of at least $IDS ids, under the name or the number.
has_range() {
    [ -r "$1" ] || return 1
    local line_user start count uid
    uid=$(id -u "$2" 2>/dev/null) || return 1
    while IFS=: read -r line_user start count; do
        if [ "$line_user" = "$2" ] || [ "$line_user" = "$uid" ]; then
            [ "${count:-0}" -ge "$IDS" ] 2>/dev/null && return 0
        fi
    done <"$1"
    return 1
}

target_user() { if [ "$(id -u)" = 0 ]; then printf '%s' "$ORDINARY_USER"; else id -un; fi; }

user_ready() { id -u "$1" >/dev/null 2>&1 && has_range /etc/subuid "$1" && has_range /etc/subgid "$1"; }

# The first id above every range that either file grants, rounded up, so that no two users share an id.
free_range_start() {
    local file highest=100000 _ start count
    for file in /etc/subuid /etc/subgid; do
        [ -r "$file" ] || continue
        while IFS=: read -r _ start count; do
            case "$start$count" in *[!0-9]* | '') continue ;; esac
            if [ $((start + count)) -gt "$highest" ]; then highest=$((start + count)); fi
        done <"$file"
    done
    printf '%s' $(((highest + IDS - 1) / IDS * IDS))
}

install_packages() {
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    # Package lists may be absent or older than the archive: refresh them only when an install needs it.
    if ! apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1; then
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    fi
    # The tests start a registry of their own; the package's service is not wanted.
    case " $* " in *" docker-registry "*)
        if [ -d /run/systemd/system ]; then systemctl disable --now docker-registry >/dev/null 2>&1 || say 'could not stop the docker-registry service'; fi ;;
    esac
}

prepare_user() {
    local user=$1 start
    id -u "$user" >/dev/null 2>&1 || { say "creating the user $user"; useradd --create-home --shell /bin/bash "$user"; }
    if ! user_ready "$user"; then
        start=$(free_range_start)
        say "granting $user the subordinate ids $start-$((start + IDS - 1))"
        has_range /etc/subuid "$user" || usermod --add-subuids "$start-$((start + IDS - 1))" "$user"
        has_range /etc/subgid "$user" || usermod --add-subgids "$start-$((start + IDS - 1))" "$user"
    fi
}

# Python for policies has no Debian package. Without it the tests that need it are skipped, and say so.
readonly COMPONENTIZE=componentize-py==0.25.1
prepare_python() {
    local home=/opt/componentize-py
    exists componentize-py && return 0
    say "installing $COMPONENTIZE into $home"
    if /usr/bin/python3 -m venv "$home" && "$home/bin/pip" -q install "$COMPONENTIZE"; then
        ln -sf "$home/bin/componentize-py" /usr/local/bin/
    else
        say 'it could not be installed: the tests of policies in Python will be skipped'
    fi
}

# Runs as root only; `user` is the one who will run containers.
mend() {
    local user=$1 dev
    shift
    local packages
    packages=$(missing_packages "$@")
    # shellcheck disable=SC2086 # one word a package
    [ -z "$packages" ] || install_packages $packages
    if [ ! -c /dev/net/tun ]; then
        modprobe tun 2>/dev/null || { mkdir -p /dev/net && mknod -m 0666 /dev/net/tun c 10 200; }
    fi
    if [ ! -c /dev/fuse ]; then
        modprobe fuse 2>/dev/null || mknod -m 0666 /dev/fuse c 10 229
    fi
    for dev in $(closed_devices); do chmod 0666 "$dev"; done
    case " $* " in *" test "*) prepare_python ;; esac
    prepare_user "$user"
}

needs_mending() {
    [ -n "$(missing_packages "$@")" ] || [ -n "$(closed_devices)" ] || [ ! -c /dev/net/tun ] || [ ! -c /dev/fuse ] || ! user_ready "$(target_user)"
}

tell_administrator() {
    local user packages
    user=$(target_user)
    packages=$(missing_packages "$@" | tr '\n' ' ')
    say 'something is missing and this user may not install it; as root:'
    [ -z "$packages" ] || printf '    apt-get update && apt-get install -y --no-install-recommends %s\n' "$packages" >&2
    [ -z "$(closed_devices)" ] || printf '    chmod 0666 /dev/fuse /dev/net/tun\n' >&2
    [ -c /dev/net/tun ] || printf '    modprobe tun\n' >&2
    [ -c /dev/fuse ] || printf '    modprobe fuse\n' >&2
    if ! user_ready "$user"; then
        local start
        start=$(free_range_start)
        printf '    usermod --add-subuids %s-%s --add-subgids %s-%s %s\n' \
            "$start" "$((start + IDS - 1))" "$start" "$((start + IDS - 1))" "$user" >&2
    fi
}

main() {
    # Called again by itself through sudo, on behalf of an ordinary user.
    if [ "${1:-}" = --for ]; then
        shift
        mend "$@"
        return
    fi
    [ $# -gt 0 ] || set -- build run
    needs_mending "$@" || return 0
    if [ "$(id -u)" = 0 ]; then
        mend "$ORDINARY_USER" "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$0" --for "$(id -un)" "$@"
    else
        tell_administrator "$@"
        return 1
    fi
    # Look again: an installed package that does not bring what the table says is a defect of the table.
    if needs_mending "$@"; then
        tell_administrator "$@"
        return 1
    fi
}

main "$@"
