#!/bin/bash
# Kills backups or restores at random moments, with SIGKILL, and looks at what is left.
#
#   tests/kills.sh backup|restore PODKEEP KILLS     PODKEEP: the binary; KILLS: how often
#
# It works in TMPDIR, or in /var/tmp, and needs 4 GB there.
#
# backup: each round has new content of at least three packs. After the kill every earlier snapshot
# is still listed and `check` finds nothing damaged; the next run completes, stores nothing again
# that reached the repository whole, and restores to the same bytes.
#
# restore: to an empty place, in the place of other content, and into other content in turn. After
# the kill each place holds all of what was there or all of the snapshot, and of a merge each file is
# one or the other; the same restore, run again, completes and leaves exactly the snapshot.
#
# The last lines say in which phase the kills fell.
set -euo pipefail
usage() { sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 2; }
[ $# = 3 ] && [[ $1 =~ ^(backup|restore)$ ]] || usage
what=$1 podkeep=$(realpath "$2") kills=$3
listing=$(dirname "$(realpath "$0")")/lab/listing.sh
FILE_BYTES=$((27 << 20)) FILES=4 SMALL_FILES=2000 ROUNDS_PER_REPOSITORY=25

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
# A random number below $1.
below() { echo $(((RANDOM * 32768 + RANDOM) % $1)); }
pause_ms() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }
now_ms() { local t=$EPOCHREALTIME; echo $((${t%[.,]*} * 1000 + 10#${t#*[.,]} / 1000)); }
noise_files() {
    for file in $(seq "$FILES"); do head -c "$FILE_BYTES" /dev/urandom > "$1/$file"; done
}

# Starts podkeep and kills it: one round in eight at any moment, the others once `began` succeeds.
# Sets `killed` to no if it was done before: kill_at_random ARGUMENT...
kill_at_random() {
    local begin
    "$podkeep" "$@" > "$work/killed" 2>&1 &
    run=$! begin=$(now_ms)
    if [ $((round % 8)) = 0 ]; then
        pause_ms "$(below "$took")"
    else
        while kill -0 "$run" 2>/dev/null && ! began; do pause_ms 2; done
        pause_ms "$(below $((took > 200 ? took * 6 / 10 : 100)))"
    fi
    kill -9 "$run" 2>/dev/null || true
    wait "$run" 2>/dev/null && killed=no || killed=yes
    run=
    if [ "$killed" = no ]; then finished=$((finished + 1)) took=$(($(now_ms) - begin)); fi
}

packs() { find "$PODKEEP_REPO/packs" -type f -printf '%f\n' | sort; }
published() { find "$PODKEEP_REPO/snapshots" -type f -printf '%f\n' | sort; }
# Bytes of a pack, whole or not, that were not there when the round began.
pack_bytes_arrived() {
    [ -n "$(find "$PODKEEP_REPO/.tmp" -type f -size +64k 2>/dev/null)" ] \
        || [ "$(packs | comm -13 "$work/packs" - | wc -l)" -gt 0 ]
}

backup_round() {
    local whole begin added
    began() { pack_bytes_arrived; }
    if [ $(((round - 1) % ROUNDS_PER_REPOSITORY)) = 0 ]; then
        rm -rf "$PODKEEP_REPO" "$PODKEEP_CACHE_DIR" "$PODKEEP_STATE_DIR"
        quietly init init
    fi
    noise_files "$work/data"
    packs > "$work/packs"; published > "$work/published"
    kill_at_random backup "$item"
    if [ "$killed" = yes ]; then
        if [ "$(published | comm -13 "$work/published" - | wc -l)" -gt 0 ]; then
            after=$((after + 1))
        elif pack_bytes_arrived; then
            during=$((during + 1))
        else
            before=$((before + 1))
        fi
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
}

list() { bash "$listing" "$1" > "$2"; }
# What a restore works on: some of everything that it must finish or leave alone.
restore_prepare() {
    local data=$work/data number
    FILES=3
    noise_files "$data"
    mkdir -m 0555 "$data/read-only"; mkdir -m 2770 "$data/group"
    for number in $(seq "$SMALL_FILES"); do echo "$number" > "$data/group/$number"; done
    for number in 1 2 3; do ln "$data/$number" "$data/group/link-$number"; done
    chmod 0444 "$data/1"; ln -s /nowhere "$data/symlink"; mkfifo "$data/fifo"
    truncate -s 100M "$data/sparse"; setfattr -n user.kept -v yes "$data/sparse"
    quietly init init
    quietly backup backup "$item"
    list "$data" "$work/truth"
    # Other content under the same names, so that a merge leaves nothing of it either.
    cp -a "$data" "$work/old"
    for number in $(seq "$SMALL_FILES"); do echo old > "$work/old/group/$number"; done
    head -c 100000 /dev/zero > "$work/old/2"; chmod 0700 "$work/old/group"
    list "$work/old" "$work/old-truth"
    local begin
    begin=$(now_ms)
    quietly "a first restore" restore latest "$item" --to-dir "$work/first"
    took=$(($(now_ms) - begin))
    list "$work/first" "$work/found"
    cmp -s "$work/truth" "$work/found" || die "the first restore differs"
    rm -rf "$work/first"
}

# A file of an unfinished merge is as it was or as it is to be: contents by path, and nothing else.
files_are_whole() {
    local stray
    stray=$(grep -z -E '^[0-9a-f]{64} ' "$work/found" | grep -z -v -E 'podkeep-(restore|part)-' \
        | sort -z | comm -z -23 - <(cat "$work/truth" "$work/old-truth" | sort -z -u) | tr '\0' '\n')
    [ -z "$stray" ] || die "after the kill there is something else: ${stray%%$'\n'*}"
}

restore_round() {
    local place=$work/place way=() state
    began() { [ -n "$(find "$work" "$place" -maxdepth 1 -name '.podkeep-restore-*' 2>/dev/null)" ]; }
    rm -rf "$place"
    case $((round % 3)) in
        0) way=(--replace) ;;
        1) ;;
        2)
            way=(--merge)
            began() { [ "$(stat -c %s "$place/2")" != 100000 ]; } ;;
    esac
    [ ${#way[@]} = 0 ] || cp -a "$work/old" "$place"
    kill_at_random restore latest "$item" --to-dir "$place" "${way[@]}"
    state=absent
    if [ -e "$place" ]; then
        list "$place" "$work/found"
        state=mixed
        ! cmp -s "$work/found" "$work/old-truth" || state=old
        ! cmp -s "$work/found" "$work/truth" || state=new
    fi
    case ${way[*]}:$state in
        :absent | *:new) ;;
        --replace:old | --merge:old) ;;
        --merge:mixed) files_are_whole ;;
        *) die "after the kill a restore ${way[*]} left its place $state" ;;
    esac
    if [ "$killed" = yes ]; then
        case $state in
            new) after=$((after + 1)) ;;
            mixed) during=$((during + 1)) ;;
            *) if began; then during=$((during + 1)); else before=$((before + 1)); fi ;;
        esac
    fi
    # What came to its place is in nobody's way: it is restored over.
    if [ ${#way[@]} = 0 ] && [ "$state" = new ]; then way=(--replace); fi
    quietly "the next restore" restore latest "$item" --to-dir "$place" "${way[@]}"
    list "$place" "$work/found"
    cmp -s "$work/truth" "$work/found" || die "the restored tree differs after a restore ${way[*]}"
    [ -z "$(find "$work" -name '.podkeep-restore-*')" ] || die "something staged is left"
}

before=0 during=0 after=0 finished=0 took=1000 round=0
[ "$what" = backup ] || restore_prepare
for round in $(seq "$kills"); do "${what}_round"; done
case $what in
    backup)
        printf 'kills: %d before the first byte of a pack, %d between it and the snapshot, %d after it\n' \
            "$before" "$during" "$after"
        printf 'runs that were done before they were killed: %d; lost snapshots: 0\n' "$finished" ;;
    restore)
        printf 'kills: %d before anything was staged or merged, %d until all was, %d after it\n' \
            "$before" "$during" "$after"
        printf 'runs that were done before they were killed: %d; trees that differ: 0\n' "$finished" ;;
esac
