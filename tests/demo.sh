#!/bin/bash
# podkeep's main job on real Podman hosts, which this builds itself: volumes in use and images are
# backed up, changed, backed up again, destroyed, and restored on three versions of Podman with three
# storage drivers. A comparison that shares no code with podkeep counts the differences. Then a whole
# service, with traffic while it is backed up: its host is destroyed, and it answers again on a bare
# host with another driver and another Podman, also after that host's next boot.
#
# Run it as root on Debian 12 or later, as often as you like. Ctrl-C leaves nothing behind.
#
#   PODKEEP_LAB_CACHE=DIR   where the root file systems of the hosts are kept
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export PODKEEP_LAB_CACHE=${PODKEEP_LAB_CACHE:-/var/cache/podkeep-lab}
export LC_ALL=C.UTF-8
lab=$PWD/tests/lab/lab
volumes=(pgdata sqlite logs files)

die() { printf '\ndemo.sh: %s\n' "$*" >&2; exit 1; }
title() { printf '\n== %s (at %d s)\n' "$*" "$SECONDS"; }

. tests/lab/packages.sh
require_machine
mapfile -t missing < <(missing_packages)
cat <<INTRO
podkeep on real Podman hosts
  installs   ${missing[*]:-nothing, all Debian packages are there}
  builds     podkeep itself, optimised, in ${CARGO_TARGET_DIR:-target/}, about 1 GB
  caches     root file systems of Podman hosts in $PODKEEP_LAB_CACHE, about 2 GB
  uses       /var/tmp for hosts and repository, about 5 GB, removed again
  takes      on two cores about 10 minutes the first time, then less than 3
INTRO
install_packages "${missing[@]}"

PODKEEP_LAB_RUN=$(mktemp -d /var/tmp/podkeep-lab-XXXXXXXX)
export PODKEEP_LAB_RUN PODKEEP_LAB_OWNER=$$ PODKEEP_LAB_SHARE=$PODKEEP_LAB_RUN/share
# What runs beside the demonstration does so in a process group of its own: a job in the background
# does not see Ctrl-C.
beside=
stop_beside() {
    [ -n "$beside" ] || return 0
    kill -- "-$beside" 2>/dev/null || true
    wait "$beside" 2>/dev/null || true
}
trap 'stop_beside; "$lab" down-all' EXIT
trap 'echo; echo "Stopped; cleaning up." >&2; exit 130' INT
trap 'exit 143' TERM
mkdir "$PODKEEP_LAB_SHARE" "$PODKEEP_LAB_SHARE/truth"

# Runs podkeep on a host: podkeep_on HOST ARGUMENT... With warnings it has done what it was asked to.
ended() { [ "$1" = 3 ] || die "podkeep ended with exit code $1"; }
podkeep_on() {
    local host=$1; shift
    printf '%s# podkeep %s\n' "$host" "$*"
    "$lab" exec "$host" env PODKEEP_REPO=/share/repository PODKEEP_PASSWORD=demonstration podkeep "$@" \
        || ended $?
}

new_host() {
    "$lab" up "$1" "$2" "$3"
    "$lab" put "$1" target/release/podkeep /usr/local/bin/podkeep
    "$lab" put "$1" tests/lab/demo-data.sh /root/demo-data.sh
    "$lab" put "$1" tests/lab/listing.sh /root/listing.sh
    "$lab" put "$1" tests/lab/stack.sh /root/stack.sh
}
# A power cut of the host, and its next boot.
power_cut() { "$lab" crash "$1"; "$lab" up "$1"; }
data() { "$lab" exec "$1" bash /root/demo-data.sh "$2"; }
# stack HOST ARGUMENT...
stack() { local host=$1; shift; "$lab" exec "$host" bash /root/stack.sh "$@"; }
# The bytes of all volumes and images.
bytes_of_host() {
    "$lab" exec web1 bash -c '{ du -csB1 /var/lib/containers/storage/volumes/*/_data | tail -n 1 | cut -f 1
        podman image inspect --format "{{.Size}}" $(podman images -q); } | awk "{ sum += \$1 } END { print sum }"'
}
bytes_of_repository() { du -sb "$PODKEEP_LAB_SHARE/repository" | cut -f 1; }

# Writes what the volumes and images of a host are into a folder of the share, all volumes at once:
# list_host HOST FOLDER
list_host() {
    mkdir -p "$PODKEEP_LAB_SHARE/$2"
    "$lab" exec "$1" bash -euc 'cd "/share/$1"; podman volume ls -q | sort > names
        podman images -a --no-trunc --digests --format "{{.ID}} {{.Digest}} {{.Repository}}:{{.Tag}}" \
            | LC_ALL=C sort | tr "\n" "\0" > images.list
        jobs=()
        for name in $(cat names); do
            bash /root/listing.sh "/var/lib/containers/storage/volumes/$name/_data" > "$name.list" &
            jobs+=($!)
        done
        for job in "${jobs[@]}"; do wait "$job"; done' list "$2"
}

# Sets `differences` to the count of facts that are not as on web1 after the last backup, shows the
# first of them: compare HOST FOLDER
compare() {
    local truth=$PODKEEP_LAB_SHARE/truth found=$PODKEEP_LAB_SHARE/$2 file count
    list_host "$1" "$2"
    differences=$(comm -3 "$truth/names" "$found/names" | wc -l)
    for file in "$truth"/*.list; do
        [ -s "$file" ] || die "the list of ${file##*/} is empty"
        [ -e "$found/${file##*/}" ] || continue
        count=$(comm -z -3 "$file" "$found/${file##*/}" | tr -cd '\0' | wc -c)
        if [ "$count" -gt 0 ]; then
            printf '%s differs in %d facts, the first (web1 left, %s right):\n' "${file##*/}" "$count" "$1"
            comm -z -3 "$file" "$found/${file##*/}" | tr '\0' '\n' | head -n 8 || true
        fi
        differences=$((differences + count))
    done
    total_differences=$((total_differences + differences))
}

table=() total_differences=0
row() { table+=("$(printf '%-50s %9s %9s %8s %11s' "$@")"); }
human() { numfmt --to=si --format=%.1f "$1"; }
now_ms() { local t=$EPOCHREALTIME; echo $((${t%[.,]*} * 1000 + 10#${t#*[.,]} / 1000)); }
seconds() { printf '%d.%d' $(($1 / 1000)) $(($1 % 1000 / 100)); }

# backup NAME_IN_TABLE
backup() {
    local begin took before after
    before=$(bytes_of_repository); begin=$(now_ms)
    podkeep_on web1 backup --all
    took=$(($(now_ms) - begin)); after=$(bytes_of_repository)
    row "$1" "$(human "$(bytes_of_host)")" "$(human $((after - before)))" "$(seconds $took)" -
}

# restore HOST WHAT: restores everything there, compares, starts containers, compares again, and looks
# whether the databases start.
restore() {
    local begin took sums
    begin=$(now_ms)
    podkeep_on "$1" restore latest --all
    took=$(($(now_ms) - begin))
    compare "$1" "$1"
    row "restored on $2" "$(human "$size")" - "$(seconds $took)" "$differences"
    # Podman seeds and re-owns a volume from the image's folder at its first mount, unless it knows
    # that the volume has been used.
    "$lab" exec "$1" bash -euc 'jobs=()
        for name; do
            podman run --rm --network=none -v "$name:/seed" localhost/lab:1 /bin/true &
            jobs+=($!)
        done
        for job in "${jobs[@]}"; do wait "$job"; done' mount "${volumes[@]}"
    compare "$1" "$1-mounted"
    row "  and mounted by a container" - - - "$differences"
    sums=$(data "$1" sums) || die "the databases on $1 are not what they were"
    echo "$sums"
    [ "$sums" = "${first_sums:=$sums}" ] || die "the databases on $1 differ from those on the first host"
}

title "Building podkeep and the hosts' file systems"
setsid "$lab" base trixie bookworm sid postgres < /dev/null > /dev/null &
beside=$!
cargo build --locked --release -p podkeep
wait "$beside" || die "cannot build the hosts' file systems"
# The other hosts boot while the first one is worked on. They have no image and no volume.
export lab
export -f new_host stack
setsid bash -euc 'new_host web2 bookworm vfs; new_host web3 sid btrfs
    new_host shop1 trixie overlay; "$lab" image shop1 postgres; stack shop1 make
    new_host shop2 sid btrfs' \
    < /dev/null > "$PODKEEP_LAB_RUN/others.log" 2>&1 &
beside=$!

title "Host web1: PostgreSQL and SQLite under load, logs, 50,000 small files; then a power cut"
new_host web1 trixie overlay
"$lab" image web1 busybox
"$lab" image web1 postgres
data web1 make
data web1 use
power_cut web1

title "First backup"
podkeep_on web1 init
backup "first backup"

title "A day of changes, and another power cut under load"
data web1 change
data web1 use
power_cut web1
list_host web1 truth
size=$(bytes_of_host)

title "Second backup, and one without changes"
backup "second backup, after changes"
backup "third backup, nothing changed"
podkeep_on web1 snapshots
begin=$(now_ms)
podkeep_on web1 check --read-data
row "check of every byte in the repository" "$(human "$(bytes_of_repository)")" - "$(seconds $(($(now_ms) - begin)))" -

title "All containers, volumes and images of web1 are destroyed, then restored"
"$lab" exec web1 bash -euc 'podman rm -f -a > /dev/null
    chattr -R -f -ia /var/lib/containers/storage/volumes || true
    podman volume rm -a > /dev/null
    podman rmi -a -f > /dev/null
    [ -z "$(podman images -a -q)$(podman volume ls -q)" ]; [ -z "$(ls /var/lib/containers/storage/volumes)" ]'
restore web1 "overlay, Podman 5.4 (where they were)"

title "Restored on a host with Podman 4.3 and the vfs driver"
wait "$beside" || { cat "$PODKEEP_LAB_RUN/others.log" >&2; die "cannot make the other hosts"; }
beside=
restore web2 "vfs, Podman 4.3"

title "Restored on a host with Podman 5.8 and the btrfs driver"
restore web3 "btrfs, Podman 5.8"

title "A service on host shop1: pod, PostgreSQL, web servers, secret, Quadlet unit; backed up under traffic"
stack shop1 answers > "$PODKEEP_LAB_SHARE/before"
before=$(bytes_of_repository); begin=$(now_ms)
podkeep_on shop1 backup --all
row "the service, with traffic: backup" - "$(human $(($(bytes_of_repository) - before)))" "$(seconds $(($(now_ms) - begin)))" -
# What it says later has all that it said when its containers were paused.
stack shop1 answers > "$PODKEEP_LAB_SHARE/after"
files=$(stack shop1 own-files)

title "Host shop1 is destroyed; restored on shop2, which has no image, no network, nothing"
"$lab" down shop1
stack shop2 set-up
begin=$(now_ms)
podkeep_on shop2 restore latest@shop1 --all --start
stack shop2 wait
took=$(($(now_ms) - begin))
served() {
    local lines
    lines=$(stack shop2 check /share/after "$(wc -l < "$PODKEEP_LAB_SHARE/before")") \
        || die "the service on shop2 is not what it was"
    row "$1" - - "$(seconds "$2")" 0
    echo "$lines of the lines that its web servers answered on shop1 are here, in one unbroken chain"
}
served "  it answers on btrfs, Podman 5.8, with its data" $took
if [ "$(stack shop2 own-files)" != "$files" ]; then
    echo "The worker's own files did not come back; a warning above says why."
    total_differences=$((total_differences + 1))
fi

title "Power cut of shop2, and its next boot"
begin=$(now_ms)
power_cut shop2
stack shop2 wait
served "  and after a power cut and boot" $(($(now_ms) - begin))

printf '\n%-50s %9s %9s %8s %11s\n' "" size added seconds differences
printf '%s\n' "${table[@]}"
printf '\n%s on every host\n' "$first_sums"
printf 'total: %d differences, %d s\n' "$total_differences" "$SECONDS"
[ "$total_differences" = 0 ]
