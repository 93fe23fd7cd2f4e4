"""One of two processes that train a pruned model together; a module of its own, since a new process imports it."""

from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from pruning import load_pruned


def train(rank: int, pruned: str, ids: torch.Tensor, results: str) -> None:
    """Train on one row of `ids`, the other process on the other, and save what came of it as `<rank>.pt`.

    That is a dict of the gradients by name and of the error that is raised when the norms that never run are unfrozen.
    """
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{results}/rendezvous", rank=rank, world_size=2)
    rows = ids[rank : rank + 1]
    model = load_pruned(pruned).train()
    _two_steps(model, rows)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model = load_pruned(pruned).train().requires_grad_(True)
    try:
        _two_steps(model, rows)
        error = "none"
    except RuntimeError as raised:
        error = str(raised)
    torch.save({"gradients": gradients, "error with all norms unfrozen": error}, Path(results) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def _two_steps(model: Any, rows: torch.Tensor) -> None:
    parallel = DistributedDataParallel(model)
    for _ in range(2):  # a parameter that gets no gradient is noticed at the second
        model.zero_grad()
        parallel(input_ids=rows, labels=rows, use_cache=False).loss.backward()
