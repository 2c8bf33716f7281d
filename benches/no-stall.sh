#!/bin/bash
# Does a backup hold up Podman? `podman run --rm` on a lab host while podkeep backs up a layer of 1 GB,
# beside what it takes while other programs keep the same number of cores busy, while `podman save` writes
# the same image, and on an idle host.
#
#   benches/no-stall.sh [SUITE DRIVER [RUNS]]
#
# SUITE and DRIVER are those of tests/lab/lab (trixie overlay unless told). Each figure is the median of
# RUNS starts (10) that began and ended while the other work was under way. Waiting for a lock of Podman's
# store is counted: how often a look into /proc/locks, every 10 ms, found somebody waiting. Needs root,
# the laboratory, and a release build. Compare figures of one run only.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:-trixie} driver=${2:-overlay} runs=${3:-10}
podkeep=${PODKEEP:-target/release/podkeep}
export PODKEEP_LAB_OWNER=$$
lab=tests/lab/lab host=stall$$
trap '"$lab" down "$host"' EXIT
"$lab" up "$host" "$suite" "$driver"
"$lab" put "$host" "$podkeep" /usr/local/bin/podkeep
"$lab" image "$host" busybox

"$lab" exec "$host" bash -euo pipefail -s "$runs" <<'HOST'
runs=$1
export PODKEEP_PASSWORD=bench
folder=$(mktemp -d /var/tmp/stall-XXXXXX)
cd "$folder"
# A thousand files of 1 MB, which no two backups can share.
mkdir layer
for n in $(seq 1000); do head -c 1000000 /dev/urandom > layer/$n; done
printf 'FROM localhost/lab:1\nCOPY layer /layer\n' > Containerfile
podman build -q -t localhost/large:1 . > /dev/null
rm -r layer
start() { podman run --rm --network=none localhost/lab:1 /bin/true; }
start

# Backups one after the other, each into a repository that knows nothing.
backups() {
    while :; do
        rm -rf repository state
        PODKEEP_REPO=$folder/repository PODKEEP_STATE_DIR=$folder/state podkeep -q init > /dev/null
        touch busy
        PODKEEP_REPO=$folder/repository PODKEEP_STATE_DIR=$folder/state \
            podkeep -q --cache-dir "$folder/state/cache" backup image:localhost/large:1
        rm -f busy
    done
}
saves() {
    while :; do
        touch busy
        podman save -q -o save.tar localhost/large:1
        rm -f busy save.tar
    done
}
# As many cores as podkeep uses: it reads with a thread for each.
burners() {
    touch busy
    for _ in $(seq "$(nproc)"); do sha256sum /dev/zero & done
    wait
}
nothing() { touch busy; sleep infinity; }

# under NAME WORK: times starts while the work is under way.
under() {
    local begin end n=0 worker looker
    rm -f busy times waits
    set -m
    "$2" & worker=$!
    (while :; do grep -c -e '->' /proc/locks || true; sleep 0.01; done > waits) & looker=$!
    set +m
    while [ "$n" -lt "$runs" ]; do
        if [ ! -e busy ]; then sleep 0.02; continue; fi
        begin=$(date +%s%N)
        start
        end=$(date +%s%N)
        # One that the work did not accompany to its end says nothing.
        [ -e busy ] || continue
        echo $(((end - begin) / 1000000)) >> times
        n=$((n + 1))
    done
    kill -- -$worker -$looker
    wait $worker $looker 2> /dev/null || true
    printf '%-16s %8s %8s %8s %12s\n' "$1" "$(sort -n times | sed -n "$(((runs + 1) / 2))p")" \
        "$(sort -n times | head -n 1)" "$(sort -n times | tail -n 1)" "$(grep -cv '^0$' waits) of $(wc -l < waits)"
}

printf '%-16s %8s %8s %8s %12s\n' "podman run (ms)" median least most "lock waits"
under idle nothing
under "busy cores" burners
under "podkeep backup" backups
under "podman save" saves
cd /; rm -rf "$folder"
HOST
