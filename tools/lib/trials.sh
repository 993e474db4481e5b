# shellcheck shell=bash
# Trying the loop out on the demo's robot. Sourced by setup.sh.

# try_out TRIAL ARGS…: builds what is needed, makes the demo's model where it is missing, and runs a trial of fathom-trials.
try_out() {
  local fathom trials software=() model=$root/target/demo/model
  fathom=$(build fathom)
  trials=$(build fathom-trials)
  if [[ $driver_kind == software ]]; then software=(--software); fi
  if [[ ! -e $model/model.safetensors ]]; then
    (run_with_driver "$fathom" init --preset small --seed 0 --output "$model")
  fi
  run_with_driver "$trials" "$1" --config "$root/tools/demo.toml" --model "$model" \
    ${software[@]+"${software[@]}"} "${@:2}"
}
