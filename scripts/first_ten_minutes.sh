#!/usr/bin/env bash
# The first ten minutes on a machine with a GPU: what must hold before days are booked on it.
#
#   scripts/first_ten_minutes.sh             # run everything, stop at the first failure
#   DRY_RUN=1 scripts/first_ten_minutes.sh   # only say what would be run
#
# DEVICE (cuda), WORK (a new temporary folder) and PYTHON (python) may be set. Run it from the checkout, with
# segbench installed there. Each step says what is expected; the numbers to write down are printed.
set -euo pipefail

DEVICE=${DEVICE:-cuda}
PYTHON=${PYTHON:-python}
WORK=${WORK:-$(mktemp -d)}
export SEGBENCH_DATA="$WORK/data" SEGBENCH_RESULTS="$WORK/runs"
export CUDA_LAUNCH_BLOCKING=0  # times of kernels that wait for each other are not those of a training

say() { printf '\n== %s\n   expected: %s\n' "$1" "$2"; }

run() {
  printf '$ %s\n' "$*"
  if [ -z "${DRY_RUN:-}" ]; then "$@"; fi
}

say "1. The device computes what it should" "exit status 0, every row as expected, within two minutes"
run $PYTHON -m segbench doctor --device "$DEVICE" --bundle "$WORK/doctor.json"

say "2. The kernels of the selective scan" "all pass; about a minute"
run env SEGBENCH_SCAN=triton $PYTHON -m pytest -q tests/networks/test_scan_triton.py \
  tests/networks/test_scan_triton_compile.py -m "not slow"

say "3. The scans side by side" "errors within the limit printed; 1.2 to 2.6 ms estimated for an H200, unmeasured"
run $PYTHON benchmarks/scan_cuda.py --device "$DEVICE"

say "4. Everything that needs a device" "all pass, none skipped for want of one"
run $PYTHON -m pytest -q -m gpu tests

say "5. A process that only predicts finds the fast scan" "triton or mamba_ssm, not torch"
run $PYTHON -c "import torch; from segbench.networks.scan import chosen_backend
with torch.inference_mode(): print(chosen_backend(torch.device('$DEVICE')))"

say "6. A small study from data to table" "exit status 0, a table"
run $PYTHON -m segbench run --model segmamba-v2-tiny,nnunet-tiny --dataset phantom-brats --protocol demo \
  --device "$DEVICE" --results "$WORK/demo" --data-dir "$WORK/data"

say "7. What a training step costs" "a row per network: seconds, memory, energy; write them down. The second table, in \
which cuDNN's algorithms do not race (cudnn.benchmark off), is no faster"
for fast in "${SEGBENCH_FAST:-}" "${SEGBENCH_FAST:+$SEGBENCH_FAST,}no-benchmark"; do
  run env SEGBENCH_FAST="$fast" $PYTHON -m segbench profile --model segmamba-v2,nnunet --mode train --dtype bf16 \
    --device "$DEVICE" --input 2x4x128x128x128
done

say "8. A training that is stopped goes on in the same bytes" "both lines of sha256 are equal"
for name in straight stopped; do
  run $PYTHON -m segbench run --model segmamba-v2-tiny --dataset phantom-brats --protocol demo --seed 0 \
    --set determinism.level=bitwise --set budget.samples=40 --checkpoint-minutes 0 --device "$DEVICE" \
    --results "$WORK/$name" --print-jobs
done
cell() { for folder in "$WORK/$1"/*/run.json; do dirname "$folder"; done; }
if [ -z "${DRY_RUN:-}" ]; then
  $PYTHON -m segbench cell "$(cell straight)"
  $PYTHON -m segbench cell "$(cell stopped)" & child=$!
  until compgen -G "$(cell stopped)/checkpoints/step-*" > /dev/null || ! kill -0 $child; do sleep 0.2; done
  kill -TERM $child || true
  wait $child || true
  $PYTHON -m segbench cell "$(cell stopped)"
  sha256sum "$(cell straight)/checkpoints/final.safetensors" "$(cell stopped)/checkpoints/final.safetensors"
  [ "$(sha256sum < "$(cell straight)/checkpoints/final.safetensors")" = \
    "$(sha256sum < "$(cell stopped)/checkpoints/final.safetensors")" ]
fi

say "9. One of two GPUs' processes is lost" "the cell ends within a minute (SB503), and goes on when started again"
run $PYTHON -m segbench run --model segmamba-v2-tiny --dataset phantom-brats --protocol demo --seed 0 \
  --set budget.samples=400 --checkpoint-minutes 0 --device "$DEVICE" --gpus-per-cell 2 \
  --results "$WORK/two" --print-jobs
gpus=$($PYTHON -c "import torch; print(torch.cuda.device_count())" 2> /dev/null || echo 0)
if [ -n "${DRY_RUN:-}" ]; then
  echo "(then its second process is killed)"
elif [ "$DEVICE" = cuda ] && [ "$gpus" -lt 2 ]; then
  echo "not tried: there are $gpus GPUs here"
else
  $PYTHON -m segbench cell "$(cell two)" & child=$!
  until compgen -G "$(cell two)/checkpoints/step-*" > /dev/null || ! kill -0 $child; do sleep 0.2; done
  kill -KILL "$(pgrep -f "ranks rank $WORK/two/" | tail -1)"
  SECONDS=0
  wait $child || true
  echo "ended $SECONDS s after the kill"
  [ "$SECONDS" -le 60 ]
  $PYTHON -m segbench cell "$(cell two)"
fi

say "done" "send $WORK/doctor.json and this output with any report of a problem"
