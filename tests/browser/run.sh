#!/usr/bin/env bash
# Runs the browser tests. STREAMGATE_BIN names the binary (default: the debug build).
# Screenshots go to tests/artifacts. Arguments choose test files, which then run one after another.
set -euo pipefail
cd "$(dirname "$0")"
export STREAMGATE_BIN=${STREAMGATE_BIN:-$PWD/../../target/debug/streamgate}
[ -x "$STREAMGATE_BIN" ] || { echo "no binary at $STREAMGATE_BIN: build it first (cargo build)" >&2; exit 1; }
mkdir -p ../artifacts

# The limit is for a browser that hangs beyond its own deadlines; a run takes a few minutes.
run() { # FILES_AT_A_TIME FILE...
  timeout --kill-after=10 900 node --test --test-concurrency="$1" --test-reporter=spec "${@:2}"
}

if [ $# -gt 0 ]; then
  run 1 "$@"
  exit
fi
# Those that mostly wait (for a camera to come back, for a deadline) run two at a time, the longest first. The others
# look at how smoothly pictures come, and have the machine for themselves.
waiting=(hls_recovery hls_fallback webrtc_recovery messages pages openapi)
mapfile -t others < <(printf '%s\n' *.test.mjs | grep -vxF "$(printf '%s.test.mjs\n' "${waiting[@]}")")
failed=0
run 2 "${waiting[@]/%/.test.mjs}" || failed=1
run 1 "${others[@]}" || failed=1
exit $failed
