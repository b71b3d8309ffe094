#!/bin/sh
# Builds every first-party policy as a component: TARGET/policies/NAME.wasm. TARGET is $CARGO_TARGET_DIR, else
# target/ of the workspace. The toolchain is found or made by toolchain.sh.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../target}
mkdir -p "$target/policies"
target=$(cd "$target" && pwd)

environment=$("$here/toolchain.sh")
# shellcheck source=/dev/null
. "$environment"

# The same bytes wherever they are built: no path of this machine in a panic message.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
root=$(cd "$here/.." && pwd)
flags="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$root=/rlrun"
# Interpreters ask for chance, and get an error.
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="$flags --cfg getrandom_backend=\"custom\""

# A number as WebAssembly writes it.
number() {
    rest=$1
    while [ "$rest" -gt 127 ]; do
        # shellcheck disable=SC2059 # the format is the byte
        printf "\\$(printf %03o $((rest & 127 | 128)))"
        rest=$((rest >> 7))
    done
    # shellcheck disable=SC2059
    printf "\\$(printf %03o "$rest")"
}

# describe POLICY COMPONENT: it with what it says of itself (`rlrun policy inspect`) in a section at its end.
describe() {
    name=rlrun:policy-meta
    meta=$(sed '$ s/}$//' "$1/meta.json")
    [ ! -e "$1/settings.schema.json" ] || meta="$meta,\"settings\": $(cat "$1/settings.schema.json")"
    meta="$meta}"
    bytes=$(printf '%s' "$meta" | wc -c)
    cat "$2"
    printf '\000'
    number $((1 + ${#name} + bytes))
    number ${#name}
    printf '%s%s' "$name" "$meta"
}

cd "$here"
# Separate from the host's: flags and compiler differ.
CARGO_TARGET_DIR=$target/wasm cargo build --locked --quiet --release --target wasm32-unknown-unknown
for policy in baseline cel cis guardrails house-rules image-hygiene image-source javascript least-privilege rego; do
    built=$target/wasm/wasm32-unknown-unknown/release/rlrun_policy_$(echo "$policy" | tr - _).wasm
    new=$target/policies/.$policy.new
    describe "$policy" "$built" >"$new"
    # Unchanged files keep their time, so nothing that embeds them is built again.
    if cmp -s "$new" "$target/policies/$policy.wasm"; then rm "$new"; else mv "$new" "$target/policies/$policy.wasm"; fi
done
