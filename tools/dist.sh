#!/usr/bin/env bash
# Makes what an operator installs, in target/dist: for each target an archive and its bill of materials, and the checksums of all.
#
#   tools/dist.sh [TARGET…]         x86_64-unknown-linux-gnu or aarch64-unknown-linux-gnu; this machine's if none is named
#   tools/dist.sh --check PROGRAM   whether PROGRAM runs on every Linux with glibc 2.28 or newer
#
# zig links against the oldest glibc that is promised, so the machine that builds may be newer. `tools/install.sh dist` brings it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Debian 10, RHEL 8, Ubuntu 20.04 and newer have it.
GLIBC=2.28
# What glibc 2.28 consists of. A program that wants another library does not run on every machine.
LIBRARIES='ld-linux-x86-64\.so\.2|ld-linux-aarch64\.so\.1|lib(c|dl|m|pthread|rt)\.so\.[0-9]+'
TOOLS=$PWD/.tools/dist
OUT=$PWD/target/dist
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

fail() { echo "error: $*" >&2; exit 1; }

# What the program $1 wants of the machine. readelf reads programs of every architecture; objdump does not.
check() {
    local header newest others
    header=$(readelf -hW "$1" 2>/dev/null) && [[ $header == *ELF64* ]] || fail "$1 is not a program for Linux on 64 bits"
    newest=$({ readelf -VW "$1" | grep -oE 'GLIBC_[0-9.]+' || true; } | sed 's/GLIBC_//' | sort -Vu | tail -n 1)
    [ "$(printf '%s\n%s\n' "$GLIBC" "${newest:-0}" | sort -V | tail -n 1)" = "$GLIBC" ] \
        || fail "$1 wants glibc $newest, and may want $GLIBC at most: build it with 'make dist'"
    others=$({ readelf -dW "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -vxE "$LIBRARIES" || true; } | paste -sd ' ')
    [ -z "$others" ] || fail "$1 wants libraries that not every machine has: $others"
    echo "$(basename "$1") wants ${newest:+glibc $newest or newer, and }no other library"
}

native() { rustc -vV | sed -n 's/^host: //p'; }

build() {
    # Where this machine keeps its sources is of no use to others, and would make each machine's build another one.
    local flags="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$PWD=/jetmesh"
    PATH=$TOOLS/bin:$PATH CARGO_ZIGBUILD_ZIG_PATH=$TOOLS/ziglang/zig RUSTFLAGS=$flags \
        cargo zigbuild --locked --release -p jetmesh --bin jetmesh --target "$1.$GLIBC"
}

# The crates that are in the program for target $1, as CycloneDX, into the file $2. cargo-cyclonedx writes beside the manifest.
bill() {
    PATH=$TOOLS/../bin:$PATH cargo cyclonedx --quiet --manifest-path host/Cargo.toml --format json --spec-version 1.5 \
        --target "$1" --no-build-deps --override-filename "jetmesh-$1"
    sed "s|file://$PWD/|file:///jetmesh/|" "host/jetmesh-$1.json" >"$2"
    rm "host/jetmesh-$1.json"
    grep -q '"bomFormat": *"CycloneDX"' "$2" || fail "$2 is no bill of materials"
}

# The archive with the folder $1, in $2. The same content makes the same bytes.
pack() {
    tar -C "$2" --sort=name --owner=0 --group=0 --numeric-owner --mode=u+w,go-w,a+rX --mtime="@$SOURCE_DATE_EPOCH" \
        -cf - "$1" | gzip -9n >"$OUT/$1.tar.gz"
}

make_one() {
    local target=$1 name=jetmesh-$VERSION-$1 dir program
    build "$target"
    program=${CARGO_TARGET_DIR:-target}/$target/release/jetmesh
    check "$program"
    dir=$(mktemp -d)
    mkdir "$dir/$name"
    install -m 755 "$program" "$dir/$name/jetmesh"
    cp -r LICENSE README.md CHANGELOG.md config docs "$dir/$name/"
    pack "$name" "$dir"
    bill "$target" "$OUT/$name.cdx.json"
    # What was packed is what an operator gets.
    rm -rf "${dir:?}/$name"
    tar -C "$dir" -xzf "$OUT/$name.tar.gz"
    if [ "$target" = "$(native)" ]; then
        [ "$("$dir/$name/jetmesh" --version)" = "jetmesh $VERSION" ] || fail "the program of $name.tar.gz does not say its version"
    fi
    rm -rf "$dir"
}

if [ "${1:-}" = --check ]; then
    check "${2:?tools/dist.sh --check PROGRAM}"
    exit
fi
[ $# -gt 0 ] || set -- "$(native)"
for target in "$@"; do
    case "$target" in
        x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) ;;
        *) fail "there is no archive for $target: it can be x86_64-unknown-linux-gnu or aarch64-unknown-linux-gnu" ;;
    esac
done
# The time of what is built, in the archive and in the bill of materials.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH
rm -rf "$OUT"
mkdir -p "$OUT"
for target in "$@"; do make_one "$target"; done
cd "$OUT"
sha256sum -- *.tar.gz *.json >SHA256SUMS
sha256sum --quiet -c SHA256SUMS
ls -lh
