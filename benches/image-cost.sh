#!/bin/bash
# What a backup of ten images costs of which nothing is new, and one after an image got a new top layer.
#
#   benches/image-cost.sh [SUITE DRIVER [RUNS]]
#
# SUITE and DRIVER are those of tests/lab/lab (trixie overlay unless told). Ten images of some 30 MB, whose
# layers but the top one most share, are backed up once; then RUNS times (10) with nothing new, and RUNS
# times with a new top layer of 50 files and 5 MB. Printed are seconds, the whole process; bytes that were
# read; and how often something at or below the folder of a layer, or a tar-split, was opened, by strace
# and in one run more of each kind: without strace they are left out. Needs root, the laboratory, and a
# release build (PODKEEP, target/static/podkeep unless told). Compare figures of one run only.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:-trixie} driver=${2:-overlay} runs=${3:-10}
export PODKEEP_LAB_OWNER=$$
lab=tests/lab/lab host=cost$$ traced=$(mktemp /var/tmp/podkeep-opens-XXXXXX)
trap '"$lab" down "$host"; rm -f "$traced"' EXIT
"$lab" up "$host" "$suite" "$driver"
"$lab" put "$host" "${PODKEEP:-target/static/podkeep}" /usr/local/bin/podkeep
"$lab" image "$host" busybox

on_host() {
    "$lab" exec "$host" bash -euo pipefail -c '
        export PODKEEP_REPO=/root/repository PODKEEP_PASSWORD=bench
        # make NAME FROM FILES BYTES: an image with so many new files of so many bytes in a new top layer.
        make() {
            rm -rf /root/new; mkdir /root/new
            for n in $(seq "$3"); do head -c "$4" /dev/urandom > "/root/new/$n"; done
            printf "FROM localhost/%s\nCOPY new /%s\n" "$2" "${1/:/-}" > /root/Containerfile
            podman build -q --layers -t "localhost/$1" /root > /dev/null
        }
        # Prints milliseconds, bytes read.
        backup() {
            local begin read
            begin=$(date +%s%N)
            read=$(podkeep --json backup "image:*" | jq -r "select(.type == \"summary\").bytes_read")
            echo $((($(date +%s%N) - begin) / 1000000)) "$read"
        }
        '"$1"
}
# Of lines of milliseconds and bytes: row NAME OPENS
row() {
    sort -n | awk -v name="$1" -v opens="$2" '{ ms[NR] = $1; bytes += $2 } END {
        printf "%-18s %8.2f %8.2f %8.2f %12.0f %8s\n", name, ms[int((NR + 1) / 2)] / 1e3, ms[1] / 1e3,
            ms[NR] / 1e3, bytes / NR, opens }'
}
opens() {
    command -v strace > /dev/null || { echo "-"; return; }
    # Followed from outside of the host; -y tells the paths of descriptors, as the host has them.
    strace -f -qq -y -e trace=open,openat,openat2 -o "$traced" "$lab" exec "$host" \
        env PODKEEP_REPO=/root/repository PODKEEP_PASSWORD=bench podkeep -q backup "image:*" 2> /dev/null >&2
    [ -s "$traced" ] || { echo "image-cost.sh: strace saw nothing" >&2; return 1; }
    grep -c -E '= [0-9]+<[^>]*(/overlay/[0-9a-f]{64}/diff|/vfs/dir/|/btrfs/subvolumes/|\.tar-split\.gz)' "$traced" || true
}

on_host 'make app:0 lab:1 500 50000; for n in $(seq 8); do make "app:$n" app:0 20 50000; done; podkeep -q init > /dev/null'
first_opens=$(opens)
nothing=$(on_host "for n in \$(seq $runs); do backup; done")
nothing_opens=$(opens)
layer=$(on_host "for n in \$(seq $runs); do make new:\$n app:8 50 100000; backup; done")
on_host 'make new:more app:8 50 100000'
layer_opens=$(opens)
printf '\n%-18s %8s %8s %8s %12s %8s\n' "backup (s)" median least most "bytes read" opens
row "nothing new" "$nothing_opens" <<< "$nothing"
row "a new top layer" "$layer_opens" <<< "$layer"
echo "opens of the first backup, of all layers: $first_opens"
