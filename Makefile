# The commands of a developer. `make demo` and `make test` do all their own set-up on a fresh Debian 12.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

CARGO ?= cargo

export CARGO_TARGET_DIR ?= $(shell scripts/target-dir.sh)

# dev builds fast and is what tests and the demo use; bench and install use release.
PROFILE ?= dev
profile_dir = $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))

# How long each target of `fuzz` runs.
FUZZ_SECONDS ?= 30

# One installed layout for everybody: bin/, libexec/rlrun/, share/rlrun/. Tests, demo and benchmarks run it, install copies it.
STAGE = $(CARGO_TARGET_DIR)/stage-$(profile_dir)

PREFIX  ?= /usr/local
DESTDIR ?=

# Static, so that a sealed copy in a memfd runs in any mount namespace, and without relocations to touch at start.
# RUSTFLAGS with --target leaves build scripts and proc macros alone. With musl where it can be had: glibc asks the
# processor some forty questions at the start of each program, which a virtual machine answers in 10 us each.
SUPERVISOR_RUSTFLAGS = -C target-feature=+crt-static -C relocation-model=static
SUPERVISOR_TARGET    = $(shell scripts/supervisor-target.sh)

# Where policies/build.sh leaves the components; it knows how to get a compiler for them.
POLICY_OUT = $(CARGO_TARGET_DIR)/policies
# runtime/engine puts `baseline` from there into the program.
export RLRUN_POLICY_OUT = $(POLICY_OUT)

.PHONY: fuzz help build policies hostile-policy demo test test-vm check bench install clean provision

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

# A goal's own needs are asked for at once, before anything is built: an administrator is bothered one time only.
NEEDS = build run

provision:
	@scripts/provision.sh $(NEEDS)

policies: provision ## Build the first-party policies (WebAssembly components)
	@policies/build.sh

# Three builds, because Cargo unites the features of what it builds together: rlrun must not get the compiler that
# policyc needs, and the supervisor must not get anything of either.
build: policies ## Build everything and lay it out in $(STAGE)
	$(CARGO) build --profile $(PROFILE) -p rlrun
	$(CARGO) build --profile $(PROFILE) -p rlrun-policyc
	target=$(SUPERVISOR_TARGET) && \
	RUSTFLAGS="$(SUPERVISOR_RUSTFLAGS)" $(CARGO) build --profile supervisor -p rlrun-supervisor --target "$$target" && \
	scripts/stage.sh "$(STAGE)" "$(CARGO_TARGET_DIR)/$(profile_dir)" \
		"$(CARGO_TARGET_DIR)/$$target/supervisor/rlrun-supervisor" "$(POLICY_OUT)"

demo: build ## Show rlrun at work as an ordinary user
	@scripts/demo.sh "$(STAGE)"

# A policy that misbehaves on demand; the tests hand it to rlrun.
hostile-policy: policies
	. "$$(policies/toolchain.sh)" && $(CARGO) build --quiet --release --target wasm32-unknown-unknown \
		--manifest-path tests/hostile-policy/Cargo.toml --target-dir "$(CARGO_TARGET_DIR)/hostile"

test: NEEDS += test
test: build hostile-policy ## Run every test, as an ordinary user on the real kernel
	@scripts/test.sh "$(STAGE)"

test-vm: build ## Run the tests of limits in an emulated Debian 12, with cgroup v2 of a user session and with v1 (as root)
	@scripts/test-vm.sh "$(STAGE)"

check: NEEDS += check
check: policies ## fmt, clippy, docs, dependency rules, licences, spelling
	@scripts/check.sh

fuzz: policies ## Give every parser, the layer extractor and the policies' host changed samples, FUZZ_SECONDS each
	RLRUN_FUZZ_SECONDS=$(FUZZ_SECONDS) $(CARGO) test -p rlrun-image --lib fuzz:: -- --nocapture --test-threads 2
	RLRUN_FUZZ_SECONDS=$(FUZZ_SECONDS) $(CARGO) test -p rlrun-policyc --test fuzz -- --nocapture --test-threads 2

bench: ## Measure against podman, runc, crun, bubblewrap, skopeo, umoci; writes docs/benchmarks*.md
	@scripts/provision.sh build run test bench
	$(MAKE) PROFILE=release build
	@scripts/bench.sh "$(CARGO_TARGET_DIR)/stage-release"
	@scripts/bench-images.sh "$(CARGO_TARGET_DIR)/stage-release" docs/benchmarks-images.md
	@scripts/bench-scale.sh "$(CARGO_TARGET_DIR)/stage-release" docs/benchmarks-scale.md
	@scripts/bench-limits.sh "$(CARGO_TARGET_DIR)/stage-release" docs/benchmarks-limits.md
	@scripts/bench-policies.sh "$(CARGO_TARGET_DIR)/stage-release" docs/benchmarks-policies.md

install: ## Install under $(DESTDIR)$(PREFIX)
	$(MAKE) PROFILE=release build
	@scripts/install.sh "$(CARGO_TARGET_DIR)/stage-release" "$(DESTDIR)$(PREFIX)"

clean: ## Remove what was built
	$(CARGO) clean
