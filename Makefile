# What people and CI do with this repository. `make` alone says what there is.
#
# Works from any folder (make -C) and in several clones at once: everything made lies in this clone's target folder,
# or in versioned folders of the user's cache that are put in place whole.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export CARGO_TARGET_DIR ?= $(CURDIR)/target

##@ See it

.PHONY: demo
demo: build ## Play the main job on a real control plane and measure it: under two minutes once built
	@exec "$(CARGO_TARGET_DIR)/debug/beatkeeper-demo" play

.PHONY: cluster
cluster: build ## Start a control plane and the operator to play with, until Ctrl-C
	@exec "$(CARGO_TARGET_DIR)/debug/beatkeeper-demo" cluster

##@ Work on it

.PHONY: build
build: tools ## Build everything, as demo and tests use it
	@scripts/build

.PHONY: test
test: ## Run every check: format, lints, tests, generated files, dependencies
	@scripts/tools test
	@scripts/test

.PHONY: soak
soak: ## Play schedules of the simulation from new seeds: for SECONDS=…, or until stopped
	@BEATKEEPER_SIMULATION_SECONDS="$(SECONDS)" cargo test --package beatkeeper --test simulation soak -- --ignored --nocapture

.PHONY: crd
crd: build ## Generate what is generated anew: the CRD, its reference, the lists of metrics, of the agent's settings and of the flags
	@mkdir -p crds docs
	@"$(CARGO_TARGET_DIR)/debug/beatkeeper" crd > "$(CARGO_TARGET_DIR)/crd.yaml"
	@"$(CARGO_TARGET_DIR)/debug/beatkeeper" crd --docs > "$(CARGO_TARGET_DIR)/api.md"
	@"$(CARGO_TARGET_DIR)/debug/beatkeeper" agent-reference > "$(CARGO_TARGET_DIR)/agent-reference.md"
	@cp "$(CARGO_TARGET_DIR)/crd.yaml" crds/beatkeeper.dev_serviceregistrations.yaml
	@"$(CARGO_TARGET_DIR)/debug/beatkeeper" metrics > "$(CARGO_TARGET_DIR)/metrics.md"
	@cp "$(CARGO_TARGET_DIR)/api.md" docs/api.md
	@cp "$(CARGO_TARGET_DIR)/metrics.md" docs/metrics.md
	@cp "$(CARGO_TARGET_DIR)/agent-reference.md" docs/agent-reference.md
	@scripts/docs generate

.PHONY: chart
chart: ## Check the chart without a cluster: lint, unit tests, schema, every variant for Kubernetes 1.33 to 1.37
	@scripts/chart

.PHONY: chart-generate
chart-generate: ## Generate the chart's README, its icon, its dashboards and its copy of the CRD
	@scripts/chart generate

.PHONY: docs
docs: ## Build the site from docs/ into target/site, strictly: under a minute at first, then seconds
	@scripts/docs

.PHONY: docs-serve
docs-serve: ## Build the site and serve it on this computer, at PORT=8000, until Ctrl-C
	@PORT="$(PORT)" scripts/docs serve

.PHONY: bench
bench: tools ## Measure Beatkeeper, beside etcd, Redis, ZooKeeper and plain Kubernetes, and what it costs, in half an hour; FULL=1: an hour more, and docs/benchmarks.md; QUICK=1: minutes
	@QUICK="$(QUICK)" FULL="$(FULL)" RUNS="$(RUNS)" PARTS="$(PARTS)" scripts/bench

.PHONY: bench-lag
bench-lag: tools ## Measure how long after its deadline an instance is gone, with an optimised build: some minutes
	@cargo test --release --package beatkeeper --test control_plane -- --ignored --nocapture lag

.PHONY: bench-agent
bench-agent: tools ## Measure what an agent costs, with one instance and with a thousand, with an optimised build: some minutes
	@cargo test --release --package beatkeeper --test control_plane -- --ignored --nocapture --test-threads 1 footprint

.PHONY: chaos
chaos: tools ## Break the control plane and the operator in every way there is, and print what it came to: half an hour
	@scripts/chaos

.PHONY: image
image: ## Build the image, without a container engine, into target/image
	@scripts/image

.PHONY: e2e
e2e: ## Play the end-to-end tests on a real node, which needs root; or, with KUBECONFIG=… behind it, on that cluster
	@E2E_KUBECONFIG="$(if $(filter command,$(origin KUBECONFIG)),$(KUBECONFIG))" scripts/e2e $(FLAGS)

.PHONY: clean-cache
clean-cache: ## Remove what is kept in the user's cache: binaries of the control plane, tools, builds
	@scripts/clean-cache

.PHONY: tools
tools:
	@scripts/tools

##@ Help

.PHONY: help
help: ## Say what there is
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
