#!/usr/bin/env bash
# Usage: tools/lib/lavapipe.sh DIR
# Puts a recent lavapipe (Mesa's software Vulkan driver, of trixie-backports) with the libraries it needs into
# DIR, without root and without touching the system, on Debian 12 or 13. DIR/run PROGRAM ARGS… starts a program
# on it. DIR appears only when it is complete; where it exists and works nothing is done.
set -euo pipefail

tree=$(realpath -m -- "$1")
parent=$(dirname -- "$tree")
mkdir -p "$parent"
exec 9>"$tree.lock"
flock 9
if [[ -x $tree/run ]] && "$tree/run" /bin/true 2>/dev/null; then exit 0; fi
rm -rf "$tree".part-*
part=$(mktemp -d "$tree.part-XXXXXX")
trap 'rm -rf "$part"' EXIT

multiarch=$(dpkg --print-architecture)
case $multiarch in
  amd64) multiarch=x86_64-linux-gnu loader=ld-linux-x86-64.so.2 ;;
  arm64) multiarch=aarch64-linux-gnu loader=ld-linux-aarch64.so.1 ;;
  *) echo "lavapipe: no recipe for the architecture $multiarch" >&2; exit 1 ;;
esac

# The archives this machine takes its own release from, in its own order.
codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
# shellcheck disable=SC2016 # apt's own variables
mapfile -t archives < <(
  apt-get indextargets --no-release-info --format '$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI)' |
    awk -v release="^($codename|(old)*stable)\$" \
      '$1 == "Packages" && $2 == "main" && $3 ~ release && !seen[$4]++ { print $4 }'
)

# A package system of its own inside $part: empty status, so that apt fetches every library, and own sources.
apt=$part/apt
mkdir -p "$apt"/{state/lists/partial,cache/archives/partial}
touch "$apt/state/status"
cat >"$apt/apt.conf" <<CONF
Dir::State "$apt/state";
Dir::State::status "$apt/state/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
CONF
fetch() {
  local release
  for release in trixie trixie-backports; do
    echo "deb [target=Packages signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $1 $release main"
  done >"$apt/sources.list"
  APT_CONFIG=$apt/apt.conf apt-get -qq update &&
    APT_CONFIG=$apt/apt.conf apt-get -qq install -y --no-install-recommends --download-only \
      -t trixie-backports mesa-vulkan-drivers libvulkan1 libc6 libgcc-s1 libstdc++6
}
fetched=
for archive in "${archives[@]}"; do
  echo "lavapipe: fetching from $archive" >&2
  if fetch "$archive" >&2; then fetched=1; break; fi
done
if [[ -z $fetched ]]; then
  echo "lavapipe: trixie-backports was found in none of this machine's Debian archives: ${archives[*]:-(none)}" >&2
  exit 1
fi

mkdir -p "$part/root/usr"/{bin,lib,lib64,sbin}
for name in bin lib lib64 sbin; do ln -s "usr/$name" "$part/root/$name"; done
for package in "$apt"/cache/archives/*.deb; do dpkg-deb --extract "$package" "$part/root"; done
rm -rf "$apt"

manifest=$(cd "$part" && ls root/usr/share/vulkan/icd.d/lvp_icd*.json)
libraries=root/usr/lib/$multiarch
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
