"""The shift probe: right numbers, training untouched, whole after a resume."""

import json
import random
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from helpers.exact_statistics import oracle
from helpers.tiny_training import SETTINGS, Build, digit_reward, parameters, same
from peft import LoraConfig
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from tokenshift.analysis.sampling.trajectories import Trajectory, read_trajectories
from tokenshift.analysis.storage.provenance import read_metadata
from tokenshift.analysis.thresholds import HIGH
from tokenshift.analysis.token_table.schema import SCORED, TABLE_SCHEMA
from tokenshift.recipes.pocket.make_base import make_tokenizer
from tokenshift.trainer import ShiftProbeCallback

PROBED = {"probe_steps": 2, "probe_size": 5, "save_strategy": "steps", "save_steps": 3}


def chance_reward(completions: list[str], **columns: Any) -> list[float]:
    """Draws from every random state there is."""
    noise = random.random() + float(np.random.rand()) + float(torch.rand(()))  # noqa: NPY002
    return [reward + noise * place for place, reward in enumerate(digit_reward(completions))]


def add_probe(trainer: Any, dataset: Dataset, **settings: Any) -> ShiftProbeCallback:
    probe = ShiftProbeCallback(
        trainer, dataset, **{"probe_steps": 2, "probe_size": 5, "max_new_tokens": 8, **settings}
    )
    trainer.add_callback(probe)
    return probe


@pytest.mark.parametrize(
    ("settings", "peft"),
    [
        ({"stock": True}, False),
        ({"stock": True, "beta": 0.1}, True),
        ({"divergence": "js", "divergence_reference": "base"}, False),
        ({"gradient_checkpointing": True, "num_iterations": 2}, False),
    ],
)
def test_training_is_bit_identical(
    build: Build, problems: Dataset, tmp_path: Path, settings: dict[str, Any], peft: bool
) -> None:
    ends, logs = [], []
    for probed in (False, True):
        kwargs: dict[str, Any] = {"reward_funcs": chance_reward}
        if peft:
            kwargs["peft_config"] = LoraConfig(r=4, lora_dropout=0.3, target_modules="all-linear")
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        trainer = build(trainer_kwargs=kwargs, **settings)
        if probed:
            add_probe(trainer, problems)
        trainer.train()
        ends.append(parameters(trainer))
        rows = [log for log in trainer.state.log_history if not any(name.startswith("shift/") for name in log)]
        logs.append([{k: v for k, v in log.items() if "time" not in k and "per_second" not in k} for log in rows])
    assert same(*ends)
    assert logs[0] == logs[1]
    assert len(list((tmp_path / "out" / "shift").glob("step_*.parquet"))) == 3


def test_supervised_training_is_bit_identical_too(tiny_model: str, problems: Dataset, tmp_path: Path) -> None:
    texts = Dataset.from_dict({"text": [row["prompt"] + " 1" for row in problems.to_list()]})
    ends = []
    for probed in (False, True):
        args = SFTConfig(
            output_dir=str(tmp_path / "sft"),
            **{key: SETTINGS[key] for key in ("learning_rate", "max_steps", "report_to", "use_cpu", "bf16", "seed")},
            per_device_train_batch_size=4,
            save_strategy="no",
            disable_tqdm=True,
            max_length=64,
        )
        model = AutoModelForCausalLM.from_pretrained(tiny_model, attention_dropout=0.2)
        trainer = SFTTrainer(model=model, args=args, train_dataset=texts)
        if probed:
            add_probe(trainer, problems, reward=digit_reward)
        trainer.train()
        ends.append(parameters(trainer))
    assert same(*ends)
    table = pq.read_table(tmp_path / "sft" / "shift" / "step_000004.parquet")
    assert max(table["js"].to_pylist()) > 1e-3


def full_statistics(
    base: torch.nn.Module, policy: torch.nn.Module, trajectory: Trajectory, top_p: float
) -> dict[str, torch.Tensor]:
    """From both models' full logits in float64."""
    ids = torch.tensor([trajectory.prompt_ids + trajectory.completion_ids])
    first = len(trajectory.prompt_ids) - 1
    with torch.no_grad():
        p, q = (model(input_ids=ids).logits[0, first:-1].double() for model in (base, policy))
    tokens = torch.tensor(trajectory.completion_ids)
    found = oracle(p, q, tokens, top_p)
    return {name: found[name] for name in SCORED}


def test_table_against_full_logits(build: Build, tiny_model: str, problems: Dataset, tmp_path: Path) -> None:
    trainer = build(**PROBED, probe_top_p=0.6, learning_rate=0.1, trainer_kwargs={"probe_dataset": problems})
    trainer.train()
    out = tmp_path / "out"
    shift = out / "shift"
    assert sorted(path.name for path in shift.glob("step_*")) == [
        f"step_{step:06d}.parquet" for step in (0, 2, 3, 4)
    ]  # start, every 2, at the save, at the end
    table = pq.read_table(shift / "step_000003.parquet")
    assert table.schema.names == TABLE_SCHEMA.names
    assert table.schema.types == TABLE_SCHEMA.types
    metadata = read_metadata(shift / "step_000003.parquet")
    assert (metadata["step"], metadata["top_p"], metadata["temperature"]) == (3, 0.6, 1.0)
    assert metadata["base_model"] == tiny_model
    assert metadata["versions"]["torch"] == version("torch")  # torch.__version__ may add the CUDA version
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    policy = AutoModelForCausalLM.from_pretrained(out / "checkpoint-3")
    tokenizer = trainer.processing_class
    rows = table.to_pylist()
    fixed = read_trajectories(shift / "fixed_trajectories.parquet")
    assert [trajectory.problem_id for trajectory in fixed] == list(range(5))
    for trajectory in fixed:
        prompt = tokenizer(problems[trajectory.problem_id]["prompt"])["input_ids"]
        assert trajectory.prompt_ids == prompt
        mine = [row for row in rows if row["trajectory"] == "fixed" and row["problem_id"] == trajectory.problem_id]
        assert [row["token_id"] for row in mine] == trajectory.completion_ids
        assert [row["position"] for row in mine] == list(range(len(mine)))
        assert {row["length"] for row in mine} == {len(mine)}
        assert [row["token"] for row in mine] == [tokenizer.decode([token]) for token in trajectory.completion_ids]
        for name, expected in full_statistics(base, policy, trajectory, 0.6).items():
            got = torch.tensor([row[name] for row in mine], dtype=torch.float64)
            assert torch.allclose(got, expected.double(), atol=2e-5, rtol=1e-4), name
    own = [row for row in rows if row["trajectory"] == "own"]
    assert {row["problem_id"] for row in own} == set(range(5))

    metrics = {row["step"]: row for row in json.loads((shift / "metrics.json").read_text())}
    js = np.array([row["js"] for row in rows if row["trajectory"] == "fixed"])
    assert metrics[3]["shift/p95"] == pytest.approx(np.quantile(js, 0.95))
    assert metrics[3]["shift/frac_high"] == (js > HIGH).mean()
    assert metrics[3]["shift/overlap_2"] == pytest.approx(
        np.mean([r["overlap_2"] for r in rows if r in rows][: len(js)])
    )
    assert metrics[0]["shift/max"] < 1e-6, "the policy begins as the base"
    high = {
        step: {
            (row["problem_id"], row["position"])
            for row in pq.read_table(shift / f"step_{step:06d}.parquet").to_pylist()
            if row["trajectory"] == "fixed" and row["js"] > HIGH
        }
        for step in (2, 3, 4)
    }
    assert high[3]
    assert metrics[3]["shift/jaccard_previous"] == pytest.approx(len(high[2] & high[3]) / len(high[2] | high[3]))
    first = high[2] or high[3]
    assert metrics[4]["shift/jaccard_first"] == pytest.approx(len(first & high[4]) / len(first | high[4]))
    last = {log["step"]: log["shift/jaccard_last"] for log in trainer.state.log_history if "shift/jaccard_last" in log}
    assert last[4] == 1.0
    assert last[3] == pytest.approx(len(high[3] & high[4]) / len(high[3] | high[4]))
    assert len(list((shift / "figures").glob("*.png"))) == 8


@pytest.mark.parametrize("stopped", [3, 4])
def test_resumed_without_gaps_or_repeats(build: Build, problems: Dataset, tmp_path: Path, stopped: int) -> None:
    settings = {**PROBED, "max_steps": 6, "trainer_kwargs": {"probe_dataset": problems}, "save_steps": 1}
    undisturbed = build(**settings)
    undisturbed.train()
    out = tmp_path / "out"
    kept = tmp_path / "kept"
    shutil.copytree(out / "shift", kept)
    for path in out.glob("checkpoint-*"):
        if int(path.name.split("-")[1]) > stopped:
            shutil.rmtree(path)
    if stopped == 4:  # killed after the checkpoint, before its probe
        for step in (4, 5, 6):
            (out / "shift" / f"step_{step:06d}.parquet").unlink()
    resumed = build(**settings)
    resumed.train(resume_from_checkpoint=str(out / f"checkpoint-{stopped}"))
    for step in range(7):
        name = f"step_{step:06d}.parquet"
        assert pq.read_table(kept / name).equals(pq.read_table(out / "shift" / name)), step
    for trainer in (undisturbed, resumed):
        assert [log["step"] for log in trainer.state.log_history if "shift/step" in log] == list(range(7))
    assert (kept / "metrics.json").read_text() == (out / "shift" / "metrics.json").read_text()


def test_modes_of_modules_are_restored(build: Build, problems: Dataset) -> None:
    trainer = build(stock=True)
    probe = add_probe(trainer, problems)
    trainer.model.train()
    frozen = trainer.model.model.layers[0]
    frozen.eval()
    probe.on_train_begin(trainer.args, trainer.state, trainer.control)
    assert trainer.model.training
    assert not frozen.training
    assert trainer.model.model.layers[1].training


def make_model(folder: Path, vocabulary: int, *, swapped: bool = False) -> str:
    tokenizer = make_tokenizer()
    if swapped:
        spec = json.loads(tokenizer.backend_tokenizer.to_str())
        names = list(spec["model"]["vocab"])
        spec["model"]["vocab"][names[-1]], spec["model"]["vocab"][names[-2]] = (
            spec["model"]["vocab"][names[-2]],
            spec["model"]["vocab"][names[-1]],
        )
        tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(spec))
    torch.manual_seed(1)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_another_base_with_a_padded_head(
    build: Build, problems: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = len(make_tokenizer())
    path = make_model(tmp_path / "padded", size + 7)
    trainer = build(stock=True, max_steps=1)
    add_probe(trainer, problems, base_model=path, probe_size=3)
    trainer.train()
    assert f"The LM heads have {size + 7} and {size} rows; the first {size} are compared." in caplog.text
    table = pq.read_table(tmp_path / "out" / "shift" / "step_000000.parquet")
    fixed = read_trajectories(tmp_path / "out" / "shift" / "fixed_trajectories.parquet")
    base = AutoModelForCausalLM.from_pretrained(path)
    ids = torch.tensor([fixed[0].prompt_ids + fixed[0].completion_ids])
    logp = torch.log_softmax(base(input_ids=ids).logits[0, :, :size].double(), -1)
    first = len(fixed[0].prompt_ids)
    assert table["logp_base"][0].as_py() == pytest.approx(
        float(logp[first - 1, fixed[0].completion_ids[0]].detach()), rel=1e-4
    )


def test_a_base_with_another_tokenizer_is_refused(build: Build, problems: Dataset, tmp_path: Path) -> None:
    path = make_model(tmp_path / "other", len(make_tokenizer()), swapped=True)
    with pytest.raises(ValueError, match="The two tokenizers differ first at id"):
        add_probe(build(stock=True), problems, base_model=path)


@pytest.mark.parametrize(
    ("settings", "dataset", "words"),
    [
        ({"probe_size": 0}, None, "probe_size=0 must be at least 1"),
        ({"probe_steps": -2}, None, "probe_steps=-2 must be at least 1"),
        ({"top_p": 1.5}, None, r"top_p=1.5 must lie in \(0, 1\]"),
        ({}, Dataset.from_dict({"text": ["a"]}), "needs a column 'prompt'; the dataset has text"),
        ({}, Dataset.from_dict({"prompt": []}), "dataset is empty"),
        ({}, ["a"], "not a list|not list"),
    ],
)
def test_bad_input(build: Build, problems: Dataset, settings: dict[str, Any], dataset: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        add_probe(build(stock=True), problems if dataset is None else dataset, **settings)


def test_another_probe_size_after_a_resume_is_refused(build: Build, problems: Dataset, tmp_path: Path) -> None:
    settings = {**PROBED, "trainer_kwargs": {"probe_dataset": problems}}
    build(**settings).train()
    with pytest.raises(ValueError, match="holds 5 trajectories, but probe_size is 6"):
        build(**{**settings, "probe_size": 6}).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))


def test_a_new_run_in_the_same_folder_forgets_the_old_one(build: Build, problems: Dataset, tmp_path: Path) -> None:
    settings = {**PROBED, "trainer_kwargs": {"probe_dataset": problems}}
    build(**settings).train()
    again = build(**{**settings, "probe_size": 3, "max_steps": 2})
    again.train()
    shift = tmp_path / "out" / "shift"
    assert sorted(path.name for path in shift.glob("step_*")) == ["step_000000.parquet", "step_000002.parquet"]
    assert set(pq.read_table(shift / "step_000000.parquet")["problem_id"].to_pylist()) == {0, 1, 2}


def test_a_damaged_file_is_named(build: Build, problems: Dataset, tmp_path: Path) -> None:
    settings = {**PROBED, "trainer_kwargs": {"probe_dataset": problems}}
    build(**settings).train()
    (tmp_path / "out" / "shift" / "step_000002.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(ValueError, match=r"step_000002.parquet is not a whole Parquet file"):
        build(**settings).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))


def test_a_reward_of_the_wrong_length_is_refused(build: Build, problems: Dataset) -> None:
    trainer = build(stock=True)
    add_probe(trainer, problems, reward=lambda completions, **columns: [1.0])
    with pytest.raises(ValueError, match=r"returned \[1.0\] for 5 completions"):
        trainer.train()


def test_models_that_no_path_gives(
    tiny_model: str, problems: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    args = GRPOConfig(**{**SETTINGS, "output_dir": str(tmp_path / "out"), "max_steps": 1})
    kwargs = {
        "args": args,
        "reward_funcs": digit_reward,
        "train_dataset": problems,
        "processing_class": make_tokenizer(),
    }
    trainer = GRPOTrainer(model=model, **kwargs)
    add_probe(trainer, problems)
    trainer.train()
    assert "from the base that its config names; give base_model" in caplog.text
    model.config._name_or_path = ""
    with pytest.raises(ValueError, match="names no model to load the base from"):
        add_probe(GRPOTrainer(model=model, **kwargs), problems)


def test_config_refuses(build: Build) -> None:
    for name, value in (("probe_steps", -1), ("probe_size", 0), ("probe_top_p", 0.0)):
        with pytest.raises(ValueError, match=f"{name}={value!r} must"):
            build(**{name: value})
