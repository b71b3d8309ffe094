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
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="--remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$root=/rlrun"

cd "$here"
# Separate from the host's: flags and compiler differ.
CARGO_TARGET_DIR=$target/wasm cargo build --locked --quiet --release --target wasm32-unknown-unknown
for policy in baseline cel cis guardrails house-rules image-hygiene image-source least-privilege rego; do
    built=$target/wasm/wasm32-unknown-unknown/release/rlrun_policy_$(echo "$policy" | tr - _).wasm
    # Unchanged files keep their time, so nothing that embeds them is built again.
    if ! cmp -s "$built" "$target/policies/$policy.wasm"; then
        cp "$built" "$target/policies/.$policy.new"
        mv "$target/policies/.$policy.new" "$target/policies/$policy.wasm"
    fi
done
