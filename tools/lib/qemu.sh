#!/usr/bin/env bash
# Usage: tools/lib/qemu.sh DIR
# Puts QEMU for ARM processors, of Debian 13, with the libraries that it needs into DIR, without root and without
# touching the system: DIR/bin/qemu-system-arm and DIR/bin/qemu-system-aarch64. DIR appears only when it is complete.
set -euo pipefail
# shellcheck source=tools/lib/archive.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/archive.sh"

tree=$(realpath -m -- "$1")
mkdir -p "$(dirname -- "$tree")"
exec 9>"$tree.lock"
flock 9
if [[ -x $tree/bin/qemu-system-arm ]]; then exit 0; fi
rm -rf "$tree".part-*
part=$(mktemp -d "$tree.part-XXXXXX")
trap 'rm -rf "$part"' EXIT

case $(dpkg --print-architecture) in
  amd64) libraries=usr/lib/x86_64-linux-gnu loader=ld-linux-x86-64.so.2 ;;
  arm64) libraries=usr/lib/aarch64-linux-gnu loader=ld-linux-aarch64.so.1 ;;
  *) echo "qemu: no recipe for the architecture $(dpkg --print-architecture)" >&2; exit 1 ;;
esac
fetch_from_archives "$part/debs" trixie -- qemu-system-arm
mkdir -p "$part/root/usr"/{bin,lib,lib64,sbin} "$part/bin"
for name in bin lib lib64 sbin; do ln -s "usr/$name" "$part/root/$name"; done
for package in "$part"/debs/*.deb; do dpkg-deb --extract "$package" "$part/root"; done
rm -rf "$part/debs" "$part/root/usr/share"/{doc,man,locale,i18n}

for name in qemu-system-arm qemu-system-aarch64; do
  {
    printf '#!/bin/sh\nexport QEMU_MODULE_DIR=%q\n' "$tree/root/$libraries/qemu"
    printf 'exec %q --library-path %q --argv0 %q %q -L %q "$@"\n' "$tree/root/$libraries/$loader" \
      "$tree/root/$libraries" "$name" "$tree/root/usr/bin/$name" "$tree/root/usr/share/qemu"
  } >"$part/bin/$name"
  chmod 755 "$part/bin/$name"
done
chmod 755 "$part"
rm -rf "$tree"
mv -T "$part" "$tree"
"$tree/bin/qemu-system-arm" --version >&2
