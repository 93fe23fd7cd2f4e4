"""One of two processes that train a pruned model whose parameters they share out among them, by FSDP1 or FSDP2.

A module of its own, since a new process imports it.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp._common_utils import clean_tensor_name
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

from pruning import load_pruned

LEARNING_RATE = 0.1


def one_step(model: Any, rows: torch.Tensor) -> None:
    """Take one step of gradient descent on `rows` (batch, tokens)."""
    optimiser = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=LEARNING_RATE)
    model(input_ids=rows, labels=rows, use_cache=False).loss.backward()
    optimiser.step()


def _sharded_by_fsdp1(model: Any) -> Any:
    # As accelerate wraps by default: each decoder layer, with the parameters' own names.
    policy = partial(transformer_auto_wrap_policy, transformer_layer_cls={type(model.model.layers[0])})
    return FullyShardedDataParallel(model, auto_wrap_policy=policy, use_orig_params=True, device_id=torch.device("cpu"))


def _sharded_by_fsdp2(model: Any) -> Any:
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


SHARD = {"FSDP1": _sharded_by_fsdp1, "FSDP2": _sharded_by_fsdp2}


def train(rank: int, pruned: str, ids: torch.Tensor, folder: str, kind: str) -> None:
    """Train on one row of `ids`, the other process on the other; the first saves what came of it as `result.pt`.

    That is a dict of the parameters by name and of the error that is raised when a layer that is pruned whole returns
    the very tensor that it is given.
    """
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model = SHARD[kind](load_pruned(pruned).train())
    one_step(model, ids[rank : rank + 1])
    parameters = _whole_parameters(model)
    planted = load_pruned(pruned).train()
    for layer in planted.model.layers:
        if layer.prune_self_attn and layer.prune_mlp:
            layer.forward = lambda hidden_states, *args, **kwargs: hidden_states
    try:
        one_step(SHARD[kind](planted), ids[rank : rank + 1])
        error = "none"
    except ValueError as raised:
        error = str(raised)
    if rank == 0:
        torch.save({"parameters": parameters, "error without a view": error}, Path(folder) / "result.pt")
    torch.distributed.destroy_process_group()


def _whole_parameters(model: Any) -> dict[str, torch.Tensor]:
    """Return the parameters by name, gathered from both processes."""
    if isinstance(model, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(model):
            # Clones, since the parameters are freed behind the `with`; a module that is wrapped has another name.
            return {clean_tensor_name(name): each.detach().clone() for name, each in model.named_parameters()}
    return {name: each.full_tensor().detach() for name, each in model.named_parameters()}
