"""What makes a policy's responses: the model itself, or a vLLM engine that is given the model's weights."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils.memory import clear_device_cache
from torch.distributed.tensor import DTensor

from tokenshift.analysis.sampling.generators import Generator, TransformersGenerator
from tokenshift.analysis.sampling.token_ids import end_tokens
from tokenshift.analysis.storage.main_process import on_main_process
from tokenshift.recipes.inputs.engines import VLLM, engine_options, engine_starter
from tokenshift.recipes.inputs.models import ModelSource
from tokenshift.recipes.jobs.sft.preparation import SftJob
from tokenshift.trainer.resume.checkpoints import STAGING_DIR

if TYPE_CHECKING:
    from tokenshift.analysis.vllm_engine.generator import EngineGenerator

HANDED_OVER = "policy"
"""The folder, among unfinished checkpoints, by which an engine gets the policy's weights."""


@contextmanager
def writer_of(job: SftJob, source: ModelSource) -> Iterator[Generator]:
    """Responses of a model on the disk, which is gone from memory afterwards."""
    sampling = job.held_out.sampling
    if job.script_args.engine != VLLM:
        yield TransformersGenerator(job.load(source), source.tokenizer, sampling)
        return
    from tokenshift.analysis.vllm_engine.generator import EngineGenerator

    start = engine_starter(job.script_args, job.dtype_of(source), source, longest=job.longest)
    generator = EngineGenerator(start, sampling)
    yield generator
    generator.engine.close()


class PolicyWriters:
    """Makes responses of a model in training, as it is when it is asked for.

    The vLLM engine is started at the first measurement and stays beside the training; at each later one it reads the
    weights anew. They go through a folder, since the engine's processes are others than the training's.
    """

    def __init__(self, job: SftJob) -> None:
        self._job = job
        self._generator: EngineGenerator | None = None

    def of(self, model: Any) -> Generator:
        """What makes the model's responses; every process must call it.

        Args:
            model: the model, unwrapped, in eval mode.
        """
        tokenizer, sampling = self._job.base.tokenizer, self._job.held_out.sampling
        if self._job.script_args.engine != VLLM:
            return TransformersGenerator(model, tokenizer, sampling)
        folder = self._job.output_dir / STAGING_DIR / HANDED_OVER
        write_whole_model(model, folder)
        if self._generator is None:
            self._generator = self._started(model, folder)
        else:
            self._generator.engine.take_weights(folder)
        PartialState().wait_for_everyone()
        on_main_process(lambda: shutil.rmtree(folder.parent))
        return self._generator

    def _started(self, model: Any, folder: Path) -> "EngineGenerator":
        """A new engine with the model in a folder; vLLM is imported here."""
        from tokenshift.analysis.vllm_engine.engine import EngineModel, VLLMEngine
        from tokenshift.analysis.vllm_engine.generator import EngineGenerator

        job = self._job
        options = engine_options(job.script_args, job.training_dtype(model), job.longest)
        if not torch.cuda.is_available():
            options = replace(options, eager=True)  # compiled code keeps a CPU's first weights
        clear_device_cache(garbage_collection=True)
        ends = end_tokens(job.base.tokenizer, model)
        engine = VLLMEngine(
            EngineModel(str(folder), None, model.config, job.base.trust_remote_code), None, ends, options
        )
        return EngineGenerator(lambda: engine, job.held_out.sampling)

    def close(self) -> None:
        """End the engine, if there is one."""
        if self._generator is not None:
            self._generator.engine.close()
            self._generator = None


def write_whole_model(model: Any, folder: Path) -> None:
    """Save a model, of which FSDP has a part on each process; every process must call it."""
    weights = {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in model.state_dict().items()
    }
    on_main_process(lambda: model.save_pretrained(folder, state_dict=weights))
