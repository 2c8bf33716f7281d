#!/bin/bash
# Builds podkeep as one static program: it runs on every Linux of this architecture, in an empty
# container too, and is what podkeep puts on hosts that have none. Only the last step, linking, differs
# from a plain build (docs/decisions/0018-static-build.md).
#
#   tests/static.sh             target/static/podkeep, optimised, as it is released
#   tests/static.sh --debug     the same from the debug build, for the tests
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { printf 'static.sh: %s\n' "$*" >&2; exit 1; }

profile=release
case ${1:-} in
    '') ;;
    --debug) profile=debug ;;
    *) sed -n '2,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
target=${CARGO_TARGET_DIR:-target}
flags=(--locked -p podkeep --bin podkeep)
[ $profile = debug ] || flags+=(--release)

"${CARGO:-cargo}" rustc "${flags[@]}" -- -C target-feature=+crt-static -C strip=symbols
mkdir -p "$target/static"
cp --remove-destination "$target/$profile/podkeep" "$target/static/podkeep"

# No interpreter, so nothing that is looked for when it starts.
if LC_ALL=C readelf -lW "$target/static/podkeep" | grep -q INTERP; then die "it is not static"; fi
env -i "$target/static/podkeep" --version > /dev/null || die "it does not run"
stat -c "%n: %s bytes, static" "$target/static/podkeep"
