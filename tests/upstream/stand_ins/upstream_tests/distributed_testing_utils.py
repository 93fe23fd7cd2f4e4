"""Start the processes of transformers' tests of tensor parallelism and FSDP, on the CPU.

It stands in for a module of transformers 5.24.0 that its source package does not hold; the names are those that
`tests/test_tensor_parallel_mixin.py` and `tests/test_fsdp_mixin.py` import.
"""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

# A new process builds models by `AutoModelForCausalLM`, for which this import registers our class.
import pruning.remote.modeling_pruned_qwen3  # noqa: F401


def run_distributed(world_size: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator: `function(rank, *args)` runs in `world_size` processes of one gloo group."""
    return partial(partial, _run_in_a_group, world_size)


def _run_in_a_group(world_size: int, function: Callable[..., None], *args: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _start_rank_processes(_in_a_group, (world_size, f"{folder}/rendezvous", function, args), world_size)


def _in_a_group(rank: int, world_size: int, rendezvous: str, function: Callable[..., None], args: tuple) -> None:
    # transformers reads its place among the processes from these (5.24.0, `distributed/utils.py`).
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    torch.distributed.init_process_group(
        _get_distributed_backend(), init_method=f"file://{rendezvous}", rank=rank, world_size=world_size
    )
    try:
        function(rank, *args)
    finally:
        torch.distributed.destroy_process_group()


def _start_rank_processes(function: Callable[..., None], args: tuple, nprocs: int) -> None:
    torch.multiprocessing.spawn(function, args, nprocs=nprocs, join=True)


def _get_distributed_backend() -> str:
    return "gloo"


def _get_distributed_device_type() -> str:
    return "cpu"


def _get_rank_device(rank: int) -> torch.device:
    return torch.device("cpu")


def _set_rank_device(rank: int) -> None:
    pass
