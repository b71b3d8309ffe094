#!/usr/bin/env bash
# Measures rlrun against its peers, all in one run on one machine as one ordinary user, and writes docs/benchmarks.md.
#
#   scripts/bench.sh STAGE [OUTPUT]          RLRUN_BENCH_RUNS: runs of each command (default 40)
set -euo pipefail
# Below a first process that reaps at once, as on an ordinary host: where it is late, a start waits for its network helper.
if [ "$(id -u)" = 0 ] && [ "$$" != 1 ]; then exec unshare --pid --fork --mount-proc "$0" "$@"; fi
stage=$(realpath "$1")
output=$(realpath -m "${2:-docs/benchmarks.md}")
readonly RUNS=${RLRUN_BENCH_RUNS:-40} ROUNDS=4
readonly IMAGE=localhost/bench:1

# shellcheck source=scripts/bench-place.sh
. "$(dirname "$0")/bench-place.sh"
trap leave EXIT

make_inputs() {
    local rootfs=$work/rootfs
    mkdir -p "$rootfs"/{bin,etc,proc,sys,dev,tmp,root}
    cp "$(command -v busybox)" "$rootfs/bin/busybox"
    ln -s busybox "$rootfs/bin/true"
    ln -s busybox "$rootfs/bin/sleep"
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$rootfs/etc/passwd"
    tar --create --file "$work/rootfs.tar" --owner=0 --group=0 --numeric-owner --directory "$rootfs" .
    if [ "$(id -u)" = 0 ]; then chown -R "$user:" "$work/home" "$work/run" "$work/rootfs" "$work/results" "$work/prefix"; fi
    chmod 0644 "$work/rootfs.tar"

    as_user rlrun import "$work/rootfs.tar" "$IMAGE" >/dev/null
    as_user podman --log-level error import --quiet "$work/rootfs.tar" "$IMAGE" >/dev/null
    make_bundle
    install_policies
}

# A ready bundle for runc and crun: the same root file system, no network, no terminal.
make_bundle() {
    mkdir "$work/bundle"
    cp -a "$work/rootfs" "$work/bundle/rootfs"
    if [ "$(id -u)" = 0 ]; then chown "$user:" "$work/bundle"; fi
    as_user sh -c 'cd "$1" && runc spec --rootless' sh "$work/bundle"
    as_user sh -c 'cd "$1" && jq ".process.args = [\"true\"] | .process.terminal = false | .linux.namespaces += [{\"type\":\"network\"}]
        | .linux.namespaces |= unique_by(.type)" config.json >new && mv new config.json' sh "$work/bundle"
}

# The built-in `baseline` is asked in every run; two more of the user make three.
install_policies() {
    local policies=$work/prefix/share/rlrun/policies directory=$work/home/.config/rlrun/policy.d name
    as_user mkdir -p "$directory"
    for name in image-source least-privilege; do
        as_user cp "$policies/$name.wasm" "$directory/"
        if [ -e "$policies/$name.bench.toml" ]; then as_user cp "$policies/$name.bench.toml" "$directory/$name.toml"; fi
    done
}

# measure NAME COMMAND...: adds the milliseconds of some runs to those of NAME; no more of it when the command does not work here.
measure() {
    local name=$1 times
    times=$work/results/times.$(printf '%s' "$1" | tr -c 'a-z0-9\n' _)
    shift
    if [ ! -e "$times" ]; then
        if ! as_user "$@" >"$work/results/out" 2>&1; then
            grep -qF "$name: " "$work/results/failed" 2>/dev/null ||
                printf '%s: %s\n' "$name" "$(tail -n 1 "$work/results/out")" | tee -a "$work/results/failed" >&2
            return
        fi
        printf '%s\n' "$name" >>"$work/results/order"
        printf '  %s\n' "$name" >&2
    fi
    # hyperfine joins words with spaces only when given a string: quote each.
    as_user hyperfine --shell=none --style none --warmup 3 --runs "$((RUNS / ROUNDS))" --export-json "$work/results/json" \
        "$(printf '%q ' "$@")" >/dev/null 2>&1
    jq '.results[0].times[] * 1000' "$work/results/json" >>"$times"
}

# One line a command: its name, median, minimum and spread in milliseconds.
sum_up() {
    local name
    while IFS= read -r name; do
        sort -g "$work/results/times.$(printf '%s' "$name" | tr -c 'a-z0-9\n' _)" | awk -v name="$name" '
            { v[NR] = $1; sum += $1; squares += $1 * $1 }
            END { m = sum / NR; d = squares / NR - m * m
                  printf "%s\t%f\t%f\t%f\n", name, v[int((NR + 1) / 2)], v[1], sqrt(d > 0 ? d : 0) }'
    done <"$work/results/order" >"$work/results/times"
}

median() { awk -F '\t' -v name="$1" '$1 == name { print $2 }' "$work/results/times"; }

measure_all() {
    local podman=(podman --log-level error --cgroup-manager cgroupfs --runtime runc run --rm)
    local namespaces=(--user --map-root-user --map-auto --mount --pid --fork --net --ipc --uts --cgroup)
    settle_cache
    measure 'rlrun run, no network, three policies' rlrun run --rm --network none "$IMAGE" true
    measure 'podman --runtime runc run, no network' "${podman[@]}" --network none "$IMAGE" true
    measure 'runc run, ready bundle' runc --root "$work/run/runc" run --bundle "$work/bundle" bench
    measure 'crun run, ready bundle' crun --root "$work/run/crun" --cgroup-manager disabled run --bundle "$work/bundle" bench
    measure 'bubblewrap, ready root, one id' bwrap --unshare-all --bind "$work/rootfs" / --proc /proc --dev /dev true
    measure 'unshare, mapped ids' unshare "${namespaces[@]}" true
    measure 'rlrun run, slirp4netns' rlrun run --rm --network slirp4netns "$IMAGE" true
    measure 'podman --runtime runc run, slirp4netns' "${podman[@]}" --network slirp4netns "$IMAGE" true
    measure 'slirp4netns to ready, and a script around it' "$work/slirp-start.sh"
    measure 'the script without slirp4netns' "$work/slirp-start.sh" without
}

# What slirp4netns itself takes: from its start to its word on the ready descriptor, with the options that rlrun gives it. The
# script without it is measured beside it, to be subtracted: it makes the namespace, which slirp4netns cannot do without.
make_slirp_probe() {
    cat >"$work/slirp-start.sh" <<'PROBE'
#!/bin/sh
exec unshare --user --map-root-user --net bash -c '
    mkfifo "$0.$$" && exec 3<>"$0.$$" && rm "$0.$$"
    if [ -z "$1" ]; then
        slirp4netns --configure --mtu=65520 --disable-host-loopback --enable-sandbox --enable-seccomp --ready-fd=3 $$ tap0 >/dev/null 2>&1 &
    else
        printf 1 >&3
    fi
    read -r -n 1 -u 3
    if [ -z "$1" ]; then kill -KILL $!; fi' "$XDG_RUNTIME_DIR/ready" "$1"
PROBE
    chmod 0755 "$work/slirp-start.sh"
}

# memory PID: resident and proportional set in KiB.
memory() { awk '$1 == "Rss:" { rss = $2 } $1 == "Pss:" { pss = $2 } END { print rss "\t" pss }' "/proc/$1/smaps_rollup"; }

wait_for() {
    local tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ "$tries" -lt 2000 ] || { printf 'bench: gave up waiting: %s\n' "$*" >&2; return 1; }
        sleep 0.01
    done
}

# Whether a process named sleep is somewhere below a process.
runs_payload() {
    local child
    for child in $(pgrep --parent "$1"); do
        if [ "$(cat "/proc/$child/comm" 2>/dev/null)" = sleep ] || runs_payload "$child"; then return 0; fi
    done
    return 1
}

measure_memory() {
    # Each has a payload that sleeps; what is measured is the process that stays beside it.
    "${chain[@]}" rlrun run --rm --network none "$IMAGE" sleep 1000 &
    # The supervisor takes the place of rlrun and keeps its pid.
    local supervisor=$! conmon container
    wait_for runs_payload "$supervisor"
    container=$(as_user podman --log-level error --cgroup-manager cgroupfs --runtime runc run --detach --network none "$IMAGE" sleep 1000)
    conmon=$(as_user podman inspect --format '{{.State.ConmonPid}}' "$container")
    printf 'rlrun-supervisor\t%s\n' "$(memory "$supervisor")" >>"$work/results/memory"
    printf 'conmon\t%s\n' "$(memory "$conmon")" >>"$work/results/memory"
    as_user podman rm --force --time 0 "$container" >/dev/null
    kill -KILL "$supervisor"
    wait "$supervisor" 2>/dev/null || true
}

traced() { as_user rlrun run --trace --rm --network none "$IMAGE" true; }

# Files younger than two seconds are hashed each time, because they could change again within one timestamp: this is what
# a user has two seconds after a policy was installed.
settle_cache() {
    traced 2>/dev/null
    sleep 3
    traced 2>/dev/null
}

# --trace of one run with an empty cache of compiled policies and of some with a full one.
measure_policies() {
    as_user rm -rf "$work/home/.cache/rlrun"
    traced 2>"$work/results/cold"
    settle_cache
    local n
    for n in $(seq "$RUNS"); do
        traced 2>"$work/results/warm.$n"
        awk '/policy code loaded|policy verdict/ { sum += $2 } END { print sum }' "$work/results/warm.$n" >>"$work/results/policies"
    done
}

policies_median() { sort -n "$work/results/policies" | awk '{ v[NR] = $1 } END { printf "%.2f", v[int((NR + 1) / 2)] }'; }

version() { "$@" 2>/dev/null | head -n 1 | grep -oE '[0-9]+\.[0-9][0-9.]*' | head -n 1; }

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (a > 0 && b > 0) printf "%.1f", b / a; else printf "–" }'; }

# What is missed, by how much, where the time is and what would get it.
missed() {
    local over
    over=$(awk -v a="$(policies_median)" 'BEGIN { if (a > 1) printf "%.2f", a - 1 }')
    [ -z "$over" ] || cat <<MISSED

The policies miss their target by $over ms. Taken apart with a clock, at another time and on a quiet machine: a third is reading the machine code of
three policies, 0.10 to 0.15 ms each, nearly all of it the types of their interfaces; a third is asking them; a third is what
any number of policies costs, the engine, its imports, the cache and the directories. Two threads do not read faster than one.
An engine that keeps the types of a component in the form in which it uses them would get it.
MISSED
    awk -v a="$1" 'BEGIN { exit !(a > 8) }' &&
        printf '\nThe aim of 20 times is about 8 ms. The steps below of half a millisecond and more are what lies between: executing two\nprograms (supervisor, mapper), writing the id maps with two set-user-ID helpers, the mounts, the policies, and the end of\nthe namespaces in the kernel.\n'
    # An ext4 with a journal is listed there (jbd2).
    [ "$(findmnt --noheadings --output FSTYPE --target "$work")" = ext4 ] || return 0
    [ -z "$(ls -A /proc/fs/jbd2 2>/dev/null)" ] || return 0
    cat <<'JOURNAL'

The file systems of this machine have no journal. ext4 then passes over every inode that was freed in the last minutes, and making
the files of a container (`name claimed`, `record written`, `root file system`) takes longer the more containers were removed before.
JOURNAL
    findmnt --noheadings --output OPTIONS --target "$work" | grep -qw discard || return 0
    cat <<'DISCARD'

They also tell the disk of each block that is freed (`discard`), and without a journal whoever frees it waits for the answer: a
directory is a block, and a container has seven, four of them for the kernel's overlay. That is most of `container gone`, and more
the busier the disk is.
DISCARD
    return 0
}

report() {
    local mine name median_ms min_ms spread
    mine=$(median 'rlrun run, no network, three policies')
    cat <<HEAD
# Benchmarks

Written by \`make bench\`; everything in one run on one machine, as one ordinary user, $RUNS runs of each command in $ROUNDS rounds (hyperfine, no shell), every
command from an image or root file system with nothing but busybox.

| machine | |
|---|---|
| kernel | $(uname -r | grep -oE '^[0-9]+\.[0-9]+\.[0-9]+') |
| processors | $(nproc), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1) |
| distribution | $(. /etc/os-release && printf '%s' "$PRETTY_NAME") |
| rlrun | $(version as_user rlrun --version), release build |
| podman, runc, crun | $(version podman --version), $(version runc --version), $(version crun --version) |
| bubblewrap, slirp4netns | $(version bwrap --version), $(version slirp4netns --version) |

## Start to end of \`true\`

| command | median ms | least ms | spread ms | times rlrun |
|---|---|---|---|---|
HEAD
    while IFS=$'\t' read -r name median_ms min_ms spread; do
        printf '| %s | %.1f | %.1f | %.1f | %s |\n' "$name" "$median_ms" "$min_ms" "$spread" "$(ratio "$mine" "$median_ms")"
    done <"$work/results/times"
    [ ! -e "$work/results/failed" ] || { printf '\nDid not run here:\n\n'; sed 's/^/* /' "$work/results/failed"; }
    local slirp added
    slirp=$(awk -v a="$(median 'slirp4netns to ready, and a script around it')" -v b="$(median 'the script without slirp4netns')" \
        'BEGIN { printf "%.1f", a - b }')
    added=$(awk -v a="$mine" -v b="$(median 'rlrun run, slirp4netns')" 'BEGIN { printf "%.1f", b - a }')
    cat <<TARGETS

| target | asked | measured |
|---|---|---|
| podman's run of the same takes longer than rlrun's by | 10 times, aim 20 | $(ratio "$mine" "$(median 'podman --runtime runc run, no network')") times |
| \`runc run\` of a ready bundle takes longer | yes | $(ratio "$mine" "$(median 'runc run, ready bundle')") times |
| slirp4netns adds to rlrun less than its own start | under $slirp ms | $added ms |
| three policies from a warm cache, loaded and asked in a fresh process | under 1 ms | $(policies_median) ms |

slirp4netns' own start is the first of the two scripts less the second.
$(missed "$mine")

## Memory of the process that stays beside a container

| process | resident KiB | proportional KiB |
|---|---|---|
TARGETS
    while IFS=$'\t' read -r name rss pss; do printf '| %s | %s | %s |\n' "$name" "$rss" "$pss"; done <"$work/results/memory"
    printf '\nTarget: resident at most 1536 KiB, proportional at most what conmon takes beside it.\n'
    printf '\n## Where the time goes\n\n`rlrun run --trace` with an empty cache of compiled policies:\n\n```\n'
    cat "$work/results/cold"
    printf '```\n\nand with a full one:\n\n```\n'
    cat "$work/results/warm.$RUNS"
    printf '```\n'
}

make_inputs
make_slirp_probe
# In turns: what one command leaves behind, on the disk above all, slows the others as well.
printf 'measuring, %s runs each, in %s rounds:\n' "$RUNS" "$ROUNDS" >&2
for _ in $(seq "$ROUNDS"); do measure_all; done
sum_up
measure_memory
measure_policies
mkdir -p "$(dirname "$output")"
report >"$work/results/report.md"
install -m 0644 "$work/results/report.md" "$output"
printf 'written: %s\n' "$output" >&2
