#!/bin/bash
# What images take in the repository, beside restic on the tars of their layers.
#
#   benches/image-layers.sh TAR... -- TAR
#
# Each TAR is an uncompressed root file system, and becomes an image of one layer on a test host of its
# own. All before `--` are backed up first; the one behind it, a later build of one of them, is what a
# rebuilt image adds. restic stores the same tars as files. The reserve is left out. Needs what
# tests/run.sh needs, restic in PATH, and a release build. Sizes only: nothing here is timed.
set -euo pipefail
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
first=() later=
while [ $# -gt 0 ]; do
    if [ "$1" = -- ]; then later=$(realpath "${2:-}") || usage; break; fi
    first+=("$(realpath "$1")"); shift
done
[ ${#first[@]} -gt 0 ] && [ -n "$later" ] || usage
cd "$(dirname "$0")/.."
command -v restic > /dev/null || { echo "image-layers.sh: there is no restic" >&2; exit 1; }

lab=$PWD/tests/lab/lab
PODKEEP_LAB_RUN=$(mktemp -d /var/tmp/podkeep-lab-XXXXXXXX)
export PODKEEP_LAB_RUN PODKEEP_LAB_OWNER=$$ PODKEEP_LAB_SHARE=$PODKEEP_LAB_RUN/share
export RESTIC_REPOSITORY=$PODKEEP_LAB_SHARE/restic RESTIC_PASSWORD=bench RESTIC_CACHE_DIR=$PODKEEP_LAB_RUN/cache
trap '"$lab" down-all' EXIT
mkdir -p "$PODKEEP_LAB_SHARE/data"

"$lab" up layers trixie overlay
"$lab" put layers "${CARGO_TARGET_DIR:-target}/release/podkeep" /usr/local/bin/podkeep
on_host() { "$lab" exec layers env PODKEEP_REPO=/share/podkeep PODKEEP_PASSWORD=bench "$@"; }
stored() { du -sb --exclude=reserve "$PODKEEP_LAB_SHARE/$1" | cut -f 1; }
# Makes the images of TAR..., and stores them both ways.
store() {
    local tar name
    for tar in "$@"; do
        name=$(basename "$tar" .tar)
        on_host podman import -q - "localhost/$name:1" < "$tar" > /dev/null
        cp --reflink=auto "$tar" "$PODKEEP_LAB_SHARE/data/"
    done
    on_host podkeep backup --all
    (cd "$PODKEEP_LAB_SHARE/data" && restic -q backup .)
}
on_host podkeep -q init > /dev/null
restic -q init
store "${first[@]}"
podkeep_first=$(stored podkeep) restic_first=$(stored restic)
store "$later"
podkeep_added=$(($(stored podkeep) - podkeep_first)) restic_added=$(($(stored restic) - restic_first))
awk -v p="$podkeep_first" -v r="$restic_first" -v pa="$podkeep_added" -v ra="$restic_added" 'BEGIN {
    printf "\n%-14s %12s %12s %8s\n", "", "podkeep", "restic", "ratio"
    printf "%-14s %9.1f MB %9.1f MB %8.3f\n", "first", p / 1e6, r / 1e6, p / r
    printf "%-14s %9.1f MB %9.1f MB %8.3f\n", "the later adds", pa / 1e6, ra / 1e6, pa / ra
}'
