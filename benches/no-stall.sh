#!/bin/bash
# Does a backup hold up Podman? `podman run --rm` on a lab host while podkeep backs up a layer of 1 GB,
# beside what it takes while other programs keep the same number of cores busy, while `podman save` writes
# the same image, and on an idle host.
#
#   benches/no-stall.sh [SUITE DRIVER [RUNS]]
#
# SUITE and DRIVER are those of tests/lab/lab (trixie overlay unless told). Each figure is the median of
# RUNS starts (10) that began and ended while the other work was under way. Waiting for a lock of Podman's
# store is counted: how often a look into /proc/locks, every 10 ms, found somebody waiting. The four take
# turns. Needs root, the laboratory, and a release build. Compare figures of one run only.
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

# Each begins anew: a backup into a repository that knows nothing.
backup() {
    export PODKEEP_REPO=$folder/repository PODKEEP_STATE_DIR=$folder/state
    rm -rf repository state
    podkeep -q init > /dev/null
    touch busy
    podkeep -q --cache-dir "$folder/state/cache" backup image:localhost/large:1 2> /dev/null
}
save() { touch busy; podman save -q -o save.tar localhost/large:1; }
# As many cores as podkeep uses: it reads with a thread for each.
burn() {
    touch busy
    for _ in $(seq "$(nproc)"); do sha256sum /dev/zero & done
    wait
}
nothing() { touch busy; sleep infinity; }

# sample WORK: times one start while the work is under way, from a second after it began.
sample() {
    local begin end worker looker
    while :; do
        rm -f busy save.tar
        set -m
        (rm -f over; $1; touch over) & worker=$!
        (while :; do grep -c -e '->' /proc/locks || true; sleep 0.01; done >> "waits-$1") & looker=$!
        set +m
        until [ -e busy ]; do sleep 0.02; done
        sleep 1
        begin=$(date +%s%N)
        start
        end=$(date +%s%N)
        # One that the work did not accompany to its end says nothing.
        if [ ! -e over ]; then break; fi
        kill -- -$looker
    done
    kill -- -$worker -$looker
    wait $worker $looker 2> /dev/null || true
    echo $(((end - begin) / 1000000)) >> "times-$1"
}

# Taken by turns, so that what else the machine does falls on all alike.
for _ in $(seq "$runs"); do
    for work in nothing burn backup save; do sample $work; done
done

printf '%-16s %8s %8s %8s  %s\n' "podman run (ms)" median least most "lock waits"
report() {
    local sorted
    sorted=$(sort -n "times-$2")
    printf '%-16s %8s %8s %8s  %s of %s looks\n' "$1" "$(sed -n "$(((runs + 1) / 2))p" <<< "$sorted")" \
        "$(head -n 1 <<< "$sorted")" "$(tail -n 1 <<< "$sorted")" "$(grep -cv '^0$' "waits-$2" || true)" \
        "$(wc -l < "waits-$2")"
}
report idle nothing
report "busy cores" burn
report "podkeep backup" backup
report "podman save" save
cd /; rm -rf "$folder"
HOST
