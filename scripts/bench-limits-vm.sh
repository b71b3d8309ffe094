#!/usr/bin/env bash
# Measures limits on processor time against a cgroup's cpu.max, in the emulated machine of scripts/test-vm.sh.
#
#   scripts/bench-limits-vm.sh STAGE [REPORT]
#
# The machine is emulated in software: its figures compare the two with each other, and with nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
stage=$1
report=${2:-/dev/stdout}
cells=${BENCH_CELLS:-one:25 one:75 processes:25 threads:75 storm:50 burst:25}
files=$(mktemp -d /var/tmp/rlrun-limits-XXXXXX)
trap 'rm -rf "$files"' EXIT

for name in load eat; do cc -O2 -static -pthread -o "$files/$name" "tests/payloads/$name.c"; done
cp scripts/bench-limits.sh "$files"
# A start takes seconds there.
cat >"$files/measure" <<RUN
#!/bin/sh
export BENCH_PROGRAMS=/mnt/work RLRUN_ORDINARY_USER="\$RLRUN_USER" BENCH_CELLS='$cells' BENCH_PEERS='$cells' BENCH_PARTS= BENCH_SETTLE=8
exec bash /mnt/work/bench-limits.sh "\$RLRUN_STAGE"
RUN
RLRUN_VM_RUN=$files/measure RLRUN_VM_FILES=$files scripts/test-vm.sh "$stage" v2 >"$files/out" || { cat "$files/out" >&2; exit 1; }
{
    printf '## In a machine emulated without KVM, against cpu.max of cgroup v2\n\n'
    sed -n '/^| payload/,/^$/p' "$files/out" | grep '^|'
} >"$files/report"
cat "$files/report" >"$report"
