"""Policies and bases of 4-bit and 8-bit weights, as bitsandbytes computes them: divergences, probe and analysis."""

from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from datasets import Dataset
from helpers.recorded_updates import Recorder, logits
from helpers.tiny_sizes import SIZES
from helpers.tiny_training import SETTINGS, digit_reward
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from tokenshift.analysis import Trajectory
from tokenshift.analysis.divergence.from_logits import js_divergence
from tokenshift.analysis.token_table.scoring import PairScorer
from tokenshift.trainer import DivergenceGRPOConfig

bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is installed for tests on Linux alone")

packs_weights = pytest.mark.skipif(
    bitsandbytes.functional.has_avx512bf16(),
    reason="on CPUs with AVX512-BF16 bitsandbytes packs 4-bit weights at the first evaluation: gradients stop there",
)

LOADED = {
    "4 bit": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32),
    "8 bit": BitsAndBytesConfig(load_in_8bit=True),
}


@pytest.fixture
def folder(tiny_model: str, tmp_path: Path) -> str:
    """A Llama with weights large enough for 4 and 8 bits to show."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.3, **SIZES))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def quantized(folder: str, kind: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=LOADED[kind], dtype=torch.float32)


def trainer_of(folder: str, kind: str, problems: Dataset, output: Path, **settings: Any) -> Recorder:
    args = DivergenceGRPOConfig(
        output_dir=str(output),
        model_init_kwargs={"quantization_config": LOADED[kind], "dtype": torch.float32},
        **SETTINGS | {"divergence": "js", "divergence_reference": "base", "steps_per_generation": 1, **settings},
    )
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", lora_dropout=0.0)
    return Recorder(folder, digit_reward, args, problems, peft_config=lora)


@packs_weights
def test_adapter_on_a_4bit_base(folder: str, problems: Dataset, tmp_path: Path) -> None:
    """QLoRA: the base is the quantized model, so nothing has moved at first, and then what the adapter moves."""
    settings = {"max_steps": 3, "learning_rate": 0.1, "probe_steps": 3, "probe_size": 4}
    trainer = trainer_of(folder, "4 bit", problems, tmp_path / "out", **settings)
    assert "Linear4bit" in str(trainer.model)
    trainer.train()
    assert float(trainer.seen[0]["divergence"].max()) < 1e-6
    base = quantized(folder, "4 bit")
    for update in trainer.seen:
        with torch.no_grad():
            expected = js_divergence(logits(base.eval(), update["inputs"]), update["policy"])
        torch.testing.assert_close(update["divergence"].double(), expected, atol=1e-5, rtol=1e-3)
    assert float(trainer.seen[-1]["divergence"].max()) > 1e-3
    first, last = (pandas.read_parquet(tmp_path / "out" / "shift" / f"step_00000{step}.parquet") for step in (0, 3))
    assert first.js.max() < 1e-6
    assert last.js.max() > 1e-3


def test_adapter_on_an_8bit_base(folder: str, problems: Dataset, tmp_path: Path) -> None:
    """Rows of a batch share what is rounded in 8 bits: the probe, which pads them, is refused with the way out."""
    settings = {"max_steps": 1, "learning_rate": 0.1, "probe_steps": 1, "probe_size": 4}
    with pytest.raises(ValueError, match="set batch_size=1 of the probe"):
        trainer_of(folder, "8 bit", problems, tmp_path / "out", **settings).train()
    trainer = trainer_of(folder, "8 bit", problems, tmp_path / "one", per_device_eval_batch_size=1, **settings)
    trainer.train()
    assert "Linear8bitLt" in str(trainer.model)
    assert pandas.read_parquet(tmp_path / "one" / "shift" / "step_000000.parquet").js.max() < 1e-6


@pytest.mark.parametrize("kind", [pytest.param("4 bit", marks=packs_weights), "8 bit"])
def test_analysis_of_a_quantized_model(folder: str, kind: str) -> None:
    """Scores of a model and its quantization: those of full logits of one response at a time."""
    base, rl = AutoModelForCausalLM.from_pretrained(folder).eval(), quantized(folder, kind).eval()
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 15, (length,), generator=generator).tolist() for length in (9, 4, 12)]
    trajectories = [Trajectory(index, 0, [5, 6, 7], row) for index, row in enumerate(rows)]
    table = PairScorer(base, rl, AutoTokenizer.from_pretrained(folder)).table(trajectories, "rl")
    expected = []
    for trajectory in trajectories:
        ids = torch.tensor([trajectory.prompt_ids + trajectory.completion_ids])
        with torch.no_grad():
            both = [model(ids).logits[0, 2:-1].double() for model in (base, rl)]
        expected.append(js_divergence(*both))
    js = torch.cat(expected)
    assert float(js.max()) > 1e-4
    torch.testing.assert_close(torch.tensor(table["js"].to_pylist()).double(), js, atol=2e-6, rtol=1e-3)
