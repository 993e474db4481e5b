# shellcheck shell=bash
# Debian packages of a newer release in a folder of their own, without root and without touching the system. Sourced.
# Their programs need their own C library: they are started through its loader.

# shellcheck source=tools/lib/archive.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/archive.sh"

# debian_tree PART RELEASE PACKAGE…: fetches the packages, with all that they depend on, in the newest version of trixie and
# RELEASE, and unpacks them into PART/root. Fails where no archive of this machine has them.
debian_tree() {
  local part=$1 releases=(trixie) name package
  if [[ $2 != trixie ]]; then releases+=("$2"); fi
  shift 2
  fetch_from_archives "$part/packages" "${releases[@]}" -- "$@" || return
  mkdir -p "$part/root/usr"/{bin,lib,lib64,sbin}
  for name in bin lib lib64 sbin; do ln -s "usr/$name" "$part/root/$name"; done
  for package in "$part"/packages/*.deb; do dpkg-deb --extract "$package" "$part/root" || return; done
  rm -rf "$part/packages"
}

# tree_libraries: where a tree's libraries lie, and the loader among them.
tree_libraries() {
  case $(dpkg --print-architecture) in
    amd64) echo root/usr/lib/x86_64-linux-gnu ld-linux-x86-64.so.2 ;;
    arm64) echo root/usr/lib/aarch64-linux-gnu ld-linux-aarch64.so.1 ;;
    *) echo "${0##*/}: no recipe for the architecture $(dpkg --print-architecture)" >&2; return 1 ;;
  esac
}
