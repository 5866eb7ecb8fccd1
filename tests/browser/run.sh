#!/usr/bin/env bash
# Runs the browser tests one after another. STREAMGATE_BIN names the binary (default: the debug build).
# Screenshots go to tests/artifacts. Arguments choose test files.
set -euo pipefail
cd "$(dirname "$0")"
export STREAMGATE_BIN=${STREAMGATE_BIN:-$PWD/../../target/debug/streamgate}
[ -x "$STREAMGATE_BIN" ] || { echo "no binary at $STREAMGATE_BIN: build it first (cargo build)" >&2; exit 1; }
mkdir -p ../artifacts
if [ $# -eq 0 ]; then set -- *.test.mjs; fi
# The limit is for a browser that hangs beyond its own deadlines; a run takes a few minutes.
exec timeout --kill-after=10 900 node --test --test-concurrency=1 --test-reporter=spec "$@"
