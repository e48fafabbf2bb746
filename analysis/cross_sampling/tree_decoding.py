"""Trees of prefixes decoded by two models: rows of a batch are prefixes, and one whose policies part becomes several.

Each prefix is read by both models once; it goes on in its row, or, where no row is free, waits and is read again from
its first token on when one is.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.cross_sampling.cached_policy import CachedPolicy, UncachedPolicy
from tokenshift.analysis.cross_sampling.criterion_registry import named_criterion
from tokenshift.analysis.cross_sampling.decoding_batch import ADMITTED, DecodingBatch
from tokenshift.analysis.cross_sampling.engines import FALLBACKS, check_requests, engine_for, warn_if_slow
from tokenshift.analysis.cross_sampling.intervention import Intervention, Pair, as_lists, drawn_positions
from tokenshift.analysis.cross_sampling.prefix_tree import (
    Arm,
    ArmRecords,
    Edge,
    Measured,
    PrefixTree,
    Records,
    TreePolicy,
)
from tokenshift.analysis.cross_sampling.tree_walk import Walk
from tokenshift.analysis.divergence.from_logits import log_probabilities
from tokenshift.analysis.divergence.placement import input_device
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.requests import Request

BLOCK = 32
"""Tokens that are read at once where the tokens are known: their logits are in memory together."""

SAVED_EVERY = 600
"""Seconds after which a tree that grows is saved: what a run that is killed has to decode again."""

Learn = Callable[[Sequence[Edge], Records], list[list[Edge]]]
"""Takes what became known after B edges, and gives for each the edges to go on with: none, one, or several."""


class TreeDecoder:
    """Base and RL, which decode prefixes of responses together.

    Another engine can stand in its place: `decode` is all that growing a tree asks of it.

    Args:
        base, rl: causal LMs on one device.
        tokenizer: the tokenizer of both models.
        sampling: settings of both policies.
        batch_size: prefixes at once.
        draws: one of `DRAWS`.

    Attributes:
        engine: the engine that decodes, by what the models' caches allow; see `engine_for`.
    """

    def __init__(
        self,
        base: Any,
        rl: Any,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        batch_size: int,
        draws: str,
    ) -> None:
        self.pair, self.sampling = Pair(base, rl, tokenizer), sampling
        self._batch_size, self._draws = batch_size, draws
        engine = engine_for(base, rl)
        warn_if_slow(base, rl, engine)
        self._movable = engine == "draft"
        self._padded = engine not in FALLBACKS
        self._policy_class = UncachedPolicy if engine == "lockstep without cache" else CachedPolicy
        self.engine = "tree" if self._movable else f"tree, {engine}"

    def tree(self, requests: Sequence[Request]) -> PrefixTree:
        """An empty tree of requests.

        Raises:
            ValueError: for a prompt that is empty, or leaves no room.
        """
        check_requests(self.pair, requests, self.sampling)
        return PrefixTree(requests, self.pair.ends, self.sampling.max_new_tokens, self.engine)

    def decode(self, tree: PrefixTree, edges: Sequence[Edge], measured: Measured, learn: Learn) -> None:
        """Run both models after edges of a tree, and after those that follow from what becomes known.

        Args:
            tree: gives prompts and prefixes.
            edges: the edges to begin with, whose tokens no model has read.
            measured: the arms and criteria of the records.
            learn: is told what became known; a node's records are told before those of its children.
        """
        waiting = list(edges)[::-1]
        prefixes = _Prefixes(tree)
        rows = self._begin(prefixes, self._next(tree, waiting, self._batch_size))
        while rows.alive:
            mask = torch.cat([rows.mask, torch.ones_like(rows.pending, dtype=torch.bool).unsqueeze(-1)], dim=1)
            base, rl = (
                log_probabilities(
                    policy.append(rows.pending.unsqueeze(-1), mask, keep=1)[:, 0, : self.pair.vocabulary],
                    temperature=self.sampling.temperature,
                )
                for policy in rows.policies
            )  # (b, V)
            keys = [tree.requests[tree.row(edge)].row for edge in rows.alive]
            records = self._measure(base, rl, keys, [tree.position(edge) for edge in rows.alive], measured)
            followers = learn(rows.alive, records)
            # each row goes on with its first edge; the others take rows that are free, or wait
            going = [index for index, new in enumerate(followers) if new]
            next_edges = [followers[index][0] for index in going]
            for index in list(going):
                for edge in followers[index][1:]:
                    if len(going) < self._batch_size:
                        going.append(index)
                        next_edges.append(edge)
                    else:
                        waiting.append(edge)
            rows.go_on([1] * len(mask), 1, going, [edge.token for edge in next_edges])
            rows.alive = next_edges
            free = self._batch_size - len(rows.alive)
            if waiting and not rows.alive:
                rows = self._begin(prefixes, self._next(tree, waiting, free))
            elif waiting and self._movable and free >= max(1, self._batch_size // ADMITTED):
                rows.admit(self._next(tree, waiting, free))

    def score(self, tree: PrefixTree, nodes: set[int], measured: Measured) -> None:
        """Fill in missing scores at nodes of a tree without decoding: both models read the tokens that are there.

        Args:
            tree: the tree.
            nodes: the nodes.
            measured: the arms and criteria of the records.
        """
        if self._movable:
            paths = _covering(tree, nodes)
            for start in range(0, len(paths), self._batch_size):
                self._score_paths(tree, paths[start : start + self._batch_size], measured)
            return
        leading = {node for path, _ in _covering(tree, nodes) for node in path}
        following: dict[int, list[Edge]] = {}
        for (parent, token), node in tree.children.items():
            if node in leading:
                following.setdefault(parent, []).append(Edge(parent, token))

        def learn(edges: Sequence[Edge], records: Records) -> list[list[Edge]]:
            read = [tree.children[edge] for edge in edges]
            tree.set_records(read, records)
            return [following.get(node, []) for node in read]

        self.decode(
            tree, [edge for parent, edges in following.items() if parent < 0 for edge in edges], measured, learn
        )

    def _score_paths(self, tree: PrefixTree, paths: Sequence[tuple[list[int], set[int]]], measured: Measured) -> None:
        """Read paths as one batch, some tokens at a time, and fill in missing scores at some of their nodes."""
        device = input_device(self.pair.primary)
        prompts = [tree.requests[tree.rows[path[0]]].prompt_ids for path, _ in paths]
        read = [
            [*prompt, *(tree.tokens[node] for node in path[1:])]
            for prompt, (path, _) in zip(prompts, paths, strict=True)
        ]
        longest = max(map(len, read))
        ids = torch.tensor([[*row, *[self.pair.pad] * (longest - len(row))] for row in read], device=device)
        lengths = torch.tensor([len(row) for row in read], device=device)
        mask = torch.arange(longest, device=device) < lengths.unsqueeze(-1)  # padding is on the right
        policies = [CachedPolicy(model) for model in (self.pair.primary, self.pair.intervention)]
        for start in range(0, longest, BLOCK):
            end = min(start + BLOCK, longest)
            spots = [
                (row, len(prompt) - 1 + depth - start, node)
                for row, (prompt, (path, wanted)) in enumerate(zip(prompts, paths, strict=True))
                for depth, node in enumerate(path)
                if node in wanted and start <= len(prompt) - 1 + depth < end
            ]
            logits = [policy.append(ids[:, start:end], mask[:, :end], keep=end - start) for policy in policies]
            if not spots:
                continue
            rows, columns, nodes = zip(*spots, strict=True)
            base, rl = (
                log_probabilities(
                    seen[list(rows), list(columns), : self.pair.vocabulary], temperature=self.sampling.temperature
                )
                for seen in logits
            )
            keys = [tree.requests[tree.rows[node]].row for node in nodes]
            tree.set_records(nodes, self._measure(base, rl, keys, [tree.depths[node] for node in nodes], measured))

    def _begin(self, prefixes: "_Prefixes", edges: Sequence[Edge]) -> DecodingBatch:
        models = self.pair.primary, self.pair.intervention
        return DecodingBatch(models, self.pair.pad, prefixes, edges, self._policy_class, movable=self._movable)

    def _next(self, tree: PrefixTree, waiting: list[Edge], free: int) -> list[Edge]:
        """Take edges from the end of those that wait: of one length where models need it.

        A single token has nothing before it to be read, and stands among others only where slots may be masked.
        """
        if self._movable:
            return [waiting.pop() for _ in range(min(free, len(waiting)))]
        lengths = [len(tree.requests[tree.row(edge)].prompt_ids) + tree.position(edge) for edge in waiting]
        kinds = [length == 1 for length in lengths] if self._padded else lengths
        taken = [index for index in range(len(waiting))[::-1] if kinds[index] == kinds[-1]][:free]
        edges = [waiting[index] for index in taken]
        for index in taken:
            del waiting[index]
        return edges

    def _measure(
        self,
        base: torch.Tensor,
        rl: torch.Tensor,
        rows: Sequence[tuple[int, int]],
        positions: Sequence[int],
        measured: Measured,
    ) -> Records:
        """Draw and score at B positions for every arm, from both models' log-probabilities `(B, V)`."""
        logps = {"base": base, "rl": rl}
        drawn = {name: coupled_draw(logp, rows, positions, **self.sampling.draw) for name, logp in logps.items()}
        found: dict[Arm, tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]] = {}
        for arm, criteria in measured.items():
            primary, intervention = arm.models
            entries = [named_criterion(name) for name in criteria]
            drawing = Intervention("all", gamma=arm.gamma, sharpening=arm.sharpening, draws=self._draws)
            plain = self._draws == "shared" and not arm.gamma and arm.sharpening is None
            scored = drawn_positions(
                logps[primary],
                logps[intervention],
                rows,
                positions,
                self.sampling,
                drawing,
                drawn[primary],
                drawn[intervention] if plain else None,
            )
            scored.compute(tuple(dict.fromkeys(["js", *(need for entry in entries for need in entry.needs)])))
            found[arm] = scored.intervention_drawn, scored.js, [entry.unchecked(scored) for entry in entries]
        # all at once: a device is waited for each time that values are taken from it
        tensors = [*drawn.values(), *(each for draws, js, scores in found.values() for each in (draws, js, *scores))]
        lists = iter(as_lists(tensors))
        ids = {name: next(lists) for name in drawn}
        arms = {
            arm: ArmRecords(
                next(lists),
                next(lists),
                {name: next(lists) for name in measured[arm]},
                dict(zip(measured[arm], (values.dtype for values in scores), strict=True)),
            )
            for arm, (_, _, scores) in found.items()
        }
        for records in arms.values():
            for name, values in records.scores.items():
                if unknown := sum(value != value for value in values):
                    raise named_criterion(name).no_numbers(unknown, len(values))
        return Records(ids, arms)


def _covering(tree: PrefixTree, nodes: set[int]) -> list[tuple[list[int], set[int]]]:
    """Paths that have nodes of a tree on them, the longest first, each with those that no path before it has."""
    left, paths = set(nodes), []
    for node in sorted(nodes, key=lambda node: (-tree.depths[node], node)):
        if node in left:
            path = tree.path(node)
            paths.append((path, left.intersection(path)))
            left.difference_update(path)
    return paths


class _Prefixes(dict[Edge, Request]):
    """Requests for what follows edges of a tree: the prompt with the completion so far, made when one is asked for."""

    def __init__(self, tree: PrefixTree) -> None:
        self._tree = tree

    def __missing__(self, edge: Edge) -> Request:
        request = self._tree.requests[self._tree.row(edge)]
        return Request(request.row, request.prompt_ids + self._tree.completion(edge))


def grow(
    tree: PrefixTree,
    policies: Sequence[TreePolicy],
    rows: Sequence[int],
    measured: Measured,
    decoder: Callable[[], TreeDecoder],
    save: Callable[[], None],
) -> int:
    """Decode the nodes of a tree that policies need and that are not there yet.

    Args:
        tree: grows.
        policies: the policies.
        rows: indices of the responses that are wanted of each.
        measured: the arms and criteria that are kept at new nodes, those of all policies among them.
        decoder: gives the models; called only if something is missing.
        save: keeps the tree; called now and then, and at the end if something is new.

    Returns:
        The number of positions at which both models were run anew.
    """
    before, saved = len(tree), time.monotonic()
    nodes, unknown = tree.missing(measured)
    if nodes:
        decoder().score(tree, nodes, unknown)
    walk = Walk(tree, policies, rows)

    def learn(edges: Sequence[Edge], records: Records) -> list[list[Edge]]:
        nonlocal saved
        tree.add(edges, records)
        if time.monotonic() - saved > SAVED_EVERY:
            save()
            saved = time.monotonic()
        return [walk.go_on(edge) for edge in edges]

    if walk.frontiers:
        decoder().decode(tree, list(walk.frontiers), measured, learn)
    if nodes or len(tree) > before:
        save()
    return len(tree) - before
