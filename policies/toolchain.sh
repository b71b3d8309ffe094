#!/bin/sh
# Finds or makes a Rust toolchain for wasm32-unknown-unknown and prints the path of a file to source:
#
#     . "$(policies/toolchain.sh)"
#
# Three routes, the first that works wins: the installed rustc already has the target; rustup can add it; Debian's
# rustc-web is unpacked privately and the target's standard library is compiled from its sources (about a minute and
# a half, kept by version). Nothing is installed system-wide and no root rights are needed.
#
#     toolchain.sh [DIRECTORY]     where a private toolchain is kept; default $RLRUN_WASM_TOOLCHAIN, else
#                                  ${XDG_CACHE_HOME:-~/.cache}/rlrun-build
#     RLRUN_WASM_ROUTE=installed|rustup|debian     insist on one route
set -eu

target=wasm32-unknown-unknown
dest=${1:-${RLRUN_WASM_TOOLCHAIN:-${XDG_CACHE_HOME:-$HOME/.cache}/rlrun-build}}
route=${RLRUN_WASM_ROUTE:-any}
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)

say() { echo "toolchain.sh: $*" >&2; }
die() { say "$*"; exit 1; }
wanted() { [ "$route" = any ] || [ "$route" = "$1" ]; }

# The linker that turns rustc's output into a component comes with rustc; it calls the wasm-ld beside it.
write_env() { # FILE [RUSTC [RUSTDOC]]
    {
        echo "export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-component-ld"
        [ $# -lt 2 ] || printf 'export RUSTC=%s\nexport RUSTDOC=%s\n' "$2" "$3"
    } >"$1.$$"
    mv "$1.$$" "$1"
}

has_target() {
    sysroot=$(rustc --print sysroot 2>/dev/null) || return 1
    ls "$sysroot/lib/rustlib/$target/lib/"libstd-*.rlib >/dev/null 2>&1 || return 1
    # Distributions ship the target without the component linker.
    host=$(rustc -vV | sed -n 's/^host: //p')
    [ -x "$sysroot/lib/rustlib/$host/bin/wasm-component-ld" ]
}

if wanted installed && has_target; then
    write_env "$dest/installed.env"
    echo "$dest/installed.env"
    exit 0
fi

if wanted rustup && command -v rustup >/dev/null 2>&1; then
    if timeout 300 rustup target add "$target" >&2 && has_target; then
        write_env "$dest/installed.env"
        echo "$dest/installed.env"
        exit 0
    fi
    say "rustup cannot add $target here"
fi

wanted debian || die "no route to $target: install rustup and run: rustup target add $target"
command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1 ||
    die "no rustup target and no apt-get: run 'rustup target add $target' where the network allows it"

# apt's own lists serve when they are there; otherwise lists of our own, which need no root rights.
apt_options=
apt() { # PROGRAM ARGUMENTS...
    program=$1
    shift
    # The options hold no spaces: the directory is checked below.
    # shellcheck disable=SC2086
    "$program" $apt_options "$@"
}
case $dest in *[[:space:]]*) die "$dest: a path without blanks is needed" ;; esac

candidate() { apt apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p' | grep -v '(none)' || true; }

private_lists() {
    mkdir -p "$dest/apt/lists/partial" "$dest/apt/cache/archives/partial"
    apt_options="-o Dir::State::lists=$dest/apt/lists -o Dir::Cache=$dest/apt/cache -o APT::Sandbox::User="
    say "fetching package lists"
    apt apt-get -qq update >&2
}

[ -n "$(candidate rustc-web)" ] || private_lists
version=$(candidate rustc-web)
[ -n "$version" ] || die "this distribution has no package rustc-web: run 'rustup target add $target' instead"

root=$dest/debian-$(echo "$version" | tr -c 'A-Za-z0-9.\n' -)
if [ -f "$root/env" ]; then
    echo "$root/env"
    exit 0
fi

command -v cargo >/dev/null 2>&1 || die "cargo is not installed"
work=$(mktemp -d "$dest/making.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

depends() { apt apt-cache depends "$1" | sed -n 's/^ *|\{0,1\}Depends: \([a-z0-9.+-]*\)$/\1/p'; }

# The shared libraries of LLVM and lld that this machine lacks.
absent() { # PACKAGE...
    apt apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances "$@" | grep '^[a-z]' | sort -u | while read -r package; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

fetch() {
    std=$(depends libstd-rust-web-dev | grep '^libstd-rust-web-')
    llvm=$(depends rust-web-llvm | sed -n 's/^llvm-\([0-9]*\)$/\1/p')
    # shellcheck disable=SC2046
    apt apt-get -qq download rustc-web libstd-rust-web-dev "$std" rust-web-src rust-web-llvm "lld-$llvm" \
        $(absent "libllvm$llvm" "lld-$llvm" | grep -v -x "lld-$llvm") >&2
}

say "unpacking Debian's rustc-web $version into $dest"
cd "$work"
# Old lists name files that the mirror no longer has.
fetch || { private_lists && fetch; }
for package in *.deb; do
    dpkg -x "$package" "$work/root"
    rm "$package"
done
ln -sf "wasm-ld-$llvm" "$work/root/usr/bin/wasm-ld"
libraries=$(dirname "$(find "$work/root/usr/lib" -name 'libLLVM*.so*' | head -n 1)")
libraries=${libraries#"$work/root/"}

mkdir "$work/root/bin"
for program in rustc rustdoc; do
    cat >"$work/root/bin/$program" <<WRAPPER
#!/bin/sh
root=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")
LD_LIBRARY_PATH=\$root/$libraries\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
PATH=\$root/usr/bin:\$PATH
export LD_LIBRARY_PATH PATH
exec "\$root/usr/bin/$program" "\$@"
WRAPPER
    chmod 755 "$work/root/bin/$program"
done

# Cargo compiles the standard library when any crate is built with -Zbuild-std; the rlibs are what is wanted.
say "compiling the standard library for $target"
mkdir -p "$work/std/src"
printf '#![no_std]\n' >"$work/std/src/lib.rs"
printf '[package]\nname = "carrier"\nversion = "0.0.0"\nedition = "2021"\n[profile.release]\npanic = "abort"\n' \
    >"$work/std/Cargo.toml"
(
    cd "$work/std"
    # Only these: flags of the caller would be baked into the library.
    unset RUSTUP_TOOLCHAIN CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET RUSTC_WRAPPER || true
    RUSTC=$work/root/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$work/std/target \
        RUSTFLAGS="-Cembed-bitcode=yes -Zforce-unstable-if-unmarked" \
        cargo build -q --release --target "$target" -Zbuild-std=std,panic_abort >&2
)
library=$work/root/usr/lib/rustlib/$target/lib
mkdir -p "$library"
find "$work/std/target/$target/release/deps" -name '*.rlib' ! -name 'libcarrier-*' -exec cp {} "$library/" \;
rm -rf "$work/root/usr/src" "$work/root/usr/share/doc" "$work/root/usr/share/man"

write_env "$work/root/env" "$root/bin/rustc" "$root/bin/rustdoc"
# Another run may have finished first; its result is as good.
mv -T "$work/root" "$root" 2>/dev/null || [ -f "$root/env" ] || die "cannot move the toolchain to $root"
echo "$root/env"
