#!/usr/bin/env bash
# Runs the tests of the workspace and of the policies against a staged tree.
#
#   scripts/test.sh STAGE [TEST-RUNNER ARGUMENTS...]
set -euo pipefail
RLRUN_STAGE=$(realpath "$1")
export RLRUN_STAGE
shift
target=${CARGO_TARGET_DIR:-$PWD/target}
export RLRUN_HOSTILE_POLICY=${RLRUN_HOSTILE_POLICY:-$target/hostile/wasm32-unknown-unknown/release/hostile_policy.wasm}

# The end-to-end tests keep their homes here: a place an ordinary user reaches when root started the tests, with a short
# name, because paths of sockets are limited to 107 bytes (unix(7)).
RLRUN_TEST_ROOT=$(mktemp -d /var/tmp/rlrun-XXXXXX)
export RLRUN_TEST_ROOT
chmod 0755 "$RLRUN_TEST_ROOT"
trap 'rm -rf "$RLRUN_TEST_ROOT"' EXIT

# Policies are plain Rust on the host too: their cases need no WebAssembly and no container.
for manifest in policy-sdk/Cargo.toml policies/Cargo.toml; do
    cargo test --quiet --manifest-path "$manifest" --all-features --target-dir "$target/native-policies"
done

if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --no-fail-fast "$@"
    # nextest does not run examples in documentation.
    cargo test --workspace --doc --quiet
else
    cargo test --workspace --no-fail-fast "$@"
fi
