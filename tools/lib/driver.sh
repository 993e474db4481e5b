# shellcheck shell=bash disable=SC2034 # driver_kind is read by the scripts
# Which Vulkan driver programs run on. Sourced by setup.sh.
#
# A hardware driver whose device is really there is used through the system's loader. Otherwise a recent
# lavapipe (Mesa's software driver) is kept beside the system's libraries, in the user's cache folder, with the
# C library it was built for: programs are then started through that tree's own loader, and see the loader as
# /proc/self/exe.
#
# FATHOM_VULKAN=system takes what the system's loader finds, FATHOM_VULKAN=software the software driver.

lavapipe=${XDG_CACHE_HOME:-$HOME/.cache}/fathom/lavapipe-26
driver_kind=    # "hardware" or "software"
driver_run=     # the program that starts others under the driver; empty: they are started as they are
driver_plan=    # what set_up has to do: "", "lavapipe" or "distribution"

# vulkan_driver: finds the driver, or plans what is missing.
vulkan_driver() {
  local chosen=${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}} driver
  if [[ $chosen == "$lavapipe"/* ]]; then chosen=; fi # set by a run script further out
  if [[ -n $chosen || ${FATHOM_VULKAN:-} == system ]]; then
    driver_kind=hardware
    if [[ ${chosen##*/} == lvp_* ]]; then driver_kind=software; fi
  elif [[ ${FATHOM_VULKAN:-} != software ]] && driver=$(hardware_driver); then
    driver_kind=hardware
    if ! have_vulkan_loader; then miss libvulkan1 "the Vulkan loader (for $driver)"; fi
  else
    software_driver
  fi
  # Without it Mesa's window system code prints an error that means nothing here.
  export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/run/user/$EUID}
}

have_vulkan_loader() { [[ $(/sbin/ldconfig -p 2>/dev/null) == *libvulkan.so.1* ]]; }

# Prints the driver manifest of a GPU that is here and may be opened; fails when there is none.
hardware_driver() {
  local manifest kernel_driver here
  here=" $(gpu_kernel_drivers | paste -sd' ') "
  for manifest in {/etc,/usr/share,/usr/local/share,/usr/local/etc}/vulkan/icd.d/*.json; do
    [[ -e $manifest ]] || continue
    for kernel_driver in $(kernel_drivers_of "${manifest##*/}"); do
      if [[ $here == *" $kernel_driver "* ]]; then echo "$manifest"; return; fi
    done
  done
  if [[ $here =~ [a-z] ]]; then
    say "A GPU is here (kernel driver:${here% }), but no Vulkan driver for it; the software driver is used instead."
    say "To use the GPU: apt install mesa-vulkan-drivers, or NVIDIA's driver package for an NVIDIA GPU."
  fi
  return 1
}

# The kernel drivers of the GPUs here. A virtual machine's display is not among them.
gpu_kernel_drivers() {
  local node driver
  for node in /dev/dri/renderD*; do
    driver=$(readlink "/sys/class/drm/${node##*/}/device/driver") || continue
    if [[ ${driver##*/} == @(virtio*|vgem|vkms) ]]; then continue; fi
    if [[ -r $node && -w $node ]]; then
      echo "${driver##*/}"
    else
      say "$node may not be opened by $(id -un): sudo usermod -aG render $(id -un), then log in again"
    fi
  done
  if any_file '/dev/nvidia[0-9]*' '/dev/nvhost-gpu' '/dev/nvgpu/*' '/dev/nvhost-ctrl-gpu'; then echo nvidia; fi
}

# kernel_drivers_of MANIFEST: the kernel drivers that a Vulkan driver works on, by its manifest's name.
kernel_drivers_of() {
  case $1 in
    nvidia*) echo nvidia ;;
    radeon* | amd*) echo amdgpu ;;
    intel*) echo i915 xe ;;
    nouveau*) echo nouveau ;;
    freedreno*) echo msm msm_dpu ;;
    broadcom*) echo v3d ;;
    panfrost*) echo panfrost panthor ;;
    asahi*) echo asahi ;;
    powervr*) echo powervr ;;
  esac
}

software_driver() {
  driver_kind=software
  if lavapipe_works; then
    driver_run=$lavapipe/run
  elif [[ $(os_release ID) == debian && ! -e $lavapipe.failed ]]; then
    driver_plan=lavapipe
  elif ! have_distribution_driver; then
    driver_plan=distribution
    miss mesa-vulkan-drivers "a Vulkan driver (Mesa's lavapipe where there is no GPU)"
    miss libvulkan1 "the Vulkan loader"
  fi
}

lavapipe_works() { [[ -x $lavapipe/run ]] && "$lavapipe/run" /bin/true 2>/dev/null; }
have_distribution_driver() {
  any_file '/usr/share/vulkan/icd.d/lvp_icd*.json' '/usr/local/share/vulkan/icd.d/lvp_icd*.json' && have_vulkan_loader
}

# install_driver: makes the lavapipe tree when it is planned, or falls back to the distribution's driver.
install_driver() {
  if [[ $driver_plan != lavapipe ]]; then return; fi
  driver_plan=
  if "$root/tools/lib/lavapipe.sh" "$lavapipe"; then
    driver_run=$lavapipe/run
    return
  fi
  say "The recent software driver could not be set up (see above); the distribution's own, slower one is used."
  say "To try again: rm $lavapipe.failed"
  touch "$lavapipe.failed"
  if ! have_distribution_driver; then
    missing_packages=(mesa-vulkan-drivers libvulkan1)
    say "Installing: ${missing_packages[*]}"
    install_packages
  fi
}

# Khronos' validation layer: the system's, or beside the software driver one for its C library. The number changes with the recipe.
validation_layer= # the folder with its manifest; empty: the system's loader finds it
validation_plan=  # "fetch" when there is none yet beside the software driver

# need_validation: plans the layer for the driver that was found. After vulkan_driver.
need_validation() {
  local manifest=VkLayer_khronos_validation.json
  if [[ -n $driver_run || $driver_plan == lavapipe ]]; then
    validation_layer=${XDG_CACHE_HOME:-$HOME/.cache}/fathom/validation-1
    if [[ ! -e $validation_layer/$manifest ]]; then validation_plan=fetch; fi
  elif ! any_file "/usr/share/vulkan/explicit_layer.d/$manifest" "/etc/vulkan/explicit_layer.d/$manifest"; then
    miss vulkan-validationlayers "Khronos' validation layer"
  fi
}

# install_validation: fetches the layer where it is planned.
install_validation() {
  if [[ $validation_plan ]]; then
    "$root/tools/lib/validation.sh" "$validation_layer" || die "the validation layer was not fetched"
  fi
  validation_plan=
}

# run_with_driver PROGRAM ARGS…: replaces this shell by the program, on the driver that was found.
run_with_driver() {
  if [[ -n $driver_run ]]; then exec "$driver_run" "$@"; fi
  exec "$@"
}
