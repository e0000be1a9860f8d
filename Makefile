# `make test` is all a newcomer and CI need. Everything else is a part of it or a convenience.

.DEFAULT_GOAL := help
SHELL := /bin/bash

# The real parts must be there: under `make test` a missing one is a failure.
export WHARF_REQUIRE_REAL := 1

HAVE = $(shell type -P $(1))
# The archive of advisories lives on another site than the crates; what needs no network is checked always.
DENY := cargo deny check licenses bans sources
# What nextest writes of a run under its profile `ci`.
REPORT = $(or $(CARGO_TARGET_DIR),target)/nextest/ci/junit.xml

.PHONY: help demo check test parts node lint deny unit sid fuzz bench fmt ui ui-test screenshots ui-bench lighthouse clean-tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## wharf at work, with everything of its own: no Docker, no network, no set-up
	cargo run --release -- demo

check: ## before a commit: fmt, clippy and the tests that need nothing else, no root, in a few minutes
	tests/tools/check.sh

test: node parts lint unit $(if $(filter 1,$(WHARF_ENGINES_SID)),sid) ui-test ## everything: packages, clients, fmt, clippy, deny, unit, integration and browser tests

parts: ## the real parts the tests run beside: Debian packages, engines of other releases, official clients, ClusterShell, audits
	tests/tools/packages.sh
	tests/tools/engines.sh
	tests/tools/clients.sh
	tests/tools/clustershell.sh
	tests/tools/audits.sh

node: ## looks for the Node that the browser tests run in
	tests/tools/node.sh

lint: ## fmt, clippy with warnings as errors, licenses and bans
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	@if [ -n "$(call HAVE,cargo-deny)" ]; then echo $(DENY); $(DENY); \
	else echo "cargo-deny is not installed, so licenses and bans go unchecked; get it with: make deny"; fi

deny: ## installs cargo-deny if need be (minutes) and checks with it, advisories too
	@[ -n "$(call HAVE,cargo-deny)" ] || cargo install --locked cargo-deny
	cargo deny check

unit: ## unit and integration tests, with no lints before them; with CI=true what is beside real parts is tried twice
ifneq ($(call HAVE,cargo-nextest),)
ifeq ($(CI),true)
	@rm -f $(REPORT); echo cargo nextest run --profile ci; end=0; cargo nextest run --profile ci || end=$$?; \
	tests/tools/unsteady.py $(REPORT); exit $$end
else
	cargo nextest run
endif
else
	cargo test --lib --bins --test integration
endif

# Sid changes from day to day, so a failure there may come from outside.
sid: ## the tests beside the engines of Debian's sid; with WHARF_ENGINES_SID=1 a part of `make test`
	tests/tools/engines.sh sid
	cargo nextest run --run-ignored only -E 'test(/_of_sid/)'

# Each run starts from another seed; a failure prints the seed and the round.
fuzz: export WHARF_FUZZ_ITERATIONS ?= 30000000
fuzz: export WHARF_FUZZ_SEED ?= $(shell date +%s)
fuzz: export PROPTEST_CASES ?= 20000
fuzz: ## long: random text against the expressions for sets of agents
	cargo test --release --test integration agentset::laws

bench: ## measures; writes the numbers to stdout
	cargo bench --bench wharf

# The built UI is checked in, so nothing but what is below needs Node, and `cargo build` never does.
ui: ui/node_modules ## builds the UI into ui/dist; needs Node 20.19 or newer
	cd ui && npm run build

ui-test: ui/node_modules ## the UI's own tests, in Chromium and against the real server; of what `make ui` built last
	cargo build
	cd ui && npm test && npm run browser

screenshots: ui/node_modules ## every page at 1440 and 390 px, light and dark, into target/screenshots
	cargo build
	cd ui && node tools/screenshots.js

ui-bench: ui/node_modules ## the images with 100,000 of them, the matrix with 200 agents, measured in the browser
	cargo build --release
	cd ui && WHARF=../target/release/wharf node tools/speed.js
	cd ui && WHARF=../target/release/wharf node tools/matrix.js

lighthouse: ui/node_modules ## what Lighthouse says of signing in and of the images; not a test
	cargo build --release
	npm install --no-save --no-audit --no-fund --prefix target/lighthouse lighthouse@12.8.2
	cd ui && WHARF=../target/release/wharf node tools/lighthouse.js

ui/node_modules: ui/package-lock.json
	cd ui && npm ci --no-audit --no-fund && touch node_modules

fmt: ## formats the sources
	cargo fmt

clean-tools: ## removes the roots, clients and libraries installed for the tests
	rm -rf .tools
