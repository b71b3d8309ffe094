#!/usr/bin/env bash
# Measures limits: rlrun's without a cgroup against Debian's cpulimit and, where the machine gives one, a cgroup's own
# cpu.max. By the kernel's own accounting.
#
#   scripts/bench-limits.sh STAGE [REPORT]
#
# BENCH_CELLS are what is measured, PAYLOAD:PERCENT each, BENCH_PEERS those that the others are measured with, BENCH_SECONDS
# (10) the length of a window, BENCH_PARTS what else is: many latency killed idle memory. Twelve minutes in all. As root,
# for the accounting cgroup; what is measured runs as an ordinary user. On a machine that does something else the
# figures say little.
set -euo pipefail
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
stage=$(realpath "$1")
report=${2:-/dev/stdout}
seconds=${BENCH_SECONDS:-10}
user=${RLRUN_ORDINARY_USER:-rlrun-test}
here=$(cd "$(dirname "$0")/.." && pwd)
parts=${BENCH_PARTS-many latency killed idle memory}

cells=${BENCH_CELLS-}
if [ -z "${BENCH_CELLS+x}" ]; then
    for kind in one processes threads storm burst; do
        for percent in 5 10 25 50 75 90 150; do
            # One thread cannot use more than one CPU.
            case $kind:$percent in one:150 | burst:150) ;; *) cells+="$kind:$percent " ;; esac
        done
    done
fi
peers=${BENCH_PEERS-one:25 one:75 processes:25 processes:75 threads:25 storm:25 storm:75 burst:25}

die() { printf 'bench-limits: %s\n' "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die 'accounting needs a cgroup of its own: run it as root'
mount=/sys/fs/cgroup
if [ -f "$mount/cgroup.controllers" ]; then
    account=$mount/rlrun-bench-$$ peer=cgroup
elif [ -d "$mount/cpuacct" ]; then
    account=$mount/cpuacct/rlrun-bench-$$ peer=cpulimit
else
    die 'no cgroup counts processor time here'
fi
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

if [ -n "${BENCH_PROGRAMS:-}" ]; then
    cp "$BENCH_PROGRAMS/load" "$BENCH_PROGRAMS/eat" "$work"
else
    for name in load eat; do cc -O2 -static -pthread -o "$work/$name" "$here/tests/payloads/$name.c"; done
fi
cp -r "$stage" "$work/stage"
mkdir -p "$work/home" "$work/image/tmp"
cp "$work/load" "$work/eat" "$work/image"
tar -C "$work/image" -cf "$work/image.tar" .
chmod 755 "$work"
chown -R "$user:" "$work/home" "$work/stage"

# As the ordinary user; with `counted` in the accounting cgroup.
environment=(HOME="$work/home" PATH="$work/stage/bin:$PATH" XDG_RUNTIME_DIR="/run/user/$(id -u "$user")")
as_user() { setpriv --reuid "$user" --regid "$user" --init-groups env -i "${environment[@]}" "$@"; }
counted() { (echo "$BASHPID" >"$account/cgroup.procs" && exec setpriv --reuid "$user" --regid "$user" --init-groups \
    env -i "${environment[@]}" "$@"); }
as_user rlrun import "$work/image.tar" localhost/load:1 >/dev/null 2>&1
as_user rlrun run --rm --network none localhost/load:1 /load ask 1 0 >/dev/null 2>&1 || true

# Nanoseconds that a cgroup has used.
used_by() {
    if [ -f "$1/cpuacct.usage" ]; then cat "$1/cpuacct.usage"; else awk '/^usage_usec/ { printf "%d000", $2 }' "$1/cpu.stat"; fi
}
usage() { used_by "${measured:-$account}"; }
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
    local n lines='' cost began
    cost=$(own) began=$(clock)
    lines="$began $(usage)"
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

run_limited() { counted rlrun run --rm --network none --policy-baseline off "$@" >/dev/null 2>&1; }

# measure TOOL TARGET KIND NUMBER
measure() {
    local tool=$1 target=$2 measured='' cpus
    shift 2
    cpus=$(awk "BEGIN { print $target / 100 }")
    case $tool in
        rlrun) run_limited --cgroups=disabled --cpus "$cpus" localhost/load:1 /load "$@" & ;;
        cgroup) run_limited --limits=require --cpus "$cpus" localhost/load:1 /load "$@" & ;;
        cpulimit) limit_by_cpulimit "$target" "$@" & ;;
    esac
    sleep "${BENCH_SETTLE:-1.5}"
    # The supervisor is beside the payload's cgroup, and counted with it.
    if [ "$tool" = cgroup ]; then measured=$(find "$mount" -name 'rlrun-*.scope' -print -quit); fi
    if [ "$1" = burst ] && [ "$target" -gt 50 ]; then target=50; fi
    window "$target"
    if [ -n "$measured" ]; then echo 1 >"$measured/cgroup.kill"; fi
    end_all
    wait || true
}

table() {
    printf '| payload | limit | rlrun: mean | worst second | cost | %s: mean | worst second | cost |\n|---|---|---|---|---|---|---|---|\n' "$peer"
    local cell kind target name number ours theirs
    for cell in $cells; do
        kind=${cell%:*} target=${cell#*:} number=8
        case $kind in
            one) name='one busy process' number=1 ;;
            processes) name='eight busy processes' ;;
            threads) name='eight threads' ;;
            storm) name='fork storm, four at a time' number=4 ;;
            burst) name='busy every other 50 ms' number=1 ;;
            *) die "no payload $kind" ;;
        esac
        [ "$kind" != one ] || kind=processes
        read -r -a ours <<<"$(measure rlrun "$target" "$kind" "$number")"
        theirs=('' '' '')
        case " $peers " in *" $cell "*) read -r -a theirs <<<"$(measure "$peer" "$target" "$kind" "$number")" ;; esac
        printf '| %s | %s %% | %s | %s | %s | %s | %s | %s |\n' "$name" "$target" "${ours[@]}" "${theirs[@]}"
    done
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
        rlrun) run_limited --cgroups=disabled --cpus 0.25 localhost/load:1 /load processes 2 & ;;
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
    run_limited --cgroups=disabled --cpus 0.5 localhost/load:1 /load processes 200 &
    sleep 3
    window 50
    end_all
    wait || true
}

# What a payload that waits costs: wakes of the mapper a second, and its processor time in percent of a CPU.
cost_of_rest() {
    counted rlrun run --rm --network none "$@" localhost/load:1 /load rest >/dev/null 2>&1 &
    sleep 2
    local pid mapper=''
    for pid in $(everything); do
        if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = rlrun:mapper ]; then mapper=$pid; fi
    done
    [ -n "$mapper" ] || die 'there is no mapper'
    local before after
    before=$(wakes_and_time "$mapper")
    sleep "$seconds"
    after=$(wakes_and_time "$mapper")
    printf '%s %s\n' "$before" "$after" |
        awk -v s="$seconds" '{ printf "%.1f %.3f", ($3 - $1) / s, ($4 - $2) / s / 1e7 }'
    end_all
    wait || true
}
wakes_and_time() {
    printf '%s %s' "$(awk '/^voluntary/ { print $2 }' "/proc/$1/status")" "$(cut -d' ' -f1 "/proc/$1/schedstat")"
}

# overshoot HOW COUNT: how far beyond its limit a payload that fills memory as fast as it can gets until it stands still,
# in MiB, the most of five runs. It says itself how much it has filled, in a file on disk.
overshoot() {
    local how=$1 count=$2 limit=256 n tries most=0 over
    mkdir -p "$work/told" && chown "$user:" "$work/told"
    for n in 1 2 3 4 5; do
        rm -f "$work/told/bytes"
        as_user truncate -s 1M "$work/told/bytes"
        counted rlrun run --rm --network none --cgroups=disabled -m ${limit}m --memory-swap -1 --oom-kill-disable --tmpfs /t:size=4g \
            -v "$work/told:/told" localhost/load:1 /eat "flood-$how" "$count" $((4096 / count)) /told/bytes >"$work/flood" 2>&1 &
        for tries in $(seq 200); do
            if grep -q 'stands still' "$work/flood"; then break; fi
            [ "$tries" -lt 200 ] || { cat "$work/flood" >&2; die 'the memory limit does not hold'; }
            sleep 0.05
        done
        over=$(("$("$work/eat" told 1 1 "$work/told/bytes")" - limit))
        [ "$over" -le "$most" ] || most=$over
        end_all
        wait || true
    done
    printf '%s' "$most"
}

memory_table() {
    # shellcheck disable=SC2016 # Markdown
    printf '\nMemory at `-m 256m`, by payloads that do nothing but fill it: MiB beyond the limit when all stood still, the most of five runs.\n\n'
    printf '| filled | by one process | by four |\n|---|---|---|\n'
    local how name
    for how in anon shared memfd file; do
        case $how in
            anon) name='private memory' ;;
            shared) name='shared memory' ;;
            memfd) name='memfd' ;;
            file) name='a tmpfs' ;;
        esac
        printf '| %s | %s | %s |\n' "$name" "$(overshoot "$how" 1)" "$(overshoot "$how" 4)"
    done
}

has() { case " $parts " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

main() {
    cat <<HEAD
# Limits

\`scripts/bench-limits.sh\`, $(date -u +%Y-%m-%d), Linux $(uname -r), $(nproc) CPUs, load average $(cut -d' ' -f1-3 /proc/loadavg) at the start.
Processor time in percent of one CPU, over windows of $seconds s, from the kernel's accounting of everything that was started;
the mean is the distance from the limit without the controller's own cost, which stands beside it. The worst second is what was used
in the second that was farthest from the limit. No cgroup limits anything but where it is named.

HEAD
    table
    local row quick slow
    if has many; then
        read -r -a row <<<"$(cost_of_many)"
        printf '\n200 busy processes at 50 %%: mean %s, worst second %s, cost %s.\n' "${row[@]}"
    fi
    if has idle; then
        read -r -a row <<<"$(cost_of_rest --cgroups=disabled --cpus 0.5) $(cost_of_rest --cgroups=disabled --cpus 0.5 -m 64m)"
        # shellcheck disable=SC2016 # Markdown
        printf '\nA payload that waits, at `--cpus 0.5`: %s wakes a second, %s %% of a CPU; with `-m 64m` too: %s, %s %%.\n' "${row[@]}"
    fi
    if has latency; then
        quick=$(latency '') slow=$(latency '--cgroups=disabled --cpus 0.5')
        # shellcheck disable=SC2016 # Markdown
        printf '\nAn http server that needs 2 ms for an answer, one client, median and 99th percentile in ms: without a limit %s, at `--cpus 0.5` %s.\n' \
            "$quick" "$slow"
    fi
    if has memory; then memory_table; fi
    if has killed; then
        printf '\n| | killed with SIGKILL | what becomes of two busy processes |\n|---|---|---|\n'
        killed rlrun rlrun-superviso
        killed rlrun rlrun:mapper
        killed cpulimit cpulimit
    fi
}

if [ "$report" = /dev/stdout ]; then
    main
else
    main | tee /dev/stderr >"$work/report"
    cat "$work/report" >"$report"
fi
