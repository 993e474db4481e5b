# shellcheck shell=bash
# Programs for a robot's computer (arm64), built on this one. Sourced by setup.sh.

cross=aarch64-unknown-linux-gnu
guest_plan= # "guest" when it is not there yet

# need_guest: what the guest of tools/vm, and programs for it, need besides.
need_guest() {
  if ! have aarch64-linux-gnu-gcc; then miss gcc-aarch64-linux-gnu "a linker for arm64"; fi
  if [[ ! -e /usr/aarch64-linux-gnu/include/stdio.h ]]; then miss libc6-dev-arm64-cross "the C library for arm64"; fi
  if ! have mksquashfs; then miss squashfs-tools "mksquashfs"; fi
  if [[ ! -x /sbin/depmod ]]; then miss kmod "depmod"; fi
  if ! have cpio; then miss cpio "cpio"; fi
  if ! have xz; then miss xz-utils "xz"; fi
  need_emulator
  if [[ ! -e $(guest_folder)/root.squashfs ]]; then guest_plan=guest; fi
}

install_guest() {
  if [[ $guest_plan ]]; then "$root/tools/lib/guest.sh" arm64 "$(guest_folder)" || die "the guest was not made"; fi
  guest_plan=
}

# The folder of the guest; another one when its recipe changes.
guest_folder() {
  local recipe
  recipe=$(cat "$root/tools/lib/guest.sh" "$root/tools/guest/init" | sha256sum | cut -c1-12)
  printf '%s/fathom/guest-arm64-%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}" "$recipe"
}

# cross_target: makes sure that rustc can compile for arm64. Says why and returns 99 where it cannot.
cross_target() {
  if any_file "$(rustc --print target-libdir --target "$cross")/libstd-*.rlib"; then return; fi
  if have rustup && timeout 300 rustup target add "$cross" >&2; then return; fi
  say "there is no standard library for $cross: rustup target add $cross"
  return 99
}

# cross_build PACKAGE: builds the package's program of the same name for arm64 and prints its path.
cross_build() {
  cross_target || return
  (
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    # The camera crate reads the kernel's headers.
    export BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu="--target=aarch64-linux-gnu -I/usr/aarch64-linux-gnu/include"
    build "$1" --target "$cross"
  )
}
