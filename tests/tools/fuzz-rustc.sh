#!/bin/sh
# Cargo's RUSTC_WORKSPACE_WRAPPER for fuzzing: compiles this project's own crates, and only those, with the coverage
# counters that libFuzzer steers by. They are what `cargo fuzz` sets, and stable compilers know them.
if [ "$CARGO_CRATE_NAME" = build_script_build ]; then
  exec "$@"
fi
exec "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=yes -Coverflow-checks=yes
