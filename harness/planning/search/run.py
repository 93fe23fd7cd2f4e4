"""Search a plan from end to end: load the model, evaluate what the method asks for, keep it, write plan and record."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from harness.errors import CannotRun
from harness.models.modes import LoadingMode
from harness.planning.scan.record import Window
from harness.planning.sweep.calibration_text import Windows, bundled_texts, cut, read_texts
from harness.planning.sweep.evaluation import Evaluator
from harness.planning.sweep.journal import Journal, opened
from harness.planning.sweep.model import choose_mode, load_model, load_tokenizer, weights_digest
from harness.report.files import write_text
from harness.subject.environment import environment
from harness.subject.subject import read_subject
from harness.system.libraries import quiet_libraries
from harness.system.scratch import scratch_folder
from pruning import PrunePlan
from pruning.files.source import Source, find_checkpoint, read_source
from pruning.plan import layer_count, sublayers_of

from .methods import METHODS, Budget, Values, mean, search
from .record import Search, Step

RECORD_FILE: Final = "search.json"
PLAN_FILE: Final = "plan.json"

Progress = Callable[[float, int, str], None]
"""Called with how many evaluations are done, in parts too, how many are known to be needed, and what of."""


def search_plan(
    source: str | Path,
    *,
    out: Path,
    drop: int | None = None,
    keep_bytes: float | None = None,
    max_nll_rise: float | None = None,
    method: str = "greedy",
    width: int = 3,
    texts: Sequence[Path] = (),
    tokens: int = 1024,
    device_map: str | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> Search:
    """Choose a plan under a budget, and write it, and the record of how it came about, to `out`.

    What is evaluated is written to `out` as it comes. The same call goes on where an earlier one was interrupted, and
    comes to the same; one with another budget or method uses what it needs too. Nothing is drawn at random.

    Args:
        source: A checkpoint of the stock class, or one that prunecheck pruned: a directory, or a hub id.
        out: A directory, made if need be, for `plan.json`, `search.json` and what is evaluated meanwhile.
        drop: Remove so many sub-layers.
        keep_bytes: Remove until at most this share of the bytes of the checkpoint's tensors is left, 0 to 1.
        max_nll_rise: Remove as long as the mean negative log likelihood rises by at most so many nats per token.
        method: Of METHODS; see `methods.search`.
        width: How many plans of each size "beam" goes on with.
        texts: Files of UTF-8 text; the bundled texts without them.
        tokens: How many tokens of text are used at most, in windows of 128, or of `tokens` if that is less.
        device_map: A place of `harness.models.modes`; without it plain, or the disk for what does not fit in memory.
        dtype: "float32" or "bfloat16"; without it the one that is stored.
        progress: See Progress.

    Raises:
        CannotRun: Not exactly one budget is given, or none that can be met; text, options, tokenizer or `out` are not
            what they must be, or the model does not load or run.
        PruningError: The checkpoint is none, or not sound.
    """
    given = {"--drop": drop, "--keep-bytes": keep_bytes, "--max-nll-rise": max_nll_rise}
    asked = {name: value for name, value in given.items() if value is not None}
    if len(asked) != 1:
        raise CannotRun(f"give one of --drop, --keep-bytes and --max-nll-rise, not {' and '.join(asked) or 'none'}")
    if method not in METHODS:
        raise CannotRun(f"--method {method} is unknown: choose among {', '.join(METHODS)}")
    root = find_checkpoint(source)
    stored, checkpoint = read_subject(root), read_source(root)
    sublayers = _sublayers(checkpoint)
    sizes = {each: sum(tensor.size for tensor in checkpoint.tensors_under(each)) for each in sublayers}
    whole = sum(tensor.size for tensor in checkpoint.tensors())
    budget = _budget(drop, keep_bytes, max_nll_rise, len(sublayers), sizes, whole)
    mode = choose_mode(checkpoint, device_map, dtype)
    with quiet_libraries():
        text = read_texts(texts) if texts else bundled_texts()
        windows = cut(text, load_tokenizer(checkpoint), tokens, int(checkpoint.config["vocab_size"]))
    subject = {
        "checkpoint": weights_digest(checkpoint), "text or --tokens": windows.digest, "--device-map": device_map,
        "--dtype": mode.precision,
    }  # fmt: skip
    with opened(out, subject, {"place": mode.place}, of="search") as journal, ExitStack() as stack:
        mode = choose_mode(checkpoint, journal.header["place"], mode.precision)
        evaluations = _Evaluations(checkpoint, mode, windows.ids, journal, stack, progress)
        full = evaluations([PrunePlan()], PrunePlan())[PrunePlan()]
        removals = search(sublayers, sizes, whole, full, evaluations, budget, method=method, width=width)
        if not removals:
            _raise_unmet(asked, evaluations, sublayers, full)
        record = Search(
            checkpoint=str(checkpoint.root),
            pruned=checkpoint.plan.to_dict(),
            layers=layer_count(checkpoint.config),
            bytes=whole,
            mode=mode.name,
            method=method,
            width=width if method == "beam" else 1,
            budget=asked,
            window_tokens=windows.ids.shape[1],
            windows=_described(windows, full),
            steps=tuple(
                Step(
                    removed=step.removed.to_dict(),
                    plan=step.plan.to_dict(),
                    kept_bytes=whole - sum(size for each, size in sizes.items() if (each - step.plan).is_empty),
                    nll=step.values,
                )
                for step in removals
            ),
            environment=environment(
                stored, texts=list(map(str, texts)), tokens=tokens, device_map=device_map, dtype=dtype
            ),
        )
        write_text(out / RECORD_FILE, json.dumps(record.to_dict(), indent=2) + "\n")
        write_text(out / PLAN_FILE, json.dumps(record.plan.to_dict()) + "\n")
    return record


def _sublayers(source: Source) -> list[PrunePlan]:
    """Return what is there to be removed, one sub-layer each, in the order of the layers."""
    return [PrunePlan.of([each]) for each in sublayers_of(layer_count(source.config)) if each not in source.plan]


def _budget(
    drop: int | None,
    keep_bytes: float | None,
    max_nll_rise: float | None,
    most: int,
    sizes: Mapping[PrunePlan, int],
    whole: int,
) -> Budget:
    """Return the budget; raises CannotRun, in one line, for one that no plan can meet."""
    if drop is not None:
        if not 1 <= drop <= most:
            raise CannotRun(f"--drop {drop} cannot be met: the checkpoint has {most} sub-layers to remove, 1 at least")
        return Budget(drop=drop)
    if keep_bytes is not None:
        least = 1 - sum(sizes.values()) / max(whole, 1)
        if not least <= keep_bytes < 1:
            raise CannotRun(
                f"--keep-bytes {keep_bytes:g} cannot be met: {least:.4f} is left without any sub-layer, and 1 is all"
            )
        return Budget(most_bytes=math.floor(keep_bytes * whole))
    if max_nll_rise is None or not math.isfinite(max_nll_rise) or max_nll_rise < 0:
        raise CannotRun(f"--max-nll-rise {max_nll_rise} is no rise: give nats per token, from 0 on, such as 0.3")
    return Budget(most_rise=max_nll_rise)


def _raise_unmet(
    asked: Mapping[str, float], evaluate: _Evaluations, sublayers: Sequence[PrunePlan], full: Values
) -> None:
    (option, value), *_ = asked.items()
    if option != "--max-nll-rise":
        raise CannotRun(f"{option} {value:g} cannot be met: on the way the logits are no longer finite")
    alone = evaluate(sublayers, PrunePlan())
    least = min(sublayers, key=lambda each: mean(alone[each]))
    rise = mean(alone[least]) - mean(full)
    raise CannotRun(f"{option} {value:g} leaves nothing to remove: {least}, the least missed, costs {rise:.3g} nats")


def _described(windows: Windows, full: Values) -> tuple[Window, ...]:
    return tuple(Window(*place, nll) for place, nll in zip(windows.places, full, strict=True))


class _Evaluations:
    """Evaluates plans, and remembers in a journal what they came to; the model is loaded when one is new.

    What is asked for together is computed together and kept together: how sums are rounded depends on it, so that a
    search that goes on comes to the numbers of one that was not interrupted.
    """

    def __init__(
        self,
        source: Source,
        mode: LoadingMode,
        ids: Tensor,
        journal: Journal,
        stack: ExitStack,
        progress: Progress | None,
    ) -> None:
        self._source, self._mode, self._ids = source, mode, ids
        self._journal, self._stack, self._progress = journal, stack, progress
        self._known = {_key(entry["removed"], entry["plans"]): entry["nll"] for entry in journal.entries}
        self._evaluator: Evaluator | None = None
        self._done = 0
        self._asked = (0, "")

    def __call__(self, plans: Collection[PrunePlan], removed: PrunePlan) -> dict[PrunePlan, Values]:
        """Return the mean negative log likelihood without each plan, by plan; all of them contain `removed`."""
        described = [plan.to_dict() for plan in plans]
        key = _key(removed.to_dict(), described)
        if key not in self._known:
            measured = self._measured(plans, removed)
            self._journal.add({"removed": removed.to_dict(), "plans": described, "nll": measured})
            self._known[key] = measured
        self._done += len(plans)
        return {plan: tuple(values) for plan, values in zip(plans, self._known[key], strict=True)}

    def _measured(self, plans: Collection[PrunePlan], removed: PrunePlan) -> list[list[float | None]]:
        self._asked = (len(plans), f"on top of: {removed}")
        self._show(0.0)
        if self._evaluator is None:
            self._stack.enter_context(quiet_libraries())
            folder = self._stack.enter_context(scratch_folder())
            model = load_model(self._source, self._mode, folder)
            self._evaluator = Evaluator(model, self._ids, predictions=("nll",), share_done=self._show)
        evaluator = self._evaluator
        of_plans = {} if list(plans) == [removed] else evaluator.without(list(plans), removed)
        outcomes = [of_plans[plan] if of_plans else evaluator.full for plan in plans]
        return [[_number(value) for value in _nll(outcome)] for outcome in outcomes]

    def _show(self, share: float) -> None:
        plans, text = self._asked
        if self._progress is not None:
            self._progress(self._done + share * plans, self._done + plans, text)


def _nll(outcome: Any) -> list[float]:
    values: list[float] = outcome.nll.double().mean(-1).tolist()
    return values


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _key(removed: Any, plans: Any) -> str:
    return json.dumps([removed, plans])
