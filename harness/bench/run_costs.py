"""What two loaded models cost: resident weights, prefill, decoding, and the KV cache, base and pruned in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.models.batches import random_ids
from harness.models.forward import input_device
from harness.models.resident import resident_weight_bytes_by_device
from harness.models.session import Session, first_line
from harness.subject.stock import stock_config_object
from harness.system.whose_error import raised_by
from pruning import PrunePlan

from .cost_model import NOTHING_PRUNED, cache_bytes, multiply_adds, step_bytes
from .inference import Generation, clock_tick, static_cache_bytes, timed_generation
from .measurement import Measurement, Prediction, counted

PREFILL, DECODE = "time to first token", "decode, a step"


@dataclass(frozen=True)
class Workload:
    """What the models are given: prompts of each length in batches of each size, and then single tokens."""

    prompt_tokens: tuple[int, ...]
    new_tokens: int
    batch: tuple[int, ...]
    repeats: int

    @property
    def settings(self) -> list[tuple[int, int]]:
        """Every batch size with every prompt length."""
        return [(batch, tokens) for batch in self.batch for tokens in self.prompt_tokens]


def running_costs(
    session: Session, workload: Workload, clock: list[float], step: Callable[[str], None]
) -> tuple[list[Measurement], list[str]]:
    """Return the costs of both models of a session, and notes; appends to `clock` between any two runs.

    Raises NotChecked if one of the models does not load, and whatever a model raises that does not run.
    """
    step(f"{session.mode.name}: loading both models")
    candidate = session.model  # first, since the reference takes its attention kernels
    models = (session.reference, candidate)
    costs = resident_costs(*models, session.subject.plan)
    notes: list[str] = []
    for batch, tokens in workload.settings:
        costs += _generation_costs(session, models, workload, batch, tokens, clock, step, notes)
    costs += _static_cost(session, models, workload, notes)
    return costs, notes


def resident_costs(base: Any, pruned: Any, plan: PrunePlan) -> list[Measurement]:
    """Return the bytes of weights that models hold on each device, and on all together if there are several.

    What is predicted is what the base holds outside of the pruned modules: in its dtype, quantised and offloaded as it
    is. A device that the models are dealt to differently, as `auto` does with several GPUs, has none predicted.
    """
    modules = [f"model.{each}" for each in plan]
    whole, ideal, held = (
        resident_weight_bytes_by_device(base),
        resident_weight_bytes_by_device(base, without=modules),
        resident_weight_bytes_by_device(pruned),
    )
    prediction = Prediction("bytes", sum(whole.values()), sum(ideal.values()))
    total = counted("resident weights", sum(whole.values()), sum(held.values()), prediction)
    devices = sorted({*whole, *held})
    if len(devices) < 2:
        return [total]
    return [total, *(counted(f"of this, on {name}", whole.get(name, 0), held.get(name, 0)) for name in devices)]


def _generation_costs(
    session: Session,
    models: tuple[Any, Any],
    workload: Workload,
    batch: int,
    tokens: int,
    clock: list[float],
    step: Callable[[str], None],
    notes: list[str],
) -> list[Measurement]:
    ids = random_ids(session.subject.config, batch, tokens)
    runs: list[tuple[Generation, Generation]] = []
    for number in range(workload.repeats + 1):
        pair: list[Generation] = []
        for which, model in zip(("base", "pruned"), models, strict=True):
            step(f"{session.mode.name}: {which} model, batch {batch}, {tokens} prompt tokens")
            clock.append(clock_tick(input_device(model)))
            pair.append(timed_generation(model, ids, workload.new_tokens))
        if number:  # the first warms up
            runs.append((pair[0], pair[1]))
    setting = {"batch": batch, "prompt tokens": tokens}
    prefill, decode, cache = _predictions(session, batch, tokens, workload.new_tokens)
    costs = [
        _seconds(PREFILL, "prefill_seconds", runs, prefill, setting, batch * tokens),
        _seconds(DECODE, "step_seconds", runs, decode, setting, batch),
    ]
    base, pruned = runs[-1]
    if base.cache_bytes is None or pruned.cache_bytes is None:
        notes.append("The bytes of the KV cache are not measured: it is of a kind that has no layers.")
        return costs
    return [*costs, _cache_cost(base, pruned, batch, cache, setting)]


def _predictions(
    session: Session, batch: int, tokens: int, new_tokens: int
) -> tuple[tuple[Prediction, ...], tuple[Prediction, ...], Prediction]:
    """Return what the plan does to a prefill, to a step of decoding on average, and to the cache at the end."""
    config = stock_config_object(session.subject.config)
    precision = session.mode.precision
    plans = (NOTHING_PRUNED, session.subject.plan)
    held = range(tokens, tokens + new_tokens)
    prefill = [multiply_adds(config, plan, batch=batch, past=0, new=tokens) for plan in plans]
    read_once = [step_bytes(config, plan, precision, batch=batch, past=0) for plan in plans]
    adds = [sum(multiply_adds(config, plan, batch=batch, past=past, new=1) for past in held) for plan in plans]
    read = [sum(step_bytes(config, plan, precision, batch=batch, past=past) for past in held) for plan in plans]
    cached = [cache_bytes(config, plan, precision, batch=batch, tokens=tokens + new_tokens) for plan in plans]
    return (
        (Prediction("multiply-adds", *prefill), Prediction("bytes", *read_once)),
        (
            Prediction("bytes", *(each / new_tokens for each in read)),
            Prediction("multiply-adds", *(each / new_tokens for each in adds)),
        ),
        Prediction("bytes", *cached),
    )


def _seconds(
    name: str,
    attribute: str,
    runs: Sequence[tuple[Generation, Generation]],
    predictions: tuple[Prediction, ...],
    setting: dict[str, int],
    tokens: int,
) -> Measurement:
    base, pruned = (tuple(getattr(run[index], attribute) for run in runs) for index in (0, 1))
    return Measurement(name, "s", base, pruned, predictions, setting, tokens)


def _cache_cost(
    base: Generation, pruned: Generation, batch: int, prediction: Prediction, setting: dict[str, int]
) -> Measurement:
    """Return the bytes of the dynamic KV cache a token, on average over all the tokens that it has seen."""
    assert base.cache_bytes is not None
    assert pruned.cache_bytes is not None
    seen = batch * base.cached_tokens
    share = Prediction("bytes", prediction.base / seen, prediction.pruned / seen)
    return counted("KV cache a token", base.cache_bytes / seen, pruned.cache_bytes / seen, share, setting)


def _static_cost(session: Session, models: tuple[Any, Any], workload: Workload, notes: list[str]) -> list[Measurement]:
    tokens = max(workload.prompt_tokens) + workload.new_tokens
    try:
        base, pruned = (static_cache_bytes(model, tokens) for model in models)
    except Exception as error:
        if not raised_by(error, *models):  # a class of a third party that knows no such cache
            raise
        notes.append(f"The static KV cache is not measured: {first_line(error)}.")
        return []
    if base is None or pruned is None:
        return []
    config = stock_config_object(session.subject.config)
    kept = (config.num_hidden_layers - len(session.subject.plan.self_attn)) / config.num_hidden_layers
    notes.append(
        "A static KV cache is allocated whole. Where generate() makes it, transformers may give every layer its full "
        "width, pruned or not, before the model is asked."
    )
    share = Prediction("bytes", base / tokens, base * kept / tokens)
    setting = {"tokens in all": tokens}
    return [counted("KV cache a token (static)", base / tokens, pruned / tokens, share, setting)]
