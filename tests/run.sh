#!/bin/bash
# Runs every test of podkeep: formatting, lints, the tests of all crates, and those on real Podman
# hosts, which it builds itself. Run it as root on Debian 12 or later. A test that cannot run has
# failed.
#
#   tests/run.sh                 everything
#   PODKEEP_LAB_CACHE=DIR        where the root file systems of the hosts are kept
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

BASES=(trixie bookworm sid postgres)
export PODKEEP_LAB=$PWD/tests/lab/lab
export PODKEEP_LAB_CACHE=${PODKEEP_LAB_CACHE:-/var/cache/podkeep-lab}
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

die() { printf 'run.sh: %s\n' "$*" >&2; exit 1; }

. tests/lab/packages.sh
require_machine
for tool in fmt clippy; do
    cargo "$tool" --version > /dev/null || die "there is no cargo $tool: 'rustup component add' it"
done
mapfile -t missing < <(missing_packages)
cat <<INTRO
podkeep's tests
  installs   ${missing[*]:-nothing, all Debian packages are there}
  builds     a debug build in ${CARGO_TARGET_DIR:-target/}, about 3 GB
  caches     root file systems of real Podman hosts in $PODKEEP_LAB_CACHE, about 2 GB
  uses       /var/tmp for the disks of running hosts, up to 8 GB, removed again
  takes      on two cores about 45 minutes the first time, 30 when everything is built

INTRO
install_packages "${missing[@]}"

# The hosts of this run lie apart from any other's. Those of a run that was killed have an owner that
# is gone, and the next start of a host removes them.
PODKEEP_LAB_RUN=$(mktemp -d /var/tmp/podkeep-lab-XXXXXXXX) || die "cannot make a folder in /var/tmp"
export PODKEEP_LAB_RUN
trap '[ -z "$bases" ] || kill -- "-$bases" 2>/dev/null; "$PODKEEP_LAB" down-all' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

bases=
names=() results=() durations=() passed=0 failed=0
# Runs one stage, prints its outcome, and goes on whatever it is: stage NAME CMD...
stage() {
    local name=$1 begin=$SECONDS result=passed; shift
    printf '\n== %s\n' "$name"
    if "$@" < /dev/null; then passed=$((passed + 1)); else result=FAILED failed=$((failed + 1)); fi
    names+=("$name") results+=("$result") durations+=($((SECONDS - begin)))
    printf '== %s: %s\n' "$name" "$result"
}
# Built beside the compiler, which leaves the disk and the network idle; in a process group of their
# own, since a job in the background does not see Ctrl-C.
setsid "$PODKEEP_LAB" base "${BASES[@]}" < /dev/null > /dev/null &
bases=$!
# The tests on hosts are no part of --all-targets, so that a plain `cargo test` works anywhere.
lints() {
    cargo clippy --locked --workspace --all-targets -- -D warnings \
        && cargo clippy --locked --workspace --test podman -- -D warnings
}

stage "format" cargo fmt --all --check
stage "lints" lints
stage "tests" cargo test --locked --workspace --no-fail-fast
stage "killed backups" tests/kills.sh backup "${CARGO_TARGET_DIR:-target}/debug/podkeep" 8
stage "killed restores" tests/kills.sh restore "${CARGO_TARGET_DIR:-target}/debug/podkeep" 8
stage "base file systems" wait "$bases"
bases=
stage "static program" tests/static.sh --debug
stage "tests on Podman hosts" cargo test --locked --workspace --test podman --no-fail-fast

printf '\n%-24s %8s  %s\n' stage seconds result
for i in "${!names[@]}"; do
    printf '%-24s %8d  %s\n' "${names[$i]}" "${durations[$i]}" "${results[$i]}"
done
printf '%-24s %8d\n\n' total "$SECONDS"
printf 'stages: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
