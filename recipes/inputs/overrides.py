"""Changes of a model's config, as a command line gives them; nothing heavy is imported."""

from typing import Any

from tokenshift.analysis.storage.yaml_text import UnreadableYamlError, parse_yaml


def read_overrides(given: Any) -> dict[str, Any]:
    """The changes by name.

    Args:
        given: a mapping, or its JSON.

    Raises:
        ValueError: if it is none, or empty.
    """
    try:
        value = parse_yaml(given) if isinstance(given, str) else given
    except UnreadableYamlError:
        value = given
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f"model_config_overrides={given!r} is no mapping of names to values, such as "
            "'{\"max_position_embeddings\": 512}'."
        )
    return value
