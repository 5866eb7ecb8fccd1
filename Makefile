# Streamgate: `make help` lists what there is. Every step prints what it does.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

TARGET := $(or $(CARGO_TARGET_DIR),target)
# Arguments for `make run`, e.g. ARGS='--stream front=rtsp://192.168.1.20/stream1'
ARGS ?=
# Seconds for each fuzz target: short in `make test`, longer in `make fuzz`.
FUZZ_SECONDS ?= 60
SHORT_FUZZ_SECONDS ?= 5

# What the player takes from npm, embedded in the binary where it is there.
HLS_JS := www/assets/vendor/hls.mjs

# Without anything built before, keeping what would make the next build faster only takes time.
ifeq ($(wildcard $(TARGET)/debug),)
export CARGO_INCREMENTAL ?= 0
endif

say = @printf '\n\033[1m== %s\033[0m\n' '$(1)'

.PHONY: help run test lint bench bench-fanout bench-table fuzz fmt audit setup format-check clippy rust-tests browser-tests short-fuzz instructions hls-js

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: hls-js ## Build Streamgate and start it with its demo camera (ARGS=... is handed on)
	$(call say,Building the release and starting it: open http://localhost:1984/)
	@cargo run --release --locked -- $(ARGS)

test: setup hls-js lint rust-tests instructions browser-tests short-fuzz ## Everything: set-up, lint, unit, scenario and browser tests, instruction counts, a short fuzz run
	$(call say,All of it passed)

lint: format-check clippy ## Formatting and clippy, warnings are errors; dependencies too where cargo-deny is installed
	@if command -v cargo-deny >/dev/null; then $(MAKE) --no-print-directory audit; \
	else echo 'cargo-deny is not installed: licences and advisories are not checked (`make audit` says how)'; fi

fmt: ## Format the code
	cargo fmt --all

bench: ## Micro-benchmarks
	cargo bench --locked

bench-fanout: ## 200 viewers of one camera on a release build: CPU, memory, the floor
	@cargo build --release --locked
	@tools/performance.py fanout

bench-table: ## All rows of docs/performance.md on a release build, some six minutes
	@cargo build --release --locked
	@tools/performance.py

fuzz: ## Fuzz each parser for FUZZ_SECONDS (60); FUZZ_TARGETS='a b' picks some
	$(call say,Fuzzing for $(FUZZ_SECONDS) s a target)
	@tests/tools/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

audit: ## Licences, advisories and sources of the dependencies (needs cargo-deny)
	$(call say,Checking licences and advisories: cargo deny)
	@command -v cargo-deny >/dev/null || { echo 'install it first, it takes minutes: cargo install --locked cargo-deny' >&2; exit 1; }
	@cargo deny check

hls-js: ## Fetch hls.js from npm, for browsers without HLS of their own; without node the build goes on without it
	@if [ $(HLS_JS) -nt www-vendor/package-lock.json ]; then exit; fi; \
	if ! command -v npm >/dev/null; then echo 'npm is not installed: the player will have no hls.js, only HLS by the browser'; exit; fi; \
	printf '\n\033[1m== Fetching hls.js: npm ci\033[0m\n'; \
	if ! (cd www-vendor && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error); then \
	  echo 'npm failed: the player will have no hls.js, only HLS by the browser'; exit; fi; \
	mkdir -p $(dir $(HLS_JS)); \
	cp www-vendor/node_modules/hls.js/LICENSE $(dir $(HLS_JS))hls.LICENSE.txt; \
	sed '/^\/\/# sourceMappingURL=/d' www-vendor/node_modules/hls.js/dist/hls.light.min.mjs > $(HLS_JS); \
	touch src/api/pages.rs # cargo does not see that the folder has a file more

# The steps of `make test`.

setup:
	$(call say,Setting up what the tests need)
	@tests/tools/bootstrap.sh

format-check:
	$(call say,Checking the formatting: cargo fmt)
	@cargo fmt --all --check

clippy:
	$(call say,Linting: cargo clippy)
	@cargo clippy --all-targets --locked -- -D warnings

rust-tests:
	$(call say,Unit and scenario tests)
	@if command -v cargo-nextest >/dev/null; then cargo nextest run --locked && cargo test --doc --locked --quiet; \
	else cargo test --locked; fi

instructions: ## Count the instructions of the hot paths and hold them against the baseline
	$(call say,Counting instructions of the hot paths)
	@tests/tools/instructions.py

browser-tests: hls-js
	$(call say,Tests with Chromium and Firefox)
	@# The program as the Rust tests have built it: a plain build has other features of its dependencies, and takes minutes.
	@cargo test --no-run --locked --quiet --test architecture
	@STREAMGATE_BIN='$(abspath $(TARGET))/debug/streamgate' tests/browser/run.sh

short-fuzz:
	$(call say,Fuzzing each parser for $(SHORT_FUZZ_SECONDS) s)
	@tests/tools/fuzz.sh $(SHORT_FUZZ_SECONDS)
