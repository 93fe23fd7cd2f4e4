"""What sub-layers and layers do to the residual stream while the model runs, nothing removed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pruning import SubLayer

Subject = SubLayer | int
"""What is measured: a sub-layer, or a whole layer by its index."""


class Activity:
    """An Observer (see `evaluation`) that measures, each as one float32 number a window, on the CPU:

    * `influence[subject]`: 1 less the cosine between what enters and what leaves, mean over the tokens; 0 to 2, no
      unit. The "block influence" of ShortGPT (Men et al. 2024, arXiv 2403.03853), which is that of whole
      layers, here of sub-layers too; what enters and leaves is the residual stream.
    * `update[subject]`: the norm of what is added to the stream, divided by the norm of the stream that it is
      added to, mean over the tokens; no unit.
    * `angular[first, layers]`: the angle between what enters layer `first` and what enters the layer `layers` further
      on (for the last one: what leaves it), arccos(cosine) / pi, at the last token of each window, which alone depends
      on all of it; 0 to 1, no unit (Gromov et al. 2024, arXiv 2403.17887).

    What a pruned checkpoint lacks is not measured.
    """

    def __init__(self) -> None:
        self._influence: dict[Subject, list[Tensor]] = {}
        self._update: dict[Subject, list[Tensor]] = {}
        self._entered: dict[int, list[Tensor]] = {}  # last tokens of each window, (windows, hidden), by layer
        self._left: list[Tensor] = []
        self._layer: tuple[int, Tensor] | None = None  # which is running, and what entered it
        self._leaving: Tensor | None = None

    def __call__(self, sublayer: SubLayer, hidden: Tensor, update: Tensor) -> None:
        """Look at one sub-layer: what enters and what it adds, both (windows, tokens, hidden)."""
        index = sublayer.layer
        entering = hidden.float()  # perhaps no copy, and the stream goes on changing
        leaving = entering + update.to(hidden.device).float()
        if self._layer is None or self._layer[0] != index:
            self._close_layer(beginning_anew=self._layer is not None and index <= self._layer[0])
            self._layer = index, entering.clone()
            self._entered.setdefault(index, []).append(entering[:, -1].cpu().clone())
        self._measure(sublayer, entering, leaving)
        self._leaving = leaving

    @property
    def influence(self) -> Mapping[Subject, Tensor]:
        """See the class."""
        self._close_layer(beginning_anew=True)
        return {subject: torch.cat(parts) for subject, parts in self._influence.items()}

    @property
    def update(self) -> Mapping[Subject, Tensor]:
        """See the class."""
        self._close_layer(beginning_anew=True)
        return {subject: torch.cat(parts) for subject, parts in self._update.items()}

    def angular(self, num_layers: int) -> Mapping[tuple[int, int], Tensor]:
        """See the class; layers of which nothing is left are left by what enters them."""
        self._close_layer(beginning_anew=True)
        streams: list[Tensor] = [torch.cat(self._left)]
        for index in reversed(range(num_layers)):
            streams.append(torch.cat(self._entered[index]) if index in self._entered else streams[-1])
        streams.reverse()
        return {
            (first, last - first): _angle(streams[first], streams[last])
            for first in range(num_layers)
            for last in range(first + 1, num_layers + 1)
        }

    def _close_layer(self, *, beginning_anew: bool) -> None:
        if self._layer is None or self._leaving is None:
            return
        index, entering = self._layer
        self._measure(index, entering, self._leaving)
        if beginning_anew:  # it was the last one of a sweep
            self._left.append(self._leaving[:, -1].cpu())
        self._layer = self._leaving = None

    def _measure(self, subject: Subject, entering: Tensor, leaving: Tensor) -> None:
        influence = 1 - cosine_similarity(entering, leaving, dim=-1)
        update = (leaving - entering).norm(dim=-1) / entering.norm(dim=-1)
        self._influence.setdefault(subject, []).append(influence.mean(-1).cpu())
        self._update.setdefault(subject, []).append(update.mean(-1).cpu())


def _angle(left: Tensor, right: Tensor) -> Tensor:
    return cosine_similarity(left, right, dim=-1).clamp(-1, 1).arccos() / math.pi
