#!/usr/bin/env bash
# Measures pulls against podman and skopeo + umoci from a registry on loopback, with an image that is made on the spot,
# and lists of many images. Writes docs/benchmarks-images.md.
#
#   scripts/bench-images.sh STAGE [OUTPUT]
#                                          RLRUN_BENCH_LAYERS, RLRUN_BENCH_FILES (a layer), RLRUN_BENCH_MIB (a layer),
#                                          RLRUN_BENCH_PULLS: runs of each pull (default 3)
#                                          RLRUN_BENCH_LOCK: a file that is locked while something is measured
set -euo pipefail
stage=$(realpath "$1")
output=$(realpath -m "${2:-docs/benchmarks-images.md}")
readonly LAYERS=${RLRUN_BENCH_LAYERS:-10} FILES=${RLRUN_BENCH_FILES:-10000} MIB=${RLRUN_BENCH_MIB:-102} PULLS=${RLRUN_BENCH_PULLS:-3}

# shellcheck source=scripts/bench-place.sh
. "$(dirname "$0")/bench-place.sh"
chain+=(TMPDIR="$work/home")
registry=
finish() {
    if [ -n "$registry" ]; then kill "$registry" 2>/dev/null || true; fi
    leave
}
trap finish EXIT
mkdir "$work/make" "$work/registry"
say() { printf 'bench-images: %s\n' "$*" >&2; }

# Hexadecimal text compresses to about two fifths, as programs do.
make_layer() {
    local number=$1 dir=$work/make/files
    mkdir -p "$dir/opt/layer$number"
    head -c $((MIB * 1024 * 1024 / 3)) /dev/urandom | od -An -v -tx1 >"$work/make/data"
    (cd "$dir/opt/layer$number" && split -a 4 -n "$FILES" "$work/make/data" f)
    tar --create --file "$work/make/$number.tar" --owner=0 --group=0 --numeric-owner --mtime=@0 --directory "$dir" .
    rm -rf "$dir" "$work/make/data"
}

sha() { sha256sum "$1" | cut -d ' ' -f 1; }

make_image() {
    local number diffs=() names=()
    for number in $(seq "$LAYERS"); do
        make_layer "$number"
        diffs+=("\"sha256:$(sha "$work/make/$number.tar")\"")
        names+=("\"$number.tar\"")
    done
    printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
        "$(IFS=,; echo "${diffs[*]}")" >"$work/make/config.json"
    printf '[{"Config":"config.json","RepoTags":["bench:1"],"Layers":[%s]}]' "$(IFS=,; echo "${names[*]}")" >"$work/make/manifest.json"
    tar --create --file "$work/image.tar" --directory "$work/make" manifest.json config.json $(seq -f '%g.tar' "$LAYERS")
    rm -rf "$work/make"
}

start_registry() {
    printf 'version: 0.1\nlog:\n  level: info\n  formatter: json\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: 127.0.0.1:0\n' \
        "$work/registry" >"$work/registry.yml"
    docker-registry serve "$work/registry.yml" >/dev/null 2>"$work/registry.log" &
    registry=$!
    local tries=0 port=
    until port=$(grep -o 'listening on 127.0.0.1:[0-9]*' "$work/registry.log" | grep -o '[0-9]*$'); do
        tries=$((tries + 1))
        [ "$tries" -lt 500 ] || { say 'the registry does not start'; exit 1; }
        read -rt 0.02 <> <(:) || true
    done
    host=localhost:$port
}

push() {
    skopeo copy -q --insecure-policy --dest-tls-verify=false --format oci --dest-compress --dest-compress-format "$1" \
        "docker-archive:$work/image.tar" "docker://$host/bench:$1"
}

# seconds COMMAND...: how long it takes.
seconds() {
    local start end code=0
    exec 8>>"${RLRUN_BENCH_LOCK:-$work/lock}"
    flock -x 8
    start=$(date +%s%N)
    "$@" >"$work/out" 2>&1 8>&- || code=$?
    end=$(date +%s%N)
    exec 8>&-
    [ "$code" = 0 ] || { say "$* failed: $(tail -n 1 "$work/out")"; return 1; }
    awk -v ns=$((end - start)) 'BEGIN { printf "%.3f\n", ns / 1e9 }'
}

median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

# Each run has a new directory, and nothing was removed in the minute before: ext4 looks long for inodes where many were
# freed (RECENTCY_MIN of fs/ext4/ialloc.c), which is no part of anybody's first pull. Room is needed for the runs of one tool.
store=
fresh() {
    store=$work/home/stores/$((++stores))
    as_user mkdir -p "$work/home/stores"
    sync -f "$work"
}
stores=0
clean() {
    in_user_namespace rm -rf "$work/home/stores"
    sync -f "$work"
    sleep 61
}

with_rlrun() { as_user env RLRUN_DATA_HOME="$store" rlrun pull -q "$host/bench:$1"; }
with_podman() {
    as_user podman --root "$store/root" --runroot "$work/run/podman" --storage-driver overlay pull -q --tls-verify=false "$host/bench:$1"
}
with_skopeo_and_umoci() {
    as_user mkdir "$store"
    as_user skopeo copy -q --insecure-policy --src-tls-verify=false "docker://$host/bench:$1" "oci:$store/layout:x"
    in_user_namespace umoci unpack --image "$store/layout:x" "$store/bundle"
}
# Nothing can be faster than decompressing, with as many processes as there are processors.
with_decompressor() {
    local tool=gzip
    [ "$1" = gzip ] || tool=zstd
    find "$work/registry" -name data -size +1M -exec sh -c "$tool -tq \"\$1\" 2>/dev/null && echo \"\$1\"" sh {} \; >"$work/blobs-$1"
}
# The same, written to files by tar(1), a process a processor: what the file system takes.
unpack() {
    as_user mkdir "$store"
    in_user_namespace xargs -P "$(nproc)" -n 1 sh -c \
        "d=\$(mktemp -d \"\$0/XXXXXX\") && $1 -dc <\"\$1\" | tar --extract --directory \"\$d\" --numeric-owner" "$store" <"$work/blobs-$1"
    sync -f "$work"
}
floor() { xargs -P "$(nproc)" -n 1 sh -c "$1 -dc <\"\$1\" >/dev/null" sh <"$work/blobs-$1"; }

pulls() {
    local kind=$1 name run
    for name in rlrun podman skopeo_and_umoci; do
        for run in $(seq "$PULLS"); do
            fresh
            seconds "with_$name" "$kind" >>"$work/$kind-$name" || break
            say "$kind, $name, run $run: $(tail -n 1 "$work/$kind-$name") s"
        done
        if [ "$name" = rlrun ]; then
            for run in $(seq 20); do seconds with_rlrun "$kind"; done | median >"$work/$kind-again"
        fi
        clean
    done
    with_decompressor "$kind"
    for run in $(seq "$PULLS"); do seconds floor "$kind"; done | median >"$work/$kind-floor"
    for run in $(seq "$PULLS"); do
        fresh
        seconds unpack "$kind" >>"$work/$kind-unpacks" || break
    done
    median <"$work/$kind-unpacks" >"$work/$kind-unpack"
    clean
}

# A thousand configurations with one small layer.
many_images() {
    local dir=$work/many number
    mkdir -p "$dir/files"
    echo x >"$dir/files/x"
    tar --create --file "$dir/layer.tar" --directory "$dir/files" .
    local diff items=()
    diff=$(sha "$dir/layer.tar")
    for number in $(seq 1000); do
        printf '{"architecture":"amd64","os":"linux","config":{"Env":["N=%s"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$number" "$diff" \
            >"$dir/$number.json"
        items+=("{\"Config\":\"$number.json\",\"RepoTags\":[\"many:$number\"],\"Layers\":[\"layer.tar\"]}")
    done
    (IFS=,; printf '[%s]' "${items[*]}") >"$dir/manifest.json"
    tar --create --file "$work/many.tar" --directory "$dir" manifest.json layer.tar $(seq -f '%g.json' 1000)
    fresh
    as_user env RLRUN_DATA_HOME="$store" rlrun load -q <"$work/many.tar" >/dev/null
    [ "$(as_user env RLRUN_DATA_HOME="$store" rlrun images --noheading | wc -l)" = 1000 ]
    # By the ordinary user's own hyperfine: becoming that user takes milliseconds too.
    as_user env RLRUN_DATA_HOME="$store" hyperfine --shell=none --style none --warmup 5 --runs 40 \
        --export-json "$work/home/many.json" 'rlrun images' >/dev/null 2>&1
    jq -r '.results[0] | "median \(.median * 10000 | round / 10) ms, least \(.min * 10000 | round / 10) ms"' "$work/home/many.json"
}

row() {
    local kind=$1 own other
    own=$(median <"$work/$kind-rlrun")
    printf '| %s | %s s |' "$kind" "$own"
    for other in podman skopeo_and_umoci; do
        if [ -s "$work/$kind-$other" ]; then
            median <"$work/$kind-$other" | awk -v own="$own" '{ printf " %s s (%.1fx) |", $1, $1 / own }'
        else
            printf ' does not work here |'
        fi
    done
    printf ' %s s | %s s | %s s |\n' "$(cat "$work/$kind-floor")" "$(cat "$work/$kind-unpack")" "$(cat "$work/$kind-again")"
}

say "making an image of $LAYERS layers, $((LAYERS * FILES)) files, $((LAYERS * MIB)) MiB"
make_image
start_registry
for kind in gzip zstd; do push "$kind"; done
rm "$work/image.tar"
for kind in gzip zstd; do pulls "$kind"; done
many=$(many_images)
cat >"$work/table" <<TABLE
# Benchmarks of images

Written by \`make bench\`: kernel $(uname -r | grep -oE '^[0-9]+\.[0-9]+'), $(uname -m), $(nproc) processors.

## Pulls

An image of $LAYERS layers with $((LAYERS * FILES)) files and $((LAYERS * MIB)) MiB, from a docker-registry on loopback into an empty store; median of
$PULLS runs. The floor is gzip(1) or zstd(1) decompressing all layers to nowhere, $(nproc) at once; "unpacked" is the same with tar(1) behind it,
into new directories of the same file system, synced as a pull is. Every run has a new directory, and nothing was removed in the minute before. "Again" is a second pull of the unchanged tag.

| layers | rlrun | podman | skopeo + umoci | floor | unpacked | again |
|---|---|---|---|---|---|---|
$(row gzip)
$(row zstd)

\`rlrun images\` with 1,000 images: $many.
TABLE
cp "$work/table" "$output"
