#!/usr/bin/env bash
# The checks that need no container: formatting, lints, documentation, dependency rules, licences, spelling.
set -euo pipefail

step() { printf '== %s\n' "$*"; }
die() { printf 'check: %s\n' "$*" >&2; exit 1; }

# Crates of the processes that live beside a container: small, single-threaded, auditable.
readonly SMALL_CRATES=(rlrun-spec rlrun-journal rlrun-limits rlrun-sandbox rlrun-supervisor rlrun-net)
readonly HEAVY='wasmtime|cranelift|ureq|rustls|openssl|native-tls|hyper|reqwest|tokio|async-std|smol|mio|futures'

# Built for wasm32, with lock files of their own; checked on the host.
readonly OTHER_WORKSPACES=(policy-sdk/Cargo.toml policies/Cargo.toml tests/hostile-policy/Cargo.toml)

small_crates_stay_small() {
    local crate found
    for crate in "${SMALL_CRATES[@]}"; do
        # seccomp-compile belongs to the engine; the supervisor's build has no default features of the sandbox.
        found=$(cargo tree --quiet -p "$crate" --edges normal --prefix none --format '{p}' |
            awk '{print $1}' | sort -u | grep -E "^($HEAVY)(-|$)" || true)
        [ -z "$found" ] || die "$crate must not link: $found"
    done
}

# The compiler stays in policyc: what `rlrun` links has none.
rlrun_has_no_compiler() {
    if cargo tree --quiet -p rlrun --edges normal --prefix none --format '{p}' | grep -q '^cranelift-codegen '; then
        die 'rlrun links a compiler; only rlrun-policyc may'
    fi
}

# `unsafe` is allowed in the sandbox's sys module and in the one file that loads compiled policies.
unsafe_stays_in_place() {
    local found
    found=$(git ls-files '*.rs' |
        grep -vE '^runtime/sandbox/src/sys(/|\.rs$)|^runtime/admission/src/code/load\.rs$|^policy-sdk/|^policies/' |
        xargs grep -nE '\bunsafe (\{|fn|impl|extern)|allow\(unsafe_code|expect\(unsafe_code' || true)
    [ -z "$found" ] || die "unsafe outside its place:"$'\n'"$found"
}

# cargo-deny comes from the user's cargo, or is built once into a cache (minutes; CI keeps it between runs if it can).
deny_command() {
    local root=${XDG_CACHE_HOME:-$HOME/.cache}/rlrun-tools
    PATH=$PATH:$root/bin
    if ! command -v cargo-deny >/dev/null; then
        step 'building cargo-deny, once'
        CARGO_TARGET_DIR=$root/target cargo install --quiet --locked --root "$root" cargo-deny
        rm -rf "$root/target"
    fi
}

dependency_rules() {
    deny_command
    cargo deny --log-level error check bans licenses sources
    # The advisory database is a git repository elsewhere: a machine without that network still checks the rest.
    if cargo deny --log-level error fetch db >/dev/null 2>&1; then
        cargo deny --log-level error check advisories
    else
        printf 'check: the advisory database is out of reach; advisories were not checked\n' >&2
    fi
}

spelling() {
    git ls-files -z -- '*.md' '*.rs' '*.sh' '*.toml' '*.wit' '*.c' Makefile | xargs -0 codespell
}

shell_scripts() { git ls-files '*.sh' .ci/run | xargs shellcheck --external-sources --severity=warning; }

step 'formatting'
cargo fmt --all --check
for manifest in "${OTHER_WORKSPACES[@]}"; do cargo fmt --all --check --manifest-path "$manifest"; done
step 'shell scripts'
shell_scripts
step 'spelling'
spelling
step 'what may link what, and where unsafe may stand'
small_crates_stay_small
rlrun_has_no_compiler
unsafe_stays_in_place
step 'lints'
cargo clippy --quiet --workspace --all-targets -- -D warnings
for manifest in "${OTHER_WORKSPACES[@]}"; do
    cargo clippy --quiet --all-targets --all-features --manifest-path "$manifest" \
        --target-dir "${CARGO_TARGET_DIR:-target}/native-policies" -- -D warnings
done
step 'documentation'
RUSTDOCFLAGS='-D warnings' cargo doc --quiet --workspace --no-deps --document-private-items
step 'dependencies'
dependency_rules
printf 'check: all good\n'
