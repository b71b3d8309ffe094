#!/bin/sh
# Builds a core module; `rlrun policy build` makes a component of it. Of the C library only what asks nothing of a system
# is used: a policy that imports WASI (files, time, standard output) is refused.
set -eu
mkdir -p build
exec clang --target=wasm32-wasi -mexec-model=reactor -Os -flto -Wall -Ibindings \
    -Wl,--strip-debug -o build/@NAME@.core.wasm rules.c bindings/policy.c bindings/policy_component_type.o
