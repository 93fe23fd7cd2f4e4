"""Scan a checkpoint from end to end: load it, measure window by window, keep what was measured, make the record."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from harness.errors import CannotRun
from harness.planning.sweep.activity import Activity, Subject
from harness.planning.sweep.calibration_text import Windows, bundled_texts, cut, read_texts
from harness.planning.sweep.evaluation import Evaluator, ShareDone, portions
from harness.planning.sweep.journal import Journal, opened
from harness.planning.sweep.model import choose_mode, load_model, load_tokenizer, weights_digest
from harness.report.files import write_text
from harness.subject.environment import environment
from harness.subject.subject import read_subject
from harness.system.libraries import quiet_libraries
from harness.system.scratch import scratch_folder
from pruning import PrunePlan
from pruning.files.source import Source, find_checkpoint, read_source
from pruning.plan import KINDS, SubLayer, layer_count

from .estimate import METRICS
from .record import Contribution, Distance, Scan, Window

RECORD_FILE: Final = "scan.json"

# Where the weights need not be brought in for each sweep, one window at a time is fast enough, and kept soonest.
_RESIDENT: Final = ("plain", "gpu", "gpus")

Progress = Callable[[float, int, str], None]
"""Called with how many windows are done, in parts too, how many there are, and what is measured now."""


def scan_checkpoint(
    source: str | Path,
    *,
    out: Path,
    texts: Sequence[Path] = (),
    tokens: int = 1024,
    metrics: Sequence[str] = tuple(METRICS),
    device_map: str | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Measure what each self_attn, mlp and whole layer of a checkpoint does, and write the record to `out`.

    What is measured is written to `out` as it comes. The same call goes on where an earlier one was interrupted, and
    comes to the same numbers.

    Args:
        source: A checkpoint of the stock class, or one that prunecheck pruned: a directory, or a hub id.
        out: A directory, made if need be, for `scan.json` and what is measured meanwhile.
        texts: Files of UTF-8 text; the bundled texts without them.
        tokens: How many tokens of text are used at most, in windows of 128, or of `tokens` if that is less.
        metrics: Names of METRICS.
        device_map: A place of `harness.models.modes`; without it plain, or the disk for what does not fit in memory.
        dtype: "float32" or "bfloat16"; without it the one that is stored.
        progress: See Progress.

    Raises:
        CannotRun: Text, options, tokenizer or `out` are not what they must be, or the model does not load or run.
        PruningError: The checkpoint is none, or not sound.
    """
    chosen = tuple(name for name in METRICS if name in metrics)
    if not chosen or set(metrics) - METRICS.keys():
        raise CannotRun(f"metrics {', '.join(metrics)} are not all known: choose among {', '.join(METRICS)}")
    given = read_texts(texts) if texts else bundled_texts()
    root = find_checkpoint(source)
    stored = read_subject(root)
    checkpoint = read_source(root)
    mode = choose_mode(checkpoint, device_map, dtype)
    with quiet_libraries():
        windows = cut(given, load_tokenizer(checkpoint), tokens, int(checkpoint.config["vocab_size"]))
    subject = {
        "checkpoint": weights_digest(checkpoint), "text or --tokens": windows.digest, "--metric": list(chosen),
        "--device-map": device_map, "--dtype": mode.precision,
    }  # fmt: skip
    removals = _removals(checkpoint)
    at_once = 1 if mode.place in _RESIDENT else _windows_at_once(checkpoint, windows, len(removals), mode.precision)
    with opened(out, subject, {"place": mode.place, "windows_at_once": at_once}) as journal:
        # As it was begun: how weights are spread, and what is computed together, decides how sums are rounded.
        mode = choose_mode(checkpoint, journal.header["place"], mode.precision)
        _measure_the_rest(checkpoint, windows, removals, chosen, journal, mode, progress)
        options = {
            "texts": list(map(str, texts)), "tokens": tokens, "device_map": device_map, "dtype": dtype,
            "windows_at_once": journal.header["windows_at_once"],
        }  # fmt: skip
        measured = [window for entry in journal.entries for window in entry["windows"]]
        scan = Scan(
            checkpoint=str(checkpoint.root),
            plan=checkpoint.plan.to_dict(),
            layers=layer_count(checkpoint.config),
            mode=mode.name,
            metrics=chosen,
            window_tokens=windows.ids.shape[1],
            windows=tuple(Window(*place, each["nll"]) for place, each in zip(windows.places, measured, strict=True)),
            contributions=_contributions(removals, measured, _kept_shares(checkpoint, removals)),
            distances=_distances(measured),
            environment=environment(stored, **options),
        )
        write_text(out / RECORD_FILE, json.dumps(scan.to_dict(), indent=2) + "\n")
    return scan


def _removals(source: Source) -> dict[Subject, PrunePlan]:
    """Return what can be removed, in the order of the record: each sub-layer that is there, each layer that has any."""
    layers = range(layer_count(source.config))
    alone = [SubLayer(layer, kind) for kind in KINDS for layer in layers]
    removals: dict[Subject, PrunePlan] = {each: PrunePlan.of([each]) for each in alone}
    removals |= {layer: PrunePlan((layer,), (layer,)) for layer in layers}
    left = {subject: plan - source.plan for subject, plan in removals.items()}
    return {subject: plan for subject, plan in left.items() if not plan.is_empty}


def _named(subject: Subject) -> tuple[str, int]:
    """Return what a subject is called in journal and record: "self_attn", "mlp" or "layer", and the layer's index."""
    return ("layer", subject) if isinstance(subject, int) else (subject.kind, subject.layer)


def _windows_at_once(source: Source, windows: Windows, candidates: int, precision: str) -> int:
    itemsize = getattr(torch, precision).itemsize
    return portions(candidates, windows.ids.shape[1] * int(source.config["hidden_size"]) * itemsize)[1]


def _measure_the_rest(
    source: Source,
    windows: Windows,
    removals: Mapping[Subject, PrunePlan],
    metrics: Sequence[str],
    journal: Journal,
    mode: Any,
    progress: Progress | None,
) -> None:
    done, total = sum(len(entry["windows"]) for entry in journal.entries), len(windows.ids)
    with ExitStack() as stack:
        model = None
        while done < total:
            if progress is not None:
                progress(done, total, "loading" if model is None else windows.places[done][0])
            if model is None:
                stack.enter_context(quiet_libraries())
                folder = stack.enter_context(scratch_folder())
                model = load_model(source, mode, folder)
                continue
            ids = windows.ids[done : done + journal.header["windows_at_once"]]
            share_done = (
                None if progress is None else _in_parts(progress, done, len(ids), total, windows.places[done][0])
            )
            journal.add({"windows": _measured(model, ids, removals, metrics, share_done)})
            done += len(ids)


def _in_parts(progress: Progress, done: int, windows: int, total: int, text: str) -> ShareDone:
    return lambda share: progress(done + windows * share, total, text)


def _measured(
    model: Any,
    ids: Tensor,
    removals: Mapping[Subject, PrunePlan],
    metrics: Sequence[str],
    share_done: ShareDone | None,
) -> list[dict[str, Any]]:
    """Return for each of a few windows what the journal keeps of it."""
    of_removal = [name for name in metrics if METRICS[name].is_of_removal]
    activity = Activity() if len(of_removal) < len(metrics) else None
    evaluator = Evaluator(model, ids, predictions=of_removal, share_done=share_done)
    outcomes = evaluator.without(list(removals.values()) if of_removal else [], observe=activity)
    full_nll = evaluator.full.nll if of_removal else None
    values: dict[Subject, dict[str, Tensor]] = {subject: {} for subject in removals}
    for subject, plan in removals.items() if of_removal else ():
        for name, of_tokens in outcomes[plan].items():
            rise = of_tokens - full_nll if name == "nll" and full_nll is not None else of_tokens
            values[subject][name] = rise.double().mean(-1)
    distances: Mapping[tuple[int, int], Tensor] = {}
    if activity is not None:
        for name, measured in (("influence", activity.influence), ("update", activity.update)):
            for subject, each in measured.items() if name in metrics else ():
                values[subject][name] = each
        distances = activity.angular(evaluator.num_layers) if "angular" in metrics else {}
    return [
        {
            "nll": None if full_nll is None else _number(full_nll[row].double().mean()),
            "contributions": [
                [*_named(subject), {name: _number(each[row]) for name, each in of_one.items()}]
                for subject, of_one in values.items()
            ],
            "distances": [[*pair, _number(each[row])] for pair, each in distances.items()],
        }
        for row in range(len(ids))
    ]


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _kept_shares(source: Source, removals: Mapping[Subject, PrunePlan]) -> dict[tuple[str, int], float]:
    """Return which share of the bytes of all tensors is left without each of what can be removed."""
    whole = max(sum(tensor.size for tensor in source.tensors()), 1)
    return {
        _named(subject): 1 - sum(tensor.size for tensor in source.tensors_under(plan)) / whole
        for subject, plan in removals.items()
    }


def _contributions(
    removals: Mapping[Subject, PrunePlan],
    measured: Sequence[Mapping[str, Any]],
    kept_shares: Mapping[tuple[str, int], float],
) -> tuple[Contribution, ...]:
    by_subject: dict[tuple[str, int], dict[str, list[float | None]]] = {_named(each): {} for each in removals}
    for window in measured:
        for name, index, values in window["contributions"]:
            for metric, value in values.items():
                by_subject[name, index].setdefault(metric, []).append(value)
    return tuple(
        Contribution(*subject, {metric: tuple(each) for metric, each in values.items()}, kept_shares[subject])
        for subject, values in by_subject.items()
    )


def _distances(measured: Sequence[Mapping[str, Any]]) -> tuple[Distance, ...]:
    by_pair: dict[tuple[int, int], list[float | None]] = {}
    for window in measured:
        for first, layers, value in window["distances"]:
            by_pair.setdefault((first, layers), []).append(value)
    return tuple(Distance(*pair, tuple(values)) for pair, values in by_pair.items())
