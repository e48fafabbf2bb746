"""Scoring by two models of which one is in memory at a time.

The base reads all trajectories first; its states wait in files (`spilled_states`) while the RL model takes its place
and reads the same batches. The rows are those of `PairScorer`: each number is made of the same states and heads.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils.memory import clear_device_cache
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.storage.disk import as_bytes, check_room
from tokenshift.analysis.storage.main_process import on_main_process
from tokenshift.analysis.storage.work_units import run_units
from tokenshift.analysis.token_table.model_states import StatesReader, check_ids, check_lengths
from tokenshift.analysis.token_table.scoring import PairStates, StatesScorer
from tokenshift.analysis.token_table.spilled_states import SpilledStates, StatesSize, StatesWriter


class OneAtATime:
    """Makes the scorer of two models ready, of which it loads one at a time.

    Args:
        spilled: where the base's states wait.
        base, rl: load the models, on one device or spread over several.
        tokenizer: the models' tokenizer.
        size: of the base's states.
        temperature: divides the logits of both, > 0.
        top_p: of the column `js_top_p`, in (0, 1].
        where: the setting that names the output folder, for messages.
        tell: what is said to the user, a line each; called on the main process.
    """

    def __init__(
        self,
        spilled: SpilledStates,
        base: Callable[[], Any],
        rl: Callable[[], Any],
        tokenizer: PreTrainedTokenizerBase,
        size: StatesSize,
        *,
        temperature: float = 1.0,
        top_p: float = 0.7,
        where: str = "The output folder",
        tell: Callable[[str], None] = print,
    ) -> None:
        self.spilled, self._base, self._rl, self._tokenizer, self._size = spilled, base, rl, tokenizer, size
        self._temperature, self._top_p, self._where, self._tell = temperature, top_p, where, tell
        self._known: Sequence[Trajectory] | None = None  # a batch whose states are there

    def spill(self, batches: Sequence[Sequence[Trajectory]], state: PartialState) -> None:
        """Let the base read what it has not read yet, and free it; every process must call it.

        Args:
            batches: trajectories that go through the models together; all that will be scored.
            state: the processes that share the work.

        Raises:
            DiskFullError: if there is too little room for the states; nothing is loaded then.
            ValueError: for trajectories that the base cannot read.
        """
        if not batches:
            return
        self._known = batches[0]
        files = {self.spilled.file(batch): batch for batch in batches}
        missing = {file: batch for file, batch in files.items() if not file.exists()}
        if not missing:
            return
        on_main_process(lambda: self._check_room(list(missing.values())))  # no process writes before all have looked
        loaded: list[tuple[StatesReader, StatesWriter]] = []

        def work(unit: int, file: Path) -> int:
            if not loaded:
                base = StatesReader(self._base())
                loaded.append((base, StatesWriter(self.spilled, base.vocabulary)))
            ((reader, writer),) = loaded
            batch = missing[file]
            check_lengths(batch, (reader.model,))
            check_ids(batch, [reader.vocabulary], reader.vocabulary.head)
            with reader.states(batch) as (states, head):
                writer.write(batch, states, head)
            return len(states)

        run_units(list(missing), work, "scoring by the base", state=state)
        loaded.clear()

    def _check_room(self, batches: Sequence[Sequence[Trajectory]]) -> None:
        tokens = sum(len(trajectory.completion_ids) for batch in batches for trajectory in batch)
        needed = self._size.bytes_of(tokens)
        advice = "score fewer or shorter responses, or leave out one_model_at_a_time"
        check_room(self.spilled.folder, needed, f"hidden states of {tokens} tokens", self._where, advice)
        self._tell(
            f"One model at a time: the base's hidden states of {tokens:,} tokens take about {as_bytes(needed)} in "
            f"{self.spilled.folder}, until the table is whole."
        )

    def __call__(self) -> "SpilledScorer":
        """The scorer, with the RL model loaded; `spill` was called with all that it will score."""
        assert self._known is not None
        clear_device_cache(garbage_collection=True)  # of the base, which holds itself by its hooks if it is spread
        scorer = SpilledScorer(
            self.spilled, self._known, self._rl(), self._tokenizer, temperature=self._temperature, top_p=self._top_p
        )
        if scorer.note and PartialState().is_main_process:
            self._tell(scorer.note)
        return scorer


class SpilledScorer(StatesScorer):
    """Scores trajectories by the RL model, against the base's states that wait in files.

    Args:
        spilled: the base's states of all batches that will be scored.
        known: one of these batches.
        rl: a causal LM, on one device or spread over several.
        tokenizer, temperature, top_p: as of `PairScorer`.

    Attributes:
        note: as of `PairScorer`.

    Raises:
        ValueError: as `PairScorer` does, and for a file that is damaged.
    """

    def __init__(
        self,
        spilled: SpilledStates,
        known: Sequence[Trajectory],
        rl: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        temperature: float,
        top_p: float,
    ) -> None:
        self.rl, self._spilled, self._reader = rl, spilled, StatesReader(rl)
        super().__init__(tokenizer, spilled.vocabulary(known), self._reader.vocabulary, temperature, top_p)

    @contextmanager
    def _states(self, trajectories: Sequence[Trajectory]) -> Iterator[PairStates]:
        check_lengths(trajectories, (self.rl,))
        check_ids(trajectories, self._vocabularies, self._shared)
        of_base = self._spilled.read(trajectories)
        with self._reader.states(trajectories) as of_rl:
            yield self._together(of_base, of_rl, trajectories)
