#!/bin/sh
# The target that the supervisor is built for: this machine's with musl where the toolchain has it or rustup can add it,
# else the toolchain's own.
set -eu
host=$(rustc -vV | sed -n 's/^host: //p')
musl=${host%-gnu*}-musl
has() { ls "$(rustc --print sysroot)/lib/rustlib/$1/lib/"libstd-*.rlib >/dev/null 2>&1; }
if ! has "$musl" && command -v rustup >/dev/null 2>&1; then
    timeout 120 rustup --quiet target add "$musl" >/dev/null 2>&1 || true
fi
if has "$musl"; then echo "$musl"; else echo "$host"; fi
