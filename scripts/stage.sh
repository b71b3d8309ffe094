#!/usr/bin/env bash
# Lays built files out as they are installed.
#
#   scripts/stage.sh STAGE PROFILE_DIR SUPERVISOR POLICY_DIR
set -euo pipefail
stage=$1 built=$2 supervisor=$3 policies=$4

# put MODE FROM TO: replaces TO only when it differs, by renaming, so that a running test never sees half a file.
put() {
    if ! cmp -s "$2" "$3" 2>/dev/null; then
        install -D -m "$1" "$2" "$3.new"
        mv -f "$3.new" "$3"
    fi
}

# Debug information makes a test binary ten times as large, and every copy of it slower.
stripped() {
    local out=$stage/.stripped/${1##*/}
    mkdir -p "$stage/.stripped"
    if [ "$1" -nt "$out" ]; then strip -o "$out" "$1"; fi
    printf '%s' "$out"
}

put 0755 "$(stripped "$built/rlrun")" "$stage/bin/rlrun"
put 0755 "$(stripped "$built/rlrun-policyc")" "$stage/libexec/rlrun/rlrun-policyc"
put 0755 "$supervisor" "$stage/libexec/rlrun/rlrun-supervisor"
for policy in "$policies"/*.wasm; do
    [ -e "$policy" ] || continue
    put 0644 "$policy" "$stage/share/rlrun/policies/${policy##*/}"
done

# The policy author's kit: the crate, the interface, the templates, and what finds a compiler.
sdk=$stage/share/rlrun/policy-sdk
(cd policy-sdk && find Cargo.toml src wit* fixtures templates -type f -print0) | while IFS= read -r -d '' file; do
    put "$(stat -c 0%a "policy-sdk/$file")" "policy-sdk/$file" "$sdk/$file"
done
put 0755 policies/toolchain.sh "$sdk/toolchain.sh"

# What clap knows of the commands, for man(1) and the shells.
documents=$stage/.documents
if [ ! -e "$documents" ] || [ "$stage/bin/rlrun" -nt "$documents" ]; then
    mkdir -p "$stage"/share/{man/man1,bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
    "$stage/bin/rlrun" man "$stage/share/man/man1"
    "$stage/bin/rlrun" completion bash >"$stage/share/bash-completion/completions/rlrun"
    "$stage/bin/rlrun" completion zsh >"$stage/share/zsh/site-functions/_rlrun"
    "$stage/bin/rlrun" completion fish >"$stage/share/fish/vendor_completions.d/rlrun.fish"
    touch "$documents"
fi
