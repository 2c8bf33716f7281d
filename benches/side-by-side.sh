#!/bin/bash
# podkeep beside restic and tar | zstd, on the same data in the same run.
#
#   benches/side-by-side.sh DAY1 DAY2 [ROUNDS]
#
# DAY1 and DAY2 are two states of one tree. Each tool backs up the first, backs it up again unchanged,
# backs up the second, restores that and checks its repository with all data. Repository and target
# lie on a fresh ext4 on a loop device for each tool and round; what is written is synced, by the tool
# or after it, within its time. Tools take turns, and the table has medians over the rounds (3 unless
# told). Needs root, restic in PATH (it is left out otherwise), GNU time, zstd, and a release build.
# Compare columns, not runs: a machine's speed drifts.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
day1=$(realpath "$1") day2=$(realpath "$2") rounds=${3:-3}
podkeep=$(realpath "$(dirname "$0")/../target/release/podkeep")
work=$(mktemp -d /var/tmp/podkeep-bench-XXXXXX)
trap 'umount -q "$work/data" "$work/disk" || true; rm -rf "$work"' EXIT
export PODKEEP_PASSWORD=bench RESTIC_PASSWORD=bench PODKEEP_REPO=$work/disk/repository
export RESTIC_REPOSITORY=$PODKEEP_REPO PODKEEP_CACHE_DIR=$work/disk/cache
export RESTIC_CACHE_DIR=$PODKEEP_CACHE_DIR PODKEEP_STATE_DIR=$work/disk/state
mkdir "$work/data" "$work/disk"

fresh_disk() {
    umount -q "$work/disk" || true
    rm -f "$work/image"; truncate -s 12G "$work/image"
    mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$work/image"
    mount -o loop "$work/image" "$work/disk"
}
show() { umount -q "$work/data" || true; mount --bind "$1" "$work/data"; }
# The bytes of a repository without what it sets aside for bad times.
stored() { du -sb --exclude=reserve "$PODKEEP_REPO" | cut -f 1; }

# timed TOOL STEP CMD...: appends "TOOL STEP seconds KiB".
timed() {
    local tool=$1 step=$2; shift 2
    sync
    /usr/bin/time -f "$tool $step %e %M" -a -o "$work/figures" "$@" > "$work/log" 2>&1 \
        || { cat "$work/log" >&2; exit 1; }
}
note() { echo "$1 $2 $3 0" >> "$work/figures"; }

run_podkeep() {
    fresh_disk; show "$day1"
    timed podkeep init "$podkeep" init
    local item=path:$work/data before
    timed podkeep first "$podkeep" backup "$item"
    note podkeep first_bytes "$(stored)"
    timed podkeep unchanged "$podkeep" backup "$item"
    before=$(stored); show "$day2"
    timed podkeep day "$podkeep" backup "$item"
    note podkeep day_bytes $(($(stored) - before))
    timed podkeep restore "$podkeep" restore latest "$item" --to-dir "$work/disk/target"
    diff -rq --no-dereference "$work/data" "$work/disk/target" > "$work/log" || { head "$work/log"; exit 1; }
    timed podkeep check "$podkeep" check --read-data
}
run_restic() {
    fresh_disk; show "$day1"
    timed restic init restic init
    local before
    timed restic first restic backup "$work/data"
    note restic first_bytes "$(stored)"
    timed restic unchanged restic backup "$work/data"
    before=$(stored); show "$day2"
    timed restic day restic backup "$work/data"
    note restic day_bytes $(($(stored) - before))
    timed restic restore sh -c 'restic restore latest --target "$1" && sync -f "$1"' sh "$work/disk/target"
    timed restic check restic check --read-data
}
run_tar() {
    fresh_disk; show "$day1"
    timed tar first sh -c 'tar -C "$1" -c . | zstd -T2 -3 -q > "$2" && sync -f "$2"' sh "$work/data" "$work/disk/tar"
    note tar first_bytes "$(stat -c %s "$work/disk/tar")"
    timed tar unchanged find "$work/data" -printf '%p %s %T@ %C@ %i\n'
}

tools=(podkeep tar)
if command -v restic > /dev/null; then tools+=(restic); fi
find "$day1" "$day2" -type f -exec cat {} + > /dev/null
for round in $(seq "$rounds"); do
    for tool in "${tools[@]}"; do "run_$tool"; done
done
perl -lane '
    push @{$seconds{"$F[0] $F[1]"}}, $F[2]; push @{$peak{"$F[0] $F[1]"}}, $F[3];
    $steps{$F[1]} //= keys %steps; $tools{$F[0]} = 1;
    END {
        sub median { my @s = sort { $a <=> $b } @{$_[0]}; $s[@s / 2] }
        printf "%-12s", "median"; printf "%22s", $_ for sort keys %tools; print "";
        for my $step (sort { $steps{$a} <=> $steps{$b} } keys %steps) {
            printf "%-12s", $step;
            for my $tool (sort keys %tools) {
                my $s = $seconds{"$tool $step"};
                printf "%22s", !$s ? "-" : $step =~ /bytes/ ? sprintf("%.1f MB", median($s) / 1e6)
                    : sprintf("%.2f s %4.0f MiB", median($s), median($peak{"$tool $step"}) / 1024);
            }
            print "";
        }
    }' "$work/figures"
