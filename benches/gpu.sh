#!/usr/bin/env bash
# Measures the crate on an accelerator, and PyTorch beside it where it is installed, in less than
# eight minutes. Builds nothing.
#
#   cargo build --release --features cuda,hf --bench hf --example r1_zero
#   benches/gpu.sh target/release/deps/hf-* target/release/examples/r1_zero OUT
#
# OUT/table.md has the figures, OUT/*.json and OUT/*.log everything behind them. Settings, from the
# environment: DEVICE (cuda), DTYPE (bf16), HARDWARE (h100, whose peak the MFU refers to), SHAPE
# (qwen2.5-0.5b), PROMPTS (16), PROMPT_TOKENS (128), SAMPLES (16), NEW_TOKENS (256), MICRO_BATCH
# (32), MEMORY_STEPS (100), R1_ZERO (its further arguments).
set -uo pipefail
if [[ $# -ne 3 ]]; then
    sed -n '2,12s/^# \?//p' "$0" >&2
    exit 2
fi
hf=$1 r1_zero=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
device=${DEVICE:-cuda} dtype=${DTYPE:-bf16} hardware=${HARDWARE:-h100}
work=(--samples "${SAMPLES:-16}" --new-tokens "${NEW_TOKENS:-256}" --micro-batch "${MICRO_BATCH:-32}" --rounds 2)
mkdir -p "$out"
model=(--model "$out/model" --prompts "$out/prompts.json")

# One measurement: at most SECONDS, its output in OUT/NAME.json and OUT/NAME.log.
measure() { # NAME SECONDS COMMAND...
    local name=$1 limit=$2
    shift 2
    printf '== %s: %s\n' "$name" "$*"
    local begin=$SECONDS
    timeout "$limit" "$@" >"$out/$name.json" 2>"$out/$name.log"
    local status=$?
    printf '%s %s %s\n' "$name" "$status" "$((SECONDS - begin))" >>"$out/status"
    [[ $status -eq 0 ]] || { echo "$name ended with status $status:" && tail -n 5 "$out/$name.log"; }
}

rm -f "$out/status"
measure device 10 nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
measure update 240 "$hf" --device "$device" --dtype "$dtype" --create "${SHAPE:-qwen2.5-0.5b}" \
    --prompt-count "${PROMPTS:-16}" --prompt-tokens "${PROMPT_TOKENS:-128}" "${model[@]}" "${work[@]}" \
    --hardware "$hardware" --memory-steps "${MEMORY_STEPS:-100}"
# shellcheck disable=SC2086
measure r1_zero 150 "$r1_zero" --device "$device" --out "$out/r1_zero" ${R1_ZERO:-}
if python3 -c 'import torch, transformers; assert torch.cuda.is_available()' 2>/dev/null; then
    measure pytorch 80 python3 "$here/peer_hf.py" "$out/model" --prompts "$out/prompts.json" \
        --device cuda --dtype "$([[ $dtype == bf16 ]] && echo bfloat16 || echo float32)" "${work[@]}"
fi

# A figure of a part of a JSON file, or "-".
part() { # FILE PART KEY
    tr -d '\n ' <"$out/$1" 2>/dev/null | grep -o "\"$2\":{[^}]*}" | grep -o "\"$3\":[0-9.eE+-]*" | cut -d: -f2 | grep . || echo -
}
{
    echo "$(date -u +%F), $(cat "$out/device.json" 2>/dev/null || true) (device $device, $dtype, ${SHAPE:-qwen2.5-0.5b})"
    echo
    echo "| | rlvr | PyTorch |"
    echo "|---|---|---|"
    for what in generation training; do
        echo "| $what, completion tokens/s | $(part update.json $what completion_tokens_per_second) | $(part pytorch.json $what completion_tokens_per_second) |"
    done
    echo "| MFU of an update | $(part update.json training mfu) | |"
    echo "| reserved on the device before and after ${MEMORY_STEPS:-100} steps, MiB | $(part update.json memory device_mib_before), $(part update.json memory device_mib_after) | |"
    echo "| r1_zero, held out before and after | $(grep -o '"held_out_[a-z]*": *[0-9.]*' "$out/r1_zero/summary.json" 2>/dev/null | cut -d: -f2 | paste -sd,) | |"
    echo
    echo "Measurement, exit status, seconds:"
    sed 's/^/- /' "$out/status"
} >"$out/table.md"
cat "$out/table.md"
! awk '$1 != "device" && $2 != 0' "$out/status" | grep -q .
