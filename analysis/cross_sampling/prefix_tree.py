"""The prefixes that the policies of a sweep share: each is decoded once, with what every policy needs to go on.

Random numbers belong to the position of a response, so two policies of a sweep write the same tokens until their first
different decision. For each response the prefixes that any policy has reached are a tree. A node is a prefix at which
both models were run: it keeps both models' draws of the next token and, for each arm of the sweep, the intervention's
draw, JS, and the scores of the criteria. Whatever threshold a policy has, its decisions along known nodes are known.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tokenshift.analysis.cross_sampling.intervention import Intervention, policy_names
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.storage.parquet_files import read_parquet, write_parquet

NO_TOKEN = -1
"""The id of a token that is not there: before the first node of a response, or a draw that is not known."""

TREE_KEY = b"tokenshift_prefix_tree"
"""The key of a tree's description in the metadata of its file."""


class Arm(NamedTuple):
    """An intervention, whatever its criterion and threshold; the fields are as those of `SweptPolicy`."""

    direction: str
    gamma: float = 0.0
    sharpening: float | None = None

    @property
    def models(self) -> tuple[str, str]:
        """The names of primary and intervention; see `policy_names`."""
        return policy_names(self.direction, self.sharpening)


class Edge(NamedTuple):
    """A token after a node.

    Attributes:
        node: the index of the node; -1 - n before the first token of the n-th response.
        token: the token's id.
    """

    node: int
    token: int


@dataclass(frozen=True)
class TreePolicy:
    """A policy that walks along a tree.

    Attributes:
        direction: `forward` or `backward`.
        plan: when the intervention's draw is taken.
    """

    direction: str
    plan: Intervention

    @property
    def arm(self) -> Arm:
        """The policy's intervention without its criterion."""
        return Arm(self.direction, self.plan.gamma, self.plan.sharpening)


@dataclass
class ArmRecords:
    """The draws and scores that an arm's policies need at B nodes; each list has one element per node.

    Attributes:
        intervention_ids: the intervention's draws; `NO_TOKEN` where they are not known.
        js: JS between the policies in nats, float32 as Python floats; NaN where it is not known.
        scores: for each criterion its scores; NaN where they are not known.
        dtypes: for each criterion the dtype of its scores, in which they are compared with a threshold.
    """

    intervention_ids: list[int] = field(default_factory=list)
    js: list[float] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)

    def threshold(self, plan: Intervention) -> float:
        """A plan's threshold as a tensor of scores is compared with it: rounded to their dtype."""
        return float(torch.tensor(plan.epsilon, dtype=self.dtypes[plan.criterion]))


@dataclass
class Records:
    """The draws of both models, and the records of arms, at B nodes.

    Attributes:
        drawn: the draws of `base` and `rl`, with the position's random number.
        arms: the records of each arm.
    """

    drawn: dict[str, list[int]]
    arms: dict[Arm, ArmRecords]


Measured = Mapping[Arm, Sequence[str]]
"""For each arm the names of the criteria whose scores are kept."""


def measured_of(policies: Iterable[TreePolicy]) -> dict[Arm, list[str]]:
    """The arms and criteria of policies."""
    measured: dict[Arm, list[str]] = {}
    for policy in policies:
        criteria = measured.setdefault(policy.arm, [])
        if policy.plan.criterion not in criteria:
            criteria.append(policy.plan.criterion)
    return measured


class PrefixTree:
    """The trees of some responses.

    Args:
        requests: the responses' prompts and rows.
        ends: token ids at which a response ends.
        longest: tokens of a response at most.
        engine: the name of the engine that decodes.

    Attributes:
        requests, ends, longest, engine: these.
        rows: for each node the index of its response.
        parents: for each node the node before it; -1 - n for the first of the n-th response.
        tokens: for each node the token after its parent; `NO_TOKEN` for the first.
        depths: for each node the number of tokens before it.
        children: the node of each edge.
        records: what is known at the nodes.
    """

    def __init__(self, requests: Sequence[Request], ends: Iterable[int], longest: int, engine: str) -> None:
        self.requests, self.ends, self.longest, self.engine = list(requests), frozenset(ends), longest, engine
        self.rows: list[int] = []
        self.parents: list[int] = []
        self.tokens: list[int] = []
        self.depths: list[int] = []
        self.children: dict[tuple[int, int], int] = {}
        self.records = Records({"base": [], "rl": []}, {})

    def __len__(self) -> int:
        """The number of nodes: of positions at which both models were run."""
        return len(self.parents)

    @staticmethod
    def root(row: int) -> Edge:
        """The edge before the first token of the response of this index."""
        return Edge(-1 - row, NO_TOKEN)

    def path(self, node: int) -> list[int]:
        """The nodes from a response's first to this one, in order; none for a number below 0."""
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = self.parents[node]
        return nodes[::-1]

    def row(self, edge: Edge) -> int:
        """The index of the response that an edge belongs to."""
        return -1 - edge.node if edge.node < 0 else self.rows[edge.node]

    def position(self, edge: Edge) -> int:
        """The position of the token after an edge's in its completion, from 0."""
        return 0 if edge.node < 0 else self.depths[edge.node] + 1

    def completion(self, edge: Edge) -> list[int]:
        """The tokens of the completion up to an edge's token."""
        if edge.node < 0:
            return []
        return [*(self.tokens[node] for node in self.path(edge.node)[1:]), edge.token]

    def add(self, edges: Sequence[Edge], records: Records) -> None:
        """Add the nodes after B edges with what is known there."""
        first = len(self)
        for number, edge in enumerate(edges):
            self.children[edge] = first + number
            self.rows.append(self.row(edge))
            self.parents.append(edge.node)
            self.tokens.append(edge.token)
            self.depths.append(self.position(edge))
        for name, drawn in records.drawn.items():
            self.records.drawn[name] += drawn
        self.set_records(range(first, len(self)), records)

    def set_records(self, nodes: Sequence[int], records: Records) -> None:
        """Keep what is known of arms at B nodes; what was known there before stays."""
        self.allow({arm: list(new.scores) for arm, new in records.arms.items()})
        for key, new in records.arms.items():
            arm = self.records.arms[key]
            arm.dtypes |= new.dtypes
            for node, token in zip(nodes, new.intervention_ids, strict=True):
                if arm.intervention_ids[node] == NO_TOKEN:
                    arm.intervention_ids[node] = token
            pairs = [(arm.js, new.js), *((arm.scores[name], scores) for name, scores in new.scores.items())]
            for known, numbers in pairs:
                for node, number in zip(nodes, numbers, strict=True):
                    if known[node] != known[node]:
                        known[node] = number

    def allow(self, measured: Measured) -> None:
        """Add arms and criteria at all nodes, where their draws and scores are not known yet."""
        for key, criteria in measured.items():
            arm = self.records.arms.setdefault(key, ArmRecords())
            for name in criteria:
                arm.scores.setdefault(name, [])
        for arm in self.records.arms.values():
            arm.intervention_ids += [NO_TOKEN] * (len(self) - len(arm.intervention_ids))
            for numbers in (arm.js, *arm.scores.values()):
                numbers += [nan] * (len(self) - len(numbers))

    def missing(self, measured: Measured) -> tuple[set[int], dict[Arm, list[str]]]:
        """The nodes where scores of some arms and criteria are missing, and those arms and criteria."""
        self.allow(measured)
        nodes: set[int] = set()
        unknown: dict[Arm, list[str]] = {}
        for arm, criteria in measured.items():
            for name in criteria:
                without = [node for node, score in enumerate(self.records.arms[arm].scores[name]) if score != score]
                if without:
                    nodes.update(without)
                    unknown.setdefault(arm, []).append(name)
        return nodes, unknown

    def save(self, file: Path) -> None:
        """Write the tree to a Parquet file that appears whole: one row per node."""
        columns = {
            "problem_id": pa.array([self.requests[row].row[0] for row in self.rows], pa.int64()),
            "sample_id": pa.array([self.requests[row].row[1] for row in self.rows], pa.int64()),
            "parent": pa.array([max(parent, -1) for parent in self.parents], pa.int64()),
            "token": pa.array(self.tokens, pa.int32()),
            **{f"{name}_id": pa.array(drawn, pa.int32()) for name, drawn in self.records.drawn.items()},
        }
        arms = []
        for number, (key, arm) in enumerate(self.records.arms.items()):
            columns[f"{number} intervention_id"] = pa.array(arm.intervention_ids, pa.int32())
            columns[f"{number} js"] = pa.array(arm.js, pa.float32())
            for name, scores in arm.scores.items():
                exact = pa.float64() if arm.dtypes.get(name) == torch.float64 else pa.float32()
                columns[f"{number} {name}"] = pa.array(scores, exact)
            dtypes = {name: str(dtype).removeprefix("torch.") for name, dtype in arm.dtypes.items()}
            arms.append({"arm": key, "criteria": list(arm.scores), "dtypes": dtypes})
        described = {"ends": sorted(self.ends), "longest": self.longest, "engine": self.engine, "arms": arms}
        table = pa.table(columns).replace_schema_metadata({TREE_KEY: json.dumps(described)})
        write_parquet(file, table, compression="zstd")

    @staticmethod
    def engine_of(file: Path) -> str:
        """The name of the engine that decoded a tree, by its file."""
        return str(json.loads(pq.read_schema(file).metadata[TREE_KEY])["engine"])

    @classmethod
    def load(cls, file: Path, requests: Sequence[Request]) -> "PrefixTree":
        """Read a tree back.

        Args:
            file: written by `save`.
            requests: those of the responses whose nodes are there, in any order, and maybe others.

        Raises:
            DamagedFileError: if the file is not whole.
        """
        table = read_parquet(file)
        described = json.loads((table.schema.metadata or {})[TREE_KEY])
        tree = cls(requests, described["ends"], described["longest"], described["engine"])
        numbers = {request.row: number for number, request in enumerate(tree.requests)}
        pairs = zip(table["problem_id"].to_pylist(), table["sample_id"].to_pylist(), strict=True)
        tree.rows = [numbers[pair] for pair in pairs]
        parents = zip(table["parent"].to_pylist(), tree.rows, strict=True)
        tree.parents = [-1 - row if parent < 0 else parent for parent, row in parents]
        tree.tokens = table["token"].to_pylist()
        for node, (parent, token) in enumerate(zip(tree.parents, tree.tokens, strict=True)):
            tree.children[parent, token] = node
            tree.depths.append(0 if parent < 0 else tree.depths[parent] + 1)
        tree.records.drawn = {name: table[f"{name}_id"].to_pylist() for name in tree.records.drawn}
        for number, arm in enumerate(described["arms"]):
            tree.records.arms[Arm(*arm["arm"])] = ArmRecords(
                table[f"{number} intervention_id"].to_pylist(),
                table[f"{number} js"].to_pylist(),
                {name: table[f"{number} {name}"].to_pylist() for name in arm["criteria"]},
                {name: getattr(torch, dtype) for name, dtype in arm["dtypes"].items()},
            )
        return tree
