# shellcheck shell=bash
# Building the workspace's programs. Sourced by setup.sh.

# build PROGRAM OPTIONS…: builds one of the workspace's programs, with cargo's options, and prints its path. With the whole
# workspace's features, so that programs and tests share every compiled crate.
# Everything cargo says goes to stderr, less the line that there was nothing to do.
build() {
  local messages program
  messages=$(
    cd "$root"
    { cargo build --release --workspace --bin "$1" --message-format json-render-diagnostics "${@:2}" 2>&1 >&3 3>&- |
      sed -u '/^ *Finished /d' >&2; } 3>&1
  ) || die "cargo build of $1 failed"
  program=$(sed -n 's/.*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' <<<"$messages")
  [[ -x $program ]] || die "cargo built $1, but named no program"
  printf '%s\n' "$program"
}
