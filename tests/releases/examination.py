"""Examine the running release of transformers: is ours right in each property, and if not, is stock?

    python -m tests.releases.examination RECORD.json

Each property is a function that yields cases: a name, ours as a function that raises where it is wrong, and the same of
the untouched stock model. A case in which both are wrong is upstream's failure.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from benchmarks.least_code import with_least_code
from harness.faults import FAULTS, SOUND_VARIANTS, plant
from harness.judge.judge import check_checkpoint
from harness.reference.models import identity_reference, load_stock, reference_logits, zero_weight_reference
from harness.reference.tolerances import assert_logits_close
from harness.strategies import plans, tiny_specs
from harness.system.libraries import quiet_libraries
from harness.tiny import TinySpec
from pruning import PrunePlan, load_pruned
from pruning.families import FAMILIES

from .cases import (
    CACHES,
    GENERATIONS,
    LAYERS,
    PIECES,
    PLANS,
    Compared,
    Pair,
    batch,
    in_generate,
    through_cache,
    write_pair,
)
from .elsewhere import logits_elsewhere

Run = Callable[[], None]
Case = tuple[str, Run, Run]

_DRAWN = 10  # checkpoints with a plan each
_OF_EACH = 10  # sound variants, and faults


@dataclass
class Cell:
    """What a release makes of a property: how many cases are right, and what upstream, or ours, gets wrong."""

    right: int = 0
    upstream: list[str] = field(default_factory=list)
    ours: list[str] = field(default_factory=list)


def examine(cases: Iterator[Case]) -> Cell:
    """Run the cases of a property."""
    cell = Cell()
    for name, ours, stock in cases:
        if (wrong := _failure(ours)) is None:
            cell.right += 1
        elif (theirs := _failure(stock)) is not None:
            cell.upstream.append(f"{name}: {theirs}")
        else:
            cell.ours.append(f"{name}: {wrong}")
    return cell


def _failure(run: Run) -> str | None:
    """Return the first line of what a case raises, which may be anything: what a release cannot do, it says its way."""
    try:
        run()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    return None


def exactness(folder: Path) -> Iterator[Case]:
    """Drawn and chosen plans: logits without a cache are those of both references."""
    for name, pair in _pairs(folder):
        yield name, partial(_exact, pair), partial(load_stock, pair.base)
    numbers = iter(range(10**6))

    @settings(max_examples=_DRAWN, derandomize=True, database=None, deadline=None, suppress_health_check=HealthCheck)
    @given(data=st.data())
    def drawn(data: st.DataObject) -> None:
        spec = data.draw(tiny_specs(dtypes=("float32",)))
        _exact(write_pair(spec, data.draw(plans(spec.layers)), folder / f"drawn-{next(numbers)}"))

    yield f"{_DRAWN} drawn", drawn, lambda: None


def _exact(pair: Pair) -> None:
    ours, plan = load_pruned(pair.pruned), pair.plan
    ids = batch(padded=False).ids % ours.config.vocab_size
    got = reference_logits(ours, ids)
    for make, operation in ((identity_reference, "reference"), (zero_weight_reference, "zero_weight")):
        expected = reference_logits(make(pair.base, plan.self_attn, plan.mlp), ids)
        assert_logits_close(got, expected, dtype="float32", operation=operation, context=make.__name__)


def caches(folder: Path) -> Iterator[Case]:
    """Every cache in every use: logits are the reference's without a cache."""
    for plan_name, pair in _pairs(folder):
        ours, stock = load_pruned(pair.pruned), load_stock(pair.base)
        reference = identity_reference(pair.base, pair.plan.self_attn, pair.plan.mlp)
        for kind in CACHES:
            for use in PIECES:
                name, compare = f"{plan_name}, {kind} cache, {use}", partial(through_cache, kind=kind, use=use)
                yield name, partial(_close, compare, ours, reference), partial(_close, compare, stock, stock)
        for use in GENERATIONS:
            name, compare = f"{plan_name}, {use}", partial(in_generate, use=use)
            yield name, partial(_close, compare, ours, reference), partial(_close, compare, stock, stock)


def _close(compare: Callable[..., Compared], model: Any, reference: Any) -> None:
    for got, expected, mask in compare(model, reference=reference):
        assert_logits_close(got, expected, dtype="float32", operation="padding", context="cached", mask=mask)


def quantised(folder: Path) -> Iterator[Case]:
    """8-bit and 4-bit: logits are those of the reference that is quantised alike."""
    options = {"8bit": {"load_in_8bit": True}, "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}
    for plan_name, pair in _pairs(folder):
        for precision, option in options.items():
            load = partial(load_stock, pair.base, quantization_config=BitsAndBytesConfig(**option), dtype=torch.float32)
            yield f"{plan_name}, {precision}", partial(_quantised_alike, pair, precision, option), load


def _quantised_alike(pair: Pair, precision: str, option: dict[str, Any]) -> None:
    keywords: dict[str, Any] = {"quantization_config": BitsAndBytesConfig(**option), "dtype": torch.float32}
    ids = batch(padded=False).ids
    got = reference_logits(load_pruned(pair.pruned, **keywords), ids)
    expected = reference_logits(identity_reference(pair.base, pair.plan.self_attn, pair.plan.mlp, **keywords), ids)
    assert_logits_close(got, expected, dtype=precision, operation="reference", context=precision)


def round_trip(folder: Path) -> Iterator[Case]:
    """Own code in a process without prunecheck: the same logits to the bit, also when saved and loaded again there."""
    for name, pair in _pairs(folder):
        yield name, partial(_same_elsewhere, pair.pruned, load_pruned), partial(_same_elsewhere, pair.base, load_stock)


def _same_elsewhere(checkpoint: Path, load: Callable[[Path], Any]) -> None:
    ids = batch(padded=False).ids
    expected = reference_logits(load(checkpoint), ids)
    for number, got in enumerate(logits_elsewhere(checkpoint, ids)):
        if not torch.equal(got, expected):
            raise AssertionError(f"logits differ by {(got - expected).abs().max():.3g} after {number} round trips")


def sound_variants(folder: Path) -> Iterator[Case]:
    """The judge calls sound what is sound."""
    pair = _exam_pair(folder)
    for name in _plantable(SOUND_VARIANTS, pair):
        variant = folder / f"sound-{name}"
        yield name, partial(_judged, "sound", pair, name, variant), partial(_code_of_its_own, pair.base, variant)


def _code_of_its_own(base: Path, variant: Path) -> None:
    """Of a variant with others' code: the stock model, loaded by two classes that add nothing, is the stock model."""
    if any((variant / name).exists() for family in FAMILIES for name in family.code_names):
        return  # ours, which nothing of upstream's excuses
    with tempfile.TemporaryDirectory() as scratch:
        own = Path(scratch) / "least"
        with_least_code(base, own)
        model = AutoModelForCausalLM.from_pretrained(own, trust_remote_code=True)
        ids = batch(padded=False).ids
        expected = reference_logits(load_stock(base), ids)
        assert_logits_close(
            reference_logits(model, ids), expected, dtype="float32", operation="reference", context="stock"
        )


def faults(folder: Path) -> Iterator[Case]:
    """The judge calls faulty what is faulty: faults of as many families."""
    pair = _exam_pair(folder)
    of_each_family = {FAULTS[name].family: name for name in reversed(list(_plantable(FAULTS, pair, None)))}
    for name in sorted(of_each_family.values())[:_OF_EACH]:
        yield name, partial(_judged, "faulty", pair, name, folder / f"fault-{name.replace(':', '-')}"), lambda: None


def _exam_pair(folder: Path) -> Pair:
    path = folder / "exam"
    plan = PrunePlan(self_attn=[0, 2], mlp=[1, 2])
    if not path.exists():
        return write_pair(TinySpec(layers=LAYERS, layer_types="mixed"), plan, path)
    return Pair(path / "base", path / "pruned", plan)


def _plantable(library: Any, pair: Pair, limit: int | None = _OF_EACH) -> list[str]:
    names = [
        name
        for name, each in library.items()
        if each.plant is not None and each.needs() is None and each.requires(pair.pruned) is None
    ]
    return names[:limit]


def _judged(verdict: str, pair: Pair, name: str, destination: Path) -> None:
    if name in FAULTS:
        plant(name, pair.pruned, destination)
    else:
        planter = SOUND_VARIANTS[name].plant
        assert planter is not None  # of those that can be planted
        planter(pair.pruned, destination)
    report = check_checkpoint(
        destination,
        base=pair.base,
        plan=pair.plan,
        device_map=("plain",),
        dtype=("float32",),
        quantisation=(),
        trust_remote_code=True,
    )
    if report.verdict != verdict:
        why = [fault.cause for fault in report.faults] or list(report.findings)
        raise AssertionError(f"is judged {report.verdict}: {'; '.join(map(str, why))}")


def _pairs(folder: Path) -> Iterator[tuple[str, Pair]]:
    for name, (layer_types, plan) in PLANS.items():
        path = folder / name.replace(" ", "-")
        if not path.exists():
            write_pair(TinySpec(layers=LAYERS, layer_types=layer_types), plan, path)
        yield name, Pair(path / "base", path / "pruned", plan)


PROPERTIES: dict[str, Callable[[Path], Iterator[Case]]] = {
    "exact": exactness,
    "caches": caches,
    "8-bit, 4-bit": quantised,
    "own code": round_trip,
    "sound is sound": sound_variants,
    "faulty is faulty": faults,
}


def main(record: Path) -> None:
    """Examine every property and write what came of it."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="examination_") as folder, quiet_libraries():
        cells = {}
        for name, cases in PROPERTIES.items():
            print(name, file=sys.stderr, flush=True)
            cells[name] = asdict(examine(cases(Path(folder))))
    record.write_text(json.dumps({"transformers": transformers.__version__, "cells": cells}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
