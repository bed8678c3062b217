# banger. `make help` lists the targets; README.md names the two that matter: demo and test.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CGO_ENABLED ?= 0
export GOFLAGS ?= -buildvcs=false
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/banger

GOLANGCI_VERSION := v2.15.0
GOLANGCI := $(CACHE)/tools/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint

# A build is newer than another by its stamp: the commit's time, or now when the tree is dirty.
VERSION ?= $(shell cat VERSION)
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
STAMP := $(shell if [ -z "$$(git status --porcelain 2>/dev/null)" ]; then git log -1 --format=%ct 2>/dev/null; else date +%s; fi)
LDFLAGS := -s -w -X banger/internal/buildinfo.version=$(VERSION) -X banger/internal/buildinfo.commit=$(COMMIT) -X banger/internal/buildinfo.stamp=$(STAMP)

RUN ?=
ARGS ?=

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install the system packages that building and testing need, or say which are missing
	@scripts/setup.sh

.PHONY: build
build: ## Build static binaries into bin/
	@mkdir -p bin
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: demo
demo: setup build ## Pull the default image, create a VM, use it over SSH, delete it
	@scripts/demo.sh

.PHONY: test
test: setup build lint test-unit e2e ## Run everything

.PHONY: test-unit
test-unit: ## Unit tests, with the race detector and in random order
	CGO_ENABLED=1 go test -race -shuffle=on ./...

.PHONY: lint
lint: $(GOLANGCI) ## Check style and the rules that a linter can hold
	$(GOLANGCI) run ./...

.PHONY: e2e
e2e: setup build bin/crashpoint bin/measured bin/labtest ## End-to-end scripts in the lab; RUN=<area>/<name> chooses
	@bin/banger-lab e2e $(if $(RUN),--run '$(RUN)') $(ARGS)

# An agent that tells what is on the disks before it mounts them, for e2e/storage/bytes.
.PHONY: bin/measured
bin/measured: build
	@mkdir -p $@
	go build -trimpath -tags measured -ldflags '$(LDFLAGS)' -o $@/ ./cmd/banger-agent

# A daemon that can kill itself at each point of a verb, for e2e/crash/points and copies.
.PHONY: bin/crashpoint
bin/crashpoint: build
	@mkdir -p $@
	go build -trimpath -tags crashpoint -ldflags '$(LDFLAGS)' -o $@/ ./cmd/bangerd

# Tests of what this machine's kernel may lack, for e2e/storage/mapper.
.PHONY: bin/labtest
bin/labtest:
	@mkdir -p $@
	go test -c -trimpath -tags lab -o $@/dm ./internal/host/dm

.PHONY: verify
verify: build ## A short smoke test of the installed system
	@scripts/verify.sh $(ARGS)

.PHONY: bench-create
bench-create: setup build ## Creates and the other verbs over bare Firecracker boots; ARGS="--json --runs N"
	@bin/banger-lab bench-create $(ARGS)

.PHONY: bench-fleet
bench-fleet: setup build ## 20 creates at once over as many bare Firecracker boots; ARGS="--json --runs N"
	@bin/banger-lab bench-fleet $(ARGS)

.PHONY: bench-lifecycle
bench-lifecycle: setup build ## What the daemon costs as its VMs become a thousand; ARGS="--json --vms N"
	@bin/banger-lab bench-lifecycle $(ARGS)

.PHONY: bench-dns
bench-dns: build ## The DNS server's queries a second over a bare UDP server's; ARGS="--json --rounds N"
	@bin/banger-lab bench-dns $(ARGS)

.PHONY: bench-network
bench-network: setup build ## What the firewall costs as its guests become a thousand; ARGS="--json --guests N"
	@bin/banger-lab bench-network $(ARGS)

.PHONY: generate
generate: ## Write what is derived from the code: docs/openapi.json, fixtures of a new schema and release
	BANGER_GENERATE=1 go test -count=1 -run 'TestOpenAPI|TestEverySchemaIsUpgraded|TestEveryReleasesVMIsReadable' ./internal/server ./internal/store

.PHONY: fmt
fmt: $(GOLANGCI) ## Format the code
	$(GOLANGCI) fmt ./...

.PHONY: clean
clean: ## Remove what build made; caches stay
	rm -rf bin

$(GOLANGCI):
	@mkdir -p $(@D)
	GOBIN=$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
