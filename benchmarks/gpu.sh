#!/usr/bin/env bash
# What one NVIDIA GPU shows in eight minutes, the most important first:
#
#   benchmarks/gpu.sh TO [--data DATA_DIR --weights MOBILENET_V2.weights.h5] [PART ...]
#
# TO is a folder; everything is written there as it comes, so that a run that is cut off leaves what it has. DATA_DIR
# holds viper and grid, built by `python -m tfds_builders build`. Parts: check, steps, more, simpgan (default: all).
set -uo pipefail
cd "$(dirname "$0")/.."
to=$1; shift
data= weights= parts=
while [ $# -gt 0 ]; do
  case $1 in
    --data) data=$2; shift 2 ;;
    --weights) weights=$2; shift 2 ;;
    *) parts="$parts $1"; shift ;;
  esac
done
parts=${parts:-check steps more simpgan}
mkdir -p "$to"
python=${PYTHON:-python3}

part() { # NAME SECONDS COMMAND...: its output goes to the screen and to TO/NAME.txt; stopped after so many seconds
  local name=$1 seconds=$2; shift 2
  echo "== $name: $*" | tee -a "$to/$name.txt"
  local start=$SECONDS
  timeout -k 5 "$seconds" "$@" 2>>"$to/$name.err" | tee -a "$to/$name.txt"
  echo "-- $name: exit ${PIPESTATUS[0]} after $((SECONDS - start)) s" | tee -a "$to/$name.txt"
}

measure() { # NAME SECONDS OPTIONS...: training steps
  local name=$1 seconds=$2; shift 2
  part "$name" "$seconds" "$python" -m benchmarks.training --to "$to/steps.jsonl" --steps 20 "$@"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$to/device.txt"
date -u +%FT%TZ | tee -a "$to/device.txt"
small="data.image_size=[128,64]"
for name in $parts; do
  case $name in
    check) # each method on the GPU beside the CPU
      part check 110 "$python" -m benchmarks.devices --variants plain compiled both ;;
    steps) # SimPGAN's and DG-Net's steps, as configured
      measure simpgan_128x64 75 simpgan_market_to_grid --stages translation --set "$small" --variants plain compiled both
      measure dgnet 150 dgnet_market1501 --stages joint --variants plain both compiled ;;
    more) # the other methods at the paper's batch, and plain Keras
      measure cmgan 40 cmgan_sysu_mm01 --variants plain both --rival
      measure view_adaptation 60 view_adaptation_market1501 --stages adversarial --variants plain both
      measure crossgan 40 crossgan_market1501 --stages joint --variants plain both ;;
    simpgan) # a whole training on real images, three seeds as far as the time goes
      [ -n "$data" ] || continue
      for seed in 0 1 2; do
        part "simpgan_seed_$seed" 150 "$python" -m tf_reid.train --config simpgan_viper_to_grid --run "$to/simpgan_$seed" --set \
          "run.seed=$seed" "data.data_dir=$data" "$small" "data.augment.pad=10" method.backbone=mobilenet_v2 "method.weights=$weights" \
          method.generator=tanh method.generator_width=64 method.generator_blocks=6 method.discriminator_width=64 \
          stages.classifier.steps=1000 stages.classifier.batch_size=64 stages.translation.steps=1200 stages.translation.batch_size=4 \
          run.jit_compile=auto run.pictures_every=600
      done ;;
  esac
done
