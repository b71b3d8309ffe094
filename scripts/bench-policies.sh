#!/usr/bin/env bash
# Measures what asking policies costs, as an ordinary user, and writes docs/benchmarks-policies.md: ten policies at the
# start of a container, one policy by language, and the same Rego without a sandbox beside it.
#
#   scripts/bench-policies.sh STAGE [OUTPUT]          RLRUN_BENCH_RUNS: runs of each command (default 40)
set -euo pipefail
stage=$(realpath "$1")
output=$(realpath -m "${2:-docs/benchmarks-policies.md}")
root=$(realpath "$(dirname "$0")/..")
readonly RUNS=${RLRUN_BENCH_RUNS:-40} ROUNDS=${RLRUN_BENCH_ROUNDS:-300}
readonly IMAGE=localhost/bench:1

# shellcheck source=scripts/bench-place.sh
. "$(dirname "$0")/bench-place.sh"
trap leave EXIT
mkdir "$work/policies" "$work/rootfs" "$work/rootfs/bin"
shipped=$work/prefix/share/rlrun/policies

# The same rule in each language: the container does not run as root.
write_rules() {
    cat >"$work/policies/regotext.rego" <<'RULES'
package rlrun

import rego.v1

deny contains {"code": "ROOT001", "msg": "runs as root", "path": "/uid"} if input.container.uid == 0

deny contains msg if {
    some mount in input.container.mounts
    mount.kind == "bind"
    not startswith(mount.source, "/srv/")
    msg := sprintf("%s is outside of /srv", [mount.source])
}
RULES
    printf 'container.uid != 0\n' >"$work/policies/celtext.cel"
    cat >"$work/policies/jstext.js" <<'RULES'
function create({ container }) {
    return container.uid === 0 ? deny({ code: "ROOT001", message: "runs as root", path: "/uid" }) : allow();
}
RULES
    printf '{"hook": "create", "settings": {"policy": ""}, "request": {"uid": 1000}, "expect": {"decision": "allow"}}\n' \
        >"$work/policies/case.json"
    local name
    for name in regotext.rego celtext.cel jstext.js; do as_user rlrun policy build "$work/policies/$name" >/dev/null; done
}

make_inputs() {
    cp "$(command -v busybox)" "$work/rootfs/bin/busybox"
    ln -s busybox "$work/rootfs/bin/true"
    tar --create --file "$work/rootfs.tar" --owner=0 --group=0 --numeric-owner --directory "$work/rootfs" .
    if [ "$(id -u)" = 0 ]; then chown -R "$user:" "$work/home" "$work/run" "$work/prefix" "$work/policies"; fi
    chmod 0644 "$work/rootfs.tar"
    as_user rlrun import "$work/rootfs.tar" "$IMAGE" >/dev/null
    write_rules
}

# install NAME FILE [BYTE]: to be asked at every start. A byte makes it another policy, with code of its own.
install_policy() {
    local directory=$work/home/.config/rlrun/policy.d
    as_user mkdir -p "$directory"
    { cat "$2"; [ -z "${3:-}" ] || printf '\000\002\001%s' "$3"; } | as_user tee "$directory/$1.wasm" >/dev/null
}

# `baseline` is built in. Seven policies that come with rlrun are written in Rust; two of them are installed twice.
install_ordinary() {
    local name
    for name in cis guardrails image-hygiene image-source least-privilege; do install_policy "$name" "$shipped/$name.wasm"; done
    install_policy cis-two "$shipped/cis.wasm" a
    install_policy guardrails-two "$shipped/guardrails.wasm" a
    install_policy image-source-two "$shipped/image-source.wasm" a
    install_policy least-privilege-two "$shipped/least-privilege.wasm" a
    printf 'allow = ["*"]\n' | as_user tee "$work/home/.config/rlrun/policy.d/image-source.toml" >/dev/null
    printf 'allow = ["*"]\n' | as_user tee "$work/home/.config/rlrun/policy.d/image-source-two.toml" >/dev/null
}

install_texts() {
    as_user rm "$work/home/.config/rlrun/policy.d/"{cis,guardrails,image-source,least-privilege}-two.wasm \
        "$work/home/.config/rlrun/policy.d/image-source-two.toml"
    install_policy regotext "$work/policies/regotext.wasm"
    install_policy celtext "$work/policies/celtext.wasm"
    install_policy jstext "$work/policies/jstext.wasm"
    install_policy cis-two "$shipped/cis.wasm" a
}

traced() { as_user rlrun run --trace --rm --network none --user 1000 "$IMAGE" true; }

# admission RESULT: load and verdict of each run, in milliseconds. Code younger than two seconds is hashed each time.
admission() {
    [ "$(as_user rlrun policy ls | tail -n +2 | wc -l)" = 10 ] || { as_user rlrun policy ls >&2; return 1; }
    traced >/dev/null 2>&1
    sleep 3
    traced >/dev/null 2>&1
    local _
    for _ in $(seq "$RUNS"); do
        traced 2>"$work/results/trace"
        awk '/policy code loaded/ { load = $2 } /policy verdict/ { verdict = $2 } END { print load + verdict, load, verdict }' \
            "$work/results/trace" >>"$work/results/$1"
    done
}

# at RESULT COLUMN PART: of sorted values the one at that hundredth.
at() { sort -n -k "$2,$2" "$work/results/$1" | awk -v c="$2" -v p="$3" '{ v[NR] = $c } END { n = int(NR * p / 100 + 0.5); print v[n < 1 ? 1 : n] }'; }

within() { awk -v a="$1" -v b="$2" 'BEGIN { print (a <= b) ? "yes" : "no" }'; }

# language NAME FILE [CASE]
language() {
    as_user rlrun policy bench "$2" --rounds "$ROUNDS" ${3:+--request "$3"} >"$work/results/bench"
    awk -v name="$1" -v bytes="$(stat -c %s "$2")" '
        $1 ~ /^(load|first|again)$/ { gsub("us", ""); least[$1] = $2; median[$1] = $3 }
        $1 == "fuel:" { fuel = $5 + 0 ? $5 : $6 }
        END { printf "| %s | %.1f | %d | %d | %d | %d |\n", name, bytes / 1e6, median["load"], median["first"], median["again"], least["again"] }
    ' "$work/results/bench" >>"$work/results/languages"
    awk '$1 == "again" { sub("us", "", $3); print $3 }' "$work/results/bench" >"$work/results/last"
}

# The engine that the Rego policy has inside, outside of any sandbox, with the same rules and the same request.
native() {
    (cd "$root/policies" && CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/policies-host" \
        cargo build --quiet --release --locked -p rlrun-policy-rego --example native)
    cp "${CARGO_TARGET_DIR:-$root/target}/policies-host/release/examples/native" "$work/native"
    as_user "$work/native" "$work/policies/regotext.rego" "$work/policies/case.json" "$ROUNDS" >"$work/results/native"
}

report() {
    local ordinary warm
    ordinary=$(at ordinary 1 50)
    warm=$(cat "$work/results/warm")
    cat <<HEAD
# Benchmarks of policies

Written by \`make bench\`; everything in one run on one machine, as one ordinary user: $RUNS starts, $ROUNDS questions.

| machine | |
|---|---|
| kernel | $(uname -r | grep -oE '^[0-9]+\.[0-9]+\.[0-9]+') |
| processors | $(nproc), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1); load $(cut -d ' ' -f 1 /proc/loadavg) |
| rlrun | $(as_user rlrun --version | grep -oE '[0-9][0-9.]*' | head -n 1), release build |

## Ten policies at the start of a container

\`rlrun run --trace\`, a fresh process each time, from a warm cache; milliseconds.

| policies | loaded and asked, median | least | 95th | of it loading | asking |
|---|---|---|---|---|---|
| ten in Rust | $ordinary | $(at ordinary 1 1) | $(at ordinary 1 95) | $(at ordinary 2 50) | $(at ordinary 3 50) |
| seven in Rust, one each in Rego, CEL and JavaScript | $(at texts 1 50) | $(at texts 1 1) | $(at texts 1 95) | $(at texts 2 50) | $(at texts 3 50) |

## One policy

Microseconds, medians: its machine code from the cache; a fresh instance and its first answer; another answer of the same instance.

| policy | MB | load | first | again | again, least |
|---|---|---|---|---|---|
$(cat "$work/results/languages")

| the same rules in Rego, regorus without a sandbox | read and asked once | asked again | again, least |
|---|---|---|---|
| in this process | $(awk '$1 == "fresh" { print $3 }' "$work/results/native") | $(awk '$1 == "again" { print $3 }' "$work/results/native") | $(awk '$1 == "again" { print $2 }' "$work/results/native") |

| target | asked | measured | met |
|---|---|---|---|
| ten policies at admission, fresh process, warm cache | 3 ms | $ordinary ms | $(within "$ordinary" 3) |
| a warm evaluation (\`baseline\`) | 20 us | $warm us | $(within "$warm" 20) |

There is no figure of OPA's WebAssembly or of Kubewarden's evaluator. The compiler is a Go program, and crates.io, PyPI, npm and Debian do not
have it. What they have are hosts for compiled modules, and none comes with a module: \`opa-wasm\` (crates.io; rules as text), \`@open-policy-agent/opa-wasm\`
and \`@open-policy-agent/opa\` (npm), \`opa-wasm\` (PyPI). \`burrego\` and \`policy-evaluator\` are not published.
HEAD
}

make_inputs
install_ordinary
admission ordinary
install_texts
admission texts
language 'baseline, Rust' "$shipped/baseline.wasm"
cp "$work/results/last" "$work/results/warm"
language 'cis, Rust' "$shipped/cis.wasm"
language 'guardrails, Rust' "$shipped/guardrails.wasm"
language 'a rule in CEL' "$work/policies/celtext.wasm" "$work/policies/case.json"
language 'two rules in Rego' "$work/policies/regotext.wasm" "$work/policies/case.json"
language 'a rule in JavaScript' "$work/policies/jstext.wasm" "$work/policies/case.json"
native
mkdir -p "$(dirname "$output")"
report >"$work/results/report.md"
install -m 0644 "$work/results/report.md" "$output"
printf 'written: %s\n' "$output" >&2
