"""Shared fixtures: a tiny random model with pocket's tokenizer, and settings that keep every test offline."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"

import torch
from datasets import Dataset
from helpers.tiny_sizes import SIZES
from transformers import LlamaConfig, LlamaForCausalLM

from tokenshift.recipes.pocket.make_base import make_tokenizer
from tokenshift.recipes.pocket.problems import pocket_dataset

torch.set_num_threads(1)  # tiny matrices: more threads only wait for each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with the most slow tests come first, so that no worker is left alone with one of them at the end.

    Tests of the vLLM engine run where vLLM is installed.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
    if find_spec("vllm") is None:
        reason = "vLLM is not installed; `make test-vllm` runs the test in an environment of its own"
        for item in items:
            if item.get_closest_marker("vllm"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _wandb_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """W&B stages artifacts under the home folder, and names its service to processes that are started."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path_factory.getbasetemp() / "wandb-data"))
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # this process's would go on with the run of a killed one


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the power, and thousands of small files would wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(autouse=True)
def _own_modules() -> Iterator[None]:
    """Tests write modules of a user's own, of the same names in other folders: none stays for the next test."""
    yield
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random two-layer Llama with pocket's tokenizer."""
    path = tmp_path_factory.mktemp("tiny_model")
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            **SIZES,
            max_position_embeddings=128,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def problems() -> Dataset:
    return pocket_dataset("train", 24)


@pytest.fixture
def pocket_base() -> Path:
    """The base model that ships with the project."""
    return Path(__file__).parent.parent / "recipes" / "pocket" / "base"
