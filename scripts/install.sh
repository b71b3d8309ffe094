#!/usr/bin/env bash
# Copies a staged tree to where it is to live.
#
#   scripts/install.sh STAGE PREFIX
set -euo pipefail
stage=$1 prefix=$2

cd "$stage"
find bin libexec share -type f -print0 | while IFS= read -r -d '' file; do
    mode=0644
    if [ -x "$file" ]; then mode=0755; fi
    install -D -m "$mode" "$file" "$prefix/$file"
done
printf 'installed under %s\n' "$prefix"
