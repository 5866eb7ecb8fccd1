#!/usr/bin/env bash
# Runs fuzz targets.
#
#   fuzz.sh SECONDS [TARGET...]     default: all of fuzz/fuzz_targets, as many at a time as there are cores
#
# Built with the stable compiler: the dependencies are those of the ordinary build, only this project's crates are
# compiled again, see fuzz-rustc.sh. What is found stays in fuzz/corpus; input that fails is kept in fuzz/artifacts.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
seconds=$1
shift
if [ $# -eq 0 ]; then
  for file in fuzz/fuzz_targets/*.rs; do set -- "$@" "$(basename "$file" .rs)"; done
fi

RUSTC_WORKSPACE_WRAPPER=$root/tests/tools/fuzz-rustc.sh cargo build --locked --package streamgate-fuzz --bins
binaries=${CARGO_TARGET_DIR:-$root/target}/debug
for target in "$@"; do
  [ -x "$binaries/$target" ] || { echo "fuzz.sh: $target has no [[bin]] in fuzz/Cargo.toml" >&2; exit 1; }
done

run() { # TARGET
  local folder=fuzz/artifacts/$1 log=fuzz/artifacts/$1.log
  mkdir -p "fuzz/corpus/$1" "$folder"
  # The limits: memory in MB, and seconds for one input.
  if timeout --kill-after=5 $((seconds + 60)) "$binaries/$1" -max_total_time="$seconds" -rss_limit_mb=512 -timeout=5 \
    -artifact_prefix="$folder/" "fuzz/corpus/$1" >"$log" 2>&1; then
    printf '%-20s %s\n' "$1" "$(grep -a '^Done' "$log")"
  else
    printf '%s FAILED; the input is in %s, the log in %s:\n' "$1" "$folder" "$log"
    tail -n 40 "$log"
    return 1
  fi
}

failed=0
running=0
for target in "$@"; do
  if [ "$running" -ge "$(nproc)" ]; then
    wait -n || failed=1
    running=$((running - 1))
  fi
  run "$target" &
  running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
  wait -n || failed=1
  running=$((running - 1))
done
exit $failed
