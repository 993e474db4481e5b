# shellcheck shell=bash
# Building the boards' firmware: Rust's core library for their processor, the programs, what they may not
# contain. Sourced by setup.sh.
#
# The core library comes from rustup; where that has none, from its source in Debian's package rust-src of the
# same version, compiled into the user's cache folder. Nothing of the toolchain changes.

thumb=thumbv7em-none-eabihf
firmware_plan= # "core" when the core library is not there yet

# need_firmware: plans what building and emulating the boards' firmware needs besides Rust.
need_firmware() {
  need_emulator
  if [[ -z $rust_plan ]] && ! any_file "$(thumb_libraries)/libcore-*.rlib" "$(thumb_sysroot)/.complete"; then
    firmware_plan=core
  fi
}

# The folder where rustc keeps its own libraries for the boards' processor.
thumb_libraries() { rustc --print target-libdir --target "$thumb"; }

# The sysroot that holds a compiled core library of this rustc, where rustup has none.
thumb_sysroot() {
  printf '%s/fathom/core-%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}" "$(rustc -vV | sed -n 's/^commit-hash: //p' | cut -c1-12)"
}

# firmware_target: makes sure that rustc can compile for the boards, and exports what cargo needs for it.
# Says why and returns 99 where it cannot.
firmware_target() {
  local sysroot
  if any_file "$(thumb_libraries)/libcore-*.rlib"; then return; fi
  sysroot=$(thumb_sysroot)
  if [[ ! -e $sysroot/.complete ]]; then
    if have rustup && timeout 120 rustup target add "$thumb" >/dev/null 2>&1; then return; fi
    "$root/tools/lib/core.sh" "$sysroot" "$thumb" || {
      say "rustup has no core library for $thumb, and Debian no rust-src $(rustc --version | cut -d' ' -f2)"
      return 99
    }
  fi
  export CARGO_TARGET_THUMBV7EM_NONE_EABIHF_RUSTFLAGS="--sysroot=$sysroot"
}

# board_elf BOARD: where its firmware lies.
board_elf() { echo "$root/target/boards/$thumb/release/$1"; }

# build_firmware: all boards, without warnings, in the workspace's format, and without a panic path.
build_firmware() (
  cd "$root/firmware-bridge/boards" || return
  local lock=()
  if [[ ${CI:-} == true ]]; then lock=(--locked); fi
  firmware_target || return
  cargo build "${lock[@]}" --release --bins --examples && cd "$root" && cargo xtask firmware
)
