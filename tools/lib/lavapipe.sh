#!/usr/bin/env bash
# Usage: tools/lib/lavapipe.sh DIR
# Puts a recent lavapipe (Mesa's software Vulkan driver, of trixie-backports) with the libraries it needs into
# DIR, without root and without touching the system, on Debian 12 or 13. DIR/run PROGRAM ARGS… starts a program
# on it. DIR appears only when it is complete; where it exists and works nothing is done.
set -euo pipefail
# shellcheck source=tools/lib/tree.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/tree.sh"

tree=$(realpath -m -- "$1")
parent=$(dirname -- "$tree")
mkdir -p "$parent"
exec 9>"$tree.lock"
flock 9
if [[ -x $tree/run ]] && "$tree/run" /bin/true 2>/dev/null; then exit 0; fi
rm -rf "$tree".part-*
part=$(mktemp -d "$tree.part-XXXXXX")
trap 'rm -rf "$part"' EXIT

places=$(tree_libraries)
read -r libraries loader <<<"$places"
debian_tree "$part" trixie-backports mesa-vulkan-drivers libvulkan1 libc6 libgcc-s1 libstdc++6

manifest=$(cd "$part" && ls root/usr/share/vulkan/icd.d/lvp_icd*.json)
write_run() {
  printf '#!/bin/sh\n# Starts a program on the software Vulkan driver of this folder.\nexport VK_DRIVER_FILES=%q\n' "$1/$manifest"
  printf 'exec %q --library-path %q "$@"\n' "$1/$libraries/$loader" "$1/$libraries"
}
write_run "$part" >"$part/run"
chmod +x "$part/run"
"$part/run" /bin/true
write_run "$tree" >"$part/run"
chmod 755 "$part"

rm -rf "$tree"
mv -T "$part" "$tree"
