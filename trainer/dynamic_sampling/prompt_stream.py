"""One sequence of prompts for a whole run, where it stands, and the record of what was taken from it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.trainer.dynamic_sampling.prompt_groups import GroupOutcome


class PromptStream:
    """Every prompt of a dataset once an epoch, epoch after epoch, each in an order of its own.

    The orders are those of TRL's sampler with the same seed. But no prompt is left out where an epoch's last ones do
    not fill a batch: the next epoch's follow them in it.

    Args:
        size: prompts in the dataset.
        seed: of the orders.
        shuffle: whether to shuffle; else every epoch has the dataset's own order.

    Attributes:
        position: prompts taken so far, over all epochs.
    """

    def __init__(self, size: int, seed: int, shuffle: bool = True) -> None:
        self.size, self.seed, self.shuffle, self.position = size, seed, shuffle, 0
        self._generator = torch.Generator().manual_seed(seed)
        self._orders: list[torch.Tensor] = []  # of the epochs begun

    def take(self, count: int) -> list[int]:
        """Dataset indices of the next prompts."""
        places = range(self.position, self.position + count)
        self.position += count
        return [self._index(place) for place in places]

    def give_back(self, count: int) -> None:
        """Put the prompts taken last back in front."""
        self.position -= count

    def _index(self, place: int) -> int:
        epoch, offset = divmod(place, self.size)
        if not self.shuffle:
            return offset
        while len(self._orders) <= epoch:
            self._orders.append(torch.randperm(self.size, generator=self._generator))
        return int(self._orders[epoch][offset])

    def save(self, file: Path) -> None:
        """Write where the stream stands, as JSON that appears whole."""
        write_whole(file, json.dumps({"position": self.position, **self._identity()}) + "\n")

    def load(self, file: Path) -> None:
        """Go on from where a saved stream stood.

        Raises:
            ValueError: if there is no such file, or it is of a stream of other prompts or another seed.
        """
        if not file.is_file():
            raise ValueError(
                f"{file.parent} has no {file.name}, so it was saved without dynamic_sampling and does not say which "
                "prompts are still to come; go on with dynamic_sampling=False, or begin a new run."
            )
        state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        for name, value in self._identity().items():
            if state[name] != value:
                raise ValueError(
                    f"{file} is of a run with {name}={state[name]!r}, this one has {name}={value!r}: prompts would "
                    "come in another order. Use the same data, seed and shuffle_dataset, or begin a new run."
                )
        self.position = state["position"]

    def _identity(self) -> dict[str, Any]:
        return {"size": self.size, "seed": self.seed, "shuffle": self.shuffle}


@dataclass
class Round:
    """One generation of completions.

    Attributes:
        step: updates made before it.
        round: its number within the batch, from 1.
        indices: dataset indices of its prompts, in the stream's order.
        verdicts: what became of each.
        filled: dataset indices of the dropped prompts that stay in the batch; in its last round alone.
    """

    step: int
    round: int
    indices: list[int]
    verdicts: list[GroupOutcome]
    filled: list[int] = field(default_factory=list)


class RoundLog:
    """A JSON-lines file with every round of a run.

    Args:
        file: its path; made when something is written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def append(self, rounds: Sequence[Round]) -> None:
        """Add the rounds of one batch."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(asdict(each)) + "\n" for each in rounds)

    def read(self) -> list[Round]:
        """All rounds; a last line that a killed run left unfinished is not one.

        Raises:
            ValueError: if another line is damaged.
        """
        lines = self.file.read_text(encoding="utf-8").split("\n")[:-1] if self.file.exists() else []
        try:
            rows = [json.loads(line) for line in lines]
            return [Round(**{**row, "verdicts": [GroupOutcome(word) for word in row["verdicts"]]}) for row in rows]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{self.file} is damaged ({error}); move it away, and resume again.") from error

    def forget_from(self, step: int) -> int:
        """Delete the rounds that a run going on from this update makes anew; prompts taken in those that stay.

        Raises:
            ValueError: if the file is damaged.
        """
        if step == 0:
            self.file.unlink(missing_ok=True)
            return 0
        stay = [each for each in self.read() if each.step < step]
        write_whole(self.file, "".join(json.dumps(asdict(each)) + "\n" for each in stay))
        return sum(verdict is not GroupOutcome.RETURNED for each in stay for verdict in each.verdicts)
