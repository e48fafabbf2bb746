"""Mistakes that are named before torch is imported: names that nothing is registered under, and numbers too small."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tokenshift.analysis.cross_sampling.criterion_registry import CRITERIA
from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.early_check import LISTED, REGISTERED, SMALLEST, check_words, command_fields
from tokenshift.recipes.command_line.source_fields import constant, registered_names
from tokenshift.rewards.extractors import SHIPPED_EXTRACTORS
from tokenshift.rewards.registry import REWARDS
from tokenshift.trainer.weighting.registry import DIVERGENCES, WEIGHTINGS

ROOT = Path(__file__).parents[3]

SHIPPED = {
    "advantage_weighting": WEIGHTINGS,
    "divergence": DIVERGENCES,
    "reward_funcs": REWARDS,
    "reward_func": REWARDS,
    "answer_extractor": SHIPPED_EXTRACTORS,
    "criteria": CRITERIA,
}


@pytest.mark.parametrize("name", REGISTERED)
def test_names_read_from_the_sources_are_those_of_the_registry(name: str) -> None:
    names = registered_names(*REGISTERED[name])
    assert names
    assert set(names) <= set(SHIPPED[name])
    # other tests of this process may register functions of their own
    shipped = {registered for registered in SHIPPED[name] if _is_shipped(name, registered)}
    assert shipped <= set(names)


def _is_shipped(name: str, registered: str) -> bool:
    registry = SHIPPED[name]
    if isinstance(registry, frozenset):
        return True
    entry = registry.get(registered)
    return getattr(entry.function, "__module__", "tokenshift").startswith("tokenshift")


def test_every_table_is_of_arguments_that_there_are() -> None:
    fields = {name for command in COMMANDS.values() if command.arguments for name in command_fields(command)}
    assert {*REGISTERED, *LISTED, *SMALLEST} <= fields
    for module, name in LISTED.values():
        assert len(constant(module, name)) > 1


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("shift", "--size -3", "size=-3 must be at least 1."),
        ("evaluate", "--ks 1 0", "ks=0 must be at least 1."),
        ("train", "--probe_steps -1", "probe_steps=-1 must be at least 0."),
        ("cross", "--criteria jss", "criteria='jss' is no criterion; did you mean js?"),
        ("cross", "--criteria jss(scale=2)", r"criteria='jss\(scale=2\)' is no criterion; did you mean js?"),
        (
            "train",
            "--advantage_weighting sigmod",
            "advantage_weighting='sigmod' is no weighting; did you mean sigmoid?",
        ),
        ("train", "--divergence k4", "divergence='k4' is no divergence"),
        (
            "train",
            "--reward_funcs acuracy_reward",
            "reward_funcs='acuracy_reward' is no reward; did you mean accuracy_",
        ),
        (
            "evaluate",
            "--answer_extractor maths",
            "answer_extractor='maths' is no answer extractor; did you mean math?",
        ),
        ("benchmark", "--parts nope", "parts='nope' is not known. Known are statistics, "),
        ("cross", "--engine lockstp", "engine='lockstp' is not known; did you mean lockstep?"),
    ],
)
def test_mistakes(command: str, words: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        check_words(COMMANDS[command], words.split())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("cross", "--criteria js(scale=2) my_criteria.margin random"),
        ("train", "--advantage_weighting my_weights.saturated"),
        # a user's own name is known once the file of another dotted path is imported
        ("evaluate", "--reward_func my_rewards.right --answer_extractor last_number"),
        ("train", "--probe_steps 0 --reward_funcs accuracy_reward format_reward"),
    ],
)
def test_what_may_be_right_passes(command: str, words: str) -> None:
    check_words(COMMANDS[command], words.split())


def test_a_config_is_looked_at_too(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("num_generations: 0\n")
    with pytest.raises(ValueError, match="num_generations=0 must be at least 1"):
        check_words(COMMANDS["train"], ["--config", str(config)])
    config.write_text("advantage_weighting: sigmod\n")
    with pytest.raises(ValueError, match="advantage_weighting='sigmod' is no weighting"):
        check_words(COMMANDS["train"], ["--config", str(config)])
    check_words(COMMANDS["train"], ["--config", str(config), "--advantage_weighting", "none"])  # goes over it


def test_it_takes_about_a_second() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, str(ROOT / "recipes" / "cross_sample.py"), "--criteria", "jss"]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("cross_sample.py: criteria='jss' is no criterion")
    assert len(found.stderr.splitlines()) == 1
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3  # torch and TRL alone take longer
