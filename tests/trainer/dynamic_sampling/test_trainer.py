"""Dynamic sampling: what reaches the loss, where prompts come from, and what a resume or more processes change."""

import itertools
import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from datasets import Dataset, IterableDataset
from helpers.agents import Ledger, calling_tokenizer, conversations
from helpers.dynamic_training import (
    Recorder,
    constant,
    length_penalty,
    numbered,
    rows,
    scripted_rollout,
    some_constant_reward,
    trainer_of,
)
from helpers.tiny_training import SETTINGS, Build, parameters, same
from hypothesis import given
from hypothesis import strategies as st
from trl.rewards import get_soft_overlong_punishment
from trl.trainer.utils import nanstd

from tokenshift.analysis.sampling.token_ids import until_end
from tokenshift.analysis.storage.manifest import MANIFEST_FILE
from tokenshift.trainer.dynamic_sampling.filtering_reward import filtering_reward
from tokenshift.trainer.dynamic_sampling.prompt_groups import (
    GroupOutcome,
    Padding,
    group_outcomes,
    placed_groups,
    replace_rows,
    round_size,
    summed_rewards,
)
from tokenshift.trainer.dynamic_sampling.prompt_stream import PromptStream, Round, RoundLog
from tokenshift.trainer.dynamic_sampling.trainer import LOG_FILE, STREAM_FILE

ROOT = Path(__file__).parents[3]
LARGEST_RATIO = 3.0  # TRL's default
DYNAMIC = {"dynamic_sampling": True, "trainer_class": Recorder}
SAVING = {"save_strategy": "steps", "save_steps": 1}


def world(size: int = 24, **more: Any) -> dict[str, Any]:
    """Two of three problems get one reward; groups of four, two a generation of two updates."""
    return {"trainer_kwargs": {"reward_funcs": some_constant_reward, "train_dataset": numbered(size), **more}}


def round_log(out: Path) -> list[Round]:
    return RoundLog(out / LOG_FILE).read()


def taken(log: list[Round]) -> list[int]:
    return [
        index
        for each in log
        for index, verdict in zip(each.indices, each.verdicts, strict=True)
        if verdict is not GroupOutcome.RETURNED
    ]


# What reaches the loss -----------------------------------------------------------------------------------------------


def test_prompts_with_one_reward_never_reach_the_loss_and_the_batch_stays_full(build: Build, tmp_path: Path) -> None:
    trainer = build(**DYNAMIC, **world(), max_steps=8)
    trainer.train()
    number = {problem["prompt"]: problem["number"] for problem in numbered(24)}
    assert len(trainer.in_losses) == 8
    assert all(len(prompts) == 4 for prompts in trainer.in_losses)
    for generation in range(4):
        counts = Counter(trainer.in_losses[2 * generation] + trainer.in_losses[2 * generation + 1])
        assert list(counts.values()) == [4, 4]
        assert all(constant(number[prompt]) is None for prompt in counts)

    log = round_log(tmp_path / "out")
    for each in log:
        assert each.filled == []
        for index, verdict in zip(each.indices, each.verdicts, strict=True):
            expected = {None: GroupOutcome.KEPT, 1.0: GroupOutcome.ALL_RIGHT, 0.0: GroupOutcome.ALL_WRONG}[
                constant(index)
            ]
            assert verdict in (expected, GroupOutcome.RETURNED)
    assert Counter(each.step for each in log).keys() == {0, 2, 4, 6}
    assert sum(each.verdicts.count(GroupOutcome.KEPT) for each in log) == 8


def test_metrics_are_those_of_the_log(build: Build, tmp_path: Path) -> None:
    trainer = build(**DYNAMIC, **world(), max_steps=8, logging_steps=4)  # two generations a log
    trainer.train()
    logs = [log for log in trainer.state.log_history if "dynamic_sampling/rounds" in log]
    assert [log["step"] for log in logs] == [4, 8]
    for log in logs:
        window = [each for each in round_log(tmp_path / "out") if log["step"] - 4 <= each.step < log["step"]]
        verdicts = Counter(verdict for each in window for verdict in each.verdicts)
        assert log["dynamic_sampling/returned"] == verdicts.pop(GroupOutcome.RETURNED, 0)
        assert log["dynamic_sampling/rounds"] == len(window) / 2
        for name in ("kept", "all_right", "all_wrong"):
            assert log[f"dynamic_sampling/{name}_share"] == verdicts[GroupOutcome(name)] / verdicts.total()
        assert log["dynamic_sampling/filled"] == 0
        # TRL's own are over all rounds, by their groups, those included that went back to the stream
        generated = [constant(index) is None for each in window for index in each.indices]
        assert log["frac_reward_zero_std"] == pytest.approx(1 - sum(generated) / len(generated))


def test_used_up_rounds_fill_the_batch_and_are_counted(build: Build, tmp_path: Path) -> None:
    def always(completions: list[str], **columns: Any) -> list[float]:
        return [0.9] * len(completions)  # eight of which have a spread of 6e-8 in float32

    settings = {"num_generations": 8, "per_device_train_batch_size": 8, "dynamic_sampling_max_rounds": 3}
    trainer = build(**DYNAMIC, **world(reward_funcs=always), **settings)
    before = parameters(trainer)
    trainer.train()
    log = round_log(tmp_path / "out")
    assert [each.round for each in log] == [1, 2, 3, 1, 2, 3]
    for generation in (log[:3], log[3:]):
        assert generation[2].filled == generation[0].indices
        assert all(len(each.indices) == 2 for each in generation)
    assert all(len(prompts) == 8 for prompts in trainer.in_losses)
    assert sum(log.get("dynamic_sampling/filled", 0) for log in trainer.state.log_history) == 4
    assert all(generation["advantages"].eq(0).all() for generation in trainer.generations)
    assert same(before, parameters(trainer)), "what filled the batch changed the model"


def test_partly_filled_batch_keeps_the_useful_group(build: Build, tmp_path: Path) -> None:
    kept = numbered(24).select([2, 0, 3, 6, 1, 4])
    trainer = build(
        **DYNAMIC, **world(train_dataset=kept), dynamic_sampling_max_rounds=2, max_steps=2, shuffle_dataset=False
    )
    trainer.train()
    (first, second), (generation,) = round_log(tmp_path / "out"), trainer.generations
    # two groups for the one that is missing, which take no longer; both teach nothing, and one stays unfilled
    assert (first.indices, second.indices, second.filled) == ([0, 1], [2, 3], [1])
    assert first.verdicts == [GroupOutcome.KEPT, GroupOutcome.ALL_RIGHT]
    assert generation["advantages"].tolist()[4:] == [0.0] * 4
    assert generation["advantages"][:4].abs().min() > 0


@pytest.mark.parametrize(
    "settings", [{}, {"num_iterations": 2}, {"shuffle_dataset": False}, {"scale_rewards": "batch"}]
)
def test_where_every_group_teaches_training_is_that_without(
    build: Build, tmp_path: Path, settings: dict[str, Any]
) -> None:
    useful = numbered(24).filter(lambda problem: constant(problem["number"]) is None).select(range(6))
    common = {**world(train_dataset=useful), "max_steps": 8, **settings}  # into the second epoch
    ends = []
    for dynamic in (False, True):
        trainer = build(dynamic_sampling=dynamic, **common)
        trainer.train()
        ends.append(parameters(trainer))
    assert same(*ends)
    assert all(set(each.verdicts) == {GroupOutcome.KEPT} for each in round_log(tmp_path / "out"))


# What filters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "settings"),
    [
        ([some_constant_reward, length_penalty], {}),
        ([length_penalty, some_constant_reward], {"dynamic_sampling_metric": "some_constant_reward"}),
    ],
)
def test_groups_that_differ_only_by_a_penalty_are_dropped_also_after_a_resume(
    build: Build, tmp_path: Path, first: list[Any], settings: dict[str, Any]
) -> None:
    # named, it filters by right and wrong: of these rewards, those above the threshold
    settings = {**settings, "correct_threshold": 0.5} if settings else {}
    common = {**DYNAMIC, **world(reward_funcs=first, rollout_func=scripted_rollout), **SAVING, **settings}
    out = tmp_path / "out"
    undisturbed = build(**common, max_steps=8)
    undisturbed.train()
    log = round_log(out)
    outcomes = Counter()
    for each in log:
        for index, verdict in zip(each.indices, each.verdicts, strict=True):
            outcomes[constant(index), verdict] += 1
    assert not {(1.0, GroupOutcome.KEPT), (0.0, GroupOutcome.KEPT)} & outcomes.keys()
    assert outcomes[1.0, GroupOutcome.ALL_RIGHT]
    assert outcomes[0.0, GroupOutcome.ALL_WRONG]
    assert sum(count for (_, verdict), count in outcomes.items() if verdict is GroupOutcome.KEPT) == 8
    for generation in undisturbed.generations:
        assert generation["advantages"].view(2, 4).abs().sum(dim=1).min() > 0

    expected, written = parameters(undisturbed), (out / LOG_FILE).read_text()
    state = json.loads((out / "checkpoint-4" / STREAM_FILE).read_text())
    assert state["useful"]["judged"] == sum(len(each.indices) for each in log if each.step < 4)
    resumed = build(**common, max_steps=8)
    resumed.train(resume_from_checkpoint=str(out / "checkpoint-4"))
    assert (out / LOG_FILE).read_text() == written
    assert same(expected, parameters(resumed))


def test_a_checkpoint_without_the_share_of_useful_prompts_is_resumed(build: Build, tmp_path: Path) -> None:
    build(**DYNAMIC, **world(), **SAVING, max_steps=2).train()
    file = tmp_path / "out" / "checkpoint-2" / STREAM_FILE
    state = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in state.items() if name != "useful"}))
    (file.parent / MANIFEST_FILE).unlink()  # nor had such a checkpoint a manifest
    resumed = build(**DYNAMIC, **world(), max_steps=4)
    resumed.train(resume_from_checkpoint=str(file.parent))
    assert taken(round_log(tmp_path / "out"))[: state["position"]] == PromptStream(24, 3).take(state["position"])


def quality(completions: list[str], number: list[int], **columns: Any) -> list[float]:
    """Graded, and never right by the default threshold."""
    return [reward / 2 for reward in some_constant_reward(completions, number)]


def says_nothing(completions: list[str], **columns: Any) -> list[None]:
    return [None] * len(completions)


@pytest.mark.parametrize(
    ("rewards", "settings", "words"),
    [
        ([quality], {"dynamic_sampling_metric": "acc"}, "'acc' is none of the rewards, which are quality."),
        ([quality], {"dynamic_sampling_metric": "qualty"}, "which are quality; did you mean quality?"),
        ([quality, quality], {"dynamic_sampling_metric": "quality"}, "'quality' is the name of several rewards"),
        (
            [quality, get_soft_overlong_punishment(12, 6)],
            {"dynamic_sampling_metric": "soft_overlong_punishment_reward"},
            "is a graded length penalty, which cannot tell right from wrong, so dynamic_sampling cannot filter by it: "
            "name quality by dynamic_sampling_metric.",
        ),
        (
            [get_soft_overlong_punishment(12, 6), quality],
            {},
            "soft_overlong_punishment_reward, the first reward, is a graded",
        ),
        ([get_soft_overlong_punishment(12, 6)], {}, "add an accuracy to the rewards and name it"),
    ],
)
def test_a_reward_that_cannot_filter_is_refused_when_the_trainer_is_built(
    build: Build, rewards: list[Any], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        build(**DYNAMIC, **world(reward_funcs=rewards), **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rewards", "settings", "words"),
    [
        ([quality], {"dynamic_sampling_metric": "quality"}, "none count as right (at least correct_threshold=1)"),
        ([quality], {"correct_threshold": -1.0}, "all count as right (at least correct_threshold=-1)"),
        (
            [says_nothing, quality],
            {},
            "filters by says_nothing, which gave none of the 24 completions of the first batch a reward",
        ),
    ],
)
def test_a_reward_that_told_no_group_from_another_ends_the_training_in_one_line(
    build: Build, rewards: list[Any], settings: dict[str, Any], words: str
) -> None:
    trainer = build(**DYNAMIC, **world(reward_funcs=rewards), dynamic_sampling_max_rounds=3, **settings)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        trainer.train()
    assert "\n" not in str(error.value)


def test_a_graded_first_reward_is_told_of(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    """It may sum an accuracy and a penalty: a group that is all wrong is then kept for the penalty's sake."""
    trainer = build(**DYNAMIC, **world())
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert caplog.text.count("filters by the values of some_constant_reward, which is graded: it keeps") == 1
    graded = [torch.tensor([[-1.0], [-1.5], [1.0], [-1.0], [1.0], [1.0]])]
    assert "it keeps 1 of 3 groups" in (filtering_reward(None, ["shaped"]).warning(graded, 2) or "")
    assert filtering_reward(None, ["shaped"], 0.0).warning(graded, 2) is None
    assert filtering_reward("shaped", ["shaped"]).warning(graded, 2) is None
    assert filtering_reward(None, ["accuracy"]).warning([torch.tensor([[0.0], [1.0], [0.0], [0.0]])], 2) is None


# The merged batch ----------------------------------------------------------------------------------------------------


def soft_overlong(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    return get_soft_overlong_punishment(max_completion_len=12, soft_punish_cache=6)(completion_ids=completion_ids)


@pytest.mark.parametrize(
    "settings",
    [
        {"beta": 0.1},
        {"scale_rewards": "batch", "beta": 0.1},
        {"scale_rewards": "none", "loss_type": "dapo", "num_generations": 2},
        {"loss_type": "dapo", "mask_truncated_completions": True, "temperature": 0.3},
    ],
)
def test_replaced_rows_are_what_trl_would_have_made_of_them(build: Build, settings: dict[str, Any]) -> None:
    class Checked(Recorder):
        """Recomputes the batch's tensors as soon as it is there."""

        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            outputs = super()._generate_and_score_completions(inputs)
            ids = torch.cat([outputs["prompt_ids"], outputs["completion_ids"]], dim=1)
            mask = torch.cat([outputs["prompt_mask"], outputs["completion_mask"]], dim=1)
            with torch.no_grad():
                arguments = (ids, mask, outputs["completion_ids"].shape[1], 4)
                logps, *_ = self._get_per_token_logps_and_entropies(self.model, *arguments)
                valid = outputs["completion_mask"].bool()
                assert torch.allclose(logps[valid], outputs["old_per_token_logps"][valid], atol=1e-5)
                if self.beta:
                    logps, *_ = self._get_per_token_logps_and_entropies(self.ref_model, *arguments)
                    assert torch.allclose(logps[valid], outputs["ref_per_token_logps"][valid], atol=1e-5)
            assert outputs["num_items_in_batch"] == outputs["completion_mask"].sum()

            texts = self.processing_class.batch_decode(outputs["completion_ids"], skip_special_tokens=True)
            prompts = self.processing_class.batch_decode(outputs["prompt_ids"], skip_special_tokens=True)
            numbers = [number[prompt] for prompt in prompts]
            end = {self.processing_class.eos_token_id}
            ids_list = [until_end(row, end)[:12] for row in outputs["completion_ids"].tolist()]
            rewards = torch.tensor(some_constant_reward(texts, numbers)) + torch.tensor(soft_overlong(ids_list))
            groups = rewards.view(-1, self.num_generations)
            expected = groups - groups.mean(dim=1, keepdim=True)
            if self.scale_rewards == "group":
                expected = expected / (groups.std(dim=1, keepdim=True) + 1e-4)
            if self.scale_rewards == "batch":
                expected = expected / (nanstd(rewards) + 1e-4)
            assert torch.allclose(expected.flatten(), outputs["advantages"], atol=1e-4)
            return outputs

    number = {problem["prompt"]: problem["number"] for problem in numbered(24)}
    trainer = build(
        dynamic_sampling=True,
        trainer_class=Checked,
        **world(reward_funcs=[some_constant_reward, soft_overlong]),
        **{"max_steps": 6, **settings},
    )
    before = parameters(trainer)
    trainer.train()
    assert len(trainer.generations) == 3
    assert not same(before, parameters(trainer))
    assert all(math.isfinite(v) for log in trainer.state.log_history for v in log.values() if isinstance(v, float))


@pytest.mark.parametrize("mode", ["token_truncate", "sequence_mask"])
def test_vllm_ratios_and_tool_masks_follow_their_rows(build: Build, mode: str) -> None:
    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        found = scripted_rollout(prompts, trainer)
        masks = [[place > 0 for place in range(len(ids))] for ids in found["completion_ids"]]
        return {**found, "env_mask": [[int(on) for on in mask] for mask in masks]}

    trainer = build(**DYNAMIC, **world(rollout_func=rollout), vllm_importance_sampling_mode=mode)
    trainer.use_vllm, trainer.vllm_generation, trainer._last_loaded_step = True, Mock(), 0
    trainer.train()
    assert len(trainer.generations) == 2
    for outputs in trainer.generations:
        valid = outputs["completion_mask"] * outputs["tool_mask"]
        assert valid[:, 0].eq(0).all()
        assert outputs["num_items_in_batch"] == valid.sum()
        difference = (outputs["old_per_token_logps"] - outputs["sampling_per_token_logps"]) * valid
        if mode == "token_truncate":
            expected = difference.exp().clamp(trainer.vllm_importance_sampling_clip_min, LARGEST_RATIO)
        else:
            expected = difference.sum(dim=1, keepdim=True).exp()
            expected = expected.masked_fill(expected > LARGEST_RATIO, 0.0)
        assert outputs["importance_sampling_ratio"].shape == expected.shape
        ratio = torch.where(valid.bool(), outputs["importance_sampling_ratio"], 1.0)
        assert torch.allclose(ratio, torch.where(valid.bool(), expected, 1.0), rtol=1e-4)
        lengths = outputs["completion_mask"].sum(dim=1, keepdim=True)
        sampled = outputs["sampling_per_token_logps"][outputs["completion_mask"].bool()]
        assert torch.equal(sampled, (-0.5 - lengths).expand_as(valid)[outputs["completion_mask"].bool()])


def test_base_distributions_and_the_probe_go_on_working(build: Build, tmp_path: Path) -> None:
    settings = {"divergence": "js", "divergence_reference": "base", "max_steps": 2, "probe_steps": 0, "probe_size": 2}
    trainer = build(**DYNAMIC, **world(), **settings)
    trainer.train()
    divergences = [log["divergence/max"] for log in trainer.state.log_history if "divergence/max" in log]
    assert divergences[0] < 1e-6 < divergences[-1], "before the first update the policy is the base"
    assert (tmp_path / "out" / "shift" / "step_000002.parquet").is_file()

    without = build(**DYNAMIC, **world(), **{**settings, "probe_steps": None})
    without.train()
    assert same(parameters(trainer), parameters(without))


def test_completions_table_shows_the_batch(build: Build, tmp_path: Path) -> None:
    def telling(completions: list[str], number: list[int], log_extra: Any, **columns: Any) -> list[float]:
        log_extra("number", number)
        return some_constant_reward(completions, number)

    trainer = build(**DYNAMIC, **world(reward_funcs=telling), log_completions=True, logging_steps=2)
    trainer.train()
    number = {problem["prompt"]: problem["number"] for problem in numbered(24)}
    for step, generation in zip((2, 4), trainer.generations, strict=True):
        table = pd.read_parquet(tmp_path / "out" / "completions" / f"completions_{step:05d}.parquet")
        assert table["advantage"].tolist() == generation["advantages"].tolist()
        assert table["number"].tolist() == [number[prompt] for prompt in table["prompt"]]
        assert table["telling"].tolist() == pytest.approx(some_constant_reward(table["completion"], table["number"]))
        decoded = trainer.processing_class.batch_decode(generation["completion_ids"], skip_special_tokens=True)
        assert table["completion"].tolist() == decoded
        assert table["weight_mean"].notna().all()


# Where prompts come from ---------------------------------------------------------------------------------------------


def test_evaluation_takes_no_prompt(build: Build, tmp_path: Path) -> None:
    held_out = {"eval_dataset": numbered(4)}
    settings = {"per_device_eval_batch_size": 4, "num_generations_eval": 2}
    found = []
    for dynamic in (False, True):
        trainer = build(dynamic_sampling=dynamic, **world(**held_out), **settings)
        torch.manual_seed(0)
        metrics = trainer.evaluate()
        found.append({name: value for name, value in metrics.items() if "time" not in name and "second" not in name})
    assert found[0] == found[1]
    assert not (tmp_path / "out" / LOG_FILE).exists()


@pytest.mark.parametrize(
    ("stop", "settings"),
    [
        (4, {}),  # on a generation boundary
        (3, {}),  # inside a generation
        (5, {"num_iterations": 2, "weight_control": "shuffle"}),
        (5, {"gradient_accumulation_steps": 2, "steps_per_generation": 6}),  # a generation begins inside an update
    ],
)
def test_resumed_run_takes_the_prompts_of_the_undisturbed_one(
    build: Build, tmp_path: Path, stop: int, settings: dict[str, Any]
) -> None:
    common = {**DYNAMIC, **world(7), "max_steps": 8, **settings}
    out = tmp_path / "out"
    undisturbed = build(**common, **SAVING)
    undisturbed.train()
    expected, log = parameters(undisturbed), (out / LOG_FILE).read_text()

    for path in out.glob("checkpoint-*"):
        if path.name != f"checkpoint-{stop}":
            shutil.rmtree(path)
    with (out / LOG_FILE).open("a") as file:
        file.write('{"step": 9, "rou')  # killed while writing
    resumed = build(**common, **SAVING)
    resumed.train(resume_from_checkpoint=str(out / f"checkpoint-{stop}"))
    assert (out / LOG_FILE).read_text() == log
    assert same(expected, parameters(resumed))

    rounds = round_log(out)
    stream = PromptStream(7, undisturbed.args.seed)
    assert taken(rounds) == stream.take(len(taken(rounds))), "a prompt was skipped or repeated"
    assert len(taken(rounds)) > 7  # into another epoch
    assert json.loads((out / "checkpoint-8" / STREAM_FILE).read_text())["position"] == stream.position


def test_new_run_begins_a_new_log(build: Build, tmp_path: Path) -> None:
    build(**DYNAMIC, **world()).train()
    log = (tmp_path / "out" / LOG_FILE).read_text()
    trainer = build(**DYNAMIC, **world())
    trainer.train()
    assert (tmp_path / "out" / LOG_FILE).read_text() == log


def test_resume_refuses_what_is_not_the_same_stream(build: Build, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(**world(), **SAVING, max_steps=1).train()
    with pytest.raises(ValueError, match=r"has no dynamic_sampling\.json, so it was saved without") as error:
        build(**DYNAMIC, **world()).train(resume_from_checkpoint=str(out / "checkpoint-1"))
    assert "\n" not in str(error.value)

    build(**DYNAMIC, **world(), **SAVING, max_steps=1).train()
    for other, words in ((world(23), "size=24, this one has size=23"), ({**world(), "seed": 4}, "seed=3, this one")):
        with pytest.raises(ValueError, match=words):
            build(**DYNAMIC, **other).train(resume_from_checkpoint=str(out / "checkpoint-1"))


def test_missing_log_lines_are_told(build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    build(**DYNAMIC, **world(), **SAVING, max_steps=2).train()
    (out / LOG_FILE).unlink()
    build(**DYNAMIC, **world(), max_steps=3).train(resume_from_checkpoint=str(out / "checkpoint-2"))
    assert "tells of 0 of the" in caplog.text


def test_refused_data(build: Build) -> None:
    streamed = IterableDataset.from_generator(lambda: iter([{"prompt": "Q: 1+1=?\nA: ", "number": 2}]))
    with pytest.raises(ValueError, match=r"needs a datasets\.Dataset to train on, not IterableDataset"):
        build(**DYNAMIC, **world(train_dataset=streamed))
    pictures = Dataset.from_dict({"prompt": ["Q: "] * 4, "number": [2] * 4, "image": ["a.png"] * 4})
    with pytest.raises(ValueError, match="is for text, but the data has a column 'image'"):
        build(**DYNAMIC, **world(train_dataset=pictures))


# Over processes ------------------------------------------------------------------------------------------------------


TWO_RANKS = {
    # rows 6 to 8 of the second group are rank 0's, the rest rank 1's
    "straddling": {"num_generations": 4, "learning_rate": 0.0, "max_steps": 6, "beta": 0.1},
    # a group of three cannot be shared by two ranks
    "rounded up": {"num_generations": 3, "learning_rate": 0.0, "max_steps": 6, "beta": 0.1},
    "resumed": {"num_generations": 3, "max_steps": 5, "save_strategy": "steps", "save_steps": 3},
    # with a penalty by which every group differs
    "penalty": {"num_generations": 4, "max_steps": 6, "penalty": True, "save_strategy": "steps", "save_steps": 2},
}


@pytest.fixture(scope="module")
def two_ranks(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two_ranks")
    runs = {name: {**settings, "per_device_train_batch_size": 3} for name, settings in TWO_RANKS.items()}
    command = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "accelerate_configs" / "ddp.yaml")]
    command += ["--main_process_port", "0", str(ROOT / "tests" / "helpers" / "dynamic_training.py")]
    run = subprocess.run(
        [sys.executable, *command, tiny_model, str(folder), json.dumps(runs)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")},
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.distributed
@pytest.mark.parametrize("name", ["straddling", "rounded up"])
def test_two_processes_agree_with_one(two_ranks: Path, tiny_model: str, tmp_path: Path, name: str) -> None:
    found = json.loads((two_ranks / f"{name}.json").read_text())
    one = trainer_of(tiny_model, tmp_path, {**TWO_RANKS[name], "per_device_train_batch_size": 6})
    one.train()
    assert len(found["generations"]) == len(one.generations) == 3
    for ours, theirs in zip(one.generations, found["generations"], strict=True):
        assert theirs["sizes"] == [6, 6]
        assert theirs["num_items_in_batch"] == ours["num_items_in_batch"]
        for row, other in zip(rows(ours), theirs["rows"], strict=True):  # place by place
            assert set(row) == set(other)
            assert {"sampling_per_token_logps", "ref_per_token_logps"} <= set(row)
            for key, value in row.items():
                assert value == (other[key] if key.endswith("ids") else pytest.approx(other[key], abs=1e-4)), key

    mine, two = round_log(tmp_path), round_log(two_ranks / name)
    assert taken(mine) == taken(two)
    for log in (mine, two):  # surplus groups are dropped, and their prompts are the next ones of the stream
        for before, after in itertools.pairwise(log):
            returned = before.verdicts.count(GroupOutcome.RETURNED)
            assert after.indices[:returned] == before.indices[len(before.indices) - returned :]
    assert any(GroupOutcome.RETURNED in each.verdicts for each in two)
    shares = ("dynamic_sampling/kept_share", "dynamic_sampling/all_right_share", "dynamic_sampling/filled")
    for ours, theirs in zip(one.state.log_history, found["logs"], strict=True):
        assert [ours.get(share) for share in shares] == [theirs.get(share) for share in shares]


@pytest.mark.distributed
def test_two_processes_resume(two_ranks: Path) -> None:
    assert json.loads((two_ranks / "resumed.json").read_text())["same"]
    found = taken(round_log(two_ranks / "resumed"))
    assert found == PromptStream(13, SETTINGS["seed"]).take(len(found))


@pytest.mark.distributed
def test_two_processes_drop_groups_that_differ_only_by_a_penalty(
    two_ranks: Path, tiny_model: str, tmp_path: Path
) -> None:
    found = json.loads((two_ranks / "penalty.json").read_text())
    assert found["same"], "a resume between two batches changed the training"
    one = trainer_of(tiny_model, tmp_path, {**TWO_RANKS["penalty"], "per_device_train_batch_size": 6})
    one.train()
    mine, two = round_log(tmp_path), round_log(two_ranks / "penalty")
    assert taken(mine) == taken(two)
    for log in (mine, two):
        kept = [
            constant(index)
            for each in log
            for index, verdict in zip(each.indices, each.verdicts, strict=True)
            if verdict is GroupOutcome.KEPT
        ]
        assert kept == [None] * 9
        dropped = {verdict for each in log for verdict in each.verdicts}
        assert {GroupOutcome.ALL_RIGHT, GroupOutcome.ALL_WRONG} <= dropped


# Pure functions ------------------------------------------------------------------------------------------------------


def test_equality_is_of_rewards_and_not_of_their_spread() -> None:
    tenth, one = torch.tensor(0.1), torch.tensor(1.0)
    equal = torch.stack([tenth] * 8)
    close = torch.stack([tenth] * 7 + [torch.nextafter(tenth, one)])
    assert nanstd(equal.view(1, 8), dim=1) > 0, "the spread is 0, which would prove nothing"
    weights = torch.ones(1)
    assert group_outcomes(equal.unsqueeze(1), weights, 8) == [GroupOutcome.ALL_WRONG]
    assert group_outcomes(close.unsqueeze(1), weights, 8) == [GroupOutcome.KEPT]


def test_sums_that_differ_in_exact_numbers_are_compared_as_trl_makes_them() -> None:
    # 0.1 + 0.2 is 0.3 in float32, where TRL sums, and is not in float64
    rewards = torch.tensor([[0.1, 0.2], [0.3, 0.0], [0.1, 0.2], [0.25, 0.05]], dtype=torch.float32)
    summed = summed_rewards(rewards, torch.ones(2))
    assert rewards.double().sum(dim=1).unique().numel() > 1
    assert (group_outcomes(rewards, torch.ones(2), 4) == [GroupOutcome.KEPT]) == bool(summed.unique().numel() > 1)
    assert group_outcomes(rewards[:2], torch.ones(2), 2) == [GroupOutcome.ALL_WRONG]
    assert group_outcomes(rewards[:2], torch.tensor([1.0, 0.5]), 2) == [GroupOutcome.KEPT]


@pytest.mark.parametrize("right", [1.0, 0.0, -1.0])
@pytest.mark.parametrize("by_accuracy", [False, True])
def test_a_penalty_keeps_no_group(right: float, by_accuracy: bool) -> None:
    weights, expected = torch.ones(2), GroupOutcome.ALL_RIGHT if right == 1 else GroupOutcome.ALL_WRONG
    group = [[right, 0.0], [right, -0.25], [right, -1.0]]
    assert group_outcomes(torch.tensor(group), weights, 3, by_accuracy=by_accuracy) == [expected]
    turned = torch.tensor([[penalty, value] for value, penalty in group])
    assert group_outcomes(turned, weights, 3, metrics=(1,), by_accuracy=by_accuracy) == [expected]
    if not by_accuracy:
        assert group_outcomes(turned, weights, 3) == [GroupOutcome.KEPT], "the first reward filters"


def test_accuracy_is_by_the_threshold() -> None:
    graded = torch.tensor([[0.8], [0.9], [0.1], [0.2], [0.2], [0.8]])
    outcomes = [GroupOutcome.ALL_RIGHT, GroupOutcome.ALL_WRONG, GroupOutcome.KEPT]
    assert group_outcomes(graded, torch.ones(1), 2, 0.7, by_accuracy=True) == outcomes
    assert group_outcomes(graded, torch.ones(1), 2, 0.7) == [GroupOutcome.KEPT] * 3
    missing = torch.tensor([[0.9], [math.nan], [0.9], [0.1], [math.nan], [0.9]])
    outcomes = [GroupOutcome.OTHER, GroupOutcome.KEPT, GroupOutcome.OTHER]
    assert group_outcomes(missing, torch.ones(1), 2, 0.7, by_accuracy=True) == outcomes


def test_environments_judge_their_own_groups() -> None:
    none = math.nan
    rewards = torch.tensor([[none, 1.0], [none, 0.0], [1.0, none], [1.0, none], [0.5, none], [0.0, none]])
    chosen = filtering_reward(None, ["First", "Second"], of_environments=True)
    outcomes = [GroupOutcome.KEPT, GroupOutcome.ALL_RIGHT, GroupOutcome.KEPT]
    assert chosen.outcomes(rewards, torch.ones(2), 2) == outcomes
    named = filtering_reward("First", ["First", "Second"])
    assert named.outcomes(rewards, torch.ones(2), 2)[0] is GroupOutcome.OTHER


def test_missing_rewards() -> None:
    none = float("nan")
    one = torch.ones(1)
    assert group_outcomes(torch.tensor([[none], [none]]), one, 2) == [GroupOutcome.OTHER]
    assert group_outcomes(torch.tensor([[1.0], [none]]), one, 2) == [GroupOutcome.OTHER]
    assert group_outcomes(torch.tensor([[1.0], [none], [0.0]]), one, 3) == [GroupOutcome.KEPT]
    # right and too long, wrong and short: equal sums
    assert group_outcomes(torch.tensor([[1.0, -1.0], [0.0, 0.0]]), torch.ones(2), 2) == [GroupOutcome.OTHER]
    assert group_outcomes(torch.tensor([[1.0, -1.0], [1.0, -1.0]]), torch.ones(2), 2) == [GroupOutcome.ALL_RIGHT]
    graded = torch.tensor([[0.7], [0.7]])  # in float32, a little below 0.7
    assert group_outcomes(graded, one, 2) == [GroupOutcome.ALL_WRONG]
    assert group_outcomes(graded, one, 2, correct_threshold=0.7) == [GroupOutcome.ALL_RIGHT]


reward = st.sampled_from([0.0, 1.0, 0.5, -1.0, 0.1, math.nan])


@given(st.integers(2, 4).flatmap(lambda g: st.lists(st.lists(reward, min_size=g, max_size=g), min_size=1, max_size=6)))
def test_judged_as_by_hand(groups: list[list[float]]) -> None:
    found = group_outcomes(torch.tensor(groups).reshape(-1, 1), torch.ones(1), len(groups[0]))
    for group, verdict in zip(groups, found, strict=True):
        known = [value for value in group if not math.isnan(value)]
        if len(set(known)) > 1:
            assert verdict is GroupOutcome.KEPT
        elif len(known) < len(group):
            assert verdict is GroupOutcome.OTHER
        else:
            assert verdict is (GroupOutcome.ALL_RIGHT if known[0] == 1 else GroupOutcome.ALL_WRONG)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6, unique=True).map(sorted),
    st.lists(st.sampled_from([GroupOutcome.KEPT, GroupOutcome.ALL_WRONG, GroupOutcome.OTHER]), min_size=1, max_size=9),
)
def test_placement_takes_useful_groups_in_order_up_to_the_last_needed(
    slots: list[int], verdicts: list[GroupOutcome]
) -> None:
    pairs, used = placed_groups(slots, verdicts)
    useful = [group for group, verdict in enumerate(verdicts) if verdict is GroupOutcome.KEPT]
    assert [slot for slot, _ in pairs] == slots[: len(pairs)]
    assert [group for _, group in pairs] == useful[: len(pairs)]
    assert len(pairs) == min(len(slots), len(useful))
    assert used == (useful[len(slots) - 1] + 1 if len(useful) >= len(slots) else len(verdicts))


@given(st.integers(1, 40), st.integers(2, 16), st.integers(1, 12))
def test_rounds_are_shared_equally(missing: int, members: int, ranks: int) -> None:
    count = round_size(missing, members, ranks)
    assert count == next(n for n in range(missing, missing + ranks) if n * members % ranks == 0)


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=20), st.booleans())
def test_stream_neither_skips_nor_repeats(size: int, moves: list[tuple[int, int]], shuffle: bool) -> None:
    stream, seen = PromptStream(size, 5, shuffle), []
    for take, back in moves:
        indices = stream.take(take)
        back = min(back, take)
        stream.give_back(back)
        seen += indices[: take - back]
    assert seen == PromptStream(size, 5, shuffle).take(len(seen))
    for start in range(0, len(seen) - size + 1, size):
        assert sorted(seen[start : start + size]) == list(range(size))


def test_rows_are_replaced_with_their_padding() -> None:
    batch, fresh = torch.tensor([[1, 1], [2, 2], [3, 3]]), torch.tensor([[7, 8, 9], [4, 5, 6]])
    to, source = torch.tensor([2]), torch.tensor([1])
    assert replace_rows(batch, fresh, to, source, Padding("left", 0)).tolist() == [[0, 1, 1], [0, 2, 2], [4, 5, 6]]
    assert replace_rows(fresh, batch, to - 1, source, Padding("right", 0)).tolist() == [[7, 8, 9], [2, 2, 0]]
    assert batch.tolist() == [[1, 1], [2, 2], [3, 3]]
    assert replace_rows(batch[:, 0], fresh[:, 0], to, source, None).tolist() == [1, 2, 4]
    assert replace_rows(batch[:, :1], fresh[:, :1], to, source, Padding("right", 1.0)).shape == (3, 1)
    assert replace_rows(batch, fresh, to[:0], source[:0], Padding("left", 0)) is batch


# Agents --------------------------------------------------------------------------------------------------------------


def test_further_rounds_step_environments_of_their_own(
    tiny_model: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    instances: list[Ledger] = []

    class Scored(Ledger):
        def __init__(self) -> None:
            super().__init__()
            instances.append(self)

        def get_reward(self) -> float:
            """Alike for all completions to an even number."""
            return 0.0 if self.start % 2 == 0 else self.total + self.salt

        def reset(self, **row: Any) -> str:
            self.start, self.salt = row["start"], len(self.events) + instances.index(self) / 10
            return super().reset(**row)

    kwargs = {
        "environment_factory": Scored,
        "reward_funcs": None,
        "processing_class": calling_tokenizer(tiny_model),
        "train_dataset": conversations(12),
    }
    settings = {"max_completion_length": 50, "max_tool_calling_iterations": 1, "max_steps": 2}
    settings["generation_kwargs"] = {"max_new_tokens": 8}
    trainer = build(**DYNAMIC, **settings, dynamic_sampling_max_rounds=4, trainer_kwargs=kwargs)
    trainer.train()
    pool = trainer._environment_pool[None]
    assert len(pool) == 8
    resets = [sum(event[0] == "reset" for event in ledger.events) for ledger in pool]
    assert resets == [1] * 8, "a generation, and no further round, steps the training's environments"
    extra = [ledger for ledger in instances if not any(ledger is mine for mine in pool)]
    assert extra
    assert all(sum(event[0] == "reset" for event in ledger.events) == 1 for ledger in extra)
    assert trainer.environments == pool


def test_problems_that_an_environment_draws_are_refused(
    tiny_model: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    kwargs = {"environment_factory": Ledger, "reward_funcs": None, "processing_class": calling_tokenizer(tiny_model)}
    for data in (None, conversations(4).select([0] * 4).select_columns("prompt")):
        with pytest.raises(ValueError, match="the data's rows are all the same: the environment draws the problems"):
            build(**DYNAMIC, trainer_kwargs={**kwargs, "train_dataset": data})
