"""Tiny models of every causal-LM architecture of the installed transformers, with random weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 80
"""Ids of each model; at least as many as the embedded example's tokenizer has."""

ARCHITECTURES = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
"""The model types that `AutoModelForCausalLM` knows."""

_SIZES = {
    VOCABULARY: "vocab_size text_vocab_size vocab_size_per_layer_input",
    32: "hidden_size n_embd d_model dim emb_dim embedding_size word_embed_proj_dim attention_hidden_size",
    48: (
        "intermediate_size ffn_dim n_inner ffn_hidden_size decoder_ffn_dim encoder_ffn_dim d_inner dff dim_ff "
        "moe_intermediate_size shared_expert_intermediate_size moe_shared_expert_intermediate_size "
        "shared_intermediate_size intermediate_size_mlp expert_ffn_hidden_size dense_intermediate_size"
    ),
    2: (
        "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers "
        "num_encoder_layers num_key_value_heads linear_num_key_heads num_kv_heads multi_query_group_num "
        "num_experts_per_tok num_experts_per_token moe_topk top_k_experts moe_num_active_experts"
    ),
    4: (
        "num_attention_heads linear_num_value_heads n_head n_heads num_heads decoder_attention_heads "
        "encoder_attention_heads num_decoder_attention_heads num_encoder_attention_heads num_experts "
        "num_local_experts n_routed_experts moe_num_experts attention_heads"
    ),
    8: (
        "head_dim linear_key_head_dim linear_value_head_dim kv_channels attention_head_dim sliding_window window_size "
        "attention_window state_size mamba_d_state ssm_state_size chunk_size mamba_chunk_size"
    ),
}
_BY_NAME = {name: size for size, names in _SIZES.items() for name in names.split()}
_FIXED = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "is_decoder": True}
_LONGEST = 256  # positions

_ALL_HEADS = {"num_key_value_heads": 4}
_MAMBA_2 = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1}
_HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
_HEAD_DIM = {"head_dim": 8}
OVERRIDES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk2", "deepseek_v3", "deepseek_v32", "dots3_note_text", "glm4_moe_lite"), _ALL_HEADS),
    **dict.fromkeys(("glm_moe_dsa", "minicpm3", "youtu"), _ALL_HEADS),
    "axk1": _ALL_HEADS | {"n_group": 1, "topk_group": 1},
    # one recurrent layer and one of attention; without any, transformers' caches fail
    "bailing_hybrid": _ALL_HEADS | {"layer_group_size": 2},
    "bamba": _MAMBA_2 | {"attn_layer_indices": [1]},
    "granitemoehybrid": _MAMBA_2 | {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "qwen3_5": {"text_config": _HYBRID},
    "qwen3_5_moe": {"text_config": _HYBRID},
    "qwen3_5_moe_text": _HYBRID,
    "qwen3_5_text": _HYBRID,
    "qwen3_next": _HYBRID,
    "recurrent_gemma": {"num_hidden_layers": 3},
    "xlstm": {"chunk_size": 64},
    **dict.fromkeys(("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral"), _HEAD_DIM),
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("sliding_attention", "full_attention")
        },
    },
    "deepseek_v2": _ALL_HEADS | {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "ernie4_5_moe": {"moe_k": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gemma3n_text": {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": _ALL_HEADS | {"head_dim": 64},
    "nemotron": _ALL_HEADS | _HEAD_DIM,
    "dots3_note": {"text_config": _ALL_HEADS},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "local"], "local_attn_chunk_length": 8},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 4, "layer_types": ["linear_attention", "hybrid"] * 2},
    "zamba2": {"num_hidden_layers": 4, "num_mem_blocks": 1, "layer_types": ["linear_attention", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}
"""Fields that an architecture needs beside the common ones."""


NOT_BUILT = {
    "blt": "its sub-models do not follow from small sizes of the configuration",
    "dbrx": "its attention's configuration has no rope_theta, which the model reads",
    "dots3_note": "its configuration names layers of the full depth",
    "gemma3n": "its vision tower needs timm",
    "gemma4_assistant": "a draft model, which reads another model's states",
    "gemma4_unified_assistant": "a draft model, which reads another model's states",
    "kimi_linear": "its recurrence takes seconds for a token on a CPU",
    "musicgen": "decodes audio, not text",
    "musicgen_melody": "decodes audio, not text",
    "zamba2": "its shared blocks do not follow from small sizes of the configuration",
}
"""Architectures without a tiny model that can be tried, and why."""


def tiny_config(model_type: str) -> PretrainedConfig:
    """The configuration of a small model of an architecture, sub-configurations (text, vision, audio) included."""
    return _tiny(CONFIG_MAPPING[model_type], OVERRIDES.get(model_type, {}))


def _tiny(config_class: Any, overrides: Mapping[str, Any]) -> PretrainedConfig:
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):
        default = field.default
        if "drop" in field.name and isinstance(default, float):
            fields[field.name] = 0.0
        elif field.name in _FIXED:
            fields[field.name] = _FIXED[field.name]
        elif field.name in _BY_NAME and type(default) in (int, dataclasses._MISSING_TYPE):
            fields[field.name] = _BY_NAME[field.name]  # one that may be None (head_dim) follows from the others
        elif "position" in field.name and type(default) is int and default > _LONGEST:
            fields[field.name] = _LONGEST
    defaults = getattr(config_class, "sub_configs_defaults", {})
    for name, sub_class in getattr(config_class, "sub_configs", {}).items():
        if not dataclasses.is_dataclass(sub_class):  # any: the one that is made when none is given
            sub_class = type(getattr(config_class(), name)) if name in defaults else None
        if dataclasses.is_dataclass(sub_class):
            fields[name] = _tiny(sub_class, overrides.get(name, {}))
    fields.update(
        {name: value for name, value in overrides.items() if not isinstance(value, Mapping) or name not in fields}
    )
    return config_class(**fields)


def tiny_model(model_type: str, seed: int = 0, **fields: Any) -> PreTrainedModel:
    """A model of an architecture with random weights, in float32 and eval mode.

    Args:
        model_type: one of `ARCHITECTURES`.
        seed: of the weights.
        **fields: of the configuration, beside or instead of the small ones.
    """
    config = tiny_config(model_type)
    for name, value in fields.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    return perturbed(model, 0.15)


@torch.no_grad()
def perturbed(model: PreTrainedModel, scale: float) -> PreTrainedModel:
    """The model with normal noise of standard deviation `scale` on every parameter."""
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * scale)
    return model
