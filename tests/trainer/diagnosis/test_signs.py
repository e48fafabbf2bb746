"""Each sign fires on a made log that has it, alone, and not on logs that are healthy or too short."""

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tokenshift.trainer.diagnosis.diagnosis import as_text, diagnose
from tokenshift.trainer.diagnosis.registry import SIGNS, register_sign
from tokenshift.trainer.diagnosis.run_record import RunRecord, read_run
from tokenshift.trainer.diagnosis.series import Series
from tokenshift.trainer.diagnosis.signs.flat_reward import SMALLEST_RISE, trend

LOGS = 30
CONFIGS = Path(__file__).parents[3] / "recipes" / "configs"
SHIPPED = sorted(file for file in CONFIGS.glob("*.yaml") if "advantage_weighting" in file.read_text(encoding="utf-8"))
SETTINGS = {
    "per_device_train_batch_size": 32,
    "steps_per_generation": 4,
    "num_iterations": 1,
    "gradient_accumulation_steps": 1,
    "divergence": "k3",
    "divergence_reference": "old",
    "divergence_scale": 1.0,
    "learning_rate": 1e-4,
    "warmup_steps": 5,
    "max_grad_norm": 1.0,
}
SUMMARY = {
    "divergence": "k3: ...",
    "before": {"mean": 0.5, "low": 0.46, "high": 0.54},
    "after": {"mean": 0.9, "low": 0.87, "high": 0.93},
}


def healthy_logs() -> list[dict[str, Any]]:
    """Numbers like those of a run of the embedded example: reward 0.5 to 0.9, entropy 0.07 to 0.04."""
    noise = random.Random(0)
    logs = []
    for place in range(LOGS):
        done = place / (LOGS - 1)
        log = {
            "reward": 0.5 + 0.4 * done + noise.gauss(0, 0.04),
            "reward_std": 0.45 - 0.1 * done,
            "rewards/accuracy_reward/mean": 0.5 + 0.4 * done,
            "rewards/accuracy_reward/lowest": 0.0,
            "rewards/accuracy_reward/highest": 1.0,
            "entropy": 0.07 - 0.03 * done,
            "grad_norm": 0.3 * math.exp(noise.gauss(0, 0.6)),
            "frac_reward_zero_std": 0.6 * done,
            "completions/clipped_ratio": 0.01,
            "advantage_weight/frac_active": 0.01 - 0.008 * done,
            "divergence/mean": 1e-4,
            "divergence/p90": 1e-9,
            "divergence/noise_floor": 1.8e-14,
            "verification/killed": 0.0,
            "loss": -0.1,
            "learning_rate": 1e-4,
        }
        logs.append({"step": 4 * (place + 1), **log})
    return logs


Change = Callable[[list[dict[str, Any]]], None]


def every(name: str, value: Callable[[float], float]) -> Change:
    """Set a metric in each log, as a function of the share of the run that is done."""

    def change(logs: list[dict[str, Any]]) -> None:
        for place, log in enumerate(logs):
            log[name] = value(place / (len(logs) - 1))

    return change


def at(name: str, value: float, *places: int) -> Change:
    """Set a metric in some logs."""

    def change(logs: list[dict[str, Any]]) -> None:
        for place in places:
            logs[place][name] = value

    return change


def run_of(
    *changes: Change, settings: Mapping[str, Any] = {}, summary: Mapping[str, Any] = {}, folder: Path | None = None
) -> RunRecord:
    logs = healthy_logs()
    for change in changes:
        change(logs)
    return RunRecord(logs, {**SETTINGS, **settings}, {**SUMMARY, **summary}, folder)


def names_of(run: RunRecord) -> list[str]:
    return [sign.name for sign, _ in diagnose(run)]


def flat(done: float) -> float:
    return 0.5 + 0.03 * math.sin(40 * done)


HAVE: list[tuple[str, RunRecord, str]] = [
    ("inactive_weights", run_of(every("advantage_weight/frac_active", lambda done: 0.0004)), "divergence_alpha"),
    (
        "inactive_weights",
        run_of(every("advantage_weight/frac_active", lambda done: 0.0), settings={"steps_per_generation": 1}),
        "num_iterations",
    ),
    ("divergence_is_noise", run_of(every("divergence/noise_floor", lambda done: 9e-5)), "float32"),
    (
        "divergence_is_noise",  # k1's mean cancels, its size does not
        run_of(
            every("divergence/mean", lambda done: 1e-9),
            every("divergence/p90", lambda done: 1.6e-3),
            every("divergence/noise_floor", lambda done: 1e-3),
            settings={"divergence": "k1"},
        ),
        "float32",
    ),
    ("flat_reward", run_of(every("reward", flat)), "learning_rate"),
    ("flat_reward", run_of(every("reward", lambda done: 0.8 - 0.4 * done + 0.01 * (done > 0.5))), "learning_rate"),
    (
        "flat_reward",
        run_of(every("reward", flat), every("rewards/accuracy_reward/mean", lambda done: 0.97)),
        "harder problems",
    ),
    ("held_out_fell", run_of(summary={"after": {"mean": 0.4, "low": 0.36, "high": 0.44}}), "earlier checkpoint"),
    ("equal_groups", run_of(every("frac_reward_zero_std", lambda done: 0.4 + 0.4 * done)), "dynamic_sampling"),
    ("entropy_collapse", run_of(every("entropy", lambda done: 0.5 * math.exp(-4 * done))), "epsilon_high"),
    ("truncation", run_of(every("completions/clipped_ratio", lambda done: 0.5 * done)), "max_completion_length"),
    ("rollout_mismatch", run_of(every("sampling/sampling_logp_difference/mean", lambda done: 0.15)), "temperature"),
    (
        "rollout_mismatch",  # of late alone, as where an engine no longer gets the weights
        run_of(every("sampling/sampling_logp_difference/mean", lambda done: 0.02 + 0.3 * (done > 0.85))),
        "has the trainer's weights",
    ),
    (
        "rollout_mismatch",
        run_of(every("sampling/sampling_logp_difference/mean", lambda done: 0.15), settings={"top_p": 0.9}),
        "top_p=0.9",
    ),
    ("gradient_spikes", run_of(at("grad_norm", 30.0, 12, 22)), "max_grad_norm=1 bounds them already"),
    ("gradient_spikes", run_of(at("grad_norm", 30.0, 12, 22), settings={"max_grad_norm": 0.0}), "Set max_grad_norm"),
    ("kl_blow_up", run_of(every("kl", lambda done: 3 * done)), "beta"),
    (
        "kl_blow_up",
        run_of(every("divergence/mean", lambda done: 3 * done), settings={"divergence_reference": "base"}),
        "beta",
    ),
    ("missing_rewards", run_of(at("rewards/unscored_share", 0.05, 3)), "solution_column"),
    ("missing_rewards", run_of(at("rewards/mine/non_finite", 2.0, 3)), "reward_funcs"),
    ("missing_rewards", run_of(at("rewards/accuracy_reward/mean", math.nan, 3)), "reward_funcs"),
    ("verification", run_of(every("verification/killed", lambda done: 2.0)), "verify_timeout"),
    ("verification", run_of(at("verification/unreached", 90.0, 4, 5)), "verify_budget"),
]
"""A sign, a run that has it and no other, and words of the remedy."""

HAVE_NOT: list[tuple[str, RunRecord]] = [
    ("inactive_weights", run_of(at("advantage_weight/frac_active", 0.0, 0, *range(5, LOGS)))),
    (
        "inactive_weights",
        run_of(every("advantage_weight/frac_active", lambda done: 0.0), settings={"weight_control": "mean"}),
    ),
    # the first update of each of two per generation is the rollout policy's own
    ("divergence_is_noise", run_of(at("divergence/mean", 1e-14, *range(0, LOGS, 2)))),
    ("flat_reward", run_of(every("reward", lambda done: 0.5 + 0.2 * done + 0.1 * math.sin(40 * done)))),
    ("held_out_fell", run_of(summary={"after": {"mean": 0.48, "low": 0.44, "high": 0.52}})),
    ("equal_groups", run_of(every("frac_reward_zero_std", lambda done: 0.9 * done))),
    (
        "equal_groups",
        run_of(every("frac_reward_zero_std", lambda done: 0.9), every("dynamic_sampling/rounds", lambda done: 3.0)),
    ),
    ("entropy_collapse", run_of(every("entropy", lambda done: 0.5 * math.exp(-2 * done)))),
    ("truncation", run_of(every("completions/clipped_ratio", lambda done: 0.5 * (done < 0.4)))),
    ("rollout_mismatch", run_of(every("sampling/sampling_logp_difference/mean", lambda done: 0.045))),
    ("gradient_spikes", run_of(at("grad_norm", 30.0, 12))),
    ("gradient_spikes", run_of(at("grad_norm", 0.0, *range(0, LOGS, 2)))),
    ("kl_blow_up", run_of(every("kl", lambda done: 0.3 * done), at("kl", 5.0, 7))),
    ("missing_rewards", run_of(at("rewards/unscored_share", 0.005, 3))),
    ("verification", run_of(at("verification/killed", 2.0, 3))),
]


@pytest.mark.parametrize(("name", "run", "words"), HAVE)
def test_a_run_that_has_it_alone(name: str, run: RunRecord, words: str) -> None:
    findings = diagnose(run)
    assert [sign.name for sign, _ in findings] == [name]
    found = findings[0][1]
    assert words in found.remedy
    assert any(digit in found.evidence for digit in "0123456789")
    assert set(found.updates) <= set(run.steps)
    assert all(len(line) <= 80 for line in as_text(run, findings).splitlines())


@pytest.mark.parametrize(("name", "run"), HAVE_NOT)
def test_a_run_that_is_near_it(name: str, run: RunRecord) -> None:
    assert name in SIGNS
    assert names_of(run) == []


def test_every_sign_is_tried_both_ways() -> None:
    """`refused_update` has a test of its own: it is no log's."""
    assert {name for name, _, _ in HAVE} | {"refused_update"} == set(SIGNS)
    assert {name for name, _ in HAVE_NOT} | {"refused_update"} == set(SIGNS)


def test_healthy_logs_and_short_ones_have_no_sign() -> None:
    assert names_of(run_of()) == []
    for count in range(LOGS):
        assert names_of(RunRecord(healthy_logs()[:count], SETTINGS)) == []
    assert names_of(RunRecord(healthy_logs())) == []  # nothing known of its settings


@pytest.mark.parametrize("config", SHIPPED, ids=lambda config: config.stem)
def test_a_shipped_configs_healthy_run_has_no_sign(config: Path) -> None:
    assert names_of(RunRecord(healthy_logs(), yaml.safe_load(config.read_text(encoding="utf-8")))) == []


def test_a_run_without_weights_or_divergences_is_looked_at_too() -> None:
    logs = [
        {name: log[name] for name in ("step", "loss", "reward", "reward_std", "entropy")} for log in healthy_logs()
    ]
    assert names_of(RunRecord(logs)) == []
    for place, log in enumerate(logs):
        log["reward"] = flat(place / (LOGS - 1))
    assert names_of(RunRecord(logs)) == ["flat_reward"]


def test_a_run_that_never_had_an_advantage_is_told_so() -> None:
    """Four updates per generation, each logged, and all completions cut off: three logs have what a generation has."""
    logs: list[dict[str, Any]] = []
    for step in range(1, 13):
        entry = {"step": step, "loss": 0.0, "advantage_weight/frac_active": 0.0}
        if step % 4 == 1:
            entry |= {"reward": 0.0, "reward_std": 0.0, "frac_reward_zero_std": 1.0, "completions/clipped_ratio": 1.0}
        logs.append(entry)
    found = {sign.name: found for sign, found in diagnose(RunRecord(logs))}
    assert found.keys() == {"inactive_weights", "equal_groups", "truncation"}
    assert "see to the rewards first" in found["inactive_weights"].remedy
    assert found["truncation"].updates == (5, 9)


def test_an_update_that_was_refused(tmp_path: Path) -> None:
    (tmp_path / "post_mortem").mkdir()
    (tmp_path / "post_mortem" / "update_121_rank_0.pt").touch()
    run = run_of(folder=tmp_path)
    ((sign, found),) = diagnose(run)
    assert (sign.name, "update 121" in found.evidence) == ("refused_update", True)
    (tmp_path / "post_mortem" / "update_121_rank_0.pt").rename(tmp_path / "post_mortem" / "update_90_rank_0.pt")
    assert names_of(run) == []  # the run went on from a checkpoint, beyond it


def test_the_trend_is_the_least_squares_line() -> None:
    values = [0.3, 0.5, 0.2, 0.9, 0.8, 0.4, 1.1]
    rise, error = trend(Series("reward", tuple(range(7)), tuple(values)))
    (slope, _), covariance = np.polyfit(np.linspace(0, 1, 7), values, 1, cov=True)
    assert (rise, error) == (pytest.approx(slope), pytest.approx(covariance[0, 0] ** 0.5))


def test_how_often_a_flat_reward_is_told() -> None:
    """Nearly always where a long run has no rise at all, and in the bound's 5 % where the smallest rise is there; the
    normal bound of 10 logs lets some more through."""

    def told(logs: int, noise: float, rise: float) -> float:
        count = 0
        for seed in range(200):
            draws = random.Random(seed)
            rewards = [0.5 + rise * place / (logs - 1) + draws.gauss(0, noise) for place in range(logs)]
            entries = [
                {"step": place, "loss": 0.0, "reward": reward, "reward_std": 0.5}
                for place, reward in enumerate(rewards)
            ]
            count += names_of(RunRecord(entries)) == ["flat_reward"]
        return count / 200

    assert told(60, 0.05, 0.0) > 0.95
    assert told(60, 0.05, SMALLEST_RISE * 0.5) < 0.08
    assert told(10, 0.15, SMALLEST_RISE * 0.5) < 0.12
    assert told(10, 0.15, 0.4) < 0.03


def test_a_name_is_given_once() -> None:
    def truncation(run: RunRecord) -> None:
        return None

    with pytest.raises(ValueError, match="'truncation' is registered already"):
        register_sign("title", "meaning")(truncation)


def test_a_run_is_read_from_its_newest_logs(tmp_path: Path) -> None:
    logs = healthy_logs()
    for step in (20, 40, 100):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        state = {"log_history": [log for log in logs if log["step"] <= step]}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    assert read_run(tmp_path).steps[-1] == 100
    (tmp_path / "checkpoint-100" / "trainer_state.json").write_text('{"log_his')  # torn
    assert read_run(tmp_path).steps[-1] == 40
    (tmp_path / "log_history.json").write_text(json.dumps(logs[:15]))
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    run = read_run(tmp_path)
    assert (run.steps[-1], run.summary, run.settings) == (60, SUMMARY, {})
    with pytest.raises(ValueError, match="give the output_dir of a training that has saved once"):
        read_run(tmp_path / "checkpoint-20")
