"""What removing sub-layers does to a model's predictions, for many removals in one sweep over its layers.

A removal changes nothing before the first sub-layer that it removes, so its stream branches off there. Those that have
branched off pass each later sub-layer together, in batches, so each layer's weights are touched once a sweep, which
counts most where they lie on the disk. The head comes last, for one piece of the tokens at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import count
from typing import Any, Final

import torch
from torch import Tensor

from pruning import PrunePlan, SubLayer

from .outcomes import PREDICTIONS, Outcome, compared, joined
from .sublayers import SublayerModel, weights_at_hand

STREAM_BYTES: Final = 2**29
"""How much memory the streams of one sweep may take unless something else is asked for."""

# Tokens that pass a sub-layer together: enough for matrix products at full speed, few enough for a processor's cache.
_TOKENS_AT_ONCE: Final = 1024
_NOTHING: Final = PrunePlan()

Observer = Callable[[SubLayer, Tensor, Tensor], None]
"""Called with each sub-layer, what entered, and its update, both (windows, tokens, hidden)."""

ShareDone = Callable[[float], None]
"""Called as an evaluation goes on, with the share of it that is done, 0 to 1, counted in layers."""


class Evaluator:
    """Evaluates a model without this or that, on windows of text.

    Args:
        model: A causal language model, stock or pruned, in evaluation mode, wherever its weights lie.
        windows: Token ids, int64 (windows, tokens), without padding, at least two tokens each.
        predictions: Those of PREDICTIONS that are wanted.
        stream_bytes: About how much memory the streams of one sweep may take; more of them take several sweeps.
        share_done: See ShareDone.

    Raises CannotRun for a model whose layers cannot be run by halves.
    """

    def __init__(
        self,
        model: Any,
        windows: Tensor,
        *,
        predictions: Collection[str] = PREDICTIONS,
        stream_bytes: int = STREAM_BYTES,
        share_done: ShareDone | None = None,
    ) -> None:
        self._sublayers = SublayerModel(model)
        self._windows = windows
        self._predictions = frozenset(predictions)
        self._stream_bytes = stream_bytes
        self._share_done = share_done
        self._full_streams: list[Tensor] = []  # of each window: what leaves the last layer, (tokens, hidden)
        self._full: Outcome | None = None

    @property
    def num_layers(self) -> int:
        """How many decoder layers the model has."""
        return self._sublayers.num_layers

    @property
    def pruned(self) -> PrunePlan:
        """What the model lacks already, which cannot be removed again."""
        return self._sublayers.pruned

    @property
    def full(self) -> Outcome:
        """The model as it is. Raises CannotRun if its logits are not finite."""
        if self._full is None:
            self._evaluate((), _NOTHING)
        assert self._full is not None
        return self._full

    def without(
        self, candidates: Collection[PrunePlan], removed: PrunePlan = _NOTHING, observe: Observer | None = None
    ) -> dict[PrunePlan, Outcome]:
        """Return the outcome of removing `removed`, and each candidate on top of it, by candidate in their order.

        A candidate is any number of sub-layers. `observe` looks on while the stream runs that lacks `removed` alone;
        the windows may come in several parts. Where no predictions are wanted the outcomes are empty, and no head runs.

        Raises ValueError for a candidate that removes nothing more, and for one that removes what the model has not;
        CannotRun if the logits of the full model are not finite.
        """
        there = PrunePlan.of(self._sublayers.there)
        for candidate in candidates:
            if (candidate - removed).is_empty or not ((candidate | removed) - there).is_empty:
                raise ValueError(f"{candidate} cannot be removed on top of: {removed | self.pruned}")
        if not removed.is_empty:
            self.full  # noqa: B018  # what the others are compared with
        return self._evaluate(candidates, removed, observe)

    @torch.inference_mode()
    def _evaluate(
        self, candidates: Collection[PrunePlan], removed: PrunePlan, observe: Observer | None = None
    ) -> dict[PrunePlan, Outcome]:
        # In the order in which they branch off, so that those that have are always the first ones.
        ordered = sorted(dict.fromkeys(candidates), key=lambda each: min(each - removed))
        found: dict[PrunePlan, list[Outcome]] = {candidate: [] for candidate in candidates}
        full: list[Outcome] = []
        full_streams: list[Tensor] = []
        model = self._sublayers.model
        window_bytes = self._windows.shape[1] * int(model.config.hidden_size) * int(model.dtype.itemsize)
        size, at_once = portions(len(ordered), window_bytes, self._stream_bytes)
        groups = [ordered[first : first + size] for first in range(0, len(ordered), max(size, 1))] or [[]]
        layer_done = self._counted(-(-len(self._windows) // at_once) * len(groups) * self.num_layers)
        for first in range(0, len(self._windows), at_once):
            ids = self._windows[first : first + at_once]
            embedded = self._sublayers.embedded(ids)
            for number, group in enumerate(groups):
                removals = [removed, *(removed | each for each in group)]
                streams = self._sweep(embedded, removals, observe if number == 0 else None, layer_done)
                known = self._full_streams[first : first + at_once]
                reference = streams[0] if removed.is_empty else torch.stack(known)
                own, *outcomes = self._compared(ids, [reference, *streams[1:]])
                for each, outcome in zip(group, outcomes, strict=True):
                    found[each].append(outcome)
            if removed.is_empty:
                full.append(own)
                full_streams.extend(reference.clone())
        if removed.is_empty:
            self._full, self._full_streams = joined(full), full_streams
        return {each: joined(parts) for each, parts in found.items()}

    def _counted(self, layers: int) -> Callable[[], None]:
        """Return what is called after each of so many layers, and says how far that is."""
        done = count(1)

        def layer_done() -> None:
            if self._share_done is not None:
                self._share_done(next(done) / layers)

        return layer_done

    def _sweep(
        self,
        embedded: Tensor,
        removals: Sequence[PrunePlan],
        observe: Observer | None,
        layer_done: Callable[[], None],
    ) -> Tensor:
        """Return what leaves the last layer without each of `removals`, (removals, rows, tokens, hidden).

        The first is contained in all others, which come in the order in which they branch off from it.
        """
        rows, tokens, _ = embedded.shape
        streams = embedded.new_empty((len(removals), *embedded.shape))
        streams[0] = embedded
        flat = streams.flatten(0, 1)
        branching = [min(removal - removals[0]) for removal in removals[1:]]
        branched = 1
        with self._sublayers.by_halves(tokens) as update_of:
            for index, layer in enumerate(self._sublayers.layers):
                with weights_at_hand(layer):
                    for sublayer in (each for each in self._sublayers.there if each.layer == index):
                        while branched < len(removals) and branching[branched - 1] == sublayer:
                            streams[branched] = streams[0]
                            branched += 1
                        alone = observe is not None and sublayer not in removals[0]
                        if observe is not None and alone:
                            update = update_of(sublayer, streams[0])
                            observe(sublayer, streams[0], update)
                            streams[0] += update.to(streams.device)
                        running = [
                            number * rows + row
                            for number in range(int(alone), branched)
                            if sublayer not in removals[number]
                            for row in range(rows)
                        ]
                        for part in _runs(running, max(1, _TOKENS_AT_ONCE // tokens)):
                            flat[part] += update_of(sublayer, flat[part]).to(flat.device)
                layer_done()
        return streams

    def _compared(self, ids: Tensor, streams: Sequence[Tensor]) -> list[Outcome]:
        if not self._predictions:
            return [Outcome() for _ in streams]
        return compared(ids, streams, self._sublayers.logits, self._predictions, self._sublayers.vocabulary_size)


def portions(candidates: int, window_bytes: int, stream_bytes: int = STREAM_BYTES) -> tuple[int, int]:
    """Return how many of the candidates a sweep takes, and how many windows: as many as memory allows.

    `window_bytes` are those of the hidden states of one window. All candidates come first: a sweep takes them all if
    at least one window of them fits.
    """
    most = max(2, stream_bytes // window_bytes)
    size = min(candidates, most - 1)
    return size, max(1, most // (size + 1))


def _runs(indexes: Sequence[int], longest: int) -> Iterator[slice]:
    """Yield slices that together are `indexes`, which are sorted, none longer than `longest`."""
    first = 0
    for last in range(1, len(indexes) + 1):
        if last == len(indexes) or last - first == longest or indexes[last] != indexes[last - 1] + 1:
            yield slice(indexes[first], indexes[last - 1] + 1)
            first = last
