"""Policies on their way along a tree of prefixes: what is known is replayed, and where it ends is told."""

from collections.abc import Sequence
from math import nan

from tokenshift.analysis.cross_sampling.intervention import CrossResponse
from tokenshift.analysis.cross_sampling.prefix_tree import Arm, Edge, PrefixTree, TreePolicy

_Walker = tuple[int, int]
"""The index of a policy, and how many tokens of the response it has replaced."""


class Walk:
    """Policies that walk along the responses of a tree.

    Args:
        tree: it must have the records of the policies' arms and criteria at all its nodes.
        policies: the policies.
        rows: indices of the tree's responses.

    Attributes:
        frontiers: the edges after which nothing is known, with the policies that wait there.
        last: for each policy, by the index of a response, the last edge of the response, where it has ended.
    """

    def __init__(self, tree: PrefixTree, policies: Sequence[TreePolicy], rows: Sequence[int]) -> None:
        self._tree, self.policies = tree, list(policies)
        self.frontiers: dict[Edge, list[tuple[Arm, list[_Walker]]]] = {}
        self.last: list[dict[int, Edge]] = [{} for _ in policies]
        self._thresholds: dict[int, float] = {}
        by_arm: dict[Arm, list[_Walker]] = {}
        for index, policy in enumerate(self.policies):
            by_arm.setdefault(policy.arm, []).append((index, 0))
        for row in rows:
            for arm, walkers in by_arm.items():
                self._follow(row, tree.root(row), arm, walkers)

    def go_on(self, edge: Edge) -> list[Edge]:
        """Go on after an edge that has become known.

        Returns:
            The edges that follow it and are not known, in order; the policies that were there wait at one of them, or
            have ended.
        """
        row = self._tree.row(edge)
        return [new for waiting in self.frontiers.pop(edge) for new in self._follow(row, edge, *waiting)]

    def _follow(self, row: int, edge: Edge, arm: Arm, walkers: list[_Walker]) -> list[Edge]:
        """Follow known nodes as far as they go; the edges at which nobody has waited before."""
        tree = self._tree
        children, depths, ends, longest = tree.children, tree.depths, tree.ends, tree.longest
        primary_ids = tree.records.drawn[arm.models[0]]
        left = [(edge, walkers)]
        new: list[Edge] = []
        while left:
            edge, walkers = left.pop()
            node = children.get(edge)
            if node is None:
                if edge not in self.frontiers:
                    self.frontiers[edge] = []
                    new.append(edge)
                self.frontiers[edge].append((arm, walkers))
                continue
            primary_id, intervention_id = primary_ids[node], tree.records.arms[arm].intervention_ids[node]
            sides = [(primary_id, walkers)]
            if primary_id != intervention_id:
                kept, replaced = self._decide(node, arm, walkers)
                sides = [(primary_id, kept), (intervention_id, replaced)]
            for token, side in sides:
                if not side:
                    continue
                after = Edge(node, token)
                if token in ends or depths[node] + 1 == longest:
                    for index, _ in side:
                        self.last[index][row] = after
                else:
                    left.append((after, side))
        return new

    def _decide(self, node: int, arm: Arm, walkers: list[_Walker]) -> tuple[list[_Walker], list[_Walker]]:
        """The policies that keep the primary's token, and those that replace it."""
        kept, replaced = [], []
        scores = self._tree.records.arms[arm].scores
        for walker in walkers:
            index, count = walker
            plan = self.policies[index].plan
            free = plan.most is None or count < plan.most
            if free and scores[plan.criterion][node] > self._threshold(index):
                replaced.append((index, count + 1))
            else:
                kept.append(walker)
        return kept, replaced

    def _threshold(self, index: int) -> float:
        if index not in self._thresholds:
            policy = self.policies[index]
            self._thresholds[index] = self._tree.records.arms[policy.arm].threshold(policy.plan)
        return self._thresholds[index]

    def response(self, index: int, row: int) -> CrossResponse:
        """A policy's response, by its index and that of the response; it must have ended."""
        tree, policy, last = self._tree, self.policies[index], self.last[index][row]
        arm, plan, path = tree.records.arms[policy.arm], policy.plan, tree.path(last.node)
        primary = tree.records.drawn[policy.arm.models[0]]
        scores, threshold = arm.scores[plan.criterion], self._threshold(index)
        completion = [*(tree.tokens[node] for node in path[1:]), last.token]
        response = CrossResponse(*tree.requests[row].row, tree.requests[row].prompt_ids, completion)
        response.primary_ids = [primary[node] for node in path]
        response.intervention_ids = [arm.intervention_ids[node] for node in path]
        response.scores = [scores[node] for node in path]
        replaced = 0
        for score, disagreed in zip(response.scores, response.disagreed, strict=True):
            switched = score > threshold and (plan.most is None or replaced < plan.most)
            replaced += switched and disagreed
            response.switched.append(switched)
        pairs = zip(path, response.switched, strict=True)
        response.js = [arm.js[node] if switched else nan for node, switched in pairs]
        return response
