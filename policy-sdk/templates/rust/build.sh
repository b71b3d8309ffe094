#!/bin/sh
# Builds the component. The kit's toolchain.sh finds a compiler for wasm32, has rustup add it, or makes one.
set -eu
environment=$(sh "${RLRUN_POLICY_SDK:-@SDK@}/toolchain.sh")
# shellcheck source=/dev/null
. "$environment"
exec cargo build --quiet --release --target wasm32-unknown-unknown
