"""The docs' examples "in a script" work with exported names alone."""

from pathlib import Path

import numpy as np
import torch
from helpers.pocket_models import save_moved


def test_evaluate_model_and_statistics(tmp_path: Path) -> None:
    from tokenshift.analysis import (
        ProblemSet,
        RunFolder,
        Sampling,
        Subject,
        TransformersGenerator,
        evaluate_model,
        evaluation_summary,
        holm,
        majority_at_k,
        pass_at_k,
    )
    from tokenshift.recipes.inputs import encoded_prompts, find_model, grader_of, load_problem_set, model_ends

    problems = load_problem_set("pocket", size=4)
    source = find_model("model", "pocket")
    sampling = Sampling(max_new_tokens=30, seed=3)
    subject = Subject(
        "pocket",
        source.tokenizer,
        model_ends(source),
        lambda: TransformersGenerator(source.load("float32", torch.device("cpu")), source.tokenizer, sampling),
    )
    problem_set = ProblemSet("pocket", encoded_prompts(problems, source), grader_of(problems, "accuracy_reward"))
    table = evaluate_model(
        RunFolder(tmp_path), subject, [problem_set], samples=2, seed=sampling.seed, batch_size=8, metadata={}
    )
    assert table.num_rows == 8
    correct = np.array(table["correct"].to_pylist()).reshape(4, 2).sum(axis=1)
    entry = evaluation_summary(table, 2, [1, 2], resamples=10)["groups"]["pocket"]["models"]["pocket"]["pass@2"]
    assert entry["value"] == pass_at_k(np.full(4, 2), correct, 2).mean()
    assert majority_at_k([0, 0], [True, True], 2) == 1
    assert holm([0.01, 0.04]).tolist() == [0.02, 0.04]


def test_cross_sample(tmp_path: Path) -> None:
    from tokenshift.analysis import Intervention, Request, Sampling, cross_sample, requests_of
    from tokenshift.recipes.inputs import encoded_prompts, find_model, load_problem_set

    source, moved_source = find_model("base", "pocket"), find_model("rl", str(save_moved(tmp_path, 0.3)))
    base, moved = (model.load("float32", torch.device("cpu")) for model in (source, moved_source))
    prompts = encoded_prompts(load_problem_set("pocket", size=2), source)
    requests = requests_of(prompts, samples=2)
    assert requests[1] == Request((0, 1), prompts[0].ids)
    responses = cross_sample(
        base,
        moved,
        source.tokenizer,
        requests,
        plan=Intervention("js", epsilon=0.02, most=3),
        sampling=Sampling(temperature=1.0, top_p=0.7, max_new_tokens=20, seed=0),
    )
    assert [(response.problem_id, response.sample_id) for response in responses] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(sum(response.effective) <= 3 for response in responses)
    assert any(any(response.switched) for response in responses)
