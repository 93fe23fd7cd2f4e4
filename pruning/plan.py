"""What is pruned: a frozen plan, to and from command-line lists, JSON files and a checkpoint's config."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, total_ordering
from os import PathLike
from pathlib import Path
from typing import Any, Self

from pruning.remote.per_layer_skip import ATTENTION, MLP, skipped_sublayers

from .errors import PlanError
from .untrusted_files import read_json, shortened

SELF_ATTN = "self_attn"
KINDS = (SELF_ATTN, "mlp")
_SKIP_WORD = {SELF_ATTN: ATTENTION, "mlp": MLP}

_INDEX = re.compile(r"-?[0-9]+")
_RANGE = re.compile(r"([0-9]+)-([0-9]+)")
_TOO_LONG = re.compile(r"[0-9]{10}")  # out of range whatever it says, and slow to read if it is long
# No decoder has more layers; a mistyped range must not fill the memory before it is checked against one.
_MOST_LAYERS = 100_000


@total_ordering
@dataclass(frozen=True, slots=True)
class SubLayer:
    """A sub-layer of a decoder layer: `layer` counts from 0, `kind` is "self_attn" or "mlp".

    Sub-layers are ordered as they run.

    >>> print(*sorted([SubLayer(10, "mlp"), SubLayer(10, "self_attn"), SubLayer(9, "mlp")]))
    layers.9.mlp layers.10.self_attn layers.10.mlp
    """

    layer: int
    kind: str

    @property
    def position(self) -> int:
        """How many sub-layers run before it in a model that lacks none."""
        return len(KINDS) * self.layer + KINDS.index(self.kind)

    def __lt__(self, other: "SubLayer") -> bool:
        return self.position < other.position

    def __str__(self) -> str:
        return f"layers.{self.layer}.{self.kind}"


def sublayers_of(num_hidden_layers: int) -> list[SubLayer]:
    """Return every sub-layer of a model of so many decoder layers, as they run."""
    return [SubLayer(layer, kind) for layer in range(num_hidden_layers) for kind in KINDS]


@dataclass(frozen=True)
class PrunePlan:
    """A set of sub-layers: the layer indexes whose `self_attn` and whose `mlp` are pruned, each sorted.

    Built from any iterables of int; see also `of`. Raises PlanError for an index that is not an int, is negative or
    appears twice; whether it is in range is known only beside a checkpoint: see `require_layers`.

    >>> plan = PrunePlan(self_attn=[12], mlp=range(11, 13))
    >>> SubLayer(11, "mlp") in plan, SubLayer(11, "self_attn") in plan
    (True, False)
    >>> print(*plan)
    layers.11.mlp layers.12.self_attn layers.12.mlp
    """

    self_attn: tuple[int, ...] = ()
    mlp: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for kind in KINDS:
            object.__setattr__(self, kind, _sorted_indexes(kind, getattr(self, kind)))

    @classmethod
    def of(cls, sublayers: Iterable[SubLayer]) -> Self:
        """Build a plan from sub-layers. Raises PlanError for one that comes twice, as the class does."""
        given = list(sublayers)
        return cls(**{kind: tuple(each.layer for each in given if each.kind == kind) for kind in KINDS})

    @classmethod
    def parse(cls, self_attn: str = "", mlp: str = "") -> Self:
        """Build a plan from command-line lists such as `"0,12,17-20"`; both ends of a range are included.

        Raises PlanError for anything that is not an index or a range, and for a range whose end comes first.
        """
        return cls(self_attn=tuple(_parse_list(SELF_ATTN, self_attn)), mlp=tuple(_parse_list("mlp", mlp)))

    @classmethod
    def from_dict(cls, plan: object) -> Self:
        """Build a plan from `{"self_attn": [...], "mlp": [...]}`; either may be left out. Raises PlanError."""
        if not isinstance(plan, Mapping):
            raise PlanError(f'the plan is {_short(plan)}, but should be {{"self_attn": [...], "mlp": [...]}}')
        for key in plan:
            if key not in KINDS:
                raise PlanError(f"the plan has the unknown key {_short(key)}: only 'self_attn' and 'mlp' are known")
        for kind, indexes in plan.items():
            if not isinstance(indexes, (list, tuple)):
                raise PlanError(f"{kind} is {_short(indexes)}, but should be a list of layer indexes")
        return cls(**plan)

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Self:
        """Read a plan from a JSON file in the form of `from_dict`. Raises PlanError, naming the file."""
        try:
            return cls.from_dict(read_json(Path(path), from_pipe=True))
        except ValueError as error:
            raise PlanError(f"{path}: {error}") from None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the plan from the dict of a checkpoint's `config.json`: its `per_layer_config`.

        Raises PlanError for skip words that are unknown, a layer named twice and an index out of range.
        """
        try:
            skipped = skipped_sublayers(config.get("per_layer_config"), layer_count(config))
        except ValueError as error:
            raise PlanError(str(error)) from None
        return cls.of(
            SubLayer(layer, kind)
            for layer, words in skipped.items()
            for kind, word in _SKIP_WORD.items()
            if word in words
        )

    def to_dict(self) -> dict[str, list[int]]:
        """Return `{"self_attn": [...], "mlp": [...]}`, the form of `from_dict`."""
        return {kind: list(getattr(self, kind)) for kind in KINDS}

    def to_lists(self) -> dict[str, str]:
        """Return the command-line lists by kind, as `parse` takes them: `{"self_attn": "12,17-20", ...}`."""
        return {kind: _format_list(getattr(self, kind)) for kind in KINDS}

    def to_file(self, path: str | PathLike[str]) -> None:
        """Write the plan as a JSON file that `from_file` reads."""
        Path(path).write_text(json.dumps(self.to_dict()) + "\n", encoding="utf-8")

    def to_per_layer_config(self, present: Mapping[Any, Any] | None = None) -> dict[str, dict[str, Any]]:
        """Return the `per_layer_config` that says this plan, in the order of the layers.

        Overrides of another kind in `present`, the mapping that was there, are kept; its skips are replaced.
        """
        layers: dict[int, dict[str, Any]] = {}
        for key, overrides in (present or {}).items():
            layers[int(key)] = {name: value for name, value in overrides.items() if name != "skip"}
        for each in self:
            layers.setdefault(each.layer, {}).setdefault("skip", []).append(_SKIP_WORD[each.kind])
        return {str(layer): layers[layer] for layer in sorted(layers) if layers[layer]}

    def require_layers(self, num_hidden_layers: int) -> None:
        """Raise PlanError if an index lies outside a model of `num_hidden_layers` decoder layers."""
        for each in self:
            if each.layer >= num_hidden_layers:
                raise PlanError(
                    f"{each.kind} index {each.layer} is out of range: "
                    f"the checkpoint has layers 0 to {num_hidden_layers - 1}"
                )

    @cached_property
    def sublayers(self) -> frozenset[SubLayer]:
        """The sub-layers that are pruned."""
        return frozenset(SubLayer(layer, kind) for kind in KINDS for layer in getattr(self, kind))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is pruned."""
        return not self.sublayers

    @property
    def whole_layers(self) -> tuple[int, ...]:
        """The layers of which nothing is left: both sub-layers are pruned."""
        return tuple(layer_idx for layer_idx in self.self_attn if layer_idx in self.mlp)

    def prunes(self, kind: str, layer: int) -> bool:
        """Whether a layer's sub-layer of a kind is pruned: `SubLayer(layer, kind) in plan`."""
        return SubLayer(layer, kind) in self

    def __contains__(self, sublayer: object) -> bool:
        return sublayer in self.sublayers

    def __iter__(self) -> Iterator[SubLayer]:
        return iter(sorted(self.sublayers))

    def __or__(self, other: "PrunePlan") -> "PrunePlan":
        return PrunePlan.of(self.sublayers | other.sublayers)

    def __and__(self, other: "PrunePlan") -> "PrunePlan":
        return PrunePlan.of(self.sublayers & other.sublayers)

    def __sub__(self, other: "PrunePlan") -> "PrunePlan":
        return PrunePlan.of(self.sublayers - other.sublayers)

    def __str__(self) -> str:
        if self.is_empty:
            return "nothing pruned"
        return ", ".join(f"{kind} {text}" for kind, text in self.to_lists().items() if text)


def layer_count(config: Mapping[str, Any]) -> int:
    """Return `num_hidden_layers` of a config dict; raises ValueError if it is missing or no positive int."""
    count = config.get("num_hidden_layers")
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MOST_LAYERS:
        raise ValueError(f"num_hidden_layers is {_short(count)}, but should be a positive number of layers")
    return count


def _sorted_indexes(kind: str, indexes: object) -> tuple[int, ...]:
    if isinstance(indexes, (str, bytes)) or not isinstance(indexes, Iterable):
        raise PlanError(f"{kind} is {_short(indexes)}, but should be layer indexes such as (12, 17)")
    seen: set[int] = set()
    for index in indexes:
        if not isinstance(index, int) or isinstance(index, bool):
            raise PlanError(f"{kind} index {_short(index)} is not an integer: layers are numbered 0, 1, 2, ...")
        if index < 0:
            raise PlanError(f"{kind} index {_short(index)} is negative: layers are numbered from 0")
        if index >= _MOST_LAYERS:
            raise PlanError(_out_of_range(f"{kind} index {_short(index)}"))
        if index in seen:
            raise PlanError(f"{kind} index {index} is named twice: name each layer once")
        seen.add(index)
    return tuple(sorted(seen))


def _parse_list(kind: str, text: str) -> list[int]:
    indexes: list[int] = []
    for item in (part.strip() for part in text.split(",") if text.strip()):
        if not _INDEX.fullmatch(item) and not _RANGE.fullmatch(item):
            raise PlanError(f"{kind} item {_short(item)} is not an integer or a range such as 12 or 17-20")
        if _TOO_LONG.search(item):
            raise PlanError(_out_of_range(f"{kind} item {_short(item)}"))
        if range_match := _RANGE.fullmatch(item):
            first, last = map(int, range_match.groups())
            if last < first:
                raise PlanError(f"{kind} range {item} is empty: {last} comes before {first}; write {last}-{first}")
            if last - first >= _MOST_LAYERS:
                raise PlanError(f"{kind} range {item} is longer than any model: check its ends")
            indexes.extend(range(first, last + 1))
        else:
            indexes.append(int(item))
    return indexes


def _format_list(indexes: tuple[int, ...]) -> str:
    runs: list[list[int]] = []
    for index in indexes:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _out_of_range(what: str) -> str:
    return f"{what} is out of range: no model has layers beyond {_MOST_LAYERS - 1}"


def _short(value: object) -> str:
    return shortened(value, 60)
