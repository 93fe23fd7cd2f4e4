"""The strict loader: every way of loading gives the equally loaded reference's logits, and what is off is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BitsAndBytesConfig, Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

from harness.reference.models import identity_reference, reference_logits
from harness.reference.tolerances import assert_logits_close
from harness.tiny import TinySpec
from pruning import CheckpointError, PrunedQwen3Config, PrunePlan, load_pruned
from pruning.remote.modeling_pruned_qwen3 import PrunedQwen3DecoderLayer
from tests.model.conftest import Checkpoints
from tests.model.hollow import assert_hollow

PLAN = PrunePlan(self_attn=[0, 2], mlp=[0, 1])  # layer 0 is pruned whole, layer 3 not at all
SPEC = TinySpec(layers=4, layer_types="mixed", tied=False)
# What bitsandbytes quantises on a CPU: blocks of 64 weights.
WIDE = {"layers": 4, "hidden_size": 64, "head_dim": 64, "intermediate_size": 128}
IDS = torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(0))

pytestmark = [
    # torch 2.13.0 warns of its own code when bitsandbytes first loads it.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    # peft 0.21.2 reads an attribute that transformers 5.23 calls deprecated.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    # bitsandbytes 0.50.2 warns for each layer and pass that 8-bit arithmetic is in float16.
    pytest.mark.filterwarnings("ignore:MatMul8bitLt. inputs will be cast:UserWarning"),
]


def _device_map(**places: str) -> dict[str, str]:
    """Return a device map that has everything on the CPU but for the named parts of the model, `.` as `_`."""
    names = ["embed_tokens", "rotary_emb", "norm", *(f"layers.{layer_idx}" for layer_idx in range(4))]
    device_map = {"lm_head": "cpu"} | {f"model.{name}": "cpu" for name in names}
    for part, place in places.items():
        layer_idx, _, inner = part.removeprefix("layer_").partition("_")
        if inner and (whole := f"model.layers.{layer_idx}") in device_map:
            del device_map[whole]
            parts = ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")
            device_map |= {f"{whole}.{name}": "cpu" for name in parts}
        device_map[f"model.layers.{layer_idx}" + (f".{inner}" if inner else "")] = place
    return device_map


# Arguments of `from_pretrained`, and whether weights end up on the disk.
WAYS: dict[str, tuple[dict[str, Any], bool]] = {
    "no device map": ({}, False),
    "auto": ({"device_map": "auto"}, False),
    "cpu": ({"device_map": "cpu"}, False),
    "layer by layer": ({"device_map": _device_map()}, False),
    "inside pruned layers": ({"device_map": _device_map(layer_0_mlp="cpu", layer_1_mlp="cpu")}, False),
    "disk beside a pruned layer": ({"device_map": _device_map(layer_1="disk", layer_3="disk")}, True),
    "a pruned layer on disk": ({"device_map": _device_map(layer_0="disk", layer_2="disk")}, True),
    "disk inside a pruned layer": (
        {"device_map": _device_map(layer_0_self_attn="disk", layer_1_mlp="disk", layer_2_mlp="disk")},
        True,
    ),
    "every layer on disk": ({"device_map": _device_map(**{f"layer_{i}": "disk" for i in range(4)})}, True),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", WAYS)
def test_ways_of_loading(checkpoints: Checkpoints, tmp_path: Path, way: str, dtype: str) -> None:
    """Whatever is placed where, logits are the equally loaded reference's and pruned modules store nothing."""
    base, pruned = checkpoints(SPEC, PLAN)
    arguments, offloads = WAYS[way]
    kwargs = [{**arguments, "dtype": getattr(torch, dtype)} for _ in range(2)]
    if offloads:
        for each, name in zip(kwargs, ("pruned", "reference"), strict=True):
            each["offload_folder"] = tmp_path / name
    model = load_pruned(pruned, **kwargs[0])
    assert _is_offloaded(model) == offloads
    expected = reference_logits(identity_reference(base, PLAN.self_attn, PLAN.mlp, **kwargs[1]), IDS)
    assert_logits_close(reference_logits(model, IDS), expected, dtype=dtype, operation="offload", context=way)
    assert_hollow(model)
    names = tuple(name for name, _ in model.pruned_modules())
    assert not [path for path in tmp_path.glob("pruned/*") if path.name.startswith(names)]


def _is_offloaded(model: Any) -> bool:
    return "disk" in getattr(model, "hf_device_map", {}).values()


def test_little_memory(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """What does not fit into the memory that is granted goes to the disk, and the logits do not change."""
    _, pruned = checkpoints(SPEC, PLAN)
    granted = {"cpu": (pruned / "model.safetensors").stat().st_size * 6 // 10}
    model = load_pruned(pruned, device_map="auto", max_memory=granted, offload_folder=tmp_path)
    assert _is_offloaded(model)
    expected = reference_logits(load_pruned(pruned), IDS)
    assert_logits_close(
        reference_logits(model, IDS), expected, dtype="float32", operation="offload", context="little memory"
    )
    assert_hollow(model)


def _quantised(bits: str, **options: Any) -> dict[str, Any]:
    """Return the arguments of an 8-bit or 4-bit load that computes in float32."""
    four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32} if bits == "4bit" else {}
    return {
        "dtype": torch.float32,
        "quantization_config": BitsAndBytesConfig(**{f"load_in_{bits}": True}, **four, **options),
    }


def _linears(model: nn.Module) -> dict[str, str]:
    return {name: type(module).__name__ for name, module in model.named_modules() if isinstance(module, nn.Linear)}


@pytest.mark.parametrize("options", [{}, {"llm_int8_skip_modules": ["lm_head", "q_proj"]}], ids=["plain", "skipping"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantised_while_loading(checkpoints: Checkpoints, bits: str, tied: bool, options: dict[str, Any]) -> None:
    """bitsandbytes quantises what it quantises in the reference, less the pruned modules, which stay hollow."""
    base, pruned = checkpoints(TinySpec(tied=tied, **WIDE), PLAN)
    model = load_pruned(pruned, **_quantised(bits, **options))
    reference = identity_reference(base, PLAN.self_attn, PLAN.mlp, **_quantised(bits, **options))
    hollow = model.pruned_linear_names()
    assert _linears(model) == {name: kind for name, kind in _linears(reference).items() if name not in hollow}
    quantised = [name for name, kind in _linears(model).items() if kind == f"Linear{bits.replace('8bit', '8bitLt')}"]
    skipped = ["q_proj"] if options else []
    assert [name.rpartition(".")[2] for name in quantised if "layers.3." in name] == [
        name
        for name in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        if name not in skipped
    ]
    assert_logits_close(
        reference_logits(model, IDS),
        reference_logits(reference, IDS),
        dtype=bits,
        operation="reference",
        context=f"{bits}, {options}",
    )
    assert_hollow(model)


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_quantised_model_can_be_saved(checkpoints: Checkpoints, tmp_path: Path, bits: str) -> None:
    """A model quantised while loading saves to a checkpoint that loads strictly, quantised, with the same logits."""
    _, pruned = checkpoints(TinySpec(tied=False, **WIDE), PLAN)
    model = load_pruned(pruned, **_quantised(bits))
    model.save_pretrained(tmp_path)
    again = load_pruned(tmp_path)
    assert _linears(again) == _linears(model)
    assert_hollow(again)
    assert torch.equal(reference_logits(again, IDS), reference_logits(model, IDS))


# transformers asks whether memory will do.
@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules:UserWarning")
def test_an_offloaded_model_can_be_saved(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """A model whose layers lie on the disk saves to a checkpoint that gives the same logits."""
    _, pruned = checkpoints(SPEC, PLAN)
    arguments, _ = WAYS["a pruned layer on disk"]
    load_pruned(pruned, **arguments, offload_folder=tmp_path / "offload").save_pretrained(tmp_path / "saved")
    assert torch.equal(
        reference_logits(load_pruned(tmp_path / "saved"), IDS), reference_logits(load_pruned(pruned), IDS)
    )


def test_arguments_go_through(checkpoints: Checkpoints) -> None:
    """Arguments reach `from_pretrained`; the dtype is the checkpoint's own unless given; the report comes back."""
    _, pruned = checkpoints(TinySpec(dtype="bfloat16"), PLAN)
    assert load_pruned(pruned).dtype == torch.bfloat16
    assert load_pruned(str(pruned), dtype=torch.float32).dtype == torch.float32
    assert load_pruned(pruned, dtype="float32").dtype == torch.float32
    assert load_pruned(pruned, torch_dtype=torch.float32).dtype == torch.float32
    assert load_pruned(pruned, attn_implementation="eager").config._attn_implementation == "eager"
    assert load_pruned(pruned, use_safetensors=True, subfolder="", variant=None).dtype == torch.bfloat16
    assert load_pruned(pruned, config=PrunedQwen3Config.from_pretrained(pruned)).dtype == torch.bfloat16
    model, report = load_pruned(pruned, output_loading_info=True)
    assert model.training is False
    assert {"missing_keys", "unexpected_keys", "mismatched_keys"} <= report.keys()
    assert not any(report.values())


# Each breaks a copy of the checkpoint, or returns arguments that do, and each is refused with the text beside it,
# in which {root} is the copy.
Break = Callable[[Path], dict[str, Any] | None]
BROKEN: dict[str, tuple[Break, str]] = {}


def _refused(text: str) -> Callable[[Break], Break]:
    def register(change: Break) -> Break:
        BROKEN[change.__name__.strip("_").replace("_", " ")] = (change, text)
        return change

    return register


def _edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _edit_weights(root: Path, change: Callable[[dict[str, torch.Tensor]], None], *, manifest: bool) -> None:
    tensors = load_file(root / "model.safetensors")
    change(tensors)
    save_file(tensors, root / "model.safetensors", metadata={"format": "pt"})
    if not manifest:
        (root / "pruning.json").unlink()


@_refused("{root}: 'model.extra.weight' is stored, but pruning.json does not name it")
def _extra_key(root: Path) -> None:
    _edit_weights(root, lambda tensors: tensors.update({"model.extra.weight": torch.ones(2)}), manifest=True)


@_refused("{root} does not load as config.json says: 1 unexpected keys, first model.extra.weight")
def _extra_key_without_manifest(root: Path) -> None:
    _edit_weights(root, lambda tensors: tensors.update({"model.extra.weight": torch.ones(2)}), manifest=False)


@_refused("{root}: 'model.layers.3.self_attn.rotary_emb.inv_freq' is stored, but the model has no such parameter")
def _extra_key_that_transformers_passes_over(root: Path) -> None:
    key = "model.layers.3.self_attn.rotary_emb.inv_freq"
    _edit_weights(root, lambda tensors: tensors.update({key: torch.ones(8)}), manifest=False)


@_refused(
    "{root}: 'model.layers.0.mlp.up_proj.weight' is stored in model.safetensors, but config.json says that it is pruned"
)
def _key_of_a_pruned_module(root: Path) -> None:
    key = "model.layers.0.mlp.up_proj.weight"
    _edit_weights(root, lambda tensors: tensors.update({key: torch.ones(64, 32)}), manifest=False)


@_refused("{root}/pruning.json says that 'model.layers.3.mlp.up_proj.weight' is kept, but it is not stored")
def _missing_key(root: Path) -> None:
    _edit_weights(root, lambda tensors: tensors.pop("model.layers.3.mlp.up_proj.weight"), manifest=True)


@_refused("{root} does not load as config.json says: 1 missing keys, first model.layers.3.mlp.up_proj.weight")
def _missing_key_without_manifest(root: Path) -> None:
    _edit_weights(root, lambda tensors: tensors.pop("model.layers.3.mlp.up_proj.weight"), manifest=False)


@_refused("{root} does not load as config.json says: 1 missing keys, first lm_head.weight")
def _head_lost_without_manifest(root: Path) -> None:
    _edit_weights(root, lambda tensors: tensors.pop("lm_head.weight"), manifest=False)


@_refused("{root} does not load as config.json says: 1 missing keys, first model.layers.0.input_layernorm.weight")
def _norm_of_a_pruned_module_lost_without_manifest(root: Path) -> None:
    _edit_weights(root, lambda tensors: tensors.pop("model.layers.0.input_layernorm.weight"), manifest=False)


def _halve(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.3.mlp.up_proj.weight"] = tensors["model.layers.3.mlp.up_proj.weight"][:32].clone()


@_refused("{root}: 'model.layers.3.mlp.up_proj.weight' is F32 [32, 32], but pruning.json says F32 [64, 32]")
def _other_shape_ignored(root: Path) -> dict[str, Any]:
    _edit_weights(root, _halve, manifest=True)
    return {"ignore_mismatched_sizes": True}


@_refused("{root} does not load as config.json says: 1 mismatched keys, first model.layers.3.mlp.up_proj.weight")
def _other_shape_ignored_without_manifest(root: Path) -> dict[str, Any]:
    _edit_weights(root, _halve, manifest=False)
    return {"ignore_mismatched_sizes": True}


@_refused("{root}: 'model.norm.weight' is BF16 [32], but pruning.json says F32 [32]")
def _other_dtype(root: Path) -> None:
    def convert(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].bfloat16()

    _edit_weights(root, convert, manifest=True)


def _skip(config: dict[str, Any], **layers: list[str]) -> None:
    for layer_idx, words in layers.items():
        config["per_layer_config"][layer_idx.removeprefix("layer_")] = {"skip": words}


@_refused(
    "{root}: 'model.layers.3.mlp.down_proj.weight' is stored in model.safetensors, "
    "but config.json says that it is pruned"
)
def _config_prunes_more(root: Path) -> None:
    _edit_json(root / "config.json", lambda config: _skip(config, layer_3=["mlp"]))


@_refused("{root}/pruning.json says self_attn 0,2, mlp 0-1, but config.json says self_attn 0,2, mlp 0")
def _config_prunes_less(root: Path) -> None:
    _edit_json(root / "config.json", lambda config: _skip(config, layer_1=[]))


@_refused("{root} does not load as config.json says: 3 missing keys, first model.layers.1.mlp.down_proj.weight")
def _config_prunes_less_without_manifest(root: Path) -> None:
    _edit_json(root / "config.json", lambda config: _skip(config, layer_1=[]))
    (root / "pruning.json").unlink()


@_refused("{root}/pruning.json says self_attn 0, mlp 0-1, but config.json says self_attn 0,2, mlp 0-1")
def _manifest_s_plan_changed(root: Path) -> None:
    _edit_json(root / "pruning.json", lambda manifest: manifest["plan"].update(self_attn=[0]))


@_refused("{root}: 'model.norm.weight' is stored, but pruning.json does not name it")
def _manifest_lacks_a_tensor(root: Path) -> None:
    _edit_json(root / "pruning.json", lambda manifest: manifest["kept"].pop("model.norm.weight"))


@_refused(
    "{root} is not pruned: model_type is 'qwen3', but should be 'pruned_qwen3'; "
    "load it with Qwen3ForCausalLM.from_pretrained"
)
def _model_type_of_the_stock_class(root: Path) -> None:
    # Without a plan, as in an unpruned checkpoint.
    _edit_json(root / "config.json", lambda config: (config.update(model_type="qwen3"), config.pop("per_layer_config")))


@_refused("config.json: model_type is 'llama', but only 'qwen3' can be pruned")
def _another_family(root: Path) -> None:
    _edit_json(root / "config.json", lambda config: config.update(model_type="llama"))


@_refused("{root} does not load as config.json says: 11 unexpected keys, first model.layers.3.input_layernorm.weight")
def _too_few_layers_asked_for(root: Path) -> dict[str, Any]:
    return {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}


@_refused("{root} does not load as config.json says: 6 missing keys, first model.layers.0.mlp.down_proj.weight")
def _another_plan_as_an_argument(root: Path) -> dict[str, Any]:
    return {"per_layer_config": {"2": {"skip": ["attention"]}, "0": {"skip": ["attention"]}}}


@_refused("{root} does not load as config.json says: 6 unexpected keys, first model.layers.3.self_attn.k_norm.weight")
def _another_plan_in_a_config(root: Path) -> dict[str, Any]:
    config = PrunedQwen3Config.from_pretrained(root).to_dict()
    _skip(config, layer_3=["attention"])
    return {"config": PrunedQwen3Config(**config)}


@_refused("config is a Qwen3Config, but should be a PrunedQwen3Config: leave out config=...")
def _a_stock_config(root: Path) -> dict[str, Any]:
    return {"config": Qwen3Config.from_pretrained(root)}


@_refused("variant='fp16' has other weights loaded than those that are checked: leave it out")
def _variant(root: Path) -> dict[str, Any]:
    shutil.copy(root / "model.safetensors", root / "model.fp16.safetensors")
    return {"variant": "fp16"}


@_refused("subfolder='inner' has other weights loaded than those that are checked: leave it out")
def _subfolder(root: Path) -> dict[str, Any]:
    shutil.copytree(root, root / "inner")
    return {"subfolder": "inner"}


@_refused("use_safetensors=False has other weights loaded than those that are checked: leave it out")
def _pickled_weights_beside(root: Path) -> dict[str, Any]:
    torch.save(load_file(root / "model.safetensors"), root / "pytorch_model.bin")
    return {"use_safetensors": False}


@_refused(
    "{root} holds an adapter (adapter_config.json), with which transformers would load the base "
    "model that it names: move it to a directory of its own"
)
def _adapter_beside(root: Path) -> None:
    get_peft_model(load_pruned(root), LoraConfig(target_modules="all-linear")).save_pretrained(root)


@_refused("{root} holds custom_generate, code that some versions of transformers would run: remove it")
def _code_beside(root: Path) -> None:
    (root / "custom_generate").mkdir()
    (root / "custom_generate" / "generate.py").write_text("raise SystemExit('it ran')\n")


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_off_is_refused(checkpoints: Checkpoints, tmp_path: Path, name: str) -> None:
    """A checkpoint or a call that is not exactly what it must be is refused before any inference, in one line."""
    change, text = BROKEN[name]
    spec = TinySpec(layers=4, hidden_size=32, intermediate_size=64, tied=False)
    root = Path(shutil.copytree(checkpoints(spec, PLAN)[1], tmp_path / "checkpoint"))
    arguments = change(root) or {}
    with pytest.raises(CheckpointError) as error:
        load_pruned(root, **arguments)
    assert str(error.value) == text.format(root=root)


def test_a_checkpoint_without_manifest_loads(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """The manifest may be absent, as after `save_pretrained`: keys, plan and report are checked all the same."""
    _, pruned = checkpoints(TinySpec(tied=False), PLAN)
    root = Path(shutil.copytree(pruned, tmp_path / "checkpoint"))
    (root / "pruning.json").unlink()
    assert torch.equal(reference_logits(load_pruned(root), IDS), reference_logits(load_pruned(pruned), IDS))


def test_an_unpruned_checkpoint_is_refused(checkpoints: Checkpoints) -> None:
    """A checkpoint that was never pruned is refused, with the class that loads it."""
    base, _ = checkpoints(TinySpec(), PLAN)
    with pytest.raises(CheckpointError) as error:
        load_pruned(base)
    assert str(error.value) == (
        f"{base} is not pruned: model_type is 'qwen3', but should be 'pruned_qwen3'; "
        "load it with Qwen3ForCausalLM.from_pretrained"
    )


def test_a_flag_that_is_lost_is_noticed(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a model that builds the right modules but would not skip one of them never reaches inference."""
    _, pruned = checkpoints(TinySpec(), PLAN)
    original = PrunedQwen3DecoderLayer.prune

    def forgetful(layer: Any, skipped: frozenset[str], layer_idx: int) -> None:
        original(layer, skipped, layer_idx)
        layer.mlp.__class__ = Qwen3MLP

    monkeypatch.setattr(PrunedQwen3DecoderLayer, "prune", forgetful)
    with pytest.raises(CheckpointError) as error:
        load_pruned(pruned)
    assert str(error.value) == (
        f"{pruned}: the model built skips other sub-layers than config.json says, first layers.0.mlp: "
        "leave out config=..."
    )
