#!/usr/bin/env bash
# What one NVIDIA GPU shows in eight minutes, the most important first:
#
#   benchmarks/gpu.sh TO [--data DATA_DIR --weights MOBILENET_V2.weights.h5] [PART ...]
#
# TO is a folder; everything is written there as it comes, so that a run that is cut off leaves what it has. DATA_DIR
# holds viper and grid, built by `python -m tfds_builders build`. Parts, with seconds on an H200:
#
#   steps    SimPGAN's step compiled in bfloat16 (100) and DG-Net's plain one (75)
#   check    one stage of each method on the GPU beside the CPU (120)
#   simpgan  a whole training of SimPGAN on real images (150); it needs --data
#   dgnet    DG-Net's compiled step: it takes more than 150 s to compile, so it fits where `simpgan` is left out
#   more     the other steps, and plain Keras: only if it is named
#
# A part gets what is left of LIMIT seconds (480) and is skipped if that is less than 20. The exit status is 1 if a part
# failed; one that ran out of time did not.
set -uo pipefail
to=${1:?"usage: benchmarks/gpu.sh TO [--data DATA_DIR] [--weights FILE] [PART ...]"}; shift
data='' weights='' parts=''
while [ $# -gt 0 ]; do
  case $1 in
    --data) data=${2:?"--data needs a folder"}; shift 2 ;;
    --weights) weights=${2:?"--weights needs a file"}; shift 2 ;;
    steps|check|simpgan|dgnet|more) parts="$parts $1"; shift ;;
    *) echo "$1 is no part: choose steps, check, simpgan, dgnet or more." >&2; exit 2 ;;
  esac
done
parts=${parts:-steps check simpgan dgnet}
absolute() { # PATH: from the folder in which the command was given
  case $1 in ''|/*) echo "$1" ;; *) echo "$PWD/$1" ;; esac
}
to=$(absolute "$to") data=$(absolute "$data") weights=$(absolute "$weights")
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$to" || exit 1
python=${PYTHON:-python3}
limit=${LIMIT:-480}
status=0

part() { # NAME SECONDS COMMAND...: its output goes to the screen and to TO/NAME.txt; stopped after so many seconds
  local name=$1 most=$2 left=$((limit - 5 - SECONDS)) start=$SECONDS code; shift 2 # 5 to stop what does not end
  if [ "$left" -lt 20 ]; then
    echo "-- $name: skipped, $left s are left" | tee -a "$to/$name.txt"
    return
  fi
  [ "$left" -lt "$most" ] && most=$left
  echo "== $name, at most $most s: $*" | tee -a "$to/$name.txt"
  timeout -k 5 "$most" "$@" 2>>"$to/$name.err" | tee -a "$to/$name.txt"
  code=${PIPESTATUS[0]}
  echo "-- $name: exit $code after $((SECONDS - start)) s" | tee -a "$to/$name.txt"
  case $code in 0|124|137) ;; *) status=1 ;; esac # 124, 137: out of time
}

measure() { # NAME SECONDS OPTIONS...: training steps
  local name=$1 seconds=$2; shift 2
  part "$name" "$seconds" "$python" -m benchmarks.training --to "$to/steps.jsonl" --steps 20 "$@"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$to/device.txt"
date -u +%FT%TZ | tee -a "$to/device.txt"
small="data.image_size=[128,64]"
translation=(simpgan_market_to_grid --stages translation --set "$small")
for name in $parts; do
  case $name in
    steps)
      measure simpgan_compiled 130 "${translation[@]}" --variants both --steps-per-call 10
      measure dgnet_plain 90 dgnet_market1501 --stages joint --variants plain ;;
    check)
      part check 140 "$python" -m benchmarks.devices simpgan:translation cmgan:adversarial crossgan:joint \
        view_adaptation:adversarial identity:classifier --variants plain compiled ;;
    simpgan)
      if [ -z "$data" ]; then
        echo "-- simpgan: skipped, it needs --data DATA_DIR" | tee -a "$to/simpgan.txt"
        continue
      fi
      part simpgan 180 "$python" -m tf_reid.train --config simpgan_viper_to_grid --run "$to/simpgan_0" --set \
        run.seed=0 "data.data_dir=$data" "$small" data.augment.pad=10 method.backbone=MobileNetV2 \
        "method.weights=${weights:-null}" method.generator=tanh method.generator_width=64 method.generator_blocks=6 \
        method.discriminator_width=64 stages.classifier.steps=1000 stages.classifier.batch_size=64 \
        stages.translation.steps=1200 stages.translation.batch_size=4 run.jit_compile=auto run.pictures_every=600 ;;
    dgnet)
      # This step is large, and by default XLA compiles on one CPU core.
      XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_enable_llvm_module_compilation_parallelism=true" \
        measure dgnet_compiled "$limit" dgnet_market1501 --stages joint --variants both --steps-per-call 10 ;;
    more)
      measure simpgan_plain 50 "${translation[@]}" --variants plain
      measure cmgan 60 cmgan_sysu_mm01 --variants plain --rival
      measure view_adaptation 60 view_adaptation_market1501 --stages adversarial --variants plain
      measure crossgan 60 crossgan_market1501 --stages joint --variants plain ;;
  esac
done
exit $status
