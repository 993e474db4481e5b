# shellcheck shell=bash
# What Fathom needs on this machine: found, listed, and installed after asking. Sourced by the scripts in tools/.
#
# set_up is the one entry. The need_* functions and vulkan_driver only look, and add what is missing to a plan;
# set_up shows the plan, asks once, and installs. With everything in place nothing is printed and nothing
# outside is contacted.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=tools/lib/driver.sh
source "$root/tools/lib/driver.sh"
# shellcheck source=tools/lib/build.sh
source "$root/tools/lib/build.sh"
# shellcheck source=tools/lib/emulator.sh
source "$root/tools/lib/emulator.sh"
# shellcheck source=tools/lib/trials.sh
source "$root/tools/lib/trials.sh"
# shellcheck source=tools/lib/firmware.sh
source "$root/tools/lib/firmware.sh"
# shellcheck source=tools/lib/cross.sh
source "$root/tools/lib/cross.sh"

want_firmware=        # 1: the calling script builds and emulates the boards' firmware
want_guest=           # 1: it starts the guest of tools/vm
want_validation=      # 1: it runs programs under Khronos' validation layer
extra_tools=()        # commands that the calling script needs besides (git, shellcheck, cargo-fmt, …)
missing_packages=()   # Debian package names
missing_tools=()      # the same things in words, for systems without apt
rust_plan=            # "", "components", "toolchain" (by the rustup that is here) or "rustup"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
# any_file PATTERN…: whether a file matches one of the patterns.
any_file() {
  local pattern
  for pattern in "$@"; do if compgen -G "$pattern" >/dev/null; then return 0; fi; done
  return 1
}
agreed() { [[ ${FATHOM_YES:-} == 1 || ${CI:-} == true ]]; }

# miss PACKAGE WORDS: plans one package.
miss() { missing_packages+=("$1"); missing_tools+=("$2"); }

# need_packages: the compiler's packages, and the extra tools.
need_packages() {
  local tool
  if ! have cc; then miss gcc "a C compiler (it links Rust programs)"; fi
  if [[ ! -e /usr/include/linux/videodev2.h || ! -e /usr/include/stdio.h ]]; then
    miss libc6-dev "the C library's and the kernel's headers"
  fi
  if [[ -z ${LIBCLANG_PATH:-} ]] &&
    ! any_file '/usr/lib/*/libclang'{,-[0-9]*}.so* '/usr/lib/llvm-*/lib/libclang'{,-[0-9]*}.so* '/usr/lib64/libclang.so*'; then
    miss "$(libclang_package)" "libclang (the camera crate reads the kernel's headers with it)"
  fi
  if [[ $rust_plan == rustup ]] && ! have curl; then miss curl "curl"; fi
  if ! any_file /etc/ssl/certs/ca-certificates.crt /etc/ssl/cert.pem /etc/pki/tls/certs/ca-bundle.crt; then
    miss ca-certificates "TLS certificates (cargo fetches crates)"
  fi
  for tool in ${extra_tools[@]+"${extra_tools[@]}"}; do
    if [[ $tool == cargo-* ]] || have_tool "$tool"; then continue; fi
    case $tool in
      browser) miss chromium-headless-shell "Chromium (it looks at the latency tool's page)" ;;
      python-venv) miss python3-venv "Python 3 with venv (Perfetto's own schema reads the traces)" ;;
      systemd-analyze) miss systemd "$tool" ;;
      osmesa) miss libosmesa6 "OSMesa (MuJoCo draws with it on the processor)" ;;
      strip) miss binutils "binutils (strip)" ;;
      *) miss "$tool" "$tool" ;;
    esac
  done
}

# have_tool NAME: whether a command is here; of browser and python-venv, whether one of several is.
have_tool() {
  case $1 in
    browser) browser >/dev/null ;;
    osmesa) any_file '/usr/lib/*/libOSMesa.so*' '/usr/lib64/libOSMesa.so*' ;;
    python-venv) python3 -c 'import ensurepip' >/dev/null 2>&1 ;;
    *) have "$1" ;;
  esac
}

# browser: prints a Chromium without a window; fails where there is none. One that a snap confines cannot read our files.
browser() {
  local name path
  for name in chromium-headless-shell chromium google-chrome chromium-browser; do
    path=$(command -v "$name") || continue
    if [[ $(readlink -f "$path") != *snap* ]]; then echo "$path"; return; fi
  done
  return 1
}

# The distribution's own libclang. libclang-dev exists everywhere, but is ten times the size.
libclang_package() {
  case $(os_release VERSION_CODENAME) in
    bookworm | jammy) echo libclang1-14 ;;
    noble) echo libclang1-18 ;;
    trixie) echo libclang1-19 ;;
    *) echo libclang-dev ;;
  esac
}

# os_release KEY: one value of /etc/os-release.
os_release() { sed -n "s/^$1=\"\{0,1\}\([^\"]*\)\"\{0,1\}\$/\1/p" /etc/os-release 2>/dev/null || true; }

# need_rust: a cargo new enough for the workspace, and the cargo commands among the extra tools.
need_rust() {
  local tool
  if ! rust_is_new_enough; then PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH; fi
  if ! rust_is_new_enough && have rustup && RUSTUP_TOOLCHAIN=stable rust_is_new_enough; then
    export RUSTUP_TOOLCHAIN=stable
  fi
  if ! rust_is_new_enough; then
    if have rustup; then rust_plan=toolchain; else rust_plan=rustup; fi
    return
  fi
  for tool in ${extra_tools[@]+"${extra_tools[@]}"}; do
    if [[ $tool == cargo-* ]] && ! cargo "${tool#cargo-}" --version >/dev/null 2>&1; then rust_plan=components; fi
  done
}

rust_wanted() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml"; }
rust_is_new_enough() {
  local wanted found
  wanted=$(rust_wanted)
  found=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
  [[ $(printf '%s\n' "$wanted" "$found" | sort -V | tail -n1) == "$found" ]]
}

# set_up: finds what is missing, shows it, asks, installs. FATHOM_YES=1 (which --yes sets) or CI=true answers.
set_up() {
  local answer
  need_rust
  need_packages
  if [[ $want_firmware ]]; then need_firmware; fi
  if [[ $want_guest ]]; then need_guest; fi
  vulkan_driver
  if [[ $want_validation ]]; then need_validation; fi
  if ((${#missing_packages[@]} == 0)) && [[ -z $rust_plan$driver_plan$firmware_plan$emulator_plan$guest_plan$validation_plan ]]; then
    return
  fi
  if ((${#missing_packages[@]})) && ! have apt-get; then
    say "Fathom needs, and this system has no apt to get it with:"
    printf '  %s\n' "${missing_tools[@]}" >&2
    die "install these with your system's own tools, then try again"
  fi
  say "Fathom will install:"
  if ((${#missing_packages[@]})); then say "  packages of $(os_release NAME): ${missing_packages[*]}"; fi
  case $rust_plan in
    rustup) say "  Rust $(rust_wanted) or newer, by rustup (https://rustup.rs), in ~/.cargo and ~/.rustup" ;;
    toolchain) say "  Rust's current stable toolchain, by the rustup that is here" ;;
    components) say "  rustfmt and clippy, by the rustup that is here" ;;
  esac
  if [[ $firmware_plan ]]; then
    say "  Rust's core library for the boards' processor, by rustup, or else compiled from Debian's rust-src"
    say "  (45 MB to download) in $(thumb_sysroot)"
  fi
  if [[ $emulator_plan ]]; then say "  QEMU for ARM, of Debian 13, 35 MB to download, in $emulator"; fi
  if [[ $guest_plan ]]; then say "  a computer for it to emulate, Debian 13, 160 MB to download, in $(guest_folder)"; fi
  if [[ $driver_plan == lavapipe ]]; then
    say "  a recent software Vulkan driver, since no hardware driver was found: Mesa of trixie-backports,"
    say "  about 60 MB to download and 310 MB in $lavapipe; nothing of the system changes"
  fi
  if [[ $validation_plan ]]; then
    say "  Khronos' validation layer for it, of trixie, 12 MB to download, in $validation_layer"
  fi
  if ! agreed; then
    [[ -t 0 ]] || die "nobody here to ask: say --yes (tools/demo, tools/test) or set FATHOM_YES=1"
    read -r -p "Go on? [y/N] " answer
    [[ $answer == [yY]* ]] || die "nothing was installed"
  fi
  install_packages
  install_rust
  install_driver
  install_validation
  install_emulator
  install_guest
}

as_root() {
  if ((EUID == 0)); then "$@"; elif have sudo; then sudo "$@"; else die "needs root (or sudo): $*"; fi
}

install_packages() {
  local log
  if ((${#missing_packages[@]} == 0)); then return; fi
  say "Installing packages…"
  log=$(mktemp)
  as_root apt-get -qq update >>"$log" 2>&1 || say "apt-get update failed; going on with the package lists there are"
  if ! as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install -y --no-install-recommends --no-remove "${missing_packages[@]}" >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    die "apt could not install: ${missing_packages[*]}"
  fi
  rm -f "$log"
  missing_packages=()
}

install_rust() {
  local script
  case $rust_plan in
    "") return ;;
    components) rustup component add rustfmt clippy >&2 || die "cargo fmt and cargo clippy are needed" ;;
    toolchain)
      rustup toolchain install stable --profile minimal --component rustfmt --component clippy >&2 ||
        die "rustup could not install Rust $(rust_wanted) or newer"
      export RUSTUP_TOOLCHAIN=stable
      ;;
    rustup)
      script=$(mktemp)
      curl --proto '=https' --tlsv1.2 -fsS -o "$script" https://sh.rustup.rs || die "could not fetch rustup"
      # A cargo of the distribution may stay: the scripts look into ~/.cargo/bin first when it is too old.
      RUSTUP_INIT_SKIP_PATH_CHECK=yes sh "$script" -y --no-modify-path --default-toolchain stable \
        --profile minimal --component rustfmt --component clippy >&2 || die "rustup did not finish"
      rm -f "$script"
      say "Rust is in ${CARGO_HOME:-$HOME/.cargo}/bin; to have it in your own shell: . ${CARGO_HOME:-$HOME/.cargo}/env"
      ;;
  esac
  rust_is_new_enough || die "Rust $(rust_wanted) or newer is needed; found: $(cargo --version 2>&1 || true)"
  rust_plan=
}
