"""The files of a model's folder, looked at before anything in them is used: code of its own, weights, pickles.

Weights come from safetensors where a folder has them. A pickle, which can run anything while it is read, is read by
torch's `weights_only` loader alone, and what that refuses is named before a model is loaded.
"""

import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.own_code import needs_own_code, own_code_text
from tokenshift.analysis.storage.pickles import check_pickle

SAFE_WEIGHTS = ("model.safetensors", "adapter_model.safetensors")
PICKLED_WEIGHTS = ("pytorch_model.bin", "adapter_model.bin")
OWN_GENERATE = "custom_generate/generate.py"
"""Code in a model's folder that would sample in place of transformers' `generate`."""

INDEX = ".index.json"
"""Ending of the file that names the parts of weights that are in several files."""


class ModelFilesError(ValueError):
    """A model's files are not what they should be, which may show only when the model is loaded."""


def refusal(setting: str, name: str, error: BaseException) -> ModelFilesError:
    """An error of loading a model's files as a user's mistake, in one line.

    Args:
        setting: the argument that names the model.
        name: the name that the user gave.
        error: what was raised.
    """
    if needs_own_code(error):
        return ModelFilesError(own_code_text(f"{setting}={name!r}"))
    reason = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, OSError | ValueError | SafetensorError):
        reason = f"a file of it is not what it should be ({type(error).__name__}: {reason})"
    known = isinstance(error, ValueError) and reason.startswith(f"{setting}=")
    return ModelFilesError(reason if known else f"{setting}={name!r} cannot be loaded: {reason}")


@contextmanager
def mistakes_of_loading(setting: str, name: str) -> Iterator[None]:
    """Report errors that a trainer raises while it loads a model as a user's mistake: one line, with the model's name.

    Raises:
        ValueError: for whatever the trainer raises of that kind.
    """
    try:
        yield
    except (OSError, pickle.UnpicklingError, SafetensorError) as error:
        raise refusal(setting, name, error) from error
    except ValueError as error:
        if needs_own_code(error):
            raise refusal(setting, name, error) from error
        raise ModelFilesError(str(error)) from error


NOT_CAUSAL = re.compile(
    r".+For(MaskedLM|SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|NextSentencePrediction)"
)
"""Classes of models that generate no text."""


def check_causal_config(setting: str, name: str, config: Any) -> None:
    """Refuse a model that was saved as one of another kind than a language model that generates.

    Raises:
        ValueError: with the kind.
    """
    architecture = next(iter(getattr(config, "architectures", None) or ()), "")
    if NOT_CAUSAL.fullmatch(architecture):
        raise ModelFilesError(
            f"{setting}={name!r} is a {architecture}, which generates no text; name a causal language model."
        )


def check_weights(setting: str, name: str, path: str, *, trust_remote_code: bool = False) -> None:
    """Look at the weights in a model's folder, or an adapter's, without reading them; hub names pass.

    Args:
        setting: the argument that names the model.
        name: the name that the user gave.
        path: the folder.
        trust_remote_code: whether code that comes with the model may run.

    Raises:
        ValueError: if there are none, if a file is missing or damaged, if a pickle holds more than weights, or if the
            weights are not those that the config asks for.
    """
    folder = Path(path)
    if not folder.is_dir():
        return
    where = f"{setting}={name!r}"
    if not trust_remote_code and (folder / OWN_GENERATE).is_file():  # some transformers would leave it out in silence
        raise ModelFilesError(own_code_text(where))
    _check_files(folder, where)
    if (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        _check_all_there(folder, where, trust_remote_code)


def _check_all_there(folder: Path, where: str, trust_remote_code: bool) -> None:
    """Compare the names and shapes of weights with those of the model, on the device that holds no numbers."""
    config = read_json(folder / "config.json")
    if "quantization_config" in config:  # its weights have other names and shapes until they are loaded
        return
    try:
        with _without_reports():
            both: Any = AutoModelForCausalLM.from_pretrained(
                folder, device_map="meta", output_loading_info=True, trust_remote_code=trust_remote_code
            )
            loaded = both[1]
    except RuntimeError as error:
        if "mismatched_sizes" in str(error):
            raise ModelFilesError(
                f"{where}: its weights have other shapes than its config asks for; the two are of different models: "
                "save or download the whole model anew."
            ) from error
        return  # a model that cannot be without numbers; loading it tells more
    except Exception as error:
        if needs_own_code(error):
            raise ModelFilesError(own_code_text(where)) from error
        return
    refuse_missing(loaded, where)


def refuse_missing(loaded: Mapping[str, Any], where: str) -> None:
    """Refuse weights that are missing: transformers would make them up at random, and only warn.

    Args:
        loaded: the `output_loading_info` of `from_pretrained`.
        where: the model, for the message.

    Raises:
        ValueError: if there are any.
    """
    missing = sorted(loaded.get("missing_keys") or ())
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelFilesError(
            f"{where} has no weights for {missing[0]}{more}, which its config asks for: its files are of another kind "
            "of model, or incomplete; name a whole causal language model, or save or download it anew."
        )


@contextmanager
def _without_reports() -> Iterator[None]:
    """Keep transformers from printing the table of weights that are missing: the refusal has it in a line."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _check_files(folder: Path, where: str) -> None:
    """Look at the files of weights, of which safetensors go before pickles."""
    for names, check in ((SAFE_WEIGHTS, _check_safetensors), (PICKLED_WEIGHTS, _check_pickled)):
        files = _files(folder, names, where)
        if files:
            for file in files:
                check(file, where)
            return
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.gguf")):
        raise ModelFilesError(
            f"{where} has a config but no weights: its folder has neither {SAFE_WEIGHTS[0]} nor {PICKLED_WEIGHTS[0]}; "
            "save the model there (save_pretrained), or name another folder."
        )


def _files(folder: Path, names: Iterable[str], where: str) -> list[Path]:
    """The files of weights of one format, in the order in which transformers looks for them."""
    for name in names:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}{INDEX}"
        if not index.is_file():
            continue
        try:
            parts = sorted(set(read_json(index)["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelFilesError(f"{where}: {index.name} is no index of weights; save the model anew.") from error
        if missing := [part for part in parts if not (folder / part).is_file()]:
            raise ModelFilesError(f"{where} lacks {missing[0]}, which its {index.name} names; copy the folder anew.")
        return [folder / part for part in parts]
    return []


def _check_safetensors(file: Path, where: str) -> None:
    try:
        with safe_open(file, framework="pt"):  # reads the header, and compares the sizes in it with the file's
            pass
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelFilesError(f"{where}: {file.name} is damaged ({reason}); copy or save it anew.") from error


def _check_pickled(file: Path, where: str) -> None:
    try:
        check_pickle(file)
    except ValueError as error:
        raise ModelFilesError(f"{where}: {error}") from error
