"""The trees of a sweep in the folder of a run: one file for each seed and group of problems, which processes share.

A run that is stopped goes on from the files that are there; one that is given more policies later decodes only what
they add to them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import xxhash
from accelerate import PartialState

from tokenshift.analysis.cross_sampling.decoding import Decoding
from tokenshift.analysis.cross_sampling.intervention import CrossResponse, Intervention
from tokenshift.analysis.cross_sampling.prefix_tree import Arm, Measured, PrefixTree, TreePolicy
from tokenshift.analysis.cross_sampling.tree_decoding import TreeDecoder, grow
from tokenshift.analysis.cross_sampling.tree_walk import Walk
from tokenshift.analysis.sampling.requests import Prompt, prompt_groups, requests_of
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.storage.work_units import run_units

TREES_FOLDER = "paths"
"""The folder of the trees in that of a run."""

KEPT = 2
"""Trees that stay in memory after they were used."""


class SweepTrees:
    """The trees of a sweep.

    Args:
        folder: the folder of the run.
        prompts: all problems of the sweep.
        run: how responses are made.
        measured: the arms and criteria of the sweep, which are kept along everything that is decoded.
        state: the processes.

    Attributes:
        groups: the problems of each file; they depend on problems, samples and batch size alone.
    """

    def __init__(
        self,
        folder: RunFolder,
        prompts: Sequence[Prompt],
        run: Decoding,
        measured: Measured,
        *,
        state: PartialState | None = None,
    ) -> None:
        self._folder, self._run, self._measured = folder, run, measured
        self._state = state or PartialState()
        self.groups = prompt_groups(prompts, max(1, run.batch_size // run.samples))
        self._kept: dict[Path, tuple[int, PrefixTree]] = {}  # with the time at which the file was written

    def file(self, seed: int, group: int) -> Path:
        """The file of a group's tree."""
        return self._folder.path / TREES_FOLDER / f"seed{seed}-{group:06d}.parquet"

    def grow(
        self,
        plans: Sequence[tuple[str, Intervention]],
        seed: int,
        prompts: Sequence[Prompt],
        samples: int,
        description: str,
    ) -> None:
        """Decode what is not known of responses; every process must call it, and all return together.

        Args:
            plans: directions, and when the intervention's draw is taken.
            seed: of the responses.
            prompts: the problems.
            samples: responses per problem.
            description: label of the progress bar.
        """
        policies = [TreePolicy(*plan) for plan in plans]
        problems = {prompt.problem_id for prompt in prompts}
        groups = [number for number, group in enumerate(self.groups) if problems & {one.problem_id for one in group}]
        asked = xxhash.xxh3_64_hexdigest(repr((plans, seed, sorted(problems), samples, self._measured)).encode())
        files = [self._folder.units(TREES_FOLDER) / f"{asked}-{group:06d}.txt" for group in groups]

        def work(unit: int, file: Path) -> int:
            group = groups[unit]
            tree = self._tree(seed, group)
            rows = _rows_of(tree, problems, samples)
            decoded = grow(
                tree,
                policies,
                rows,
                self._measured,
                lambda: self._decoder(seed),
                lambda: self._save(tree, seed, group),
            )
            write_whole(file, f"{decoded}\n")
            return decoded

        run_units(files, work, description, state=self._state)

    def decode(
        self,
        plans: Sequence[tuple[str, Intervention]],
        seed: int,
        prompts: Sequence[Prompt],
        samples: int,
        description: str,
    ) -> list[list[CrossResponse]]:
        """The responses with each plan, in the order of problems and samples; the arguments are those of `grow`."""
        self.grow(plans, seed, prompts, samples, description)
        problems = {prompt.problem_id for prompt in prompts}
        responses: list[dict[tuple[int, int], CrossResponse]] = [{} for _ in plans]
        for number, group in enumerate(self.groups):
            if problems & {prompt.problem_id for prompt in group}:
                tree = self._tree(seed, number)
                rows = _rows_of(tree, problems, samples)
                walk = Walk(tree, [TreePolicy(*plan) for plan in plans], rows)
                for index, of_plan in enumerate(responses):
                    of_plan |= {tree.requests[row].row: walk.response(index, row) for row in rows}
        order = [request.row for request in requests_of(prompts, samples)]
        return [[of_plan[row] for row in order] for of_plan in responses]

    def replay(self, direction: str, plan: Intervention, seed: int, group: int) -> list[CrossResponse]:
        """A policy's responses to a group of problems, which were decoded before."""
        tree = self._tree(seed, group)
        rows = range(len(tree.requests))
        walk = Walk(tree, [TreePolicy(direction, plan)], rows)
        return [walk.response(0, row) for row in rows]

    @property
    def engine(self) -> str:
        """The engines that decoded the trees; more than one with commas."""
        files = sorted((self._folder.path / TREES_FOLDER).glob("*.parquet"))
        return ", ".join(dict.fromkeys(PrefixTree.engine_of(file) for file in files))

    @property
    def tokens_decoded(self) -> int:
        """Positions of responses at which both models were run."""
        files = (self._folder.path / TREES_FOLDER).glob("*.parquet")
        return sum(pq.read_metadata(file).num_rows for file in files)

    def _decoder(self, seed: int) -> TreeDecoder:
        run = self._run
        sampling = replace(run.sampling, seed=seed)
        return TreeDecoder(*run.policies(), run.tokenizer, sampling, run.batch_size, run.draws)

    def _tree(self, seed: int, group: int) -> PrefixTree:
        file = self.file(seed, group)
        requests = requests_of(self.groups[group], self._run.samples)
        if not file.exists():
            return self._decoder(seed).tree(requests)
        written = file.stat().st_mtime_ns
        if file not in self._kept or self._kept[file][0] != written:
            self._keep(file, PrefixTree.load(file, requests))
        return self._kept[file][1]

    def _save(self, tree: PrefixTree, seed: int, group: int) -> None:
        file = self.file(seed, group)
        tree.save(file)
        self._keep(file, tree)

    def _keep(self, file: Path, tree: PrefixTree) -> None:
        self._kept.pop(file, None)
        while len(self._kept) >= KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[file] = file.stat().st_mtime_ns, tree


def _rows_of(tree: PrefixTree, problems: set[int], samples: int) -> list[int]:
    """Indices of a tree's responses to some problems, the first samples of each."""
    keys = [request.row for request in tree.requests]
    return [row for row, (problem, sample) in enumerate(keys) if problem in problems and sample < samples]


def sweep_measured(
    directions: Sequence[str], criteria: Sequence[str], gammas: Sequence[float], sharpening: Sequence[float] = ()
) -> Mapping[Arm, Sequence[str]]:
    """The arms and criteria of the policies of `sweep_cells`; the arguments are as there."""
    measured: dict[Arm, list[str]] = {}
    for direction in directions:
        measured[Arm(direction)] = ["none", "all"]
        for arm in (
            *(Arm(direction, gamma) for gamma in gammas),
            *(Arm(direction, 0.0, power) for power in sharpening),
        ):
            scores = measured.setdefault(arm, ["all"])
            scores += [criterion for criterion in criteria if criterion not in scores]
    return measured
