"""One model's hidden states in files, where they wait until another model is loaded in its place.

The files of a folder are named by the tokens that they are of, so that states of other trajectories are never taken
for them, and tables of the same trajectories share them. A stopped run finds those that are there.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tokenshift.analysis.divergence.lm_head import LMHead
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.storage.damage import DamagedFileError
from tokenshift.analysis.storage.whole_file import whole_file
from tokenshift.analysis.token_table.model_states import Vocabulary

HASH = "xxh3_128"
"""Key of a file's metadata with the hash of its tensors."""

HEAD = "head-{}.safetensors"
"""Name of the file of an LM head, by its hash."""


@dataclass(frozen=True)
class StatesSize:
    """The size of a model's hidden states, known from its config.

    Attributes:
        hidden: values of a state.
        vocabulary: rows of the LM head.
        itemsize: bytes of a value.
    """

    hidden: int
    vocabulary: int
    itemsize: int

    @classmethod
    def of(cls, config: Any, dtype: str) -> "StatesSize":
        """The size by a model's config.

        Args:
            config: the model's config.
            dtype: name of the dtype of its weights; four bytes are counted where there is none of this name.
        """
        text, kind = config.get_text_config(), getattr(torch, dtype, None)
        itemsize = kind.itemsize if isinstance(kind, torch.dtype) else 4
        return cls(text.hidden_size, text.vocab_size, itemsize)

    def bytes_of(self, tokens: int) -> int:
        """Bytes of the files of so many tokens, the LM head's included, about."""
        return (tokens + self.vocabulary) * self.hidden * self.itemsize


class SpilledStates:
    """The states of one model in a folder, and its LM head.

    Args:
        folder: of these files alone; it need not exist.

    Attributes:
        folder: as given.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._head: tuple[str, LMHead] | None = None  # the last one that was read, by its hash

    def file(self, trajectories: Sequence[Trajectory]) -> Path:
        """The file of trajectories that go through the model together, in their order."""
        digest = xxhash.xxh3_128()
        for trajectory in trajectories:
            for ids in (trajectory.prompt_ids, trajectory.completion_ids):
                digest.update(torch.tensor([len(ids), *ids], dtype=torch.int64).numpy().data)
        return self.folder / f"{digest.hexdigest()}.safetensors"

    def vocabulary(self, trajectories: Sequence[Trajectory]) -> Vocabulary:
        """The tokens of the model that made the states of these trajectories.

        Raises:
            DamagedFileError: if their file cannot be read.
        """
        metadata = _load(self.file(trajectories), ())[1]
        return Vocabulary(int(metadata["head_rows"]), int(metadata["embedding_rows"] or 0) or None)

    def read(self, trajectories: Sequence[Trajectory]) -> tuple[torch.Tensor, LMHead]:
        """The states `(N, H)` of trajectories and their head, in host memory.

        Raises:
            DamagedFileError: if a file is not what was written.
        """
        tensors, metadata = _load(self.file(trajectories), ("states",))
        name = metadata["head"]
        if self._head is None or self._head[0] != name:
            parts, form = _load(self.folder / HEAD.format(name), ("weight", "bias"))
            softcap = None if not form["softcap"] else float(form["softcap"])
            self._head = name, LMHead(parts["weight"], parts.get("bias"), float(form["scale"]), softcap)
        return tensors["states"], self._head[1]


class StatesWriter:
    """Writes a model's states; it holds the model's head, so that it must go where the model does.

    Args:
        spilled: where they go.
        vocabulary: the model's tokens.
    """

    def __init__(self, spilled: SpilledStates, vocabulary: Vocabulary) -> None:
        self._spilled = spilled
        self._rows = {"head_rows": str(vocabulary.head), "embedding_rows": str(vocabulary.embeddings or "")}
        self._hashed: tuple[LMHead, str] | None = None  # the last head and its hash

    def write(self, trajectories: Sequence[Trajectory], states: torch.Tensor, head: LMHead) -> None:
        """Keep the states `(N, H)` of trajectories, in their own dtype, and the head that fits them."""
        _save(self._spilled.file(trajectories), {"states": states}, {"head": self._keep(head), **self._rows})

    def _keep(self, head: LMHead) -> str:
        """The hash of a head, which is written unless it is there."""
        before = None if self._hashed is None else self._hashed[0]
        if before is not None and _is_same(before, head):
            assert self._hashed is not None
            return self._hashed[1]
        tensors = {"weight": head.weight} | ({} if head.bias is None else {"bias": head.bias})
        form = {"scale": repr(head.scale), "softcap": "" if head.softcap is None else repr(head.softcap)}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        name = xxhash.xxh3_64(f"{_digest(tensors)} {sorted(form.items())}".encode()).hexdigest()
        file = self._spilled.folder / HEAD.format(name)
        if not file.exists():
            own = file.with_name(f"{file.name}.{os.getpid()}")  # other processes write the same one
            _save(own, tensors, form)
            os.replace(own, file)
        self._hashed = head, name
        return name


def _is_same(first: LMHead, second: LMHead) -> bool:
    """Whether two heads are the same tensors in the same form; the first is held, so its memory has no other use."""
    tensors = ((first.weight, second.weight), (first.bias, second.bias))
    return (first.scale, first.softcap) == (second.scale, second.softcap) and all(
        one is other
        or (one is not None and other is not None and one.data_ptr() == other.data_ptr() and one.shape == other.shape)
        for one, other in tensors
    )


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype} ".encode())
        if tensors[name].numel():
            digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _save(file: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file that appears whole, with the hash of its tensors."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(file, is_scratch=True) as partial:
        save_file(tensors, partial, {**metadata, HASH: _digest(tensors)})


def _load(file: Path, names: Sequence[str]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors of a file, those of the names that it has, in memory of their own; and its metadata.

    Raises:
        DamagedFileError: if it is not what was written; of a file that is read in part, as far as that can be told.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            metadata, there = opened.metadata() or {}, set(opened.keys())
            tensors = {name: opened.get_tensor(name).clone() for name in names if name in there}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(file, " ".join(str(error).split())) from error
    if names and _digest(tensors) != metadata.get(HASH):
        raise _damaged(file, "its contents are not those that were written")
    return tensors, metadata


def _damaged(file: Path, reason: str) -> DamagedFileError:
    return DamagedFileError(
        f"{file} does not hold the states of a model ({reason}); delete its folder {str(file.parent)!r} and start "
        "again, which makes them anew."
    )
