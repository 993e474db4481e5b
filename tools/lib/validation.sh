#!/usr/bin/env bash
# Usage: tools/lib/validation.sh DIR
# Puts Khronos' validation layer (Debian's package vulkan-validationlayers, of trixie-backports) into DIR, for programs on
# the software driver of tools/lib/lavapipe.sh, whose C library it needs. Without root and without touching the system;
# neither is the driver's folder touched. DIR appears only when it is complete.
set -euo pipefail
# shellcheck source=tools/lib/tree.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/tree.sh"

folder=$(realpath -m -- "$1")
mkdir -p "$(dirname -- "$folder")"
exec 9>"$folder.lock"
flock 9
if [[ -e $folder/VkLayer_khronos_validation.json ]]; then exit 0; fi
rm -rf "$folder" "$folder".part-*
part=$(mktemp -d "$folder.part-XXXXXX")
trap 'rm -rf "$part"' EXIT

places=$(tree_libraries)
read -r libraries _ <<<"$places"
debian_tree "$part" trixie-backports vulkan-validationlayers
mv "$part/$libraries/libVkLayer_khronos_validation.so" "$part"
# The library beside its manifest.
sed 's|"library_path": "|&./|' "$part/root/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json" \
  >"$part/VkLayer_khronos_validation.json"
grep -qF '"./libVkLayer_khronos_validation.so"' "$part/VkLayer_khronos_validation.json"
rm -rf "$part/root"
chmod 755 "$part"
mv -T "$part" "$folder"
