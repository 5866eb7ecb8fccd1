#!/usr/bin/env bash
# Runs the browser tests. STREAMGATE_BIN names the binary (default: the debug build).
# Screenshots go to tests/artifacts. Arguments choose test files, which then run one after another.
set -euo pipefail
cd "$(dirname "$0")"
export STREAMGATE_BIN=${STREAMGATE_BIN:-$PWD/../../target/debug/streamgate}
[ -x "$STREAMGATE_BIN" ] || { echo "no binary at $STREAMGATE_BIN: build it first (cargo build)" >&2; exit 1; }
mkdir -p ../artifacts

# The limit is for a browser that hangs beyond its own deadlines; a run takes a few minutes.
run() {
  timeout --kill-after=10 900 node --test --test-reporter=spec --test-concurrency="$@"
}

if [ $# -gt 0 ]; then
  run 1 "$@"
  exit
fi
# What measures rates and times has the machine for itself. The others wait for something to happen most of the time: two
# files at once, the longest first.
measuring=(hls_fallback.test.mjs mse.test.mjs webrtc_play.test.mjs webrtc_tcp.test.mjs)
waiting=(hls_recovery.test.mjs)
for file in *.test.mjs; do
  case " ${measuring[*]} ${waiting[*]} " in *" $file "*) ;; *) waiting+=("$file") ;; esac
done
status=0
run 1 "${measuring[@]}" || status=$?
run 2 "${waiting[@]}" || status=$?
exit "$status"
