#!/bin/bash
# Kills a backup at random moments, with SIGKILL, and looks at what is left.
#
#   tests/kills.sh PODKEEP KILLS      PODKEEP: the binary; KILLS: how often
#
# It works in TMPDIR, or in /var/tmp, and needs 4 GB there. Each round has new content of at least
# three packs. After the kill every earlier snapshot is still listed and `check` finds nothing
# damaged; the next run completes, stores nothing again that reached the repository whole, and
# restores to the same bytes. The last lines say in which phase of a backup the kills fell.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
podkeep=$(realpath "$1") kills=$2
FILE_BYTES=$((27 << 20)) FILES=4 ROUNDS_PER_REPOSITORY=25

work=$(mktemp -d "${TMPDIR:-/var/tmp}/podkeep-kills-XXXXXX")
run=
trap '[ -z "$run" ] || kill -9 "$run" 2>/dev/null || true; rm -rf "$work"' EXIT
export PODKEEP_REPO=$work/repository PODKEEP_PASSWORD=kills
export PODKEEP_CACHE_DIR=$work/cache PODKEEP_STATE_DIR=$work/state
item=path:$work/data
mkdir "$work/data"

die() { printf 'kills.sh: round %d: %s\n' "$round" "$*" >&2; tail -n 20 "$work/log" >&2; exit 1; }
# Runs podkeep quietly; its JSON is in $work/log: quietly WHAT ARGUMENT...
quietly() {
    local what=$1; shift
    "$podkeep" "$@" --json > "$work/log" 2>&1 || die "$what ended with $?"
}
# One number of the last line of the log.
number() { tail -n 1 "$work/log" | grep -o "\"$1\":[0-9]*" | cut -d : -f 2; }
packs() { find "$PODKEEP_REPO/packs" -type f -printf '%f\n' | sort; }
published() { find "$PODKEEP_REPO/snapshots" -type f -printf '%f\n' | sort; }
# Bytes of a pack, whole or not, that were not there when the round began.
pack_bytes_arrived() {
    [ -n "$(find "$PODKEEP_REPO/.tmp" -type f -size +64k 2>/dev/null)" ] \
        || [ "$(packs | comm -13 "$work/packs" - | wc -l)" -gt 0 ]
}
# A random number below $1.
below() { echo $(((RANDOM * 32768 + RANDOM) % $1)); }
pause_ms() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }
now_ms() { local t=$EPOCHREALTIME; echo $((${t%[.,]*} * 1000 + 10#${t#*[.,]} / 1000)); }

before=0 during=0 after=0 finished=0 took=1000
for round in $(seq "$kills"); do
    if [ $(((round - 1) % ROUNDS_PER_REPOSITORY)) = 0 ]; then
        rm -rf "$PODKEEP_REPO" "$PODKEEP_CACHE_DIR" "$PODKEEP_STATE_DIR"
        quietly init init
    fi
    for file in $(seq "$FILES"); do head -c "$FILE_BYTES" /dev/urandom > "$work/data/$file"; done
    packs > "$work/packs"; published > "$work/published"

    "$podkeep" backup "$item" > "$work/killed" 2>&1 &
    run=$! begin=$(now_ms)
    # One round in eight is killed at any moment, the others once there are bytes of a pack.
    if [ $((round % 8)) = 0 ]; then
        pause_ms "$(below "$took")"
    else
        while kill -0 "$run" 2>/dev/null && ! pack_bytes_arrived; do pause_ms 2; done
        pause_ms "$(below $((took > 200 ? took * 6 / 10 : 100)))"
    fi
    kill -9 "$run" 2>/dev/null || true
    wait "$run" 2>/dev/null && killed=no || killed=yes
    run=
    if [ "$killed" = no ]; then
        finished=$((finished + 1)) took=$(($(now_ms) - begin))
    elif [ "$(published | comm -13 "$work/published" - | wc -l)" -gt 0 ]; then
        after=$((after + 1))
    elif pack_bytes_arrived; then
        during=$((during + 1))
    else
        before=$((before + 1))
    fi
    [ -z "$(published | comm -23 "$work/published" -)" ] || die "a published snapshot is gone"
    whole=$(packs | comm -13 "$work/packs" - | while read -r pack; do
        stat -c %s "$PODKEEP_REPO/packs/${pack:0:2}/$pack"; done | awk '{s += $1} END {print s + 0}')

    quietly "check after the kill" check
    begin=$(now_ms)
    quietly "the next run" backup "$item"
    [ "$killed" = no ] || took=$((($(now_ms) - begin + took) / 2))
    [ "$(number chunks_new)" = 0 ] || [ "$killed" = yes ] || die "a finished run is stored again"
    added=$(number bytes_added)
    # Two MiB more for index, snapshot, and the block that was cut off.
    [ "$added" -le $((FILES * FILE_BYTES - whole + (2 << 20))) ] \
        || die "the next run added $added bytes, though $whole bytes of packs were there"
    rm -rf "$work/restored"
    quietly restore restore latest "$item" --to-dir "$work/restored"
    diff -r "$work/data" "$work/restored" > "$work/log" || die "the restored data differs"
    if [ $((round % ROUNDS_PER_REPOSITORY)) = 0 ] || [ "$round" = "$kills" ]; then
        quietly "check of all data" check --read-data
    fi
done
printf 'kills: %d before the first byte of a pack, %d between it and the snapshot, %d after it\n' \
    "$before" "$during" "$after"
printf 'runs that were done before they were killed: %d; lost snapshots: 0\n' "$finished"
