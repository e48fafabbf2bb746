"""Two causal LMs inside one vLLM engine: base and RL model read the same tokens, each with caches of its own.

Their hidden states stand behind one another in the last dimension, followed by the position of each token, so that the
logits processor knows of which position a row of logits is. vLLM is imported with this module.
"""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from vllm.compilation.backends import set_model_tag
from vllm.config import ModelConfig, VllmConfig, replace
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.model_executor.models.registry import ModelRegistry
from vllm.model_executor.models.utils import maybe_prefix

from tokenshift.analysis.vllm_engine.pair_architectures import PREFIX
from tokenshift.analysis.vllm_engine.prefill_scoring import PrefillScorer

PAIR_SETTING = "tokenshift_pair"
"""Name of the setting in the RL model's config that holds what the engine knows of the base."""

FLAGS = (
    *("has_inner_state", "is_attention_free", "is_hybrid", "has_noops"),
    *("supports_mamba_prefix_caching", "supports_replayssm", "packed_modules_mapping", "hf_to_vllm_mapper"),
    *("get_mamba_state_shape_from_config", "get_mamba_state_dtype_from_config"),
    *("get_mamba_state_copy_func", "get_mamba_state_copy_funcs"),
)
"""Attributes of a model class that vLLM asks the class of the architecture for."""

REFUSED = (
    *("supports_multimodal", "supports_multimodal_raw_input_only", "requires_raw_input_tokens"),
    *("supports_transcription", "is_pooling_model", "supports_mrope", "supports_xdrope"),
)
"""Flags of models whose inputs are more than token ids and positions."""

POSITION_DIGITS = 3
"""Columns that hold a token's position in base 256, whose digits every dtype holds exactly."""

LOGITS: dict[str, torch.Tensor] = {}
"""Logits `(B, V)` of the last step by policy, and `positions` `(B,)` of their rows, in the worker's process."""

SCORER = PrefillScorer()
"""Makes numbers of texts that are read as prompts, in the worker's process."""

_DIGITS = (2**16, 2**8, 1)


class PairForCausalLM(nn.Module):
    """Base and RL model side by side. A subclass for each architecture has the flags of the model inside."""

    architecture: str
    base: Any
    rl: Any

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        pair: dict[str, Any] = getattr(config, PAIR_SETTING)
        rl_config = vllm_config.with_hf_config(config, architectures=[self.architecture])
        base_config = replace(
            vllm_config, model_config=_base_model_config(vllm_config.model_config, pair), quant_config=None
        )
        self.base = _part(base_config, prefix, "base")
        self.rl = _part(rl_config, prefix, "rl")
        self._base_width = base_config.model_config.get_hidden_size()
        self.secondary_weights = [DefaultModelLoader.Source(pair["path"], pair["revision"], prefix="base:")]

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embeddings by the RL model, for warm-ups alone: a pair reads token ids."""
        embeddings: torch.Tensor = self.rl.embed_input_ids(input_ids)
        return embeddings

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """Hidden states `(N, H_base + H_rl + 3)` of N tokens: the base's, the RL model's, and digits of positions."""
        base = self.base(input_ids, positions, None, None)
        rl = self.rl(input_ids, positions, None, None)
        if SCORER.active and input_ids is not None:
            SCORER(input_ids, positions, lambda rows: self._both_logits(base[rows], rl[rows]))
        digits = torch.stack([(positions // digit) % 256 for digit in _DIGITS], dim=-1)
        return torch.cat([base, rl, digits.to(rl.dtype)], dim=-1)

    def _both_logits(self, base: torch.Tensor, rl: torch.Tensor) -> dict[str, torch.Tensor] | None:
        """Both policies' logits `(n, V)` of hidden states `(n, H)`; None in processes without the gathered logits."""
        logits = {"base": self.base.compute_logits(base), "rl": self.rl.compute_logits(rl)}
        return None if any(values is None for values in logits.values()) else logits

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """The RL model's logits `(B, V)`; both policies' are left in `LOGITS`."""
        digits = hidden_states[:, -POSITION_DIGITS:].long()
        base = self.base.compute_logits(hidden_states[:, : self._base_width].contiguous())
        rl = self.rl.compute_logits(hidden_states[:, self._base_width : -POSITION_DIGITS].contiguous())
        LOGITS.clear()
        if base is not None and rl is not None:  # None in processes that are not given the gathered logits
            weights = torch.tensor(_DIGITS, device=digits.device)
            LOGITS.update(base=base, rl=rl, positions=(digits * weights).sum(dim=-1))
        result: torch.Tensor | None = rl
        return result

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load both models' weights; those of the base come as a secondary source, with a prefix."""
        loaded: set[str] = set()
        for is_base, group in itertools.groupby(weights, key=lambda weight: weight[0].startswith("base:")):
            model, name = (self.base, "base") if is_base else (self.rl, "rl")
            names = model.load_weights((key.removeprefix("base:"), tensor) for key, tensor in group)
            loaded |= {f"{name}.{key}" for key in names or ()}
        return loaded


def _base_model_config(rl: ModelConfig, pair: dict[str, Any]) -> ModelConfig:
    """The base's own config: its rotary settings, widths, windows and quantisation, with the engine's dtype."""
    return ModelConfig(
        model=pair["path"],
        revision=pair["revision"],
        tokenizer=pair["path"],
        tokenizer_revision=pair["revision"],
        skip_tokenizer_init=True,
        trust_remote_code=rl.trust_remote_code,
        dtype=rl.dtype,
        seed=rl.seed,
        max_model_len=rl.max_model_len,
        enforce_eager=rl.enforce_eager,
        generation_config="vllm",
        hf_overrides={"head_dtype": "float32"},
    )


def _part(vllm_config: VllmConfig, prefix: str, name: str) -> Any:
    """One of the two models, whose compiled code is kept apart from the other's."""
    vllm_config = replace(
        vllm_config, additional_config={**(vllm_config.additional_config or {}), "tokenshift_part": name}
    )
    with set_model_tag(f"tokenshift_{name}"), _own_window(vllm_config):
        return initialize_model(vllm_config=vllm_config, prefix=maybe_prefix(prefix, name))


@contextmanager
def _own_window(vllm_config: VllmConfig) -> Iterator[None]:
    """While a model is built, layers that name no window have that of the model, not that of the engine's model.

    Where all layers of a model have a window, vLLM keeps it beside the caches, which both models share, and a layer
    takes it from there (`EngineArgs.create_engine_config`; `Attention`). The engine's model is the RL model.
    """
    caches, text_config = vllm_config.cache_config, vllm_config.model_config.hf_text_config
    kinds = getattr(text_config, "layer_types", None)
    all_slide = kinds is None or all(kind == "sliding_attention" for kind in kinds)
    before = caches.sliding_window
    caches.sliding_window = vllm_config.model_config.get_sliding_window() if all_slide else None
    try:
        yield
    finally:
        caches.sliding_window = before


def pair_class(architecture: str) -> type[Any]:
    """The class of two models of an architecture, with the flags of the model inside.

    Raises:
        ValueError: for an architecture that is no decoder-only model of text.
    """
    inner = ModelRegistry.models[architecture].load_model_cls()
    if refused := [flag for flag in REFUSED if getattr(inner, flag, False)]:
        raise ValueError(
            f"The pair engine does not serve {architecture} ({refused[0]}): it holds decoder-only models of text; use "
            "engine='transformers'."
        )
    flags = {name: getattr(inner, name) for name in FLAGS if hasattr(inner, name)}
    return type(PREFIX + architecture, (PairForCausalLM,), {**flags, "architecture": architecture})


def __getattr__(name: str) -> Any:
    """The pair classes by name, made when vLLM asks for them."""
    if not name.startswith(PREFIX) or name.removeprefix(PREFIX) not in ModelRegistry.models:
        raise AttributeError(name)
    globals()[name] = pair_class(name.removeprefix(PREFIX))
    return globals()[name]
