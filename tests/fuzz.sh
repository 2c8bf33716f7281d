#!/bin/bash
# Runs the fuzz targets under libFuzzer: no part of tests/run.sh, which reads only the kept corpus and
# mutations of it.
#
#   tests/fuzz.sh [SECONDS [TARGET...]]    each target so long (60), or only these
#
# What makes a decoder panic, leak, or take a second is left as target/fuzz/found/TARGET/KIND-HASH: mend the
# decoder, and keep the file in tests/fuzz/corpus/TARGET/. What the runs learn is kept in
# target/fuzz/learned/ and used by the next.
#
# Needs no cargo-fuzz: the flags below are what it would set. They are a nightly compiler's, and
# RUSTC_BOOTSTRAP has the stable one take them where there is no other.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-60}
shift || true
top=$PWD/target/fuzz host=$(rustc -vV | sed -n 's/^host: //p')
toolchain=()
if rustc +nightly --version > /dev/null 2>&1; then toolchain=(+nightly); else export RUSTC_BOOTSTRAP=1; fi
RUSTFLAGS="--cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Zsanitizer=address
    -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo "${toolchain[@]}" build --release --target "$host" --target-dir "$top/build" \
    --manifest-path tests/fuzz/Cargo.toml

targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' tests/fuzz/Cargo.toml | tail -n +2)
failed=0
for target in "${targets[@]}"; do
    mkdir -p "$top"/{learned,found,log}/"$target"
    log=$top/log/$target/last result=fine
    "$top/build/$host/release/$target" "$top/learned/$target" "tests/fuzz/corpus/$target" \
        -max_total_time="$seconds" -timeout=1 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$top/found/$target/" > "$log" 2>&1 || { result=FOUND failed=$((failed + 1)); }
    printf '%-18s %-6s %s inputs, %s kept\n' "$target" $result \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" "$(ls "$top/learned/$target" | wc -l)"
    [ $result = fine ] || tail -n 3 "$log" | cut -c 1-200
done
printf '%d passed, %d failed\n' $((${#targets[@]} - failed)) $failed
[ $failed = 0 ]
