# shellcheck shell=bash
# Where a benchmark works and as whom; the benchmarks read this after they have set `stage`.
#
#   work              a directory of its own: home and run of the user, prefix with a copy of the stage, results
#   as_user           runs a command as the ordinary user; each link of the chain executes the next, so that the pid of
#                     the first is the pid of the command
#   in_user_namespace the same with all ids of that user
#   leave             removes all of it
work=$(mktemp -d /var/tmp/rlrun-bench-XXXXXX)
chmod 0755 "$work"
mkdir -m 0700 "$work/home" "$work/run"
mkdir "$work/results"
cp -r "${stage:?}/." "$work/prefix"

chain=()
if [ "$(id -u)" = 0 ]; then
    user=${RLRUN_ORDINARY_USER:-rlrun-test}
    chain=(setpriv --reuid "$(id -u "$user")" --regid "$(id -g "$user")" --init-groups)
    chown "$user:" "$work/home" "$work/run"
else
    user=$(id -un)
fi
chain+=(env -i HOME="$work/home" XDG_RUNTIME_DIR="$work/run" USER="$user" LANG=C.UTF-8
    PATH="$work/prefix/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
as_user() { "${chain[@]}" "$@"; }
in_user_namespace() { as_user unshare --user --map-root-user --map-auto "$@"; }

leave() {
    in_user_namespace rm -rf "$work/home" 2>/dev/null || true
    rm -rf "$work"
}
