# What people and CI run. Needs a Rust toolchain (rust-toolchain.toml names it) and a C compiler; `test` installs the rest.

CARGO ?= cargo
DEMO_FLAGS ?=
# Backends that the default build leaves out; tests and lints cover them all.
FEATURES = platform-api/cluster,sentinel-ingest/cluster,sentinel-processor/cluster

.PHONY: help demo check test bench fmt services

help: ## List the targets
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Build, start everything in one process with an example MCP server, and call it
	$(CARGO) run -- up --demo $(DEMO_FLAGS)

check: ## The quick loop: format, lints, unit and in-process tests
	$(CARGO) fmt --all --check
	tests/check-features
	$(CARGO) clippy --workspace --all-targets --features $(FEATURES) -- -D warnings
	$(CARGO) test --workspace --exclude tests

test: services ## Everything CI runs, with the real services and clients
	$(CARGO) fmt --all --check
	tests/check-features
	$(CARGO) clippy --workspace --all-targets --features $(FEATURES) -- -D warnings
	$(CARGO) build --workspace --bins --features $(FEATURES)
	$(CARGO) test --workspace --features $(FEATURES)

services: ## Install the third-party servers and clients that the tests call
	tests/services/install.sh

bench: ## Print the figures of docs/performance.md
	tests/bench/run

fmt: ## Format everything
	$(CARGO) fmt --all
