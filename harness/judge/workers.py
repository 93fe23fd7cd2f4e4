"""Run the checks of each loading mode in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

import torch

from harness.checks.check import Check
from harness.models.memory import available_bytes
from harness.report.outcomes import CheckRecord
from harness.subject.subject import Subject
from harness.system.crashes import last_line, whole_traceback
from harness.system.libraries import quiet_libraries

from .runner import Judged, run_checks


def run_in_processes(
    subject: Subject, chosen: Sequence[Check], workers: int, memory: int | None, progress: Any = None
) -> Judged:
    """Run `chosen` in at most `workers` processes, the checks of one loading mode together; results in their order.

    Checks whose process dies have the outcome `error`.
    """
    groups: dict[str, list[Check]] = {}
    for check in chosen:
        groups.setdefault(check.mode.name if check.mode is not None else "", []).append(check)
    share = (available_bytes() if memory is None else memory) // workers
    threads = max(1, (os.cpu_count() or 1) // workers)
    # Not forked: threads of torch that are running here would be missing there.
    with ProcessPoolExecutor(min(workers, len(groups)), mp_context=get_context("spawn")) as pool:
        futures: dict[Future[Judged], str] = {
            pool.submit(_run_group, subject, group, threads, share): name for name, group in groups.items()
        }
        done: list[Judged] = []
        count = 0
        for future in as_completed(futures):
            name = futures[future]
            try:
                done.append(future.result())
            except Exception as error:  # the process died, or could not be told what to run
                done.append(_lost(groups[name], error))
            count += len(groups[name])
            if progress is not None:
                progress(count, len(chosen), name or "stored")
    order = {check.name: number for number, check in enumerate(chosen)}
    records = sorted((record for judged in done for record in judged.records), key=lambda record: order[record.name])
    faults = {name: found for judged in done for name, found in judged.faults.items()}
    return Judged(
        tuple(records),
        {name: faults[name] for name in order if name in faults},
        tuple(dict.fromkeys(finding for judged in done for finding in judged.findings)),
    )


def _lost(group: Sequence[Check], error: Exception) -> Judged:
    """Return a crash for each check whose outcome is not known: with one process that dies, the pool loses others'."""
    reason = f"the process that ran it, or one beside it, died: {last_line(error)}"
    text = whole_traceback(error)
    return Judged(tuple(CheckRecord(check.name, "error", reason, 0.0, {}, text) for check in group))


def _run_group(subject: Subject, group: Sequence[Check], threads: int, memory: int) -> Judged:
    torch.set_num_threads(threads)
    with quiet_libraries():
        return run_checks(subject, group, memory=memory)
