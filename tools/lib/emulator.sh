# shellcheck shell=bash
# QEMU for ARM: the system's, or else one beside it in the user's cache folder. Sourced by setup.sh.
#
# Not the distribution's package: where parts of a newer QEMU are installed, it would remove them.

emulator=${XDG_CACHE_HOME:-$HOME/.cache}/fathom/qemu-10
emulator_plan= # "fetch" when there is none yet

need_emulator() {
  if have qemu-system-arm && have qemu-system-aarch64; then return; fi
  PATH=$emulator/bin:$PATH
  if ! have qemu-system-arm; then emulator_plan=fetch; fi
}

install_emulator() {
  if [[ $emulator_plan ]]; then "$root/tools/lib/qemu.sh" "$emulator" || die "QEMU was not fetched"; fi
  emulator_plan=
}
