"""Wrong inputs end in exit status 2 and one line with the fault and the remedy; in Python, in a ValueError with it.

`check_wrong_inputs.py` gives the whole table to processes as a user starts them. Here most rows are looked at in one
process, and those that need a run of their own in a few forks of it.
"""

import importlib
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.made_inputs import RAN, make_inputs
from faults.wrong_inputs import CALLS, COMMAND_LINE, OUT, RIGHT, TRAIN, WrongCall, WrongInput

from tokenshift.recipes.command_line import command as tokenshift
from tokenshift.recipes.command_line.commands import COMMANDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs")
    make_inputs(path)
    return path


@pytest.fixture(autouse=True)
def _in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(folder)
    yield
    assert not (folder / RAN).exists(), "code of an input ran"


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Gives words to `tokenshift` in this process, which must be refused before anything runs: what it then says."""
    imported = importlib.import_module

    def guarded(name: str, *args: Any) -> Any:
        module = imported(name, *args)
        if name.startswith("tokenshift.recipes.") and hasattr(module, "run"):
            monkeypatch.setattr(module, "run", lambda *_: pytest.fail("it was not refused"))
        return module

    monkeypatch.setattr(tokenshift, "import_module", guarded)
    monkeypatch.setattr(sys, "argv", ["tokenshift"])

    def give(words: list[str]) -> str:
        capsys.readouterr()
        status = tokenshift.main(words)
        _, said = capsys.readouterr()
        assert status == 2, said
        assert "Traceback" not in said
        return said

    return give


def _name(case: WrongInput | WrongCall) -> str:
    return f"{getattr(case, 'command', 'python') or 'tokenshift'}-{case.wrong}".replace(" ", "_")


SHOWN_AT_ONCE = [case for case in COMMAND_LINE if not case.runs]


@pytest.mark.parametrize("number", range(len(SHOWN_AT_ONCE)), ids=[_name(case) for case in SHOWN_AT_ONCE])
def test_command_line(number: int, refused: Callable[[list[str]], str], tmp_path: Path) -> None:
    case = SHOWN_AT_ONCE[number]
    words = shlex.split(case.words.replace(OUT, str(tmp_path / "out")))
    said = refused([*([case.command] if case.command else []), *words])
    # libraries may log beside it where this process uses them first; a process of its own says one line alone
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("[")]
    assert len(lines) == 1, said
    assert [word for word in case.says if word not in lines[0]] == [], lines[0]


@pytest.mark.parametrize("call", CALLS, ids=_name)
def test_python(call: WrongCall) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the words are in the table
        call.call()
    text = str(raised.value)
    assert len(text.strip().splitlines()) == 1, text
    assert [word for word in call.says if word not in text] == [], text


def test_the_table_is_large_and_names_every_command() -> None:
    assert len(COMMAND_LINE) + len(CALLS) >= 100
    assert {case.command for case in COMMAND_LINE} == {"", *COMMANDS}
    given = [(case.command, case.words) for case in COMMAND_LINE]
    assert len(set(given)) == len(given)


IN_A_RUN = (
    ("train", "a reward that raises"),
    ("train", "a reward that gives too few"),
    ("shift", "a reward that raises"),
    ("evaluate", "a reward that is infinite"),
)
"""Rows that need a run and are given to one here; `make wrong-inputs` gives all."""


@pytest.mark.parametrize(("command", "wrong"), IN_A_RUN)
def test_what_shows_in_a_run(
    command: str, wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (case,) = [case for case in COMMAND_LINE if (case.command, case.wrong, case.runs) == (command, wrong, True)]
    monkeypatch.setattr(sys, "argv", ["tokenshift"])
    assert tokenshift.main([command, *shlex.split(case.words.replace(OUT, str(tmp_path / "out")))]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert [word for word in case.says if word not in last] == [], last


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_code_that_is_trusted_runs(
    command: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = [line for wrong, name, line in RIGHT if name == command and "trusted" in wrong]
    monkeypatch.setattr(sys, "argv", ["tokenshift"])
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)  # transformers runs a model's code once in a process
    assert tokenshift.main([command, *shlex.split(line.replace(OUT, str(tmp_path / "out")))]) == 0
    (folder / RAN).unlink()  # the model's code wrote it
    assert command == "evaluate" or (tmp_path / "out" / "model" / "modeling_mine.py").is_file()


def test_a_process_of_its_own_answers_at_once() -> None:
    words = [sys.executable, str(ROOT / "recipes" / "grpo_divweighted.py"), *shlex.split(TRAIN.replace(OUT, "out"))]
    done = subprocess.run([*words, "--dataset_name", "number_prompts.jsonl"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("grpo_divweighted.py: prompt_column='prompt' holds int; prompts are text")
    assert len(done.stderr.splitlines()) == 1
