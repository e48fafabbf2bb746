"""Kill recipes at many moments, start each again by the same command, and compare with a run that nobody disturbed.

    python tests/faults/kills.py                      # all of them
    python tests/faults/kills.py --only evaluation    # those whose work or moment has the word
    python tests/faults/kills.py --few                # one of each kind of file
    python tests/faults/kills.py --signals SIGTERM    # stopped instead of killed

Every run is a fork of this process, which has imported all. No figure is drawn.
"""

import argparse
import contextlib
import importlib
import json
import os
import re
import shlex
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.moments import Moments
from faults.outcomes import torn_files, unlike
from helpers.small_comparison import FILE, SCRIPTS

LIMIT = 240
"""Seconds after which a run is ended."""

MARK = "TOKENSHIFT_STRUCK"
"""Environment variable by which the processes that a run has started are recognised."""

ENDS: Mapping[str, Sequence[int]] = {"SIGKILL": (-9,), "SIGTERM": (143, 0), "SIGINT": (130, 0)}
"""How a run may end after a signal: a training that is stopped between updates ends well, with a checkpoint."""

TIMEOUT = 20.0
"""`ddp_timeout` of work that processes share."""

REWARD = "helpers.tiny_training.even_digits"

MODELS = f"--base_model {{models}}/base --rl_model {{models}}/moved --reward_func {REWARD} --resamples 20"
TRAINING = (
    "--model_name_or_path {models}/base --dtype float32 --bf16 false --dataset_name pocket --train_size 24 "
    "--eval_size 4 --reward_funcs helpers.tiny_training.digit_reward --max_steps 4 --steps_per_generation 2 "
    "--per_device_train_batch_size 8 --num_generations 4 --learning_rate 1e-2 --max_completion_length 16 "
    "--save_steps 1 --save_total_limit 2 --logging_steps 1 --report_to none --output_dir {out} "
    "--resume_from_checkpoint true"
)


@dataclass(frozen=True)
class Work:
    """Something a recipe does.

    Attributes:
        name: for the table.
        recipe: the module of `recipes/`.
        words: of its command line; `{models}`, `{folder}` and `{out}` are replaced.
        moments: a regular expression that finds the moments of this work among those of the run.
        kills: how many of them are struck.
        ranks: how many processes share it, of which one is struck.
    """

    name: str
    recipe: str
    words: str
    moments: str
    kills: int
    ranks: int = 1


WORKS = (
    Work("training", "grpo_divweighted", TRAINING, "", 14),
    Work("probe", "grpo_divweighted", f"{TRAINING} --probe_steps 1 --probe_size 2", "shift", 8),
    Work(
        "scoring",
        "analyze_shift",
        f"{MODELS} --dataset_name pocket --size 6 --samples 2 --batch_size 4 --batch_tokens 150 --max_new_tokens 16 "
        "--report_responses 2 --trajectories both --output_dir {out}",
        "",
        12,
    ),
    Work(
        "cross-sampling",
        "cross_sample",
        f"{MODELS} --size 4 --batch_size 4 --max_new_tokens 12 --criteria js random --pilot 2 --budgets 0.3 "
        "--output_dir {out}",
        "",
        8,
    ),
    Work(
        "evaluation",
        "evaluate",
        f"--model {{models}}/moved --against {{models}}/base --datasets pocket --size 6 --samples 2 --batch_size 4 "
        f"--max_new_tokens 12 --ks 1 2 --resamples 20 --reward_func {REWARD} --output_dir {{out}}",
        "",
        8,
    ),
    Work("comparison", "compare_variants", "--config {folder}/comparison.yaml --output_dir {out}", "", 8),
)
SHARED = (
    Work(
        "training, 2 ranks",
        "grpo_divweighted",
        TRAINING.replace("train_batch_size 8", "train_batch_size 4").replace("helpers", "accuracy_reward helpers")
        + f" --ddp_timeout {TIMEOUT:g}",
        "",
        8,
        2,
    ),
    *(
        Work(f"{work.name}, 2 ranks", work.recipe, f"{work.words} --ddp_timeout {TIMEOUT:g}", "", 4, 2)
        for work in WORKS
        if work.name in ("scoring", "cross-sampling", "evaluation")
    ),
)
"""Work that two processes share."""


@dataclass(frozen=True)
class Outcome:
    """The result of a run that was killed.

    Attributes:
        work: its name.
        moment: the moment of the strike, with its number.
        status: how the run ended; minus the number of a signal.
        said: the last line that it printed; where several processes share the work, that of one that was not struck.
        torn: files that could not be read afterwards.
        again: the exit status of the same command afterwards.
        unlike: results of it that are not those of the undisturbed run.
        seconds: what both runs took.
        signal: the signal's name.
        traceback: whether the run printed one.
        others: where processes share the work, the exit statuses of those that were not struck, the seconds after
            which the last of them ended, their lines about it, and processes that were left.
    """

    work: str
    moment: str
    status: int | str
    said: str
    torn: list[str]
    again: int | str
    unlike: list[str]
    seconds: float
    signal: str
    traceback: bool
    others: dict[str, Any] | None = None

    @property
    def faults(self) -> list[str]:
        """The faults that were found, one line each."""
        faults = [f"torn: {name}" for name in self.torn] + [f"unlike: {name}" for name in self.unlike]
        faults += [] if self.status in ENDS[self.signal] else [f"the first run ended with {self.status}"]
        faults += [f"a traceback: {self.said}"] if self.traceback else []
        if self.others is not None and self.signal == "SIGKILL":
            faults += (
                [] if set(self.others["statuses"]) == {1} else [f"the others ended with {self.others['statuses']}"]
            )
            faults += [] if self.others["seconds"] < TIMEOUT else [f"they took {self.others['seconds']:.0f} s"]
            faults += [] if len(self.others["lines"]) == 1 else [f"they said {self.others['lines']}"]
            faults += [f"left: {process}" for process in self.others["left"]]
        return faults + ([] if self.again == 0 else [f"the second run ended with {self.again}"])


def make_inputs(folder: Path) -> None:
    """Write two tiny models and a comparison's file."""
    import torch
    from helpers.tiny_sizes import SIZES
    from transformers import LlamaConfig, LlamaForCausalLM

    from tokenshift.recipes.pocket.make_base import make_tokenizer

    tokenizer = make_tokenizer()
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES, max_position_embeddings=256, **ends))
    for name in ("base", "moved"):
        model.save_pretrained(folder / "models" / name)
        tokenizer.save_pretrained(folder / "models" / name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * parameter.std() * torch.randn_like(parameter))
    (folder / "comparison.yaml").write_text(FILE)


def import_recipes() -> None:
    """Import what forks would otherwise import each, and replace the drawing of figures."""
    for work in WORKS:
        importlib.import_module(f"tokenshift.recipes.{work.recipe}")
    drawing: Any = importlib.import_module("matplotlib.figure")
    drawing.Figure.savefig = lambda self, file, **options: Path(file).write_bytes(b"")


def run(
    work: Work,
    folder: Path,
    out: Path,
    log: Path,
    strike: int | None = None,
    number: int = signal.SIGKILL,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Start a recipe in a fork, and return its process id.

    Args:
        work: the recipe.
        folder: has the inputs.
        out: its output folder.
        log: gets what it prints; beside it, `.moments` gets its moments.
        strike, number: as for `Moments`.
        environment: more environment variables.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()
        for source, targets in ((os.open(os.devnull, os.O_RDONLY), (0,)), (_new(log), (1, 2))):
            for target in targets:
                os.dup2(source, target)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False, buffering=1)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
        os.environ.update(environment or {})
        os.chdir(folder)
        words = shlex.split(
            work.words.format(models="models", folder=shlex.quote(str(folder)), out=shlex.quote(str(out)))
        )
        sys.argv = [f"recipes/{work.recipe}.py", *words]
        moments = Moments(out, log.with_suffix(".moments"), strike, number)
        moments.listen()
        moments.watch_libraries()
        main = importlib.import_module(f"tokenshift.recipes.{work.recipe}").main
        status = main(words, SCRIPTS) if work.recipe == "compare_variants" else main(words)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def launch(
    work: Work,
    folder: Path,
    out: Path,
    log: Path,
    strike: int | None = None,
    number: int = signal.SIGKILL,
    victim: int = 0,
    others: Mapping[int, Work] | None = None,
) -> list[int]:
    """Start all processes of a work, as launchers on several hosts do; their process ids, by rank.

    Args:
        work, folder, out, strike, number: as for `run`.
        log: as for `run`; the rank comes before its suffix.
        victim: the rank that is struck.
        others: what some ranks are given instead.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(work.ranks):
        shared = {"RANK": rank, "WORLD_SIZE": work.ranks, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": work.ranks}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {name: str(value) for name, value in shared.items()} if work.ranks > 1 else {}
        environment[MARK] = str(out)
        struck = strike if rank == victim else None
        given = (others or {}).get(rank, work)
        children.append(run(given, folder, out, rank_log(log, rank), struck, number, environment))
    return children


def rank_log(log: Path, rank: int) -> Path:
    """The log of one of the processes."""
    return log.with_suffix(f".{rank}.log")


def _left(out: Path) -> list[str]:
    """The commands of processes that a run has started and left."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(out) and process.status() != psutil.STATUS_ZOMBIE:
                left.append(" ".join(process.cmdline()))
    return left


def _new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)


def wait(child: int, limit: float = LIMIT) -> int | str:
    """The exit status of a process of `run`; minus the number of the signal that ended it."""
    started = time.monotonic()
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - started > limit:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hangs"
        time.sleep(0.005)


def moments_of(log: Path) -> list[str]:
    """The moments that a run has passed."""
    return log.with_suffix(".moments").read_text().splitlines()


def chosen(moments: Sequence[str], pattern: str, count: int) -> list[int]:
    """Numbers, from 1, of moments spread over a run: first one of each kind, then of the others.

    Args:
        moments: the descriptions of all.
        pattern: a regular expression that finds those to choose from.
        count: how many to choose.
    """
    kinds: dict[str, list[int]] = {}
    for number, moment in enumerate(moments, start=1):
        if re.search(pattern, moment):
            kinds.setdefault(_kind(moment), []).append(number)
    order = list(kinds.values())
    picked: list[int] = []
    while order and len(picked) < count:
        for index, numbers in enumerate(order):
            picked.append(numbers.pop(len(numbers) * (index % 4) // 4))  # at the beginning, in the middle, at the end
        order = [numbers for numbers in order if numbers]
    picked.sort()
    if len(picked) <= count:
        return picked
    return [picked[(2 * index + 1) * len(picked) // (2 * count)] for index in range(count)]


def _kind(moment: str) -> str:
    """A moment's description without numbers, hashes and the names of figures."""
    return re.sub(r"_[0-9a-f]{6}\b|\d+", "", re.sub(r"figures/\w+", "figures/", moment))


def mistaken(work: Work, folder: Path) -> list[Any]:
    """Give the last of the processes that share a work a model that is not there; the exit status and text of each."""
    out, log = folder / f"{work.name}-mistaken", folder / f"{work.name}-mistaken.log"
    wrong = re.sub(r"\{models\}/(base|moved)", "{models}/none", work.words)
    children = launch(work, folder, out, log, others={work.ranks - 1: replace(work, words=wrong)})
    return [[wait(child), rank_log(log, rank).read_text()] for rank, child in enumerate(children)]


def outcomes(
    works: Sequence[Work], folder: Path, number: int, wholes: dict[str, Path], only: str = "", few: bool = False
) -> Any:
    """Strike each work at its moments, and yield what became of it.

    Args:
        works: those to strike.
        folder: for all files.
        number: the signal.
        wholes: the output folders of undisturbed runs by their words; it gets those that are missing.
        only: a word that the work or the moment must have.
        few: whether one moment of each is enough.
    """
    for work in works:
        log = folder / f"{work.name}.log"
        whole = wholes.setdefault(work.words, folder / f"{work.name}-whole" / "out")
        if not whole.exists():
            whole.parent.mkdir()
            for child in launch(work, folder, whole, log):
                assert wait(child) == 0, rank_log(log, 0).read_text()
        else:
            log = next(folder / f"{other.name}.log" for other in works if other.words == work.words)
        for victim in range(work.ranks):
            moments = moments_of(rank_log(log, victim))
            for strike in chosen(moments, work.moments, 1 if few else work.kills // work.ranks):
                if only in f"{work.name} {moments[strike - 1]}":
                    yield _struck(work, folder, whole, strike, number, victim)


def _struck(work: Work, folder: Path, whole: Path, strike: int, number: int, victim: int) -> Outcome:
    started = time.monotonic()
    out = folder / f"{work.name}-{victim}-{strike}-{signal.Signals(number).name}" / "out"
    out.parent.mkdir()
    logs = out.parent / "first.log"
    children = launch(work, folder, out, logs, strike, number, victim)
    status, struck = wait(children[victim]), time.monotonic()
    others = None
    if work.ranks > 1:
        survivors = [rank for rank in range(work.ranks) if rank != victim]
        statuses = [wait(children[rank]) for rank in survivors]
        seconds, head = time.monotonic() - struck, f"{work.recipe}.py: "
        texts = [rank_log(logs, rank).read_text(errors="replace") for rank in survivors]
        lines = [line for text in texts for line in text.splitlines() if line.startswith(head)]
        deadline = time.monotonic() + 5
        while (left := _left(out)) and time.monotonic() < deadline:
            time.sleep(0.1)
        others = {"statuses": statuses, "seconds": seconds, "lines": lines, "left": left}
    moments = moments_of(rank_log(logs, victim))
    moment = f"{strike}: {moments[strike - 1] if len(moments) >= strike else 'never reached'}"
    torn = torn_files(out) if out.exists() else []
    second = [wait(child) for child in launch(work, folder, out, out.parent / "second.log")]
    again = next((end for end in second if end != 0), 0)
    printed = [rank_log(logs, rank).read_text(errors="replace") for rank in range(work.ranks)]
    said = (printed[victim] if others is None else "\n".join(others["lines"])).strip().splitlines()
    return Outcome(
        work.name,
        moment,
        status,
        said[-1] if said else "",
        torn,
        again,
        unlike(whole, out) if again == 0 else [],
        time.monotonic() - started,
        signal.Signals(number).name,
        any("Traceback" in text for text in printed),
        others,
    )


def main() -> int:
    """Exit status: 0 if all is as it has to be, else 1."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="those whose work or moment has the word")
    parser.add_argument("--few", action="store_true", help="one moment of each work")
    parser.add_argument("--works", nargs="*", default=[work.name for work in (*WORKS, *SHARED)])
    parser.add_argument("--signals", nargs="+", default=["SIGKILL"])
    parser.add_argument("--mistakes", action="store_true", help="give a wrong path to one of two processes, too")
    parser.add_argument("--json", default=None, help="a file for the outcomes")
    parser.add_argument("--folder", default=None, help="keep all files here")
    given = parser.parse_args()
    made: list[Outcome] = []
    mistakes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.folder or temporary).resolve()
        folder.mkdir(exist_ok=True)
        os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
        make_inputs(folder)
        import_recipes()
        works = [work for work in (*WORKS, *SHARED) if work.name in given.works]
        wholes: dict[str, Path] = {}
        for name in given.signals:
            for outcome in outcomes(works, folder, signal.Signals[name], wholes, given.only, given.few):
                made.append(outcome)
                print(
                    f"{'FAULT' if outcome.faults else 'ok':5} {outcome.seconds:5.1f} s {name} {outcome.status!s:>4} "
                    f"{outcome.again!s:>4}  {outcome.work:23} {outcome.moment:60} "
                    f"{'; '.join(outcome.faults)[:300] or ('' if name == 'SIGKILL' else outcome.said)}",
                    flush=True,
                )
        if given.mistakes:
            mistakes = {work.name: mistaken(work, folder) for work in SHARED[:2]}
            print(json.dumps(mistakes, indent=1))
    wrong = [outcome for outcome in made if outcome.faults]
    torn = sum(len(outcome.torn) for outcome in made)
    print(f"\n{len(made)} times {' or '.join(given.signals)}: {torn} torn files, {len(wrong)} with faults")
    if given.json:
        rows = [{**asdict(outcome), "faults": outcome.faults} for outcome in made]
        Path(given.json).write_text(json.dumps({"outcomes": rows, "mistakes": mistakes}, indent=1))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
