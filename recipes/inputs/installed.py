"""Whether optional packages are installed; nothing is imported."""

from importlib.util import find_spec


def require_vllm(asked: str, extra: str) -> None:
    """
    Args:
        asked: the setting that needs vLLM, with its value.
        extra: the project's extra that brings it.

    Raises:
        ValueError: if vLLM is not installed.
    """
    if find_spec("vllm") is None:
        raise ValueError(f"{asked} needs vLLM: pip install 'tokenshift[{extra}]'.")
