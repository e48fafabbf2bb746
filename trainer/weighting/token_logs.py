"""What a training logs of its tokens' divergences and weights, and the warnings that these give rise to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from transformers import TrainerState

from tokenshift.analysis.thresholds import NEAR_ZERO
from tokenshift.trainer.config import DivergenceGRPOConfig
from tokenshift.trainer.precision import HALVES
from tokenshift.trainer.weighting.inactivity import inactivity_reason
from tokenshift.trainer.weighting.metrics import ACTIVE, TokenWindow
from tokenshift.trainer.weighting.noise_floor import METRIC, MOVED, UNMOVED, NoiseFloor

logger = get_logger(__name__)


class TokenLogs:
    """The divergences and weights of the tokens since the last log, their noise floor, and warnings, each given once.

    Args:
        args: the trainer's config.

    Attributes:
        window: the tokens' values.
        noise_floor: the divergence of the policy from itself.
    """

    def __init__(self, args: DivergenceGRPOConfig) -> None:
        self.window = TokenWindow(kind=args.weighting.behaviour)
        self.noise_floor = NoiseFloor()
        self._args = args
        self._told: set[str] = set()  # topics
        self._moved = False  # whether the policy has moved since it was the reference
        self._latest_update: tuple[int, float] = (0, 0.0)  # its number and learning rate

    def start_generation(self, step: int) -> None:
        """Take note of new completions, whose policy is the reference if that is the rollout policy.

        Args:
            step: the number of updates so far.
        """
        if self._args.divergence_reference == "old":
            self._moved, self._latest_update = False, (step, 0.0)

    def resume(self) -> None:
        """Take note that training goes on from a checkpoint: from another policy than the base, or in a generation."""
        self._moved = True

    def add_divergence(self, divergence: torch.Tensor, step: int, optimizer: Any) -> None:
        """Add the divergences `(N,)` in nats of a micro-step; it must be called at every one.

        Args:
            step: the number of updates so far.
            optimizer: the trainer's, which has the learning rates of the update under way.
        """
        self.window.add("divergence", divergence)
        self.noise_floor.add(divergence, MOVED if self._policy_moved(step, optimizer) else UNMOVED)

    def _policy_moved(self, step: int, optimizer: Any) -> bool:
        """Whether the policy can have left the reference: an update since then had a learning rate above 0."""
        latest, rate = self._latest_update
        self._moved = self._moved or (latest < step and rate > 0)
        # a rate of None is one that the optimizer sets itself
        rates = [1.0 if group["lr"] is None else float(group["lr"]) for group in optimizer.param_groups]
        self._latest_update = (step, max(rates))
        return self._moved

    def knows_noise_floor(self, log_history: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the noise floor is measured, or logged by the run that is resumed."""
        if self.noise_floor.value is None:
            logged = [entry[METRIC] for entry in log_history if METRIC in entry]
            self.noise_floor.value = logged[0] if logged else None
        return self.noise_floor.measured or self.noise_floor.value is not None

    def metrics(self, accelerator: Accelerator, state: TrainerState, dtype: torch.dtype) -> dict[str, float]:
        """The metrics of the tokens since the last log, over all ranks; warns of them, and empties the window.

        Every rank must call it.

        Args:
            accelerator: the trainer's.
            state: the trainer's.
            dtype: the type that the policy computes in.
        """
        watches = self._args.watches_tokens
        if not (watches or self.window.rollout):  # alike on all ranks
            return {}
        metrics = self.window.metrics(accelerator)
        if watches:
            mean = self.noise_floor.window_mean(accelerator)
            if "divergence/mean" in metrics and self.noise_floor.value is not None:
                metrics[METRIC] = self.noise_floor.value
            self._warn_of(metrics, mean, state, dtype)
        return metrics

    def _warn_of(
        self, metrics: Mapping[str, float], mean: float | None, state: TrainerState, dtype: torch.dtype
    ) -> None:
        """Tell once, after the warm-up, that a window's divergences are noise or that its weights changed nothing.

        Args:
            metrics: the window's.
            mean: the mean |D| of its tokens for which the policy had moved; None if there were none.
            state: the trainer's.
            dtype: the type that the policy computes in.
        """
        args, floor, kind = self._args, self.noise_floor.value, self.window.kind
        if args.divergence_reference == "base" and floor is not None and floor > NEAR_ZERO:
            self.tell(
                "base",
                lambda: (
                    f"Before the first update the policy is {floor:.3g} nats (mean {args.divergence}) from the "
                    "base that its config names: it was changed after it was loaded, or precision is low. Save the "
                    "policy first and start from that folder."
                ),
            )
        if state.global_step <= args.get_warmup_steps(state.max_steps):
            return
        if noise := self.noise_floor.warning(mean, short=dtype in HALVES):
            self.tell("noise", lambda: noise)
        could_vary = mean is not None or args.weighting.varies_at_first_update or args.learning_rate == 0
        if could_vary and metrics.get(f"{kind.metric}/frac_active") == 0:
            reason = inactivity_reason(args, metrics.get("divergence/max"))
            self.tell(
                "inactive",
                lambda: (
                    f"{kind.metric}/frac_active is 0 in the log of update {state.global_step}: no value is "
                    f"further than {ACTIVE:g} from {kind.neutral:g}, so the weighting changes nothing: {reason}"
                ),
            )

    def tell(self, topic: str, message: Callable[[], str]) -> None:
        """Log a warning, once per topic."""
        if topic not in self._told:
            self._told.add(topic)
            logger.warning(message())
