"""The sequence of prompts of a whole run, its position, and the record of the prompts taken from it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tokenshift.analysis.storage.json_files import parse_json, read_json
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.trainer.dynamic_sampling.prompt_groups import GroupOutcome
from tokenshift.trainer.dynamic_sampling.round_sizes import UsefulShare


class PromptStream:
    """Every prompt of a dataset once per epoch; each epoch has its own order.

    The orders are those of TRL's sampler with the same seed. Unlike there, no prompt is left out where the last ones
    of an epoch do not fill a batch: the batch goes on with the next epoch's.

    Args:
        size: number of prompts in the dataset.
        seed: the seed of the orders.
        shuffle: whether to shuffle; if not, every epoch has the dataset's order.

    Attributes:
        position: number of prompts taken so far, over all epochs.
        useful: running share of the prompts whose completions were useful.
    """

    def __init__(self, size: int, seed: int, shuffle: bool = True) -> None:
        self.size, self.seed, self.shuffle, self.position = size, seed, shuffle, 0
        self.useful = UsefulShare()
        self._generator = torch.Generator().manual_seed(seed)
        self._orders: list[torch.Tensor] = []  # one per epoch begun

    def take(self, count: int) -> list[int]:
        """Take the next `count` prompts and return their dataset indices."""
        positions = range(self.position, self.position + count)
        self.position += count
        return [self._index(position) for position in positions]

    def give_back(self, count: int) -> None:
        """Return the last `count` prompts taken; they are the next ones again."""
        self.position -= count

    def _index(self, position: int) -> int:
        epoch, offset = divmod(position, self.size)
        if not self.shuffle:
            return offset
        while len(self._orders) <= epoch:
            self._orders.append(torch.randperm(self.size, generator=self._generator))
        return int(self._orders[epoch][offset])

    def restart(self) -> None:
        """Begin again with the first prompt."""
        self.position, self.useful = 0, UsefulShare()

    def save(self, file: Path) -> None:
        """Write the stream's position and its share of useful prompts to a JSON file, whole or not at all."""
        state = {"position": self.position, "useful": asdict(self.useful), **self._identity()}
        write_whole(file, json.dumps(state) + "\n")

    def load(self, file: Path) -> None:
        """Continue from a saved stream; one that was saved without its share of useful prompts begins to count anew.

        Raises:
            ValueError: if there is no such file, or the saved stream has another size, seed or shuffling.
        """
        if not file.is_file():
            raise ValueError(
                f"{file.parent} has no {file.name}, so it was saved without dynamic_sampling and does not say which "
                "prompts are still to come; go on with dynamic_sampling=False, or begin a new run."
            )
        state: dict[str, Any] = read_json(file, dict)
        for name, value in self._identity().items():
            before = state.get(name)
            if before != value:
                raise ValueError(
                    f"{file} is of a run with {name}={before!r}, this one has {name}={value!r}: prompts would "
                    "come in another order. Use the same data, seed and shuffle_dataset, or begin a new run."
                )
        self.position, self.useful = state["position"], UsefulShare(**state.get("useful", {}))

    def _identity(self) -> dict[str, Any]:
        return {"size": self.size, "seed": self.seed, "shuffle": self.shuffle}


@dataclass
class Round:
    """One generation of completions.

    Attributes:
        step: number of updates made before the round.
        round: the number of the round within its batch, from 1.
        indices: dataset indices of the prompts, in the stream's order.
        verdicts: the outcome of each prompt.
        filled: dataset indices of the prompts with equal rewards that stay in the batch; set in its last round alone.
    """

    step: int
    round: int
    indices: list[int]
    verdicts: list[GroupOutcome]
    filled: list[int] = field(default_factory=list)


class RoundLog:
    """A JSON-lines file with every round of a run.

    Args:
        file: the path of the file, which is created by the first write.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def append(self, rounds: Sequence[Round]) -> None:
        """Add the rounds of one batch."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(asdict(entry)) + "\n" for entry in rounds)

    def read(self) -> list[Round]:
        """Read all rounds; an unfinished last line, which a killed run can leave, is ignored.

        Raises:
            ValueError: if another line is damaged.
        """
        lines = self.file.read_text(encoding="utf-8").split("\n")[:-1] if self.file.exists() else []
        try:
            rows = [parse_json(line) for line in lines]
            return [Round(**{**row, "verdicts": [GroupOutcome(word) for word in row["verdicts"]]}) for row in rows]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{self.file} is damaged ({error}); move it away, and resume again.") from error

    def forget_from(self, step: int) -> int:
        """Delete the rounds that a run resumed at this update makes again.

        Returns:
            The number of prompts taken in the rounds that stay.

        Raises:
            ValueError: if the file is damaged.
        """
        if step == 0:
            self.file.unlink(missing_ok=True)
            return 0
        kept = [entry for entry in self.read() if entry.step < step]
        write_whole(self.file, "".join(json.dumps(asdict(entry)) + "\n" for entry in kept))
        return sum(verdict is not GroupOutcome.RETURNED for entry in kept for verdict in entry.verdicts)
