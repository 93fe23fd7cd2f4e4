"""A pruned model is complete in structure, stores nothing where it is pruned, and trains, compiles and copies."""

import copy
import inspect
import operator
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import StaticCache
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3DecoderLayer, Qwen3MLP

from harness.models.forward import cache_of, with_cache
from harness.reference.models import identity_reference, reference_logits
from harness.reference.tolerances import assert_logits_close
from harness.strategies import plans, tiny_specs
from harness.tiny import TinySpec
from pruning import PrunedQwen3Config, PrunedQwen3ForCausalLM, PrunePlan, load_pruned
from pruning.remote import hollow_modules
from pruning.remote.hollow_modules import children_of
from tests.model.conftest import Checkpoints
from tests.model.hollow import assert_hollow
from tests.model.parallel_training import train

SPEC = TinySpec(layers=4, layer_types="mixed")
PLAN = PrunePlan(self_attn=[0, 2], mlp=[1, 2])
UNUSED_NORMS = {
    "model.layers.0.input_layernorm.weight",
    "model.layers.1.post_attention_layernorm.weight",
    "model.layers.2.input_layernorm.weight",
    "model.layers.2.post_attention_layernorm.weight",
}
IDS = torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(0))

# torch 2.13.0 warns of its own code: when the compiler is first loaded, and when it follows the masks of transformers
# 4.57.6 and 5.0.0.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'> should not:DeprecationWarning"),
]


@pytest.fixture
def model(checkpoints: Checkpoints) -> Any:
    """A pruned model, loaded afresh."""
    return load_pruned(checkpoints(SPEC, PLAN)[1])


@pytest.fixture
def stock(checkpoints: Checkpoints) -> Any:
    """The model of the unpruned checkpoint, of the stock class."""
    return transformers.AutoModelForCausalLM.from_pretrained(checkpoints(SPEC, PLAN)[0])


@pytest.fixture
def reference(checkpoints: Checkpoints) -> Any:
    """The identity reference of the same plan."""
    return identity_reference(checkpoints(SPEC, PLAN)[0], PLAN.self_attn, PLAN.mlp)


def test_the_module_tree_is_the_stock_one(model: Any, stock: Any) -> None:
    """Every module of the stock model is there by name and class; what is pruned lists nothing that it holds."""
    pruned = {name for name, _ in model.pruned_modules()}
    listed = dict(model.named_modules())
    for name, theirs in stock.named_modules():
        ours = operator.attrgetter(name)(model) if name else model
        assert isinstance(ours, type(theirs)), name
        assert (name in listed) is not any(name.startswith(f"{each}.") for each in pruned), name
    assert listed.keys() <= dict(stock.named_modules()).keys()


def test_every_shape_can_be_read(model: Any, stock: Any) -> None:
    """A pruned module's weights have the stock model's shapes and dtypes, and so has everything else."""
    for name, parameter in stock.named_parameters():
        ours = operator.attrgetter(name)(model)
        assert isinstance(ours, nn.Parameter), name
        assert (ours.shape, ours.dtype) == (parameter.shape, parameter.dtype), name
    assert model.model.layers[2].mlp.gate_proj.weight.shape == (SPEC.intermediate_size, SPEC.hidden_size)


def test_classes_and_flags(model: Any) -> None:
    """`self_attn` and `mlp` are of the stock classes; the flags say which of them are pruned."""
    for layer_idx, layer in enumerate(model.model.layers):
        assert isinstance(layer, Qwen3DecoderLayer)
        assert isinstance(layer.self_attn, Qwen3Attention)
        assert isinstance(layer.mlp, Qwen3MLP)
        assert layer.prune_self_attn is (layer_idx in PLAN.self_attn)
        assert layer.prune_mlp is (layer_idx in PLAN.mlp)
    assert model.pruned_linear_names() == [
        f"model.layers.{name}"
        for name in (
            *(f"0.self_attn.{linear}_proj" for linear in "qkvo"),
            *(f"1.mlp.{linear}_proj" for linear in ("gate", "up", "down")),
            *(f"2.self_attn.{linear}_proj" for linear in "qkvo"),
            *(f"2.mlp.{linear}_proj" for linear in ("gate", "up", "down")),
        )
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pruned_module_stores_nothing(checkpoints: Checkpoints, dtype: str) -> None:
    """No parameter, buffer, key or byte in a pruned module; in all, the model holds the bytes of its file."""
    _, pruned = checkpoints(TinySpec(layers=4, dtype=dtype), PLAN)
    model = load_pruned(pruned)
    assert_hollow(model)
    held = {
        tensor.untyped_storage().data_ptr(): tensor.nbytes
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if "inv_freq" not in name  # the rotary embedding's, which no file holds
    }
    assert sum(held.values()) == _tensor_bytes(pruned / "model.safetensors")


def _tensor_bytes(path: Path) -> int:
    """Return the size of a safetensors file less its header, whose length the first eight bytes say."""
    with path.open("rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


def test_loading_initialises_nothing(checkpoints: Checkpoints) -> None:
    """A load draws no random number: no weight is made up."""
    before = torch.get_rng_state()
    load_pruned(checkpoints(SPEC, PLAN)[1])
    assert torch.equal(torch.get_rng_state(), before)


def _small_config() -> PrunedQwen3Config:
    return PrunedQwen3Config(
        num_hidden_layers=4,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=64,
        per_layer_config=PLAN.to_per_layer_config(),
    )


def test_initial_values_are_left_out_on_the_meta_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device no linear module is given initial values, elsewhere each is, and torch stays as it was."""
    given: list[nn.Linear] = []
    monkeypatch.setattr(nn.Linear, "reset_parameters", given.append)
    with torch.device("meta"):
        PrunedQwen3ForCausalLM(_small_config())
    assert given == []
    PrunedQwen3ForCausalLM(_small_config())
    assert len(given) == 4 * 7 + 1  # of a decoder layer, and the head
    assert nn.Linear.reset_parameters == given.append


def test_a_model_built_from_its_config_is_hollow_too() -> None:
    """A fresh model, from a config alone, stores nothing in pruned modules and freezes the norms that never run."""
    model = PrunedQwen3ForCausalLM(_small_config())
    assert_hollow(model)
    assert _frozen(model) == UNUSED_NORMS
    assert torch.isfinite(reference_logits(model, IDS)).all()


def _frozen(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def test_norms_that_never_run_need_no_gradient(model: Any) -> None:
    """After a load, and whatever is done to the training mode, exactly the norms of pruned modules are frozen."""
    assert _frozen(model) == UNUSED_NORMS
    for mode in (True, False):
        model.requires_grad_(True).train(mode)
        assert _frozen(model) == UNUSED_NORMS


def _poison(model: Any, *, registered: bool) -> None:
    """Put real NaN into every weight of the pruned modules and into their norms."""
    count = 0
    for _, module in model.pruned_modules():
        for submodule in (module, *dict(children_of(module)).values()):
            for name, value in list(vars(submodule).items()):
                if isinstance(value, nn.Parameter):
                    poison = nn.Parameter(torch.full(value.shape, torch.nan), requires_grad=False)
                    assert poison.isnan().all()
                    assert poison.untyped_storage().nbytes() == 4 * value.numel() > 0
                    if registered:
                        setattr(submodule, name, poison)
                    else:
                        vars(submodule)[name] = poison
                    assert getattr(submodule, name) is poison
                    count += 1
    attention = 10 if model.config.attention_bias else 6  # four projections, their biases, two norms
    assert count == sum(attention if name.endswith("self_attn") else 3 for name, _ in model.pruned_modules())
    for layer in model.model.layers:
        if layer.prune_self_attn:
            layer.input_layernorm.weight.data.fill_(torch.nan)
        if layer.prune_mlp:
            layer.post_attention_layernorm.weight.data.fill_(torch.nan)


@pytest.mark.parametrize("registered", [False, True], ids=["attributes", "parameters"])
@settings(max_examples=8)
@given(data=st.data())
def test_poison_in_pruned_modules_changes_no_bit(
    checkpoints: Checkpoints, data: st.DataObject, registered: bool
) -> None:
    """With NaN in pruned modules and their norms all logits stay as they are, bit for bit, cached ones too."""
    spec = data.draw(tiny_specs(dtypes=("float32",)))
    model = load_pruned(checkpoints(spec, data.draw(plans(spec.layers)))[1])
    ids = IDS % spec.vocabulary_size
    expected = reference_logits(model, ids)
    with torch.no_grad():
        expected_cached = _decoded(model, ids)
    _poison(model, registered=registered)
    assert torch.equal(reference_logits(model, ids), expected)
    with torch.no_grad():
        assert torch.equal(_decoded(model, ids), expected_cached)


def _decoded(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of all tokens but the last and, through the cache, of the last."""
    first = model(ids[:, :-1], use_cache=True)
    last = model(ids[:, -1:], **with_cache(model, cache_of(first)))
    return torch.cat([first.logits, last.logits], dim=1)


@pytest.mark.parametrize("plan", [PrunePlan(self_attn=[1]), PrunePlan(mlp=[3])], ids=str)
def test_poison_shows_where_it_is_used(
    checkpoints: Checkpoints, plan: PrunePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the stock forward of what is pruned, and of the norm in front of it, turns poison into NaN logits."""
    model = load_pruned(checkpoints(SPEC, plan)[1])
    _poison(model, registered=False)
    assert torch.isfinite(reference_logits(model, IDS)).all()
    for module in model.modules():
        if type(module).__module__ == hollow_modules.__name__:
            monkeypatch.setattr(module, "__class__", type(module).__bases__[1])
    assert reference_logits(model, IDS).isnan().all()


def test_changing_the_dtype(model: Any, reference: Any) -> None:
    """`.to(bfloat16)` converts what is there and leaves the pruned modules hollow."""
    model.to(torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert_hollow(model)
    assert_logits_close(
        reference_logits(model, IDS),
        reference_logits(reference.to(torch.bfloat16), IDS),
        dtype="bfloat16",
        operation="reference",
        context="converted to bfloat16",
    )


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
)
def test_copies_are_independent_and_hollow(model: Any, clone: Callable[[Any], Any]) -> None:
    """A deep or pickled copy is hollow, computes the same, and does not share a weight."""
    expected = reference_logits(model, IDS)
    copied = clone(model)
    assert_hollow(copied)
    assert _frozen(copied) == UNUSED_NORMS
    with torch.no_grad():
        model.model.norm.weight.zero_()
    assert torch.equal(reference_logits(copied, IDS), expected)


def test_a_state_dict_goes_through_a_file(model: Any, checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A state dict saved by torch is loaded strictly into another model of the plan."""
    torch.save(model.state_dict(), tmp_path / "state.pt")
    other = load_pruned(checkpoints(TinySpec(layers=4, layer_types="mixed", seed=1), PLAN)[1])
    assert not torch.equal(reference_logits(other, IDS), reference_logits(model, IDS))
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), strict=True)
    assert torch.equal(reference_logits(other, IDS), reference_logits(model, IDS))


def _loss(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    return model(input_ids=ids, labels=ids, use_cache=False).loss


def _gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def _expected_gradients(reference: Any) -> dict[str, torch.Tensor]:
    """Return the gradients of the identity reference, whose pruned modules never run and so have none."""
    reference.train()
    _loss(reference).backward()
    return _gradients(reference)


def test_a_training_step(model: Any, reference: Any) -> None:
    """Gradients reach every parameter that is used and no other, are the reference's, and make the loss fall."""
    model.train()
    loss = _loss(model)
    loss.backward()
    gradients = _gradients(model)
    assert gradients.keys() == {name for name, _ in model.named_parameters()} - UNUSED_NORMS
    expected = _expected_gradients(reference)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], msg=lambda text, name=name: f"{name}: {text}")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-2)
    optimiser.step()
    assert _loss(model) < loss
    unchanged = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert unchanged == UNUSED_NORMS
    assert_hollow(model)


def _enable_checkpointing(model: Any) -> None:
    # transformers 5.23.0 renamed it and warns of the old name.
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable()


@pytest.mark.parametrize(
    "plan", [PLAN, PrunePlan(self_attn=range(4), mlp=range(4))], ids=["some pruned", "everything pruned"]
)
def test_gradient_checkpointing(checkpoints: Checkpoints, plan: PrunePlan) -> None:
    """With gradient checkpointing loss and gradients are what they are without."""
    plain, checkpointed = (load_pruned(checkpoints(SPEC, plan)[1]).train() for _ in range(2))
    _enable_checkpointing(checkpointed)
    losses = [_loss(each) for each in (plain, checkpointed)]
    assert losses[0] == losses[1]
    for loss in losses:
        loss.backward()
    expected, gradients = _gradients(plain), _gradients(checkpointed)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name])


def test_two_processes_train_together(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DistributedDataParallel gives both processes the whole batch's gradients; planted, an unfrozen norm fails."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # `tests` may be on this process's path alone
    _, pruned = checkpoints(SPEC, PLAN)
    torch.multiprocessing.spawn(train, (str(pruned), IDS, str(tmp_path)), nprocs=2, join=True)
    alone = load_pruned(pruned).train()
    _loss(alone).backward()  # the rows are of equal length, so the batch's loss is the mean of theirs
    expected = _gradients(alone)
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert result["gradients"].keys() == expected.keys()
        for name, gradient in result["gradients"].items():
            torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4)
        assert "Expected to have finished reduction" in result["error with all norms unfrozen"]


def _decode_steps(model: Any, run: Callable[..., Any], ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of a prefill and of single steps through a static cache, by `run`, the model or its compile."""
    # Where the model takes no positions it counts on the cache's length, which the older versions compute with
    # a tensor's value: no graph can hold that. `generate` hands them over, too.
    takes_positions = "cache_position" in inspect.signature(type(model.model).forward).parameters
    cache = StaticCache(config=model.config, max_cache_len=ids.shape[1])
    logits = []
    for start, end in ((0, 4), *((step, step + 1) for step in range(4, ids.shape[1]))):
        positions = {"cache_position": torch.arange(start, end)} if takes_positions else {}
        logits.append(run(ids[:, start:end], use_cache=True, **with_cache(model, cache), **positions).logits)
    return torch.cat(logits, dim=1)


def test_compiled_into_one_graph(checkpoints: Checkpoints) -> None:
    """`torch.compile` takes the model whole, prefill and decode, without a graph more than the stock model needs."""
    base, pruned = checkpoints(TinySpec(layers=4), PLAN)
    model, stock = load_pruned(pruned), transformers.AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        expected = reference_logits(model, IDS)
        graphs = []
        for each in (stock, model):
            torch._dynamo.reset()
            counter = CompileCounterWithBackend("aot_eager")  # no C++ compiler needed
            compiled = torch.compile(each, fullgraph=True, backend=counter)
            uncached = compiled(IDS, use_cache=False).logits
            decoded = _decode_steps(each, compiled, IDS)
            graphs.append(counter.frame_count)
    torch._dynamo.reset()
    assert graphs[1] <= graphs[0]
    for got, what in ((uncached, "one pass"), (decoded, "prefill and decode")):
        assert_logits_close(got, expected, dtype="float32", operation="compile", context=f"compiled, {what}")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_intermediate_outputs(checkpoints: Checkpoints, attention: str) -> None:
    """Hidden states are the reference's, one a layer and one before; attentions come from kept attentions only."""
    base, pruned = checkpoints(SPEC, PLAN)
    wanted = {"output_hidden_states": True, "output_attentions": attention == "eager"}  # sdpa has none to give
    got, expected = (
        model(IDS, use_cache=False, **wanted)
        for model in (
            load_pruned(pruned, attn_implementation=attention),
            identity_reference(base, PLAN.self_attn, PLAN.mlp, attn_implementation=attention),
        )
    )
    assert len(got.hidden_states) == len(expected.hidden_states) == 5
    for ours, theirs in zip(got.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.equal(got.hidden_states[2], got.hidden_states[3])  # layer 2 is pruned whole
    if attention == "eager":
        assert len(got.attentions) == 2
        kept = [weights for index, weights in enumerate(expected.attentions) if index not in PLAN.self_attn]
        for ours, theirs in zip(got.attentions, kept, strict=True):
            torch.testing.assert_close(ours, theirs)
