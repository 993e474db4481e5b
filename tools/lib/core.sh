#!/usr/bin/env bash
# Usage: tools/lib/core.sh DIR TARGET
# Compiles Rust's core library for TARGET into the sysroot DIR, for `rustc --sysroot`, from the source of this
# very rustc as Debian's backports have it (package rust-src), without root. DIR/.complete says that it is done.
set -euo pipefail
# shellcheck source=tools/lib/archive.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/archive.sh"

sysroot=$(realpath -m -- "$1")
target=$2
version=$(rustc --version | cut -d' ' -f2)
mkdir -p "$(dirname -- "$sysroot")"
exec 9>"$sysroot.lock"
flock 9
if [[ -e $sysroot/.complete ]]; then exit 0; fi
rm -rf "$sysroot" "$sysroot".part-*
part=$(mktemp -d "$sysroot.part-XXXXXX")
trap 'rm -rf "$part"' EXIT

fetch_from_archives "$part/packages" trixie trixie-backports -- "rust-src=$version*"
for package in "$part"/packages/rust-src_*.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar -x -C "$part" --wildcards './usr/src/rustc-*/library/*'
done
library=$(echo "$part"/usr/src/rustc-*/library)
mkdir -p "$part/nothing/src"
cat >"$part/nothing/Cargo.toml" <<TOML
[package]
name = "nothing"
version = "0.0.0"
edition = "2024"
[profile.release]
panic = "abort"
debug = 0
[workspace]
TOML
echo '#![no_std]' >"$part/nothing/src/lib.rs"
# What `rustup target add` brings was made from the same source with the same options.
(cd "$part/nothing" && env -u CARGO_TARGET_DIR RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT="$library" \
  RUSTFLAGS=-Cembed-bitcode=yes cargo build --quiet --release -Zbuild-std=core --target "$target" --target-dir "$part/target" \
  --config 'source.crates-io.replace-with="vendored"' --config "source.vendored.directory=\"$library/vendor\"")

mkdir -p "$sysroot/lib/rustlib/$target/lib"
cp "$part/target/$target/release/deps"/lib{core,compiler_builtins}-*.rlib "$sysroot/lib/rustlib/$target/lib"
touch "$sysroot/.complete"
