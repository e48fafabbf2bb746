"""Scoring by one model at a time: the rows of both together, whatever stops it, and never two models."""

import copy
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import PartialState
from helpers.architectures import perturbed, tiny_model
from helpers.exact_statistics import oracle
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.divergence.lm_head import LMHead
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.storage import disk
from tokenshift.analysis.storage.damage import DamagedFileError
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.token_table.explored import read_explored
from tokenshift.analysis.token_table.one_at_a_time import OneAtATime
from tokenshift.analysis.token_table.schema import SCORED
from tokenshift.analysis.token_table.scored_run import STATES, is_scored, score_to_table
from tokenshift.analysis.token_table.scoring import PairScorer, Scorer
from tokenshift.analysis.token_table.spilled_states import SpilledStates, StatesSize
from tokenshift.recipes.pocket.make_base import make_tokenizer

TEMPERATURE, TOP_P, SHOWN = 0.8, 0.6, 4


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return make_tokenizer()


def responses() -> dict[str, list[Trajectory]]:
    """Of two kinds, one of them without a token."""
    generator = torch.Generator().manual_seed(1)

    def some(length: int) -> list[int]:
        return torch.randint(3, 40, (length,), generator=generator).tolist()

    made = [Trajectory(place, 0, some(2 + place % 3), some(7 * place % 11), place % 2 == 0) for place in range(7)]
    return {"rl": made[:5], "base": made[5:]}


class Loads:
    """Loads copies of two models, and sees to it that the last one and its head are gone before another is loaded.

    Attributes:
        names: whose copies were loaded, in order.
        fails: called with the name and the copy of a model that is loaded.
    """

    def __init__(self, base: Any, rl: Any) -> None:
        self._models = {"base": base, "rl": rl}
        self._alive: weakref.ref[Any] | None = None
        self._head = 0
        self.names: list[str] = []
        self.fails: Callable[[str, Any], None] = lambda name, model: None

    def __getitem__(self, name: str) -> Callable[[], Any]:
        def load() -> Any:
            assert self._alive is None or self._alive() is None, "two models at once"
            if name == "rl":
                held = [thing for thing in gc.get_objects() if type(thing) is LMHead]
                assert not any(head.weight.data_ptr() == self._head for head in held), "the base's head is held"
            model = copy.deepcopy(self._models[name])
            self._alive = weakref.ref(model)
            self._head = model.get_output_embeddings().weight.data_ptr()
            self.names.append(name)
            self.fails(name, model)
            return model

        return load


def scoring(folder: Path, loads: Loads, tokenizer: PreTrainedTokenizerBase, **settings: Any) -> OneAtATime:
    size = StatesSize(32, 80, 4)
    settings = {"temperature": TEMPERATURE, "top_p": TOP_P} | settings
    spilled = SpilledStates(RunFolder(folder).units(STATES))
    return OneAtATime(spilled, loads["base"], loads["rl"], tokenizer, size, **settings)


def run(folder: Path, scorer: Callable[[], Scorer] | OneAtATime) -> None:
    score_to_table(RunFolder(folder), responses(), scorer, {}, batch_tokens=30, explored=SHOWN)


def rows(folder: Path) -> pa.Table:
    (part,) = (folder / "table").glob("*.parquet")
    return pq.read_table(part)


def both(folder: Path, base: Any, rl: Any, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
    """The rows of both models together."""
    run(folder, lambda: PairScorer(base, rl, tokenizer, temperature=TEMPERATURE, top_p=TOP_P))
    return rows(folder)


KINDS: dict[str, tuple[Any, Any]] = {
    "llama": (tiny_model("llama"), tiny_model("llama", seed=1)),
    "a factor on the logits, another head": (tiny_model("cohere"), tiny_model("llama", seed=1, vocab_size=96)),
    "a cap on the logits": (tiny_model("gemma2"), tiny_model("gemma2", seed=1)),
    "bfloat16": (tiny_model("llama").bfloat16(), tiny_model("qwen2", seed=1).bfloat16()),
    "a bias": (perturbed(tiny_model("phi"), 0.1), tiny_model("phi", seed=1)),
    "blind to padding": (tiny_model("rwkv"), tiny_model("rwkv", seed=1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_of_both_together_bit_for_bit(kind: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    base, rl = KINDS[kind]
    expected = both(tmp_path / "both", base, rl, tokenizer)
    loads = Loads(base, rl)
    said: list[str] = []
    run(tmp_path / "one", scoring(tmp_path / "one", loads, tokenizer, tell=said.append))
    found = rows(tmp_path / "one")
    assert found.schema.equals(expected.schema)
    assert found.equals(expected)
    assert loads.names == ["base", "rl"]
    assert not (tmp_path / "one" / "units").exists()
    assert said[0].startswith("One model at a time: the base's hidden states of ")
    longer = ["The LM heads have 80 and 96 rows; the first 80 are compared."]
    assert said[1:] == (longer if kind.startswith("a factor") else [])
    shown, wanted = (read_explored(RunFolder(tmp_path / name)) for name in ("one", "both"))
    assert shown.keys() == wanted.keys()
    assert len(shown) == SHOWN
    for key, arrays in shown.items():
        assert all(np.array_equal(*pair) for pair in zip(arrays, wanted[key], strict=True))
    run(tmp_path / "one", scoring(tmp_path / "one", loads, tokenizer))
    assert loads.names == ["base", "rl"], "what is whole is left as it is"


def test_every_column_against_whole_logits(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    base, rl = KINDS["llama"]
    run(tmp_path, scoring(tmp_path, Loads(base, rl), tokenizer))
    table = rows(tmp_path)
    for kind, of_kind in responses().items():
        for trajectory in of_kind:
            mask = (table["trajectory"].cast(pa.string()).to_numpy() == kind) & (
                table["problem_id"].to_numpy() == trajectory.problem_id
            )
            mine = table.filter(pa.array(mask))
            assert mine["token_id"].to_pylist() == trajectory.completion_ids
            if not trajectory.completion_ids:
                continue
            ids = torch.tensor([trajectory.prompt_ids + trajectory.completion_ids])
            with torch.no_grad():
                p, q = (
                    model(input_ids=ids).logits[0, len(trajectory.prompt_ids) - 1 : -1].double() / TEMPERATURE
                    for model in (base, rl)
                )
            expected = oracle(p, q, torch.tensor(trajectory.completion_ids), TOP_P)
            for name in SCORED:
                got = torch.tensor(mine[name].to_pylist(), dtype=torch.float64)
                assert torch.allclose(got, expected[name].double(), atol=2e-5, rtol=1e-4), name


def failing_after(calls: int) -> Callable[[str, Any], None]:
    """Lets a model fail after so many forward passes of whole batches."""

    def arm(name: str, model: Any) -> None:
        forward, done = model.forward, [0]

        def counted(*arguments: Any, **options: Any) -> Any:
            done[0] += 1
            if done[0] > calls:
                raise KeyboardInterrupt
            return forward(*arguments, **options)

        counted.__wrapped__ = forward  # type: ignore[attr-defined]  # whose signature it has
        model.forward = counted

    return arm


@pytest.mark.parametrize(("stopped", "calls"), [("base", 5), ("rl", 3), ("rl", 5)])
def test_stopped_and_started_again(
    stopped: str, calls: int, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """In the base's pass, in the table, and among the responses that the page shows."""
    base, rl = KINDS["llama"]
    expected = both(tmp_path / "both", base, rl, tokenizer)
    folder, loads = tmp_path / "one", Loads(base, rl)
    arm = failing_after(calls)
    loads.fails = lambda name, model: arm(name, model) if name == stopped else None
    with pytest.raises(KeyboardInterrupt):
        run(folder, scoring(folder, loads, tokenizer))
    there = list((folder / "units" / STATES).glob("[!h]*.safetensors"))
    units = list(folder.rglob("*.parquet"))
    assert there
    assert bool(units) == (stopped == "rl")
    assert is_scored(RunFolder(folder)) == (stopped == "rl" and calls == 5)
    kept = {file: file.stat().st_mtime_ns for file in [*there, *units]}
    again = Loads(base, rl)
    again.fails = lambda name, model: all_kept(kept)
    run(folder, scoring(folder, again, tokenizer))
    assert again.names == (["base", "rl"] if stopped == "base" else ["rl"])
    assert rows(folder).equals(expected)
    assert not (folder / "units").exists()


def all_kept(files: dict[Path, int]) -> None:
    assert {file: file.stat().st_mtime_ns for file in files} == files


def test_begun_with_one_and_ended_with_both(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """No row depends on it, so that a run may go on either way; nothing is left behind."""
    base, rl = KINDS["llama"]
    expected = both(tmp_path / "both", base, rl, tokenizer)
    loads = Loads(base, rl)
    arm = failing_after(3)
    loads.fails = lambda name, model: arm(name, model) if name == "rl" else None
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "one", scoring(tmp_path / "one", loads, tokenizer))
    assert both(tmp_path / "one", base, rl, tokenizer).equals(expected)
    assert not (tmp_path / "one" / "units").exists()


def test_tables_of_the_same_trajectories_share_the_states(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    base, rl = KINDS["llama"]
    loads = Loads(base, rl)
    for top_p in (0.5, 0.9):
        run(tmp_path / str(top_p), scoring(tmp_path, loads, tokenizer, top_p=top_p))
    assert loads.names == ["base", "rl", "rl"]
    assert (tmp_path / "units" / STATES).exists(), "it is whoever shares them that deletes them"


def test_a_damaged_file_is_named(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    base, rl = KINDS["llama"]
    batch = responses()["rl"][1:3]
    scorer = scoring(tmp_path, Loads(base, rl), tokenizer)
    scorer.spill([batch], PartialState())
    scorer().table(batch, "rl")
    file = scorer.spilled.file(batch)
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    for damaged in (bytes(content), bytes(content[:-8])):
        file.write_bytes(damaged)
        with pytest.raises(
            DamagedFileError, match=rf"{file.name} does not hold .*; delete its folder '.*' and start again"
        ):
            scorer().table(batch, "rl")


def test_too_little_room_is_seen_before_a_model_is_loaded(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 1000)
    loads = Loads(*KINDS["llama"])
    words = r"^output_dir='x' has 1 kB free, but the run writes about \d+\.?\d* kB \(hidden states of \d+ tokens\)"
    with pytest.raises(disk.DiskFullError, match=words):
        run(tmp_path, scoring(tmp_path, loads, tokenizer, where="output_dir='x'"))
    assert loads.names == []


def test_the_size_is_that_of_the_files(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    base, rl = KINDS["bfloat16"]
    batches = [responses()["rl"], responses()["base"]]
    scorer = scoring(tmp_path, Loads(base, rl), tokenizer)
    scorer.spill(batches, PartialState())
    tokens = sum(len(trajectory.completion_ids) for batch in batches for trajectory in batch)
    told = StatesSize.of(base.config, "bfloat16").bytes_of(tokens)
    written = disk.folder_bytes(scorer.spilled.folder)
    assert told < written < told + 3 * 400  # headers of three files
