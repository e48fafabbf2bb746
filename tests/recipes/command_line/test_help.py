"""`--help` and early mistakes: from the sources, without importing anything heavy, in a terminal's width."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tokenshift.recipes.command_line import early_check, start
from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.early_check import check_words
from tokenshift.recipes.command_line.help_text import WIDTH, command_help, overview
from tokenshift.recipes.command_line.source_fields import UnreadableSource
from tokenshift.recipes.command_line.start import answer_early

RECIPES = Path(__file__).parents[3] / "recipes"
WITH_ARGUMENTS = [name for name, command in COMMANDS.items() if command.arguments]
COMMAND = ["-m", "tokenshift.recipes.command_line.command"]
HEAVY = ("torch", "trl", "transformers", "accelerate", "datasets", "numpy", "pandas", "matplotlib", "wandb", "peft")

WATCHED = """
import runpy, sys
heavy = {heavy!r}
sys.argv = {words!r}
status = 0
try:
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    status = end.code
print("heavy:", [name for name in heavy if name in sys.modules])
sys.exit(status)
"""


def run_watched(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS`; its last line of output names the heavy modules that were imported."""
    return subprocess.run(
        [sys.executable, "-c", WATCHED.format(heavy=HEAVY, words=words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_watching_sees_imports(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text("import numpy\n")
    assert run_watched([str(file)]).stdout.strip() == "heavy: ['numpy']"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name: str) -> None:
    command = COMMANDS[name]
    ways = [[*COMMAND, name, "--help"]]
    if command.arguments:
        ways.append([str(command.script), "--help"])
    for words in ways:
        run = run_watched(words)
        assert run.returncode == 0, run.stderr
        assert run.stdout.splitlines()[-1] == "heavy: []"
        assert run.stdout.startswith(f"usage: {'tokenshift ' + name if words[0] == '-m' else 'python recipes/'}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*COMMAND, "trian"], "tokenshift: 'trian' is no command; did you mean train?"),
        (
            [*COMMAND, "train", "--max_stepz", "1"],
            "tokenshift train: --max_stepz is no argument; did you mean max_steps?",
        ),
        (
            [str(RECIPES / "evaluate.py"), "--sample", "1"],
            "evaluate.py: --sample is no argument; did you mean samples?",
        ),
        ([str(RECIPES / "sft_control.py"), "--learning_rate", "fast"], "invalid float value: 'fast'"),
    ],
)
def test_mistakes_import_nothing_heavy(words: list[str], message: str) -> None:
    run = run_watched(words)
    assert run.returncode == 2
    assert run.stdout.splitlines() == ["heavy: []"]
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_env_imports_nothing_heavy_and_shows_no_secret() -> None:
    os.environ["HF_TOKEN"] = "hf_secret"
    try:
        run = run_watched([*COMMAND, "env"])
    finally:
        del os.environ["HF_TOKEN"]
    assert run.returncode == 0
    facts = dict(line.split(maxsplit=1) for line in run.stdout.splitlines())
    assert facts.pop("heavy:") == "[]"
    assert {"tokenshift", "python", "platform", "cores", "accelerators", "torch", "trl", "vllm"} <= facts.keys()
    assert facts["python"].endswith(".".join(map(str, sys.version_info[:3])))
    assert "secret" not in run.stdout


@pytest.mark.parametrize("name", WITH_ARGUMENTS)
def test_help_shows_the_projects_fields_and_the_libraries_on_demand(name: str) -> None:
    own, trl, everything = (command_help(name, f"tokenshift {name}", part) for part in (None, "trl", "all"))
    fields = early_check.command_fields(COMMANDS[name])
    for field in fields.values():
        ours = field.owner.startswith("tokenshift.")
        line = f"\n  --{field.name} "
        assert (line in own) == ours, field.name
        assert (line in trl) != ours, field.name
        assert everything.count(line) == 1 + (field.name == "config"), field.name
    for text in (own, overview()):
        assert max(map(len, text.splitlines())) <= WIDTH
    libraries = any(not field.owner.startswith("tokenshift.") for field in fields.values())
    assert (f"`tokenshift {name} --help trl`" in " ".join(own.split())) == libraries
    assert ("--launch NAME" in own) == COMMANDS[name].launched
    assert "--launch" not in command_help(name, "python recipes/x.py")


@pytest.mark.parametrize("name", WITH_ARGUMENTS)
def test_no_two_groups_of_arguments_have_the_same_heading(name: str) -> None:
    headings = [line for line in command_help(name, f"tokenshift {name}").split("\n\n") if "\n  --" in line]
    headings = [heading.split("\n  --")[0] for heading in headings]
    assert len(headings) >= 2
    assert len(set(headings)) == len(headings)
    assert not any(".py" in heading for heading in headings)  # a command's words, whatever script it starts


def test_help_says_how_to_type_it() -> None:
    text = command_help("train", "tokenshift train")
    assert "tokenshift train --config smollm2_arithmetic\n" in text
    assert "tokenshift train --launch ddp --config X.yaml" in text
    assert "(default: sigmoid)" in " ".join(text.split())
    assert "name: pocket, qwen2.5_math_7b_dapo," in text
    assert "python recipes/grpo_divweighted.py" in command_help("train", "python recipes/grpo_divweighted.py")


def test_a_closed_pipe_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, *COMMAND, "train", "--help", "all"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("train", ["--max_stepz", "3"], "--max_stepz is no argument; did you mean max_steps?"),
        ("train", ["--max_steps", "3.5"], "invalid int value: '3.5'"),
        ("train", ["--normalize_weights", "perhaps"], "Truthy value expected: got perhaps"),
        ("train", ["--importance_sampling_level"], "expected one argument"),
        ("train", ["stray"], "'stray' belongs to no argument"),
        ("train", ["--config"], "--config '' is not a file"),
        ("train", ["--config", "pockett"], r"--config 'pockett' is not a file \(did you mean pocket\?\)"),
        ("train", ["--config=gone.yaml"], "--config 'gone.yaml' is not a file"),
        ("shift", ["--top_p", "most"], "invalid float value: 'most'"),
        ("evaluate", ["--ks", "1", "two"], "invalid int value: 'two'"),
        ("compare", ["--confg", "x"], "--confg is no argument; did you mean config?"),
        ("compare", ["--config", "gone"], "--config 'gone' is not a file"),
    ],
)
def test_early_mistakes(
    name: str, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        check_words(COMMANDS[name], words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1\n", r"the config's learning_rat is no argument; did you mean learning_rate\?"),
        ("max_steps: many\n", "the config's max_steps='many' must be a whole number"),
        ("learning_rate: [1, 2]\n", r"the config's learning_rate=\[1, 2\] must be a number"),
        ("normalize_weights: perhaps\n", "the config's normalize_weights='perhaps' must be true or false"),
        ("weight_control: shufle\n", "the config's weight_control='shufle' is not known; choose one of none, shuffle"),
        ("- a list\n", "must hold a mapping"),
        ("a: [unclosed\n", "is not YAML"),
    ],
)
def test_early_mistakes_in_a_config(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        check_words(COMMANDS["train"], ["--config", str(file)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "train",
            ["--divergence_alpha", "-7", "--max-steps=3", "--gradient_checkpointing", "--no_dataloader_pin_memory"],
        ),
        ("train", ["--model_init_kwargs", '{"a": 1}', "--lr_scheduler_type", "cosine", "--report_to", "none"]),
        ("train", ["--config", "pocket"]),
        ("train", ["--config", "smollm2_arithmetic.yaml", "--reward_funcs", "accuracy_reward", "mine.own"]),
        ("train", ["--config", str(RECIPES / "configs" / "qwen2.5_math_7b_dapo.yaml")]),
        ("compare", ["--config", "compare_smollm2", "--dry_run"]),
        ("cross", ["--epsilons", "0.1", "1e-3", "--seeds", "0", "1"]),
        ("sft", ["--learning_rate", "1e-5", "--target_accuracy", "0.5"]),
        ("benchmark", ["--trainings", "js against base", "--parts", "training"]),
    ],
)
def test_what_is_right_passes(name: str, words: list[str]) -> None:
    check_words(COMMANDS[name], words)


def test_nothing_is_refused_where_a_source_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(dotted: str) -> None:
        raise UnreadableSource(dotted)

    monkeypatch.setattr(early_check, "class_fields", unreadable)
    assert answer_early("train", ["--max_stepz", "3"], "x") is None
    assert answer_early("train", ["--help"], "x") is None


def test_only_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    assert answer_early("train", ["--max_stepz", "3"], "x") == start.MISTAKE
    assert capsys.readouterr().err == ""
