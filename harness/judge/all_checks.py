"""Every property that is checked, in the order that goes from cheap to dear and from cause to consequence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Final

from harness.checks.check import Check, Numbers
from harness.checks.loaded.cache import cache, cache_properties
from harness.checks.loaded.loading import buffers, load, placement, quantised_modules, resident_values
from harness.checks.loaded.logits import identity, zero_weights
from harness.checks.loaded.round_trip import offloaded_save, prune_again, round_trip
from harness.checks.loaded.running import called_parts, poison, repeatable, two_loads
from harness.checks.loaded.text import text
from harness.checks.stored.config import config, plan
from harness.checks.stored.files import files
from harness.checks.stored.keys import keys, tied_head
from harness.checks.stored.model_class import code_files, model_class
from harness.checks.stored.tokenizer import tokenizer_files
from harness.checks.stored.values import base_bytes, finite_values, manifest_bytes
from harness.models.batches import BATCHES
from harness.models.modes import LoadingMode

_STORED: Final[dict[str, Callable[[Any], Numbers]]] = {
    "stored.files": files,
    "stored.config": config,
    "stored.class": model_class,
    "stored.code": code_files,
    "stored.plan": plan,
    "stored.keys": keys,
    "stored.tied-head": tied_head,
    "stored.base-bytes": base_bytes,
    "stored.manifest-bytes": manifest_bytes,
    "stored.values": finite_values,
    "stored.tokenizer": tokenizer_files,
    "stored.prune-again": prune_again,
}


def checks(
    modes: Iterable[LoadingMode], *, given: bool = False, too_large: Collection[LoadingMode] = ()
) -> Iterator[Check]:
    """Yield every check: those of what is stored, then those of each loading mode; `given`: a model that is loaded.

    A mode that cannot run here, or whose models are `too_large`, has one check alone, which says so.
    """
    for name, run in _STORED.items():
        yield Check(name, run)
    for mode in modes:
        properties = _of_mode(mode, given)
        if mode.missing or mode in too_large:
            properties = islice(properties, 1)
        for name, run in properties:
            yield Check(name, run, mode)


def _of_mode(mode: LoadingMode, given: bool) -> Iterator[tuple[str, Callable[[Any], Numbers]]]:
    plain = mode.place in ("plain", "gpu") or given
    exact = mode.precision == "float32" and plain
    yield "load", load
    yield "placement", placement
    if mode.is_quantised:
        yield "quantised-modules", quantised_modules
    else:
        yield "resident", resident_values
        yield "buffers", buffers
    if plain:
        yield "repeatable", repeatable
    yield "called", called_parts
    if plain and not mode.is_quantised:
        yield "poison", poison
    if exact and not given:
        yield "two-loads", two_loads
    for kind in BATCHES if plain or mode.place == "disk-all" else ("random", "left-padded"):
        yield f"logits.identity.{kind}", partial(identity, kind=kind)
    if plain and not mode.is_quantised:
        yield "logits.zero-weights", zero_weights
    for kind, use in cache_properties():
        # Beyond one plain mode in full, each precision and place runs what its own kernels and hooks could break.
        if exact or (use in ("one-step-at-a-time", "left-padded") and (kind == "dynamic" or plain) and kind != "none"):
            yield f"cache.{kind}.{use}", partial(cache, kind=kind, use=use)
    if exact and not given:
        yield "round-trip", round_trip
    if given and mode.is_offloaded:
        yield "save", offloaded_save
    if plain or mode.is_quantised:
        for how in ("greedy",) if mode.is_quantised else ("greedy", "sampled"):  # which quantised models are slow at
            yield f"text.{how}", partial(text, how=how)


def selected(every: Iterable[Check], expression: str | None) -> list[Check]:
    """Return the checks whose name an expression in the syntax of pytest's `-k` matches; raises ValueError."""
    if not expression:
        return list(every)
    from _pytest.mark.expression import Expression  # what `-k` itself uses (pytest 8 and 9); there is no public name

    try:
        compiled = Expression.compile(expression)
    except Exception as error:  # a syntax error whose class differs between versions
        raise ValueError(f"-k {expression!r} is no expression: {error}") from None

    def matches(check: Check) -> bool:
        def is_in_the_name(word: str, /, **_: str | int | bool | None) -> bool:
            return word.lower() in check.name.lower()

        return compiled.evaluate(is_in_the_name)

    return [check for check in every if matches(check)]
