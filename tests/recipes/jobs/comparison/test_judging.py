"""Which problems a comparison judges on."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.small_comparison import job_of

from tokenshift.recipes.jobs.comparison.cells import steps_of


def test_problems_that_are_trained_on_are_refused(write_comparison: Callable[..., Path]) -> None:
    data = write_comparison().parent / "mine.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": f"{n} + 1 = ?", "solution": str(n + 1)}) for n in range(100)))
    mine = ("  max_steps: 4", f"  max_steps: 4\n  dataset_name: {data}\n  eval_size: 20")
    with pytest.raises(ValueError, match=r":11: evaluation: 44 of the 64 problems of .* are trained on"):
        job_of(write_comparison(mine, ("datasets: [pocket]\n  size: 6", f"datasets: [{data}]\n  size: 64")))
    job_of(write_comparison(mine, ("datasets: [pocket]\n  size: 6", f"datasets: [{data}]\n  size: 20"))).close()


def test_recovery_reads_the_evaluations_problems_and_starts_from_the_cells_model(
    write_comparison: Callable[..., Path],
) -> None:
    data = write_comparison().parent / "mine.jsonl"
    data.write_text(json.dumps({"question": "1 + 1 = ?", "answer": "2"}))
    asked = f"datasets: [{data}]\n  prompt_column: [question]\n  solution_column: [answer]\nrecovery: {{budget: 0.1}}"
    other = ("  high_kl:", "  high_kl: {model_name_or_path: org/other, model_revision: v2}")
    job = job_of(write_comparison(other, ("datasets: [pocket]\n  size: 6", asked)))
    words = [" ".join(steps_of(cell, job.comparison)[2].command) for cell in job.cells[:2]]
    assert all("--prompt_column question --solution_column answer" in each for each in words)
    assert ["--base_model pocket " in words[0], "--base_model org/other@v2 " in words[1]] == [True, True]
    job.close()
    unsolved = asked.replace("[answer]", "[none]\n  reward_func: format_reward")
    job = job_of(write_comparison(other, ("datasets: [pocket]\n  size: 6", unsolved)))
    words = [" ".join(steps_of(cell, job.comparison)[2].command) for cell in job.cells[:1]]
    assert "--solution_column none --reward_func format_reward" in words[0]


def test_recovery_on_made_problems_takes_nothing_that_is_given_for_other_sets(
    write_comparison: Callable[..., Path],
) -> None:
    data = write_comparison().parent / "mine.jsonl"
    data.write_text(json.dumps({"prompt": "1 + 1 = ?", "solution": "2"}))
    asked = f"datasets: [pocket, {data}]\n  prompt_template: 'Q {{prompt}}'\n  correct_threshold: 0.5\n  size: 6"
    asked += "\nrecovery: {budget: 0.1}"
    job = job_of(write_comparison(("datasets: [pocket]\n  size: 6", asked)))
    _, evaluation, recovery = steps_of(job.cells[0], job.comparison)
    assert "--prompt_template Q {prompt}" in " ".join(evaluation.command)
    assert "--prompt_template" not in recovery.command
    assert "--correct_threshold 0.5" in " ".join(recovery.command)


def test_a_variant_is_evaluated_by_its_own_prompt(write_comparison: Callable[..., Path]) -> None:
    data = write_comparison().parent / "mine.jsonl"
    data.write_text(json.dumps({"prompt": "1 + 1 = ?", "solution": "2"}))
    asked = f"datasets: [{data}]\n  system_prompt: Think.\nrecovery: {{budget: 0.1}}\n"
    own = asked + "evaluation_prompts:\n  high_kl: {system_prompt: Be brief., prompt_template: 'Q {prompt}'}"
    job = job_of(write_comparison(("datasets: [pocket]\n  size: 6", own)))
    for cell in job.cells[:2]:
        for step in steps_of(cell, job.comparison)[1:]:
            words = " ".join(step.command)
            brief = cell.variant.name == "high_kl"
            assert ("--system_prompt Be brief." in words, "--system_prompt Think." in words) == (brief, not brief)
            assert ("--prompt_template Q {prompt}" in words) == brief
    step = steps_of(job.cells[1], job.comparison)[1]
    assert step.settings["prompt_template"] == "Q {prompt}"
    assert job.comparison.prompted_contents["high_kl"].keys() == job.comparison.contents.keys()
    assert job.comparison.prompted_contents["high_kl"] != job.comparison.contents
    job.close()
    for wrong, said in (
        (own.replace("high_kl:", "high_lk:"), "evaluation_prompts has 'high_lk', no variant; did you mean high_kl?"),
        (own.replace("Q {prompt}", "Q"), "evaluation_prompts.high_kl: prompt_template='Q' has no {prompt} in it"),
        (own.replace("system_prompt: Be", "samples: Be"), "the field 'samples' is not known"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            job_of(write_comparison(("datasets: [pocket]\n  size: 6", wrong)))
