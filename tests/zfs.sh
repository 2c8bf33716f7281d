#!/bin/bash
# Tests Podman's driver zfs, in a virtual machine: no part of tests/run.sh, since a kernel module has to be
# built and a processor emulated. Run it as root on Debian 12 or later, after tests/run.sh, which installs
# what is needed.
#
#   tests/zfs.sh                 build the virtual machine's file system unless it is cached, and test
#   PODKEEP_LAB_CACHE=DIR        where that is kept, and those of the hosts; 2 GB
#
# On two idle cores: 12 minutes for the file system, once, and 15 for the test.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { printf 'zfs.sh: %s\n' "$*" >&2; exit 1; }

. tests/lab/packages.sh
require_machine
mapfile -t missing < <(missing_packages)
install_packages "${missing[@]}"
export PODKEEP_LAB=$PWD/tests/lab/lab
"$PODKEEP_LAB" base trixie zfs
cargo test --locked --workspace --test podman zfs:: -- --ignored --nocapture
