#!/usr/bin/env bash
# Measures many containers at once, rlrun against podman in the same run on one machine as one ordinary user, and writes
# docs/benchmarks-scale.md.
#
#   scripts/bench-scale.sh STAGE [OUTPUT]
#
#   RLRUN_BENCH_CONTAINERS   running at once (default 300)      RLRUN_BENCH_RECORDS   records for ps (default 1000)
#   RLRUN_BENCH_PARALLEL     runs at a time (default 64)        RLRUN_BENCH_RUNS      runs of exec and ps (default 40)
set -euo pipefail
stage=$(realpath "$1")
output=$(realpath -m "${2:-docs/benchmarks-scale.md}")
readonly CONTAINERS=${RLRUN_BENCH_CONTAINERS:-300} RECORDS=${RLRUN_BENCH_RECORDS:-1000}
readonly PARALLEL=${RLRUN_BENCH_PARALLEL:-64} RUNS=${RLRUN_BENCH_RUNS:-40}
readonly IMAGE=localhost/bench:1

# shellcheck source=scripts/bench-place.sh
. "$(dirname "$0")/bench-place.sh"
podman() { as_user podman --log-level error --cgroup-manager cgroupfs --runtime runc "$@"; }
rlrun() { as_user rlrun "$@"; }

finish() {
    rlrun rm -f -t 0 --all >/dev/null 2>&1 || true
    podman rm --force --time 0 --all >/dev/null 2>&1 || true
    leave
}
trap finish EXIT

make_image() {
    local rootfs=$work/rootfs
    mkdir -p "$rootfs"/{bin,etc,proc,sys,dev,tmp,root}
    cp "$(command -v busybox)" "$rootfs/bin/busybox"
    ln -s busybox "$rootfs/bin/true"
    ln -s busybox "$rootfs/bin/sleep"
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$rootfs/etc/passwd"
    tar --create --file "$work/rootfs.tar" --owner=0 --group=0 --numeric-owner --directory "$rootfs" .
    chmod 0644 "$work/rootfs.tar"
    if [ "$(id -u)" = 0 ]; then chown -R "$user:" "$work/home" "$work/run" "$work/prefix"; fi
    # With a session keyring each, runc meets the user's quota of keys at about two hundred containers.
    as_user mkdir -p "$work/home/.config/containers"
    printf '[containers]\nkeyring = false\n' | as_user tee "$work/home/.config/containers/containers.conf" >/dev/null
    rlrun import "$work/rootfs.tar" "$IMAGE" >/dev/null
    podman import --quiet "$work/rootfs.tar" "$IMAGE" >/dev/null
}

seconds() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.3f", to - from }'; }
rate() { awk -v n="$1" -v t="$2" 'BEGIN { printf "%.1f", n / t }'; }

# start_rate ENGINE: detached containers a second, one command after the other, and how many run then.
start_rate() {
    local began=$EPOCHREALTIME n took
    for ((n = 0; n < CONTAINERS; n++)); do
        "$1" run --detach --network none "$IMAGE" sleep 100000 >/dev/null
    done
    took=$(seconds "$began")
    printf '%s\t%s\n' "$(rate "$CONTAINERS" "$took")" "$("$1" ps --quiet | wc -l)"
}

# The kernel keeps 15 characters of a name (proc_pid_comm(5)).
# pss NAME...: proportional KiB of all processes of these names together, a container.
pss() {
    local name pid
    for name in "$@"; do
        for pid in $(pgrep -u "$user" -x "$name"); do
            awk '$1 == "Pss:" { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null || true
        done
    done | awk -v n="$CONTAINERS" '{ sum += $1 } END { printf "%.0f", sum / n }'
}

# median COMMAND...: milliseconds.
median() {
    local n began
    for ((n = 0; n < RUNS; n++)); do
        began=$EPOCHREALTIME
        "$@" >/dev/null
        seconds "$began"
        echo
    done | sort -n | awk '{ v[NR] = $1 * 1000 } END { printf "%.1f", v[int((NR + 1) / 2)] }'
}

# parallel_runs ENGINE: seconds for all, and how many failed.
parallel_runs() {
    local began=$EPOCHREALTIME n pids=() failed=0 pid
    for ((n = 0; n < PARALLEL; n++)); do
        "$1" run --rm --network none "$IMAGE" true >/dev/null 2>>"$work/results/parallel.$1" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || failed=$((failed + 1)); done
    printf '%s\t%s\n' "$(seconds "$began")" "$failed"
}

declare -A rates running exec_ms ps_ms parallel failed

measure() {
    local engine=$1 name n
    IFS=$'\t' read -r "rates[$engine]" "running[$engine]" < <(start_rate "$engine")
    printf '  %s: %s running\n' "$engine" "${running[$engine]}" >&2
    read -r name < <("$engine" ps --quiet)
    exec_ms[$engine]=$(median "$engine" exec "$name" true)
    if [ "$engine" = rlrun ]; then pss_of_rlrun=$(pss rlrun-superviso rlrun:mapper); else pss_of_conmon=$(pss conmon); fi
    "$engine" rm --force --time 0 --all >/dev/null
    IFS=$'\t' read -r "parallel[$engine]" "failed[$engine]" < <(parallel_runs "$engine")
    for ((n = 0; n < RECORDS; n++)); do "$engine" create --network none "$IMAGE" true >/dev/null; done
    ps_ms[$engine]=$(median "$engine" ps --all --quiet)
    "$engine" rm --force --all >/dev/null
}

report() {
    cat <<TABLE
# Benchmarks: many containers

Written by \`make bench\`; rlrun and podman (runc) one after the other in one run on one machine, as one ordinary user, from an image with
nothing but busybox, without network. $(nproc) processors, kernel $(uname -r | grep -oE '^[0-9]+\.[0-9]+'), load $(cut -d ' ' -f 1 /proc/loadavg) at the end.

| | rlrun | podman | target |
|---|---|---|---|
| detached starts a second, $CONTAINERS one after the other | ${rates[rlrun]} | ${rates[podman]} | |
| running then | ${running[rlrun]} | ${running[podman]} | $CONTAINERS |
| proportional KiB a container (supervisor and mapper; conmon) | $pss_of_rlrun | $pss_of_conmon | no more than conmon |
| \`exec\` of \`true\`, median ms of $RUNS, beside $CONTAINERS | ${exec_ms[rlrun]} | ${exec_ms[podman]} | a tenth |
| \`ps -a\` of $RECORDS records, median ms of $RUNS | ${ps_ms[rlrun]} | ${ps_ms[podman]} | 30 |
| $PARALLEL \`run --rm\` at a time, seconds for all | ${parallel[rlrun]} | ${parallel[podman]} | |
| of those failed | ${failed[rlrun]} | ${failed[podman]} | 0 |
TABLE
}

make_image
printf 'measuring %s containers, %s records:\n' "$CONTAINERS" "$RECORDS" >&2
measure rlrun
measure podman
mkdir -p "$(dirname "$output")"
report >"$work/results/report.md"
install -m 0644 "$work/results/report.md" "$output"
printf 'written: %s\n' "$output" >&2
