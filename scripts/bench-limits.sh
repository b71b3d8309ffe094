#!/usr/bin/env bash
# Measures limits on processor time: rlrun's without a cgroup against Debian's cpulimit. By the kernel's own accounting.
#
#   scripts/bench-limits.sh STAGE [REPORT]
#
# BENCH_SECONDS (10) is the length of a window, BENCH_TARGETS the limits in percent of a CPU. As root, for the accounting
# cgroup; what is measured runs as an ordinary user. On a machine that does something else the figures say little.
set -euo pipefail
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
stage=$(realpath "$1")
report=${2:-/dev/stdout}
seconds=${BENCH_SECONDS:-10}
targets=${BENCH_TARGETS:-5 10 25 50 75 90 150}
user=${RLRUN_ORDINARY_USER:-rlrun-test}
here=$(cd "$(dirname "$0")/.." && pwd)

die() { printf 'bench-limits: %s\n' "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die 'accounting needs a cgroup of its own: run it as root'
account=/sys/fs/cgroup/cpuacct
[ -d "$account" ] || die 'there is no cpuacct hierarchy: this compares where no cgroup can be had'
account=$account/rlrun-bench-$$
work=$(mktemp -d /var/tmp/rlrun-limits-XXXXXX)

everything() { cat "$account/cgroup.procs" 2>/dev/null || true; }
end_all() {
    local pid
    while [ -n "$(everything)" ]; do
        # A pid that ended meanwhile is no error.
        for pid in $(everything); do kill -KILL "$pid" 2>/dev/null || true; done
        sleep 0.05
    done
}
clean() { end_all; rmdir "$account" 2>/dev/null || true; rm -rf "$work"; }
trap clean EXIT
mkdir "$account"

cc -O2 -static -pthread -o "$work/load" "$here/tests/payloads/load.c"
cp -r "$stage" "$work/stage"
mkdir -p "$work/home" "$work/image/tmp"
cp "$work/load" "$work/image/load"
tar -C "$work/image" -cf "$work/image.tar" .
chmod 755 "$work"
chown -R "$user:" "$work/home" "$work/stage"

# As the ordinary user; with `counted` in the accounting cgroup.
as_user() { setpriv --reuid "$user" --regid "$user" --init-groups env -i HOME="$work/home" PATH="$work/stage/bin:$PATH" "$@"; }
counted() { (echo "$BASHPID" >"$account/cgroup.procs" && exec setpriv --reuid "$user" --regid "$user" --init-groups \
    env -i HOME="$work/home" PATH="$work/stage/bin:$PATH" "$@"); }
as_user rlrun import "$work/image.tar" localhost/load:1 >/dev/null 2>&1
as_user rlrun run --rm --network none localhost/load:1 /load ask 1 0 >/dev/null 2>&1 || true

usage() { cat "$account/cpuacct.usage"; }
# Nanoseconds that the processes with one of these names have run.
own() {
    local pid total=0 name
    for pid in $(everything); do
        read -r name <"/proc/$pid/comm" 2>/dev/null || continue
        case $name in rlrun* | cpulimit) read -r ns _ <"/proc/$pid/schedstat" 2>/dev/null && total=$((total + ns)) ;; esac
    done
    printf '%s' "$total"
}
clock() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }

# window TARGET: the error of the mean, the worst second and the controller's cost, in percent of a CPU.
window() {
    local n lines='' first last cost
    sleep 2
    cost=$(own)
    first=$(usage) last=$(clock)
    lines="$last $first"
    for ((n = 0; n < seconds; n++)); do
        sleep 1
        lines+=$'\n'"$(clock) $(usage)"
    done
    cost=$(($(own) - cost))
    awk -v target="$1" -v cost="$cost" '
        NR == 1 { t0 = t = $1; u0 = u = $2; next }
        { s = ($2 - u) / ($1 - t) / 10; d = s - target; if (d < 0) d = -d; if (d > worst) { worst = d; at = s } t = $1; u = $2 }
        END { printf "%+.2f %.1f %.2f", (u - u0 - cost) / (t - t0) / 10 - target, at, cost / (t - t0) / 10 }' <<<"$lines"
}

# With -m it starts one more of itself for every process that it finds: thousands in a fork storm, which make the machine
# stand still. There it is measured without, and everywhere it may not have more than 500 processes.
limit_by_cpulimit() {
    local target=$1 watch=-m
    shift
    [ "$1" != storm ] || watch=-f
    (ulimit -u 500 && counted cpulimit -q -f "$watch" -l "$target" -- "$work/load" "$@") >/dev/null 2>&1
}

# measure TOOL TARGET KIND NUMBER
measure() {
    local tool=$1 target=$2
    shift 2
    case $tool in
        rlrun) counted rlrun run --rm --network none --cgroups=disabled --cpus "$(awk "BEGIN { print $target / 100 }")" \
            localhost/load:1 /load "$@" >/dev/null 2>&1 & ;;
        cpulimit) limit_by_cpulimit "$target" "$@" & ;;
    esac
    local expected=$target
    if [ "$1" = burst ] && [ "$target" -gt 50 ]; then expected=50; fi
    window "$expected"
    end_all
    wait || true
}

table() {
    printf '| payload | limit | rlrun: mean | worst second | cost | cpulimit: mean | worst second | cost |\n|---|---|---|---|---|---|---|---|\n'
    local name kind number target ours theirs
    while IFS='|' read -r name kind number; do
        for target in $targets; do
            # One thread cannot use more than one CPU.
            case $kind in burst | one) [ "$target" -le 100 ] || continue ;; esac
            read -r -a ours <<<"$(measure rlrun "$target" "${kind/one/processes}" "$number")"
            read -r -a theirs <<<"$(measure cpulimit "$target" "${kind/one/processes}" "$number")"
            printf '| %s | %s %% | %s | %s | %s | %s | %s | %s |\n' "$name" "$target" "${ours[@]}" "${theirs[@]}"
        done
    done <<'LIST'
one busy process|one|1
eight busy processes|processes|8
eight threads|threads|8
fork storm, four at a time|storm|4
busy every other 50 ms|burst|1
LIST
}

# What a server's clients see, and the same without a limit.
latency() {
    local options=$1
    local tries
    # Only the host's network adds nothing of its own to what is measured; the built-in policy refuses it.
    # shellcheck disable=SC2086 # words
    counted rlrun run --rm --policy-baseline off --network host $options localhost/load:1 /load serve 18099 >"$work/server" 2>&1 &
    for tries in $(seq 100); do
        "$work/load" ask 18099 1 >/dev/null 2>&1 && break
        [ "$tries" -lt 100 ] || { cat "$work/server" >&2; die 'the server does not answer'; }
        sleep 0.1
    done
    "$work/load" ask 18099 "$((seconds * 100))"
    end_all
    wait || true
}

# killed TOOL NAME: what becomes of the payload when a part is killed.
killed() {
    local tool=$1 name=$2 pid states
    case $tool in
        rlrun) counted rlrun run --rm --network none --cgroups=disabled --cpus 0.25 localhost/load:1 /load processes 2 >/dev/null 2>&1 & ;;
        cpulimit) limit_by_cpulimit 25 processes 2 & ;;
    esac
    sleep 2
    for pid in $(everything); do
        if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$name" ]; then kill -KILL "$pid"; fi
    done
    sleep 1
    states=$(for pid in $(everything); do
        if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = load ]; then awk '{ print $3 }' "/proc/$pid/stat"; fi
    done | sort | uniq -c | awk '{ printf "%s%s in state %s", n++ ? ", " : "", $1, $2 }')
    printf '| %s | %s | %s |\n' "$tool" "$name" "${states:-nothing is left}"
    end_all
    wait || true
}

cost_of_many() {
    counted rlrun run --rm --network none --cgroups=disabled --cpus 0.5 localhost/load:1 /load processes 200 >/dev/null 2>&1 &
    window 50
    end_all
    wait || true
}

main() {
    cat <<HEAD
# Limits on processor time

\`scripts/bench-limits.sh\`, $(date -u +%Y-%m-%d), Linux $(uname -r), $(nproc) CPUs, load average $(cut -d' ' -f1-3 /proc/loadavg) at the start.
All figures in percent of one CPU, over windows of $seconds s, from the kernel's accounting (cpuacct) of everything that was started;
the mean is the distance from the limit without the controller's own cost, which stands beside it. The worst second is what was used
in the second that was farthest from the limit. No cgroup limits anything here.

HEAD
    table
    local quick slow many
    read -r -a many <<<"$(cost_of_many)"
    printf '\n200 busy processes at 50 %%: mean %s, worst second %s, cost %s.\n' "${many[@]}"
    quick=$(latency '') slow=$(latency '--cgroups=disabled --cpus 0.5')
    printf '\nAn http server that needs 2 ms for an answer, one client, median and 99th percentile in ms: without a limit %s, at `--cpus 0.5` %s.\n' \
        "$quick" "$slow"
    printf '\n| | killed with SIGKILL | what becomes of two busy processes |\n|---|---|---|\n'
    killed rlrun rlrun-superviso
    killed rlrun rlrun:mapper
    killed cpulimit cpulimit
}

main >"$work/report"
cat "$work/report" >"$report"
