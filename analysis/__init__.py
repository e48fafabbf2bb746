"""Numbers about two policies: what RL moved, whether that is the cause, how good a model is, and which is best.

The functions that scripts and notebooks use are here; each is imported, with all that it needs, when it is first used.
"""

from typing import TYPE_CHECKING

from tokenshift.analysis.lazy_face import lazy_face

if TYPE_CHECKING:
    from tokenshift.analysis.cross_sampling.criterion_registry import register_criterion as register_criterion
    from tokenshift.analysis.cross_sampling.engines import cross_sample as cross_sample
    from tokenshift.analysis.cross_sampling.intervention import CrossResponse as CrossResponse
    from tokenshift.analysis.cross_sampling.intervention import Intervention as Intervention
    from tokenshift.analysis.divergence.from_logits import entropy as entropy
    from tokenshift.analysis.divergence.from_logits import js_divergence as js_divergence
    from tokenshift.analysis.divergence.from_logits import kl_divergence as kl_divergence
    from tokenshift.analysis.divergence.lm_head import LMHead as LMHead
    from tokenshift.analysis.divergence.lm_head import gathered_head as gathered_head
    from tokenshift.analysis.divergence.token_statistics import STATISTICS as STATISTICS
    from tokenshift.analysis.divergence.token_statistics import token_statistics as token_statistics
    from tokenshift.analysis.evaluation.estimators import majority_at_k as majority_at_k
    from tokenshift.analysis.evaluation.estimators import mean_at_k as mean_at_k
    from tokenshift.analysis.evaluation.estimators import pass_at_k as pass_at_k
    from tokenshift.analysis.evaluation.loaded_models import Evaluation as Evaluation
    from tokenshift.analysis.evaluation.loaded_models import evaluate as evaluate
    from tokenshift.analysis.evaluation.responses import Grade as Grade
    from tokenshift.analysis.evaluation.responses import Grader as Grader
    from tokenshift.analysis.evaluation.responses import ProblemSet as ProblemSet
    from tokenshift.analysis.evaluation.responses import Subject as Subject
    from tokenshift.analysis.evaluation.responses import evaluate_model as evaluate_model
    from tokenshift.analysis.evaluation.summary import evaluation_summary as evaluation_summary
    from tokenshift.analysis.sampling.generators import Sampling as Sampling
    from tokenshift.analysis.sampling.generators import TransformersGenerator as TransformersGenerator
    from tokenshift.analysis.sampling.prompts import encode_problems as encode_problems
    from tokenshift.analysis.sampling.requests import Prompt as Prompt
    from tokenshift.analysis.sampling.requests import Request as Request
    from tokenshift.analysis.sampling.requests import requests_of as requests_of
    from tokenshift.analysis.sampling.responses import Judge as Judge
    from tokenshift.analysis.sampling.trajectories import Trajectory as Trajectory
    from tokenshift.analysis.sampling.trajectories import read_trajectories as read_trajectories
    from tokenshift.analysis.shift.runs_summary import summarise_runs as summarise_runs
    from tokenshift.analysis.shift.shift_analysis import ShiftAnalysis as ShiftAnalysis
    from tokenshift.analysis.shift.shift_analysis import analyze as analyze
    from tokenshift.analysis.shift.summary import summarise as summarise
    from tokenshift.analysis.statistics.paired import holm as holm
    from tokenshift.analysis.statistics.paired import paired_comparison as paired_comparison
    from tokenshift.analysis.storage.run_folder import RunFolder as RunFolder
    from tokenshift.analysis.token_table.scoring import score_trajectories as score_trajectories
else:
    __getattr__, __dir__, __all__ = lazy_face(__name__)
