"""The inputs of a script by name: models, problem sets, judges, responses of others.

The functions of `tokenshift.analysis` take loaded models and rows of problems; these functions make them:

    import torch
    from tokenshift.analysis import analyze
    from tokenshift.recipes.inputs import find_model, judge_of, load_problem_set

    problems = load_problem_set("pocket", size=64)  # a datasets.Dataset with the columns prompt and solution
    base, rl = find_model("base", "pocket"), find_model("rl", "outputs/pocket/model")
    device = torch.device("cpu")
    shift = analyze(
        base.load("float32", device),
        rl.load("float32", device),
        base.tokenizer,
        problems,
        judge=judge_of(problems, "accuracy_reward"),
    )

Models: `find_model` looks for `pocket`, `smollm2`, a folder, a hub name or an adapter, and its `ModelSource` loads it;
`resolve_model` gives only the path.
Problems: `load_problem_set` for looking at a trained model, `load_problems` for training and held-out problems;
`encoded_prompts` are problems as a model reads them, and `response_room` is what its context leaves for a response.
Judges: `judge_of` tells right from wrong by a reward, and `grader_of` gives the form, the answer and the vote too.
Sampling: `SamplingArguments` are the recipes' arguments, of which `generator_maker` and `ready_model` make policies.
Responses of others: `load_trajectories` reads them from Parquet or JSON lines.
"""

from typing import TYPE_CHECKING

from tokenshift.analysis.lazy_face import lazy_face

if TYPE_CHECKING:
    from tokenshift.recipes.inputs.judging import encoded_prompts as encoded_prompts
    from tokenshift.recipes.inputs.judging import grader_of as grader_of
    from tokenshift.recipes.inputs.judging import judge_of as judge_of
    from tokenshift.recipes.inputs.judging import no_judge as no_judge
    from tokenshift.recipes.inputs.judging import response_room as response_room
    from tokenshift.recipes.inputs.models import ModelSource as ModelSource
    from tokenshift.recipes.inputs.models import find_model as find_model
    from tokenshift.recipes.inputs.models import model_ends as model_ends
    from tokenshift.recipes.inputs.models import resolve_model as resolve_model
    from tokenshift.recipes.inputs.problems import load_problem_set as load_problem_set
    from tokenshift.recipes.inputs.problems import load_problems as load_problems
    from tokenshift.recipes.inputs.sampling import SamplingArguments as SamplingArguments
    from tokenshift.recipes.inputs.sampling import generator_maker as generator_maker
    from tokenshift.recipes.inputs.sampling import ready_model as ready_model
    from tokenshift.recipes.inputs.sums import sums_dataset as sums_dataset
    from tokenshift.recipes.inputs.trajectory_files import load_trajectories as load_trajectories
    from tokenshift.recipes.pocket.problems import pocket_dataset as pocket_dataset
else:
    __getattr__, __dir__, __all__ = lazy_face(__name__)
