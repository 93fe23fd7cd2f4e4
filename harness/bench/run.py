"""Benchmark a pruned checkpoint against its base: every cost, in every way of loading that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import torch

from harness.errors import CannotRun, NotChecked
from harness.models.memory import available_bytes, too_large
from harness.models.modes import LoadingMode, loading_modes
from harness.models.session import first_line, new_session
from harness.subject.environment import environment
from harness.subject.stock import stock_config_object
from harness.subject.subject import Subject, read_subject
from harness.system.libraries import quiet_libraries
from harness.system.scratch import scratch_folder
from harness.system.signals import ended_by
from harness.system.whose_error import raised_by
from pruning import PrunePlan

from .disk import stored_costs
from .fresh_process import FreshLoads
from .inference import clock_tick
from .load_costs import load_costs
from .record import Benchmark, ModeRecord
from .run_costs import Workload, running_costs

Progress = Callable[[int, int, str], None]
"""Called before each run with how many are done, how many there are, and what comes next."""


def benchmark_checkpoint(
    checkpoint: str | Path,
    *,
    base: str | Path,
    plan: PrunePlan | None = None,
    device_map: Sequence[str] = ("plain",),
    dtype: Sequence[str] | None = None,
    quantisation: Sequence[str] = (),
    prompt_tokens: Sequence[int] = (128,),
    new_tokens: int = 32,
    batch: Sequence[int] = (1,),
    repeats: int = 5,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Benchmark:
    """Measure what a pruned checkpoint costs, against its base; both run by turns, so that both meet the same machine.

    Args:
        checkpoint: The pruned checkpoint, as `harness.check_checkpoint` takes it.
        base: The unpruned checkpoint, which is loaded as the stock class.
        plan: The plan that was meant; without it, the manifest's, or what the absent keys amount to.
        device_map: Places of `harness.models.modes`.
        dtype: "float32", "bfloat16"; where neither this nor a quantisation is given, the one that is stored.
        quantisation: "8bit", "4bit".
        prompt_tokens: Lengths of the prompts, which are random tokens.
        new_tokens: Steps of decoding behind each prompt.
        batch: Batch sizes; each is combined with each length.
        repeats: Runs of each kind that count; the ones before them warm up.
        trust_remote_code: Whether the checkpoint's own code may run; that of a release of prunecheck always may.
        progress: See Progress.

    Raises:
        CannotRun: Checkpoint or base is none or broken, its code may not run, an option has an unknown value, or more
            tokens are asked for than the model has positions.
        PlanError: The plan does not fit the base.
    """
    subject = read_subject(checkpoint, base, plan, trust_remote_code=trust_remote_code)
    workload = Workload(tuple(prompt_tokens), new_tokens, tuple(batch), repeats)
    _require_runnable(subject, workload)
    if dtype is None:
        dtype = () if quantisation else (stored_dtype(subject),)
    chosen = list(loading_modes(device_map, dtype, quantisation))
    if not chosen:
        raise CannotRun("no way of loading is chosen: name a dtype or a quantisation, and a place")
    clock: list[float] = []
    steps = _Steps(progress, len(chosen) * _runs(workload))
    stored = stored_costs(subject)
    with (
        quiet_libraries(),
        closing(FreshLoads()) as loads,
        scratch_folder() as scratch,
    ):
        clock_tick(torch.device("cpu"))  # the first one starts threads
        records = tuple(_mode_record(subject, mode, workload, loads, scratch, clock, steps) for mode in chosen)
    options = {
        "device_map": list(device_map), "dtype": list(dtype), "quantisation": list(quantisation),
        "prompt_tokens": list(prompt_tokens), "new_tokens": new_tokens, "batch": list(batch), "repeats": repeats,
        "trust_remote_code": trust_remote_code,
    }  # fmt: skip
    return Benchmark(
        checkpoint=str(subject.root),
        base=str(base if subject.base is None else subject.base.root),
        plan=subject.plan.to_dict(),
        stored=stored,
        modes=records,
        clock=tuple(clock),
        environment=environment(subject, **options),
    )


def stored_dtype(subject: Subject) -> str:
    """Return the dtype of a loading mode that is nearest to what the checkpoint stores: bfloat16, or float32."""
    sizes: dict[str, int] = {}
    for tensor in subject.stored.tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + 1
    return "float32" if max(sizes, key=lambda dtype: sizes[dtype], default="") == "F32" else "bfloat16"


class _Steps:
    """Counts runs, and tells of each before it begins."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self.done = 0

    def __call__(self, text: str) -> None:
        if self._progress is not None:
            self._progress(self.done, self._total, text)
        self.done += 1

    def skip_to(self, done: int) -> None:
        """Count what will not run as done."""
        self.done = done


def _runs(workload: Workload) -> int:
    loads = 2 * 2 * workload.repeats + 1
    return loads + 2 * (workload.repeats + 1) * len(workload.settings)


def _require_runnable(subject: Subject, workload: Workload) -> None:
    if subject.stored.faults:
        raise CannotRun(f"{subject.root} is broken: {subject.stored.faults[0].cause}")
    if not subject.may_run():
        raise CannotRun(f"the code of {subject.root} may not run: allow it with --trust-remote-code")
    longest = int(stock_config_object(subject.config).max_position_embeddings)
    tokens = max(workload.prompt_tokens)
    if tokens + workload.new_tokens > longest:
        raise CannotRun(
            f"{tokens} prompt tokens and {workload.new_tokens} new ones are more than the model has positions for, "
            f"{longest}: choose fewer with --prompt-tokens or --new-tokens"
        )


def _mode_record(
    subject: Subject,
    mode: LoadingMode,
    workload: Workload,
    loads: FreshLoads,
    scratch: Path,
    clock: list[float],
    steps: _Steps,
) -> ModeRecord:
    done = steps.done
    session = new_session(subject, mode, scratch)
    try:
        if reason := mode.missing or too_large(subject, mode, available_bytes()):
            return ModeRecord(mode.name, reason)
        # Loads come first: what a model in this process has mapped could not be dropped from the file cache.
        costs, notes = load_costs(loads, subject, mode, workload.repeats, steps)
        try:
            more, more_notes = running_costs(session, workload, clock, steps)
        except Exception as error:  # whatever a checkpoint's code raises when it runs
            if not isinstance(error, NotChecked) and not raised_by(error, session.model, session.reference):
                raise
            more, more_notes = [], [f"{mode.name}: what the loaded models cost is not measured: {first_line(error)}."]
        return ModeRecord(mode.name, None, (*costs, *more), (*notes, *more_notes))
    except (CannotRun, NotChecked) as error:
        return ModeRecord(mode.name, first_line(error))
    except SystemExit as error:
        if ended_by(error) is not None:
            raise
        raise CannotRun(f"the code of {subject.root} ends the process that it runs in: it raises SystemExit") from None
    finally:
        session.close()
        steps.skip_to(done + _runs(workload))
