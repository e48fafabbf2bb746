"""Give every wrong input of the table to the recipes, and print what became of it, with seconds.

    python tests/faults/check_wrong_inputs.py                  # each in a process of its own, as a user starts it
    python tests/faults/check_wrong_inputs.py --forked         # in forks of one process that has imported all: faster
    python tests/faults/check_wrong_inputs.py --only cross     # those whose command or fault has the word

A wrong input has to end in exit status 2 and one line with the fault and the remedy, without a traceback; in Python,
in a ValueError of that line. Where no model is needed it may take 5 seconds, from the start of the process.
"""

import argparse
import contextlib
import importlib
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.made_inputs import RAN, make_inputs
from faults.wrong_inputs import CALLS, COMMAND_LINE, OUT, RIGHT

SECONDS = 5.0
"""Seconds that the report of a mistake may take where no model is needed."""

LIMIT = 240
"""Seconds after which a case is ended."""


@dataclass(frozen=True)
class Outcome:
    """The result of a case.

    Attributes:
        wrong: what is wrong.
        where: the command, or Python.
        model: whether a model's files have to be read to see it.
        said: the line, or all that was printed where it is more.
        status: the exit status, or the name of what was raised.
        seconds: from the start to the end.
        cpu: seconds of the processors that it took, which on an idle machine is as long as it lasts.
        faults: what is not as it has to be.
    """

    wrong: str
    where: str
    model: bool
    said: str
    status: int | str
    seconds: float
    cpu: float
    faults: list[str]


def main() -> int:
    """Exit status: 0 if all is as it has to be, else 1."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--forked", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--json", default=None, help="a file for the outcomes")
    parser.add_argument("--early", action="store_true", help="only those for which no model is needed")
    parser.add_argument("--right", action="store_true", help="give the right inputs that look wrong too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made, _, text, _ = _forked(lambda: make_inputs(Path(folder)) or 0)
        assert made == 0, text
        os.chdir(folder)
        outcomes = list(_outcomes(given, Path(folder)))
    for outcome in outcomes:
        if outcome.faults:
            print(f"\nFAULT {outcome.where}: {outcome.wrong}: {'; '.join(outcome.faults)}\n{outcome.said[-1500:]}")
    wrong = [outcome for outcome in outcomes if outcome.faults]
    print(f"\n{len(outcomes)} cases, {len(wrong)} with faults")
    if outcomes:
        print("slowest, in seconds of the clock and of the processors:")
        for outcome in sorted(outcomes, key=lambda outcome: -outcome.cpu)[:5]:
            print(f"  {outcome.seconds:.1f} {outcome.cpu:.1f}  {outcome.where}: {outcome.wrong}")
    if given.json:
        Path(given.json).write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    return int(bool(wrong))


def _outcomes(given: argparse.Namespace, folder: Path) -> Any:
    def wanted(*texts: str) -> bool:
        return any(given.only in text for text in texts)

    if given.forked:
        for name in ("grpo_divweighted", "sft_control", "analyze_shift", "analyze_evolution", "shift_robustness"):
            importlib.import_module(f"tokenshift.recipes.{name}")
        for name in ("cross_sample", "evaluate", "compare_variants", "change_model", "benchmark"):
            importlib.import_module(f"tokenshift.recipes.{name}")
        importlib.import_module("tokenshift.analysis.shift.shift_analysis")
        importlib.import_module("tokenshift.analysis.evaluation.loaded_models")
    run = _forked_command if given.forked else _launched_command
    number = 0
    for case in COMMAND_LINE:
        number += 1
        if not wanted(case.command or "tokenshift", case.wrong) or (given.early and case.model):
            continue
        words, before = shlex.split(case.words.replace(OUT, f"out/{number}")), _cpu()
        status, out, err, seconds = run([*([case.command] if case.command else []), *words])
        cpu = _cpu() - before
        faults = _faults_of_command(case, status, out, err, None if given.forked else cpu, folder)
        yield _shown(Outcome(case.wrong, case.command or "tokenshift", case.model, err, status, seconds, cpu, faults))
    for call in () if given.early else CALLS:
        if not wanted("python", call.wrong):
            continue
        status, out, err, seconds = _forked(lambda call=call: _call(call))  # type: ignore[misc]
        faults = [] if status == 0 else [err.strip().splitlines()[-1] if err.strip() else f"status {status}"]
        yield _shown(Outcome(call.wrong, "Python", True, out + err, status, seconds, seconds, faults + _ran(folder)))
    for wrong, command, line in RIGHT if given.right else ():
        number += 1
        if not wanted(command, wrong, "right"):
            continue
        status, out, err, seconds = run([command, *shlex.split(line.replace(OUT, f"out/{number}"))])
        faults = [] if status == 0 else [f"status {status}"]
        (folder / RAN).unlink(missing_ok=True)
        yield _shown(Outcome(wrong, command, True, out + err, status, seconds, seconds, faults))


def _cpu() -> float:
    """Seconds of the processors that the processes took which this one has started and which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _shown(outcome: Outcome) -> Outcome:
    mark = "FAULT" if outcome.faults else "ok"
    said = " ".join(outcome.said.split())
    print(
        f"{mark:5} {outcome.seconds:6.1f} s {outcome.cpu:6.1f} s  {outcome.where:10} {outcome.wrong:40} {said[:150]}",
        flush=True,
    )
    return outcome


def _faults_of_command(
    case: Any, status: int | str, out: str, err: str, seconds: float | None, folder: Path
) -> list[str]:
    lines = [line for line in err.splitlines() if line.strip()]
    faults = [] if status == 2 else [f"status {status}"]
    if "Traceback" in err + out:
        faults.append("a traceback")
    if not lines:
        faults.append("no line")
    else:
        last = lines[-1] if case.runs else " ".join(lines)
        faults += [f"no {word!r} in the line" for word in case.says if word not in last]
        if len(lines) > 1 and not case.runs:
            faults.append(f"{len(lines)} lines")
    if seconds is not None and not case.model and seconds > SECONDS:
        faults.append(f"{seconds:.1f} s of the processors")
    return faults + _ran(folder)


def _ran(folder: Path) -> list[str]:
    if (folder / RAN).exists():
        (folder / RAN).unlink()
        return ["code of the input ran"]
    return []


def _call(call: Any) -> int:
    try:
        call.call()
    except ValueError as error:
        text = str(error)
        print(text)
        faults = [f"no {word!r} in the line" for word in call.says if word not in text]
        faults += ["more than one line"] if len(text.strip().splitlines()) > 1 else []
        for fault in faults:
            print(fault, file=sys.stderr)
        return int(bool(faults))
    except BaseException as error:
        traceback.print_exc()
        print(f"{type(error).__name__} instead of ValueError: {str(error)[:200]}", file=sys.stderr)
        return 1
    print("nothing was raised", file=sys.stderr)
    return 1


def _forked_command(words: Sequence[str]) -> tuple[int | str, str, str, float]:
    from tokenshift.recipes.command_line.command import main as command

    return _forked(lambda: command(list(words)))


def _forked(work: Callable[[], int]) -> tuple[int | str, str, str, float]:
    """Do something in a fork of this process; its status, both outputs, and seconds."""
    sys.stdout.flush()
    with tempfile.TemporaryFile("w+", errors="replace") as out, tempfile.TemporaryFile("w+", errors="replace") as err:
        started = time.monotonic()
        child = os.fork()
        if not child:
            _in_fork(work, out, err)
        status = _wait(child, started)
        seconds = time.monotonic() - started
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read(), seconds


def _in_fork(work: Callable[[], int], out: Any, err: Any) -> None:
    os.setsid()
    devnull = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((devnull, 0), (out.fileno(), 1), (err.fileno(), 2)):
        os.dup2(source, target)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # what a library would ask is answered by nobody
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    sys.path.append(os.getcwd())
    status = 1
    try:
        status = work()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _wait(child: int, started: float) -> int | str:
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # processes that it left
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - started > LIMIT:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "killed by the limit"
        time.sleep(0.005)


def _launched_command(words: Sequence[str]) -> tuple[int | str, str, str, float]:
    started = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tokenshift.recipes.command_line.command", *words],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "killed by the limit", "", "", time.monotonic() - started
    return done.returncode, done.stdout, done.stderr, time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
