#!/usr/bin/env bash
# Runs the tests of limits in an emulated machine: a stock Debian 12 with systemd, a user session and delegated cgroups.
#
#   scripts/test-vm.sh STAGE [v2|v1|all] [TEST FILTER...]
#
# The machine is emulated (no KVM is needed) and is made of Debian packages only. Its disk is kept, named by what it was
# made of, and never written to: every run starts from the same one. RLRUN_VM_RUN is a program to run instead of the
# tests; it finds the staged tree in $RLRUN_STAGE and what lies in the directory RLRUN_VM_FILES in its own.
set -euo pipefail
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
cd "$(dirname "$0")/.."

say() { printf 'test-vm: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ $# -ge 1 ] || die 'usage: scripts/test-vm.sh STAGE [v2|v1|all] [TEST FILTER...]'
stage=$(realpath "$1")
shift
hierarchies=${1:-all}
[ $# -eq 0 ] || shift
[ "$hierarchies" != all ] || hierarchies='v2 v1'
[ "$(id -u)" = 0 ] || die 'the disk image is made by root (owners, device nodes); run it as root'
target=${CARGO_TARGET_DIR:-$PWD/target}
cache=$target/vm
# Emulation is slow, and a busy machine makes it slower.
patience=${RLRUN_VM_SECONDS:-1500}

readonly USER_NAME=rlrun-test
readonly PACKAGES=linux-image-cloud-amd64,systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,udev,uidmap,\
slirp4netns,fuse-overlayfs,busybox-static,iproute2,util-linux,procps,kmod,cpulimit,libseccomp2,jq

# Everything that a booted machine does: it mounts the second disk, runs what is there, and turns itself off.
guest_setup() {
    cat <<'GUEST'
set -eu
root=$1
user=$2
echo rlrun-vm >"$root/etc/hostname"
chroot "$root" useradd --create-home --shell /bin/bash "$user"
mkdir -p "$root/mnt/work" "$root/var/lib/systemd/linger"
: >"$root/var/lib/systemd/linger/$user"
cat >"$root/etc/systemd/system/rlrun-work.service" <<UNIT
[Unit]
Description=What this machine is for
After=multi-user.target user@$(chroot "$root" id -u "$user").service
[Service]
Type=oneshot
StandardOutput=file:/dev/ttyS1
StandardError=inherit
ExecStart=/bin/sh -c 'mount -o ro /dev/vdb /mnt/work; sh /mnt/work/run; echo "exit \$\$?"'
ExecStopPost=/usr/bin/systemctl --no-block poweroff
[Install]
WantedBy=graphical.target multi-user.target
UNIT
chroot "$root" systemctl -q enable rlrun-work.service
chroot "$root" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer fstrim.timer e2scrub_all.timer \
    systemd-timesyncd.service getty@tty1.service serial-getty@ttyS0.service
chroot "$root" systemctl -q set-default multi-user.target
printf 'fuse\ntun\noverlay\n' >"$root/etc/modules"
rm -rf "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/*
GUEST
}

make_disk() {
    local key disk
    key=$({ guest_setup; printf '%s %s\n' "$PACKAGES" "$USER_NAME"; } | sha256sum | cut -c1-16)
    disk=$cache/$key
    if [ ! -e "$disk/ready" ]; then
        say 'making the disk of the machine (once)'
        scripts/provision.sh vm
        rm -rf "$disk"
        mkdir -p "$disk"
        local tree
        tree=$(mktemp -d /var/tmp/rlrun-vm-XXXXXX)
        guest_setup >"$disk/setup"
        mmdebstrap --quiet --variant=minbase --include="$PACKAGES" \
            --customize-hook="sh '$disk/setup' \"\$1\" $USER_NAME" bookworm "$tree/root" >"$disk/log" 2>&1 ||
            { tail -n 20 "$disk/log" >&2; rm -rf "$tree"; die 'mmdebstrap failed'; }
        cp "$tree"/root/boot/vmlinuz-* "$disk/vmlinuz"
        cp "$tree"/root/boot/initrd.img-* "$disk/initrd"
        mke2fs -q -t ext4 -d "$tree/root" "$disk/disk" 3G >/dev/null
        rm -rf "$tree"
        : >"$disk/ready"
    fi
    printf '%s' "$disk"
}

# The program of the end-to-end tests, as Cargo names it.
test_program() {
    cargo test --quiet --no-run -p rlrun-tests --test e2e --message-format=json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*e2e-[^"]*\)".*/\1/p' | tail -n 1
}

# make_work DIRECTORY FILTER...: the second disk.
make_work() {
    local work=$1
    shift
    cp -r "$stage" "$work/stage"
    if [ -n "${RLRUN_VM_FILES:-}" ]; then cp -r "$RLRUN_VM_FILES/." "$work"; fi
    if [ -n "${RLRUN_VM_RUN:-}" ]; then
        install -m 0755 "$RLRUN_VM_RUN" "$work/program"
        printf 'export RLRUN_STAGE=/mnt/work/stage RLRUN_USER=%s\ncd /mnt/work && exec ./program\n' "$USER_NAME" >"$work/run"
    else
        local program
        program=$(test_program) || die 'the tests do not compile'
        install -m 0755 "$program" "$work/e2e"
        [ $# -gt 0 ] || set -- cgroups:: limits:: memory::
        cat >"$work/run" <<RUN
export RLRUN_STAGE=/mnt/work/stage RLRUN_TEST_ROOT=/var/tmp/rlrun RLRUN_MUST_HAVE=userns,subid,overlay,cgroup
mkdir -m 0755 /var/tmp/rlrun
version=2
# Version 1 has no user session that hands anything down: what an administrator gives is a directory of the user's.
if [ ! -f /sys/fs/cgroup/cgroup.controllers ]; then
    version=1
    RLRUN_MUST_HAVE=\$RLRUN_MUST_HAVE,cgroup-io
    for name in blkio cpu cpuset memory pids; do
        mkdir "/sys/fs/cgroup/\$name/$USER_NAME"
        for file in cpus mems; do
            if [ \$name = cpuset ]; then cat /sys/fs/cgroup/cpuset/cpuset.\$file >/sys/fs/cgroup/cpuset/$USER_NAME/cpuset.\$file; fi
        done
        chown $USER_NAME: "/sys/fs/cgroup/\$name/$USER_NAME"
        echo \$\$ >"/sys/fs/cgroup/\$name/$USER_NAME/cgroup.procs"
    done
fi
# What hangs is ended, and who is left is told.
tests() {
    timeout 900 /mnt/work/e2e --test-threads 1 "\$@" && return
    code=\$?
    if [ \$code = 124 ]; then ps axfo pid,ppid,user,stat,wchan:20,etimes,args | grep -v ']$'; fi
    return \$code
}
tests $* || exit
# With version 2 once more in a directory of the user's, which has what a session of Debian's does not hand down.
if [ \$version = 2 ]; then
    given=/sys/fs/cgroup/given
    echo '+cpu +cpuset +io +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
    mkdir -p \$given/tests
    for directory in \$given \$given/tests; do
        chown $USER_NAME: \$directory \$directory/cgroup.procs \$directory/cgroup.subtree_control
    done
    echo \$\$ >\$given/tests/cgroup.procs
    RLRUN_MUST_HAVE=\$RLRUN_MUST_HAVE,cgroup-io
    tests cgroups::
fi
RUN
    fi
    mke2fs -q -t ext4 -d "$work" "$work.disk" 512M >/dev/null
}

# boot DISK WORK HIERARCHY
boot() {
    local disk=$1 work=$2 hierarchy=$3 switch
    case $hierarchy in
        v2) switch=1 ;;
        v1) switch=0 ;;
        *) die "no hierarchy $hierarchy" ;;
    esac
    local log=$work.$hierarchy.log
    : >"$log"
    local began=$SECONDS
    timeout --foreground "$patience" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 -nodefaults -no-reboot \
        -display none -kernel "$disk/vmlinuz" -initrd "$disk/initrd" \
        -append "root=/dev/vda rw console=ttyS0 quiet panic=-1 systemd.unified_cgroup_hierarchy=$switch" \
        -drive "file=$disk/disk,format=raw,if=virtio,snapshot=on" -drive "file=$work.disk,format=raw,if=virtio,readonly=on" \
        -device virtio-rng-pci -serial "file:$log.boot" -serial "file:$log" </dev/null || true
    tr -d "\r" <"$log"
    say "$hierarchy: $((SECONDS - began)) s, the machine's start included"
    grep -q '^exit 0' "$log" || { tail -n 5 "$log.boot" >&2; return 1; }
}

main() {
    local disk work failed=0 hierarchy
    disk=$(make_disk)
    work=$(mktemp -d /var/tmp/rlrun-vm-XXXXXX)
    # shellcheck disable=SC2064 # the name is known now
    trap "rm -rf '$work' '$work'.*" EXIT
    make_work "$work" "$@"
    for hierarchy in $hierarchies; do
        say "booting with cgroup $hierarchy"
        boot "$disk" "$work" "$hierarchy" || failed=1
    done
    return "$failed"
}

main "$@"
