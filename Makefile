# The commands of this project; CI calls the same ones. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export PATH := $(CURDIR)/.tools/bin:$(PATH)

WASM := wasm32-unknown-unknown
# The tests' own handler asks for everything that WASI gives.
WASI := wasm32-wasip2
BENCH := dispatch transactions letters handlers malformed outbox metrics spans swap
# The end-to-end tests wait for servers, hosts and clocks for most of their time, so twice as many run as there are cores.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))
# The tests' build has the points at which they end or freeze the process; what `make build` makes has none.
TEST := cargo test --locked --features failpoints
OLDEST := $(shell sed -n 's/^SERVER_OLDEST=//p' tools/install.sh)
SERVICE := host/examples/order-service
# Handlers are built for wasm; their unit tests run on the machine itself.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

.PHONY: help run test test-oldest chaos soak screenshots paint build dist handlers service fixtures bench lint deny fmt clean

help: ## print this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

run: build service ## build, then run a whole mesh and an order service on this machine: make run ARGS=…
	@exec target/release/jetmesh dev $(ARGS) -- tools/orders.sh

test: handlers service fixtures ## run every test, against a real nats-server
	@tools/install.sh all
	cd handlers && cargo test --locked --target $(HOST)
	$(TEST) --workspace --no-fail-fast

# What rests on the server's own promises: batches, schedules, message ids, redelivery.
OLDEST_TESTS := ahead:: cut:: effects:: dead_letters:: delayed:: dlq:: identity:: ledger:: letters:: payloads:: replay:: retry:: storage:: sweep:: torn::

test-oldest: handlers ## run a part of the tests against the oldest nats-server that a host takes
	@tools/install.sh oldest
	NATS_SERVER=$$(ls $(CURDIR)/.tools/$(OLDEST)/nats-server) \
	    $(TEST) -p jetmesh --test e2e -- $(OLDEST_TESTS)

# The model is optimised, but has debug assertions; its searches print how many states they have.
chaos: handlers ## the kill matrix, every planted mistake, and the ledger's model within large bounds: make chaos ARGS=…
	@tools/install.sh all
	$(TEST) --config profile.dev.package.jetmesh.opt-level=2 -p jetmesh --lib -- \
	    --ignored --nocapture --test-threads 1 ledger::model::large
	$(TEST) --config profile.dev.package.jetmesh.opt-level=2 -p jetmesh --test e2e -- \
	    --ignored --nocapture --test-threads 1 malformed::
	$(TEST) -p jetmesh --test chaos -- --rounds 600 --mistakes $(ARGS)

MINUTES ?= 20

soak: handlers ## one mesh with every trouble at once for 20 minutes, then an audit: make soak MINUTES=…
	@tools/install.sh all
	$(TEST) --config profile.dev.package.jetmesh.opt-level=2 -p jetmesh --test chaos -- --soak $(MINUTES)

build: handlers ## build the handlers and the release binary
	@tools/install.sh run
	cargo build --locked --release -p jetmesh

# Links against glibc 2.28, whatever the machine has. For both: make dist TARGETS="x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu"
dist: ## make the archive that an operator installs, its bill of materials and checksums, in target/dist: make dist TARGETS=…
	@tools/install.sh dist
	tools/dist.sh $(TARGETS)

handlers: ## build the handlers, to handlers/target/wasm32-unknown-unknown/release
	@tools/install.sh rust
	cd handlers && cargo build --locked --release --target $(WASM) --workspace --exclude probe
	cd handlers && cargo build --locked --release --target $(WASI) -p probe

# Not optimised: it is an example, and compiles in half the time.
service: ## build the example of an order service
	@tools/install.sh rust
	cd $(SERVICE) && cargo build --locked

fixtures: # the handler written in JavaScript, for one test
	@if command -v npm >/dev/null; then \
	    tests/fixtures/js/build.sh; \
	else \
	    echo "SKIPPED: there is no npm, so the JavaScript handler is not built and not tested" >&2; \
	fi

screenshots: handlers ## take the pictures of docs/console.md again, in Chromium
	@tools/install.sh test-server && tools/install.sh chromium
	$(TEST) -p jetmesh --test e2e -- --ignored --exact console::pictures::the_pictures_of_the_documentation_are_taken

paint: handlers ## measure how soon the console shows something, with 100,000 dead letters and 1,000 handlers, in Chromium
	@tools/install.sh test-server && tools/install.sh chromium
	$(TEST) -p jetmesh --test e2e -- --ignored --exact --nocapture console::paint::the_first_paint_takes_a_second_at_most

bench: build ## measure, the tables go to standard output; one of them: make bench BENCH=dispatch, transactions, letters, handlers, malformed, outbox, metrics, spans or swap
	@for bench in $(BENCH); do cargo bench --locked -p jetmesh --bench "$$bench"; done

lint: deny ## check the format, the dependencies, the Containerfile, and run clippy; a warning is an error
	@tools/install.sh rust
	@tools/install.sh hadolint
	hadolint --failure-threshold info config/container/Containerfile
	cargo fmt --all --check
	cd handlers && cargo fmt --all --check
	cd $(SERVICE) && cargo fmt --check
	cd $(SERVICE) && cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --workspace --all-targets --features failpoints -- -D warnings
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cd handlers && cargo clippy --locked --workspace --target $(WASM) -- -D warnings

# The database of advisories is not in the registry of crates: where it cannot be fetched, nothing is known of them.
deny: ## check the dependencies: licences, sources, and known vulnerabilities
	@tools/install.sh deny
	cargo deny --locked check bans licenses sources
	cd handlers && cargo deny --locked --config ../deny.toml check bans licenses sources
	cd $(SERVICE) && cargo deny --locked --config ../../../deny.toml check bans licenses sources
	@if timeout 120 cargo deny --locked fetch db; then \
	    cargo deny --locked check advisories && \
	    (cd handlers && cargo deny --locked --config ../deny.toml check advisories) && \
	    cd $(SERVICE) && cargo deny --locked --config ../../../deny.toml check advisories; \
	else \
	    echo "SKIPPED: the database of advisories cannot be fetched, so known vulnerabilities are not looked for" >&2; \
	fi

fmt: ## format all code
	cargo fmt --all
	cd handlers && cargo fmt --all
	cd $(SERVICE) && cargo fmt

clean: ## remove what was built, but not the tools
	cargo clean
	cd handlers && cargo clean
	cd $(SERVICE) && cargo clean
