"""Arguments of cross-sampling, and what can be looked at before a model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenshift.analysis.cross_sampling.criteria import SHIPPED_CRITERIA
from tokenshift.analysis.cross_sampling.criterion_registry import check_threshold, named_criterion, rehearse
from tokenshift.analysis.cross_sampling.decoding import SWEEP_ENGINES, TREE
from tokenshift.analysis.cross_sampling.intervention import DRAWS, Intervention
from tokenshift.analysis.cross_sampling.pilot import EFFECTIVE, MATCHES, Budget, Threshold, read_thresholds
from tokenshift.analysis.cross_sampling.report import unmet_text
from tokenshift.analysis.cross_sampling.sweep import DIRECTIONS, ENDS, sweep_cells
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.recipes.command_line.output_folder import open_folder
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.command_line.products import SETTINGS_FILE
from tokenshift.recipes.command_line.tracking import TrackedArguments
from tokenshift.recipes.inputs.engines import TRANSFORMERS, VLLM
from tokenshift.recipes.inputs.models import model_ends
from tokenshift.recipes.jobs.analysis.dry_run import plan_cross
from tokenshift.recipes.jobs.analysis.early import check_both_asked
from tokenshift.recipes.jobs.analysis.idle_options import cross_without_effect
from tokenshift.recipes.jobs.analysis.planned import PlannedAnalysis
from tokenshift.recipes.jobs.analysis.shift import ShiftArguments, ShiftJob, prepare_shift, row_settings

BUDGETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
"""Wanted shares of intervened tokens where none are given."""

EFFECTIVE_BUDGETS = (0.0025, 0.005, 0.01, 0.02, 0.05)
"""The same of effective tokens."""

SWEPT = (
    *("directions", "criteria", "epsilons", "budgets", "match", "seeds", "most", "gammas", "sharpening"),
    "resamples",
)
"""Settings that may differ when a run is gone on with: rows of other policies do not depend on them."""


@dataclass
class CrossArguments(TrackedArguments, ShiftArguments):
    """
    Parameters:
        directions (`list[str]`):
            `forward` (the base decodes, RL intervenes) and `backward` (the other way).
        criteria (`list[str]`):
            Criteria of where the intervention draws, by name or dotted path, with options in brackets behind it;
            `none` and `all` are always there.
        epsilons (`list[float]`, *optional*):
            Thresholds, for each of the criteria.
        budgets (`list[float]`, *optional*):
            Wanted shares of tokens, for which thresholds are found; a row of them when neither these nor epsilons are
            given. Those that a criterion cannot meet are left out, and named.
        match (`str`):
            The tokens that budgets are shares of: `intervened`, or `effective`, those that are replaced by another.
        seeds (`list[int]`):
            Seeds of the responses; numbers are pooled over them.
        most (`int`, *optional*):
            Effective replacements per response at most.
        gammas (`list[float]`):
            The intervention draws from `(1 + gamma) log intervention - gamma log primary`.
        sharpening (`list[float]`, *optional*):
            Powers to which the base's next-token probabilities are raised to intervene themselves, as a control.
        draws (`str`):
            `shared`: both policies draw with one random number per position; `independent`: with one each.
        engine (`str`):
            `tree` (or `transformers`), which decodes each prefix of the sweep once, `draft`, `lockstep`, or `vllm`,
            the pair engine; all give the same responses, but for rounding.
        pilot (`int`):
            Problems on which thresholds for budgets are found, with the seed `seed`.
        resamples (`int`):
            Resamples of the bootstrap.
    """

    dataset_split: str | None = field(
        default=None, metadata={"help": "Split; by default one not trained on, pocket's `analysis`."}
    )
    seed: int = field(default=0, metadata={"help": "Of the pilot's responses; those that count have --seeds."})
    top_p: float = field(
        default=0.7, metadata={"help": 'Nucleus of sampling. js_top_p has its own: "js_top_p(top_p=0.9)".'}
    )
    directions: list[str] = field(default_factory=lambda: list(DIRECTIONS), metadata={"help": "forward, backward."})
    criteria: list[str] = field(
        default_factory=lambda: ["js_top_p", "js", "random_disagreement"],
        metadata={
            "help": f"Of {', '.join(SHIPPED_CRITERIA)}, the last two always; or dotted paths of functions of yours."
        },
    )
    epsilons: list[float] | None = field(
        default=None,
        metadata={"help": "Thresholds, the same for each of the criteria; rates of random ones are 1 minus it."},
    )
    budgets: list[float] | None = field(
        default=None,
        metadata={
            "help": f"Wanted shares of tokens; without them and epsilons {' '.join(map(str, BUDGETS))}; with "
            f"--match effective {' '.join(map(str, EFFECTIVE_BUDGETS))}."
        },
    )
    match: str = field(
        default="intervened",
        metadata={"help": "Tokens that budgets are shares of: intervened, or effective (replaced by another)."},
    )
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "Of the responses; pooled."})
    most: int | None = field(default=None, metadata={"help": "Effective replacements a response at most."})
    gammas: list[float] = field(
        default_factory=lambda: [0.0], metadata={"help": "Above 0 extrapolates beyond the intervention."}
    )
    sharpening: list[float] | None = field(
        default=None, metadata={"help": "Intervene with the base's own p^a too, for each of these a; 1 is the base."}
    )
    draws: str = field(
        default="shared", metadata={"help": "Random numbers of the two policies: shared, or independent."}
    )
    engine: str = field(
        default="tree", metadata={"help": "tree, which is transformers, draft, lockstep, or vllm: the same responses."}
    )
    pilot: int = field(default=64, metadata={"help": "Problems on which thresholds for budgets are found."})
    resamples: int = field(default=1000, metadata={"help": "Resamples of the bootstrap."})
    output_dir: str = field(default="outputs/pocket/cross", metadata={"help": "Where results go."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine == TRANSFORMERS:
            self.engine = TREE
        check_both_asked(self)
        for name in ("directions", "criteria", "seeds", "gammas"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty.")
        if unknown := [direction for direction in self.directions if direction not in DIRECTIONS]:
            raise ValueError(f"directions names {unknown[0]!r}; known are {', '.join(DIRECTIONS)}.")
        self.criteria = [named_criterion(criterion).name for criterion in self.criteria]
        if self.match not in MATCHES:
            raise ValueError(f"match={self.match!r} is not known; choose {' or '.join(MATCHES)}.")
        if self.draws not in DRAWS:
            raise ValueError(f"draws={self.draws!r} is not known; choose {' or '.join(DRAWS)}.")
        if self.epsilons is None and self.budgets is None:
            self.budgets = list(EFFECTIVE_BUDGETS if self.match == EFFECTIVE else BUDGETS)
        if wrong := [budget for budget in self.budgets or () if not 0 < budget < 1]:
            raise ValueError(f"budgets has {wrong[0]}; shares of tokens lie in (0, 1), and 0 and 1 are always there.")
        if wrong := [seed for seed in self.seeds if not 0 <= seed < 2**63]:
            raise ValueError(f"seeds has {wrong[0]}, which must be at least 0 and below 2**63.")
        if self.most is not None and self.most >= 2**31:
            raise ValueError(f"most={self.most} must be below 2**31; leave it out for any number.")
        for criterion in self.swept:
            for epsilon in self.epsilons or ():
                check_threshold(criterion, epsilon)
        for gamma in self.gammas:
            Intervention("all", 0.0, self.most, gamma)  # checks both
        for power in self.sharpening or ():
            Intervention("all", 0.0, sharpening=power)  # checks it
            if power == 1:
                raise ValueError("sharpening has 1, which leaves the base as it is; give powers above 1, as 2 or 4.")
        for name in ("pilot", "resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that can be asked for."""
        return *SWEEP_ENGINES, TRANSFORMERS, VLLM

    def without_effect(self, values: Any) -> dict[str, str]:
        """Options that have no effect beside these values of all options, with the reason and what to do."""
        return super().without_effect(values) | cross_without_effect(values)

    @property
    def swept(self) -> list[str]:
        """The criteria that have a threshold, each once."""
        return [criterion for criterion in dict.fromkeys(self.criteria) if criterion not in ENDS]

    @property
    def wanted(self) -> list[Budget]:
        """The budgets for which thresholds are to be found, one for each policy."""
        arms: list[tuple[float, float | None]] = [(gamma, None) for gamma in self.gammas]
        arms += [(0.0, power) for power in self.sharpening or ()]
        return [
            Budget(direction, criterion, *arm, self.match, budget)
            for direction in self.directions
            for criterion in self.swept
            for arm in arms
            for budget in self.budgets or ()
        ]

    @property
    def most_policies(self) -> int:
        """The policies of the sweep, over all seeds, if every budget gets a threshold of its own."""
        powers = self.sharpening or ()
        given = self.epsilons or ()
        cells = sweep_cells(self.directions, self.swept, given, [], self.gammas, self.seeds, self.most, powers)
        return len(cells) + len(self.wanted) * len(dict.fromkeys(self.seeds))

    def unmet(self, thresholds: Sequence[Threshold]) -> list[Threshold]:
        """The budgets that their criteria cannot meet.

        Raises:
            ValueError: if a criterion can meet none of the effective budgets, so that nothing of it would be left.
        """
        unmet = [threshold for threshold in thresholds if not threshold.met]
        met = {threshold.criterion for threshold in thresholds if threshold.met}
        for threshold in sorted(unmet, key=lambda threshold: threshold.budget):
            if self.match == EFFECTIVE and not self.epsilons and threshold.criterion not in met:
                raise ValueError(f"{unmet_text(threshold)} Lower the budgets, or leave the criterion out.")
        return unmet


def prepare(arguments: list[str] | None = None) -> ShiftJob | PlannedAnalysis:
    """Parse, check, find the models, load the problems; or plan alone.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    args = parse_into((CrossArguments,), arguments)[0]
    if args.dry_run:
        return plan_cross(args)
    job = prepare_shift(args)
    if not model_ends(job.base) | model_ends(job.rl):
        raise ValueError(
            f"base_model={args.base_model!r} and rl_model={args.rl_model!r} have no end token: no response would "
            "end. Set eos_token_id in a generation_config.json, or the tokenizer's eos_token."
        )
    vocabulary = min(source.config.get_text_config().vocab_size for source in (job.base, job.rl))
    for criterion in args.swept:
        rehearse(named_criterion(criterion), vocabulary)
    shared = ("draws",) if args.draws == DRAWS[0] else ()  # as in folders that were made before it could be chosen
    tokens = args.most_policies * job.most_tokens // 2
    settings = row_settings(job, *SWEPT, *shared)
    settings["engine"] = _engine_before(job) or args.engine
    open_folder(job, settings, sampled=tokens)
    read_thresholds(job.folder)  # a damaged file is named before a model is loaded
    return job


def _engine_before(job: ShiftJob) -> str | None:
    """The engine that the folder's settings name, which another may go on with: all give the same rows."""
    try:
        engine = read_json(job.folder.path / SETTINGS_FILE).get("engine")
    except (OSError, ValueError, AttributeError):
        return None  # there are none, or the folder is refused for them
    return engine if engine in SWEEP_ENGINES and not job.args.overwrite else None
