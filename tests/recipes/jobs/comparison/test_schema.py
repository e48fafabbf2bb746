"""Types and names of a comparison's settings, before anything in them is looked at more closely."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tokenshift.recipes.jobs.comparison.lined_yaml import LinedYaml
from tokenshift.recipes.jobs.comparison.schema import MESSAGES, read_settings


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("config: pocket", "config:"), 1, "config is missing: name a training config"),
        (("config: pocket", "config: [pocket]"), 1, "config=['pocket'] must be text."),
        (("seeds:", "name: a b\nseeds:"), 4, "name 'a b' is also the name of a folder: use letters"),
        (("seeds:", "output_dir: {a: b}\nseeds:"), 4, "output_dir={'a': 'b'} must be text."),
        (("  max_steps: 4", "  [4]"), 2, "overrides must be a mapping of names to values, not [4]."),
        (("  max_steps: 4", "  zzzzqqq: 4"), 3, "overrides: the field 'zzzzqqq' is not known; python recipes/grpo_"),
        (("[0, 1]", "[0, 1.0]"), 4, "seeds[1]=1.0 must be a whole number."),
        (("[0, 1]", "[true]"), 4, "seeds[0]=True must be a whole number."),
        (("[0, 1]", "!!set {0}"), 4, "seeds[0]='0' must be a whole number."),
        (("  high_kl:", "  high_kl: [1]"), 8, "variant 'high_kl' must be a mapping of names to values, not [1]."),
        (("  datasets: [pocket]\n  size: 6", "  pocket"), 9, "evaluation must be a mapping of names to values"),
        (
            ("  size: 6", "  output_dir: x"),
            11,
            "evaluation: the field 'output_dir' is not known; known are answer_extractor, attn_impl",
        ),
        (("  size: 6", "  '{x}': 6"), 11, "evaluation: the field '{x}' is not known; known are "),
        (("seeds:", "recovery: true\nseeds:"), 4, "recovery must be a mapping of names to values, not True."),
        (("seeds:", "recovery: {criteria: [js]}\nseeds:"), 4, "recovery: the field 'criteria' is not known; did you"),
        (("seeds:", "launch: ddp\nseeds:"), 4, "launch must be a mapping of names to values, not 'ddp'."),
        (("seeds:", "launch: {num_processes: 2}\nseeds:"), 4, "launch.config_file is missing: name one of accelerate"),
        (("seeds:", "launch: {config: ddp}\nseeds:"), 4, "the setting 'launch.config' is not known; did you mean con"),
        (("seeds:", "launch: {qqq: ddp}\nseeds:"), 4, "the setting 'launch.qqq' is not known; known are config_file,"),
        (
            ("seeds:", "launch:\n  config_file: ddp\n  num_processes: 0\nseeds:"),
            6,
            "launch.num_processes=0 must be a whole number of at least 1.",
        ),
        (
            ("baseline:", "outcome: acc\nbaseline:"),
            5,
            "outcome='acc' is not known; known are final_accuracy, held_out_area, le",
        ),
        (("baseline:", "replication_seeds: 3\nbaseline:"), 5, "replication_seeds=3 must be a list of whole numbers"),
        (("seeds:", "parallel: two\nseeds:"), 4, "parallel='two' must be a whole number."),
        (("seeds:", "parallel: true\nseeds:"), 4, "parallel=True must be a whole number."),
        (("seeds:", "keep_checkpoints: 1\nseeds:"), 4, "keep_checkpoints=1 must be true or false."),
    ],
)
def test_mistakes(change: tuple[str, str], line: int, said: str, write_comparison: Callable[..., Path]) -> None:
    path = write_comparison(change)
    with pytest.raises(ValueError, match=r"mine.yaml:\d+: ") as error:
        read_settings(LinedYaml(path))
    assert str(error.value).startswith(f"{path}:{line}: {said}")
    assert "\n" not in str(error.value)
    assert not any(unfilled in str(error.value) for unfilled in ("{name", "{place", "{value", "{hint", "{descr"))


@pytest.mark.parametrize(
    ("text", "said"), [("", "config is missing"), ("3", "a comparison must be a mapping"), ("[1]", "a comparison")]
)
def test_files_that_say_nothing(text: str, said: str, write_comparison: Callable[..., Path]) -> None:
    path = write_comparison(text=text)
    with pytest.raises(ValueError, match=rf"mine.yaml:1: {said}"):
        read_settings(LinedYaml(path))


def test_defaults_and_what_stands_for_them(write_comparison: Callable[..., Path]) -> None:
    settings = read_settings(LinedYaml(write_comparison()))
    assert (settings.name, settings.output_dir, settings.parallel, settings.keep_checkpoints) == (
        "mine",
        None,
        1,
        False,
    )
    assert (settings.recovery, settings.launch, settings.overrides) == (None, None, {"max_steps": 4})
    assert settings.variants == {"dapo": {}, "high_kl": {}}
    for extra in (
        "name:\noutput_dir:\nparallel:\nkeep_checkpoints:\nrecovery:\nlaunch:\n",
        "recovery: off\nlaunch: {}\n",
        "recovery: 'off'\n",
    ):
        assert read_settings(LinedYaml(write_comparison(("seeds:", f"{extra}seeds:")))) == settings
    empty = read_settings(LinedYaml(write_comparison(("  max_steps: 4\n", ""), ("seeds:", "recovery: {}\nseeds:"))))
    assert (empty.overrides, empty.recovery) == ({}, {})


def test_names_and_paths_may_look_like_numbers(write_comparison: Callable[..., Path]) -> None:
    path = write_comparison(
        ("  high_kl:", "  50: {divergence_alpha: 50}\n  yes: {beta: 0.1}"),
        ("baseline: dapo", "baseline: 50\nname: 2024-01-01\noutput_dir: 7"),
    )
    settings = read_settings(LinedYaml(path))
    assert list(settings.variants) == ["dapo", "50", "yes"]
    assert (settings.baseline, settings.name, settings.output_dir) == ("50", "2024-01-01", "7")


def test_values_of_other_recipes_are_left_to_them(write_comparison: Callable[..., Path]) -> None:
    """A weighting or a criterion by its dotted path passes as a name does."""
    mine = ("  high_kl:", "  mine: {advantage_weighting: my_weights.saturated, divergence: my.k4}")
    recovery = ("seeds:", "recovery: {budget: 0.1, criterion: my.margin}\nseeds:")
    settings = read_settings(LinedYaml(write_comparison(mine, recovery)))
    assert settings.variants["mine"] == {"advantage_weighting": "my_weights.saturated", "divergence": "my.k4"}
    assert settings.recovery == {"budget": 0.1, "criterion": "my.margin"}


def test_mistakes_without_words_of_ours_have_pydantics(
    write_comparison: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(MESSAGES, "bool_type")
    with pytest.raises(
        ValueError, match=r"mine.yaml:4: keep_checkpoints='\{x\}' is refused: Input should be a valid bool"
    ):
        read_settings(LinedYaml(write_comparison(("seeds:", "keep_checkpoints: '{x}'\nseeds:"))))
