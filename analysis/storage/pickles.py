"""Pickles, which can run anything while they are read: files that hold more than numbers are refused, and not read.

Of a checkpoint, transformers itself reads all by torch's `weights_only` loader. DeepSpeed does not, nor does the
reader of FSDP's sharded checkpoints: its `.metadata` is a plain pickle, and so is every value beside tensors.
"""

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_pt_utils import safe_globals

PICKLES = ("*.pt", "*.pth", "*.bin", "*.pkl", "*.pickle")
"""Patterns of the pickles in a checkpoint and its folders."""

NEVER_READ = ("training_args.bin",)
"""Pickles that are written for people, and that nothing reads."""

DEEPSPEED_NAMES = frozenset(
    (
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.utils.tensor_fragment.fragment_address",
    )
)
"""Classes of settings and numbers that DeepSpeed saves beside its tensors; to make one of them runs nothing."""

METADATA = ".metadata"
"""The file by which PyTorch's distributed checkpoints, FSDP's among them, find their values."""

METADATA_NAMES = frozenset(
    (
        *(
            f"torch.distributed.checkpoint.metadata.{name}"
            for name in (
                *("Metadata", "StorageMeta", "MetadataIndex", "ChunkStorageMetadata", "TensorProperties"),
                *("TensorStorageMetadata", "BytesStorageMetadata", "_MEM_FORMAT_ENCODING"),
            )
        ),
        *("torch.distributed.checkpoint.filesystem._StorageInfo", "torch.serialization._get_layout", "torch.Size"),
        *("torch.distributed.checkpoint.filesystem._StoragePrefix", "pathlib.PosixPath", "pathlib.Path"),
        "collections.OrderedDict",
    )
)
"""Classes that a distributed checkpoint's metadata is made of; `torch.float32` and the other dtypes are taken too."""


def check_pickle(file: Path) -> None:
    """Look whether torch's `weights_only` loader takes a file; nothing in it is run, and tensors are not read.

    Args:
        file: a file that `torch.save` wrote.

    Raises:
        ValueError: if the file holds more than tensors, numbers and their containers, or is damaged.
    """
    mapped: dict[str, Any] = {"mmap": True} if zipfile.is_zipfile(file) else {}
    _check_loads(file, file.name, mapped, _unsafe_names(file) if mapped else [])


def _check_loads(source: Any, name: str, options: dict[str, Any], unsafe: list[str]) -> None:
    """Load something by torch's `weights_only` loader onto the device that holds no numbers.

    Args:
        source: a file, or an open one.
        name: its name, for messages.
        options: of `torch.load`.
        unsafe: names in it that are no part of weights, for the message.

    Raises:
        ValueError: if it is refused or damaged.
    """
    try:
        with safe_globals(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol
            torch.load(source, map_location="meta", weights_only=True, **options)
    except pickle.UnpicklingError as error:
        raise _refusal(name, unsafe[0] if unsafe else None) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, TypeError, AttributeError, IndexError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name} is damaged ({reason}); copy it anew.") from error


def _refusal(name: str, unsafe: str | None) -> ValueError:
    what = f"names {unsafe}, which is no part of weights" if unsafe else "holds more than weights, or is damaged"
    return ValueError(
        f"{name} is a pickle that {what}, and is not read: it could run anything; take the file from where you trust "
        "it, as safetensors if it holds weights."
    )


def check_checkpoint(folder: Path) -> None:
    """Look at the pickles of a checkpoint and its folders, as `check_pickle` does.

    Raises:
        ValueError: for the first one that is refused, with the folder's name.
    """
    files = {file for pattern in (*PICKLES, METADATA) for file in folder.rglob(pattern) if file.is_file()}
    for file in sorted(files):
        if file.name in NEVER_READ:
            continue
        try:
            if file.name == METADATA:
                check_distributed(file.parent)
            elif not _is_deepspeeds(file):
                check_pickle(file)
        except ValueError as error:
            where = "" if file.parent == folder else f"{file.parent.relative_to(folder).as_posix()}/"
            raise ValueError(f"The checkpoint {str(folder)!r} cannot be resumed from: {where}{error}") from error


def _is_deepspeeds(file: Path) -> bool:
    """Whether a file names DeepSpeed's own classes and nothing else that weights do not need; it then runs nothing."""
    names = _unsafe_names(file) if zipfile.is_zipfile(file) else []
    return bool(names) and DEEPSPEED_NAMES.issuperset(names)


class _MetadataReader(pickle.Unpickler):
    """Reads a `.metadata` whose names are all known, by which nothing is run but the making of plain records."""

    def find_class(self, module: str, name: str) -> Any:
        dotted = f"{module}.{name}"
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if dotted not in METADATA_NAMES and not is_dtype:
            raise pickle.UnpicklingError(dotted)
        return super().find_class(module, name)


def check_distributed(folder: Path) -> None:
    """Look at a distributed checkpoint of PyTorch: at its metadata, and at the values that are no tensors.

    Args:
        folder: a folder with a `.metadata`.

    Raises:
        ValueError: if one of them holds more than numbers, or is damaged.
    """
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    try:
        with (folder / METADATA).open("rb") as file:
            metadata = _MetadataReader(file).load()
        values = [
            (index.fqn, place)
            for index, place in metadata.storage_data.items()
            if isinstance(metadata.state_dict_metadata.get(index.fqn), BytesStorageMetadata)
        ]
        paths = [Path(place.relative_path) for _, place in values]
    except pickle.UnpicklingError as error:
        named = str(error) if str(error).replace(".", "").replace("_", "").isalnum() else None
        raise _refusal(METADATA, named) from error
    except Exception as error:  # a damaged pickle raises many kinds
        raise ValueError(f"{METADATA} is damaged ({type(error).__name__}); copy it anew.") from error
    for (name, place), path in zip(values, paths, strict=True):
        shown = f"{path} ({name})"
        if path.is_absolute() or ".." in path.parts or getattr(place, "transform_descriptors", None):
            raise ValueError(f"{shown} cannot be looked at before it is read, and is not read.")
        try:
            with (folder / path).open("rb") as file:
                file.seek(place.offset)
                content = file.read(place.length)
        except (OSError, ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{shown} is damaged ({error}); copy it anew.") from error
        _check_loads(io.BytesIO(content), shown, {}, _unsafe_names(io.BytesIO(content)))


def _unsafe_names(source: Any) -> list[str]:
    """Dotted names that a pickle uses and that weights do not need, or none where the file does not tell."""
    try:
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(source))
    except Exception:  # a file made to confuse the scanner too
        return []
