"""Tools, environments, images and virtual tokens in training, and in the probe and the held-out score beside it."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers.agents import Ledger, add, calling_tokenizer, conversations, picture_problems, tiny_vlm
from helpers.probed_tables import assert_scored, fixed_trajectories, kept, probe_rows
from helpers.tiny_training import SETTINGS, parameters, same
from peft import PrefixTuningConfig, PromptTuningConfig
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer, ShiftProbeCallback
from tokenshift.trainer.policy.heldout import BaseScoreCallback, heldout_score

AGENT = {
    "max_completion_length": 60,
    "generation_kwargs": {"max_new_tokens": 8},  # per turn
    "max_tool_calling_iterations": 2,
    "max_steps": 2,
}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures, which other tests draw, and no word of what is experimental."""
    monkeypatch.setattr("tokenshift.trainer.probe.callback.draw_probe_figures", lambda *args: {})
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_vlm(tmp_path_factory.mktemp("vlm"))


def variety(completions: list[Any], **columns: Any) -> list[float]:
    """Number of different characters of the last answer, as a share."""
    texts = [completion[-1]["content"] for completion in completions]
    return [len(set(text)) / (len(text) + 1) for text in texts]


def made(model: str, out: Path, *, stock: bool = False, **kwargs: Any) -> GRPOTrainer:
    """A trainer; what is no argument of the trainer's is a setting."""
    names = ("tools", "environment_factory", "rollout_func", "processing_class", "train_dataset", "probe_dataset")
    arguments = {name: kwargs.pop(name) for name in (*names, "peft_config", "reward_funcs") if name in kwargs}
    arguments.setdefault("reward_funcs", variety)
    config, trainer = (GRPOConfig, GRPOTrainer) if stock else (DivergenceGRPOConfig, DivergenceGRPOTrainer)
    args = config(**{**SETTINGS, "output_dir": str(out), **kwargs})
    return trainer(model=model, args=args, **arguments)


def agent(model: str, out: Path, **kwargs: Any) -> GRPOTrainer:
    kwargs = {"processing_class": calling_tokenizer(model), "train_dataset": conversations(), **AGENT, **kwargs}
    return made(model, out, **kwargs)


def events(trainer: GRPOTrainer) -> list[list[Any]]:
    return [ledger.events for pool in trainer._environment_pool.values() for ledger in pool]


# Training --------------------------------------------------------------------------------------------------------


AGENTS: list[dict[str, Any]] = [{"tools": [add]}, {"environment_factory": Ledger, "reward_funcs": None}]


@pytest.mark.parametrize("kwargs", AGENTS)
def test_training_with_tools_is_trls(tiny_model: str, tmp_path: Path, kwargs: dict[str, Any]) -> None:
    ends = []
    for settings in (
        {"stock": True},
        {"advantage_weighting": "none"},
        {"divergence_scale": 0.0},
        {"divergence": "js", "divergence_reference": "base", "divergence_alpha": 50.0},
    ):
        trainer = agent(tiny_model, tmp_path / str(len(ends)), **kwargs, **settings)
        trainer.train()
        ends.append(parameters(trainer))
    assert same(ends[0], ends[1])
    assert all(torch.allclose(ends[0][name], ends[2][name], atol=1e-6) for name in ends[2]), "all weights are 1"
    assert not same(ends[0], ends[3])


# Probe and score with tools and environments ---------------------------------------------------------------------


@pytest.mark.parametrize("kwargs", AGENTS)
def test_only_what_the_policy_chose_is_scored(tiny_model: str, tmp_path: Path, kwargs: dict[str, Any]) -> None:
    trainer = agent(tiny_model, tmp_path, **kwargs, probe_steps=1, probe_size=4)
    trainer.train()
    fixed = fixed_trajectories(trainer)
    assert any(trajectory.chosen and not all(trajectory.chosen) for trajectory in fixed), "no tool was called"
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert_scored(trainer, base, trainer.model, step=2)
    rows = probe_rows(trainer, 2)
    assert len(rows) == sum(len(kept(trajectory)) for trajectory in fixed)
    assert {(row["problem_id"], row["length"]) for row in rows} == {
        (trajectory.problem_id, len(kept(trajectory))) for trajectory in fixed
    }
    word = "sum" if "tools" in kwargs else "total"
    written = [
        trainer.processing_class.decode(
            [token for token, mine in zip(t.completion_ids, t.chosen or [], strict=False) if not mine]
        )
        for t in fixed
    ]
    assert any(f"tool: {word}" in text for text in written)


class Steps:
    """An object whose method is a tool that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def count(self, number: int) -> str:
        """Add to a number how often this was called.

        Args:
            number: The number.

        Returns:
            The sum.
        """
        self.calls += 1
        return f"sum {number + self.calls}"


def test_environments_and_tools_of_the_training_are_not_stepped(tiny_model: str, tmp_path: Path) -> None:
    ends, told, calls = [], [], []
    for probed in (False, True):
        steps, numbers = Steps(), itertools.count()

        class Numbered(Ledger):
            """An environment that begins at its number."""

            def __init__(self, numbers: Iterator[int] = numbers) -> None:
                super().__init__()
                self.number = next(numbers)

            def reset(self, **row: Any) -> str:
                """Begin anew."""
                return super().reset(start=self.number)

        trainer = agent(
            tiny_model,
            tmp_path,
            stock=True,
            environment_factory=Numbered,
            tools=[steps.count],
            reward_funcs=None,
        )
        if probed:
            trainer.add_callback(ShiftProbeCallback(trainer, conversations(), probe_steps=1, probe_size=6))
            heldout_score(trainer, conversations(), batch_size=3)
            assert trainer.environments is None
            assert "_sync_tool_dicts" not in vars(trainer)
        trainer.train()
        ends.append(parameters(trainer))
        told.append(events(trainer))
        calls.append(steps.calls)
    assert same(*ends)
    assert told[0] == told[1]
    assert calls[0] == calls[1] > 0
    assert any(event[0] == "reset" and event[1] == 7 for event in told[0][7])


def test_a_tool_of_an_object_that_cannot_be_copied_is_refused(tiny_model: str, tmp_path: Path) -> None:
    steps = Steps()
    steps.lock = threading.Lock()
    trainer = agent(tiny_model, tmp_path, tools=[steps.count])
    with pytest.raises(ValueError, match=r"cannot copy the object of the tool count: .*Make the tool a"):
        ShiftProbeCallback(trainer, conversations())


def test_the_score_is_the_environments_own(tiny_model: str, tmp_path: Path) -> None:
    made_ones: list[Ledger] = []

    def factory() -> Ledger:
        made_ones.append(Ledger())
        return made_ones[-1]

    trainer = agent(tiny_model, tmp_path, environment_factory=factory, reward_funcs=None)
    score = heldout_score(trainer, conversations(6), batch_size=6)
    fresh = made_ones[8:]  # after the training's
    assert len(fresh) == 6
    assert score.mean == pytest.approx(sum(ledger.get_reward() for ledger in fresh) / 6)
    assert [ledger.events[0] for ledger in fresh] == [("reset", number) for number in range(6)]
    assert trainer._environment_pool[None] == made_ones[:8]
    assert not any(ledger.events for ledger in made_ones[:8])


class Owner(Ledger):
    """An environment that owns its data."""

    def reset(self, **row: Any) -> str:
        """Begin anew."""
        super().reset(start=7)
        return "add 3"


def test_data_that_an_environment_owns(tiny_model: str, tmp_path: Path) -> None:
    kwargs = {"environment_factory": Owner, "reward_funcs": None}
    trainer = agent(tiny_model, tmp_path, **kwargs, train_dataset=None, probe_steps=1, probe_size=4)
    trainer.train()
    prompts = {trainer.processing_class.decode(t.prompt_ids) for t in fixed_trajectories(trainer)}
    assert prompts == {"user: add 3</s>assistant: "}
    assert probe_rows(trainer, 2)
    routed = Dataset.from_dict({"environment": ["one"] * 8})
    kwargs["environment_factory"] = {"one": Owner}
    trainer = agent(tiny_model, tmp_path, **kwargs, train_dataset=routed, probe_steps=0)
    assert heldout_score(trainer, routed).n == 8
    with pytest.raises(ValueError, match="column 'environment' with one of 'one' in every row; the dataset has 'two'"):
        ShiftProbeCallback(trainer, Dataset.from_dict({"environment": ["one", "two"]}))
    with pytest.raises(ValueError, match="column 'environment' with one of 'one' in every row; the dataset has None"):
        ShiftProbeCallback(trainer, conversations())


def rollout(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
    """Completions of which an environment wrote the second half."""
    tokenizer = trainer.processing_class
    texts = [prompt[0]["content"] for prompt in prompts]
    ids = [tokenizer(f"12{text}")["input_ids"] for text in texts]
    return {
        "prompt_ids": tokenizer(texts)["input_ids"],
        "completion_ids": ids,
        "logprobs": [[-1.0] * len(row) for row in ids],
        "env_mask": [[1, 1] + [0] * (len(row) - 2) for row in ids],
    }


def test_a_rollout_function_of_the_probes_own(tiny_model: str, tmp_path: Path) -> None:
    words = r"does not call the trainer's rollout_func.*rollout_func=\.\.\., or use"
    with pytest.raises(ValueError, match=words):
        agent(tiny_model, tmp_path, rollout_func=rollout, probe_steps=1)
    trainer = agent(tiny_model, tmp_path, rollout_func=rollout)
    with pytest.raises(ValueError, match=words):
        BaseScoreCallback(trainer, conversations(), tmp_path / "score.json")
    probe = ShiftProbeCallback(trainer, conversations(), probe_size=3, rollout_func=rollout)
    trainer.add_callback(probe)
    trainer.train()
    assert len(probe_rows(trainer, 2)) == 6
    assert_scored(trainer, AutoModelForCausalLM.from_pretrained(tiny_model), trainer.model, step=2)
    assert trainer.rollout_func is rollout

    def twice(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        return rollout(prompts * 2, trainer)

    with pytest.raises(ValueError, match="returned 6 completions to 3 prompts"):
        heldout_score(trainer, conversations(3), rollout_func=twice)


# Virtual tokens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tuned", "virtual"), [(PromptTuningConfig, 3), (PrefixTuningConfig, 0)])
def test_prompt_tuning(tiny_model: str, problems: Dataset, tmp_path: Path, tuned: Any, virtual: int) -> None:
    """The base of such a policy is the policy as it began, since its virtual tokens are drawn at random."""
    adapter = tuned(task_type="CAUSAL_LM", num_virtual_tokens=3)
    arguments = {"train_dataset": problems, "peft_config": adapter, "reward_funcs": digits, "max_steps": 2}
    arguments |= {"gradient_checkpointing": False, "learning_rate": 1.0}
    if virtual:
        arguments |= {"divergence": "js", "divergence_reference": "base"}
    base, trainer = (made(tiny_model, tmp_path, stock=not virtual, **arguments) for _ in range(2))
    trainer.add_callback(ShiftProbeCallback(trainer, problems, probe_size=3))
    trainer.train()
    assert_scored(trainer, base.model, trainer.model, step=2, virtual=virtual)
    assert max(row["js"] for row in probe_rows(trainer, 2)) > 1e-6


def digits(completions: list[str], **columns: Any) -> list[float]:
    return [sum(map(str.isdigit, text)) / (len(text) + 1) for text in completions]


# Images ----------------------------------------------------------------------------------------------------------


def pixels(trainer: GRPOTrainer, size: int) -> Iterator[torch.Tensor]:
    """The images of the first problems, by the processor itself."""
    for row in picture_problems(size):
        yield trainer.processing_class.image_processor(images=[row["image"]], return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("column", [True, False])
def test_images_go_with_their_prompts(vlm: str, tmp_path: Path, column: bool) -> None:
    ends, problems = [], picture_problems(column=column)
    for probed in (False, True) if column else (True,):
        trainer = made(vlm, tmp_path, stock=not column, train_dataset=problems, max_steps=2, temperature=0.9)
        if probed:
            trainer.add_callback(ShiftProbeCallback(trainer, problems, probe_size=5, batch_size=2))
        trainer.train()
        ends.append(parameters(trainer))
    assert same(ends[0], ends[-1])
    base = AutoModelForImageTextToText.from_pretrained(vlm)
    images = {"pixel_values": list(pixels(trainer, 5))}
    assert_scored(trainer, base, trainer.model, step=2, temperature=0.9, **images)
    images["pixel_values"].reverse()
    with pytest.raises(AssertionError, match="logp"):
        assert_scored(trainer, base, trainer.model, step=2, temperature=0.9, **images)
    assert heldout_score(trainer, problems.select(range(5))).n == 5


def test_training_with_images_is_trls(vlm: str, tmp_path: Path) -> None:
    ends = []
    for settings in (
        {"stock": True},
        {"advantage_weighting": "none"},
        {"divergence_alpha": 50.0, "num_iterations": 2},
    ):
        trainer = made(vlm, tmp_path, train_dataset=picture_problems(), max_steps=2, **settings)
        trainer.train()
        ends.append(parameters(trainer))
    assert same(*ends[:2])
    assert not same(ends[0], ends[2])


def test_images_in_rloo(vlm: str, tmp_path: Path) -> None:
    args = RLOOConfig(**{**SETTINGS, "output_dir": str(tmp_path), "max_steps": 1, "beta": 0.0})
    trainer = RLOOTrainer(model=vlm, reward_funcs=variety, args=args, train_dataset=picture_problems())
    trainer.add_callback(ShiftProbeCallback(trainer, picture_problems(), probe_size=3))
    trainer.train()
    base = AutoModelForImageTextToText.from_pretrained(vlm)
    assert_scored(trainer, base, trainer.model, step=1, pixel_values=list(pixels(trainer, 3)))


@pytest.mark.parametrize("column", [True, False])
def test_images_that_are_refused_at_build(vlm: str, tmp_path: Path, column: bool) -> None:
    data, where = picture_problems(column=column), "image" if column else "prompt"
    js = {"divergence": "js", "divergence_reference": "base"}
    processor = AutoProcessor.from_pretrained(vlm)
    processor.tokenizer.response_template = {"made": "for tests"}
    tools = {"tools": [add], "processing_class": processor}
    for settings, words in (
        (
            js,
            f"is for text, but the training data has images in its column '{where}'",
        ),
        ({"dynamic_sampling": True}, f"is for text, but the data has a column '{where}' with images"),
        ({**tools, **js}, "tools or environments of a vision-language model may give images. Use divergence"),
        ({**tools, "dynamic_sampling": True}, "but the data has a column"),
        ({**tools, "probe_steps": 1}, "cannot keep the images that tools, environments or"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            made(vlm, tmp_path, train_dataset=data, **settings)
        assert "\n" not in str(error.value)
