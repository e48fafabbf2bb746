"""`device_map` of transformers, where the parts of a model go, and what is wrong with one before a model is loaded.

The words are those of `from_pretrained`; accelerate's hooks move what goes in and out of each part. Parts that do not
fit on the accelerators wait in host memory (`cpu`) or stay in the model's files (`disk`) until they are used.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate.utils import check_device_map, find_tied_parameters
from transformers import AutoModelForCausalLM

from tokenshift.analysis.storage.yaml_text import UnreadableYamlError, parse_yaml

NAMED_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Maps that transformers makes itself, by the free memory of the devices."""

DISK = "disk"
"""The device of parts that stay in files."""

DeviceMap = str | dict[str, int | str]


def read_device_map(given: Any, setting: str = "device_map") -> DeviceMap | None:
    """A `device_map` as `from_pretrained` takes it.

    Args:
        given: one of `NAMED_MAPS`; a mapping of the names of a model's parts to devices, or the same as JSON or YAML;
            None for a model on one device.
        setting: the argument whose value it is, for the message.

    Raises:
        ValueError: if it is none of these, or names a device that is not here.
    """
    if given is None or (isinstance(given, str) and given in NAMED_MAPS):
        return given
    try:
        value = parse_yaml(given) if isinstance(given, str) else given
    except UnreadableYamlError:
        value = None
    if not isinstance(value, Mapping) or not value or not all(isinstance(part, str) for part in value):
        raise ValueError(
            f"{setting}={given!r} is not known; choose {', '.join(NAMED_MAPS)}, or give a mapping of a model's parts "
            'to devices, such as \'{"model": 0, "lm_head": 1}\'.'
        )
    for part, device in value.items():
        if not _is_here(device):
            here = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
            known = f"{', '.join(map(str, range(here)))}, cpu and disk" if here else "cpu and disk"
            raise ValueError(
                f"{setting} puts {part or 'all'!r} on {device!r}, which this machine does not have; it has {known}."
            )
    return dict(value)


def map_without_effect(device_map: DeviceMap | None) -> dict[str, str]:
    """Options that have no effect beside a `device_map`, with the reason and what to do."""
    if device_map is not None:
        return {}
    return {"offload_folder": "it is of models that device_map spreads; give device_map, or leave it out."}


def _is_here(device: Any) -> bool:
    """Whether a mapping's value is a device of this machine."""
    if device in ("cpu", DISK):
        return True
    count = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if type(device) is int:
        return 0 <= device < count
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        return False
    kind = torch.accelerator.current_accelerator() if count else None
    return kind is not None and place.type == kind.type and (place.index or 0) < count


def fitted_map(name: str, config: Any, device_map: DeviceMap, *, adapter: bool, trust_remote_code: bool) -> DeviceMap:
    """A `device_map` for a model, of which nothing is loaded, with parts that do not overlap, as accelerate needs.

    Args:
        name: the name that the user gave to the model.
        config: the config of the whole model.
        device_map: as `read_device_map` gave it.
        adapter: whether the model is an adapter, which is merged into its base when it is loaded.
        trust_remote_code: whether code that comes with the model may run.

    Returns:
        The map, in which a part that holds others of the map, such as `""`, is replaced by the rest of it.

    Raises:
        ValueError: if a part has no device, a name is of no part, a matrix that two parts share is on the disk for one
            of them alone, or an adapter's base would wait in host memory or on the disk.
    """
    if isinstance(device_map, str):
        return device_map
    if adapter and waits(device_map):
        raise ValueError(waiting_adapter(name))
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception:  # whatever a model's own code makes of tensors without numbers; loading it tells more
        return device_map
    parts = dict(model.named_modules()) | dict(model.named_parameters())
    if unknown := [part for part in device_map if part and part not in parts]:
        raise ValueError(
            f"device_map names {unknown[0]!r}, which {name!r} does not have; its parts are "
            f"{', '.join(part for part, _ in model.named_children())} and what is below them."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_device_map(model, device_map)
    except ValueError as error:
        missing = str(error).rpartition(": ")[2].split(", ")
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(
            f'device_map gives no device for {missing[0]}{more} of {name!r}; name every part, or the rest by "".'
        ) from error
    for tied in find_tied_parameters(model):
        places = {parameter: _place(parameter, device_map) for parameter in tied}
        if len(set(places.values())) > 1 and DISK in places.values():
            on_disk = next(parameter for parameter, place in places.items() if place == DISK)
            other = next(parameter for parameter, place in places.items() if place != DISK)
            raise ValueError(
                f"device_map leaves {on_disk} of {name!r} on the disk and {other} not, but the two are one matrix "
                "(tie_word_embeddings); give both one device."
            )
    return dict(_apart("", model, device_map))


def _apart(name: str, module: torch.nn.Module, device_map: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Parts of a module that do not overlap, with their devices."""
    start = f"{name}." if name else ""
    if not any(part and part != name and part.startswith(start) for part in device_map):
        yield name, _place(name, device_map)
        return
    for child, inner in module.named_children():
        yield from _apart(f"{start}{child}", inner, device_map)
    for parameter, _ in module.named_parameters(recurse=False):
        yield f"{start}{parameter}", _place(f"{start}{parameter}", device_map)


def _place(parameter: str, device_map: Mapping[str, Any]) -> Any:
    """The device of a parameter: that of the smallest part it is in."""
    parts = [part for part in device_map if not part or parameter == part or parameter.startswith(f"{part}.")]
    return device_map[max(parts, key=len)] if parts else "cpu"  # what has no parameter


def waits(device_map: DeviceMap) -> bool:
    """Whether a mapping leaves parts in host memory or on the disk until they are used."""
    places = set() if isinstance(device_map, str) else set(device_map.values())
    return DISK in places or ("cpu" in places and len(places) > 1)


def waiting_adapter(name: str) -> str:
    """The refusal of an adapter whose base does not lie whole on accelerators."""
    return (
        f"{name!r} is an adapter, and device_map leaves parts of its base in host memory or on the disk, where PEFT "
        "merges nothing; merge it into its base (merge_and_unload), save the model, and give that."
    )
