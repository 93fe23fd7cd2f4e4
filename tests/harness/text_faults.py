"""Ways of making a model talk wrongly that need no other files than its own: cache, positions, tokenizer, precision."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, Cache

PRECISIONS = {
    "float32": {"dtype": torch.float32},
    "bfloat16": {"dtype": torch.bfloat16},
    "8bit": {"dtype": torch.bfloat16, "quantization_config": BitsAndBytesConfig(load_in_8bit=True)},
    "4bit": {
        "dtype": torch.bfloat16,
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        ),
    },
}


@contextmanager
def patched(module: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Put `make(old)` in the place of the method `name` of `module`."""
    setattr(module, name, make(getattr(module, name)))
    try:
        yield
    finally:
        delattr(module, name)


@contextmanager
def cache_ignored(model: Any, layers: list[int]) -> Iterator[None]:
    """Let the attentions of these layers see, after the prompt, only the token at hand."""

    def make(forward: Any) -> Any:
        def forgetful(*args: Any, **kwargs: Any) -> Any:
            if kwargs["hidden_states"].shape[1] == 1:
                caches = [name for name, each in kwargs.items() if isinstance(each, Cache)]
                kwargs |= dict.fromkeys((*caches, "attention_mask"))
            return forward(*args, **kwargs)

        return forgetful

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(patched(model.model.layers[layer].self_attn, "forward", make))
        yield


def positions_shifted(model: Any, shift: int) -> Any:
    """Count the positions of each token after the prompt `shift` too high."""

    def make(forward: Any) -> Any:
        def shifted(hidden: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
            return forward(hidden, position_ids + (shift if position_ids.shape[-1] == 1 else 0), *args, **kwargs)

        return shifted

    return patched(model.model.rotary_emb, "forward", make)


@contextmanager
def one_weight_is_nan(model: Any) -> Iterator[None]:
    """Put NaN in one weight of a norm."""
    weight = model.model.layers[-1].post_attention_layernorm.weight.data
    kept = weight[0].item()
    weight[0] = math.nan
    try:
        yield
    finally:
        weight[0] = kept


def stock_class(pruned: Path, directory: Path) -> Any:
    """Load a pruned checkpoint by the stock class, which fills what is missing with random weights and runs it."""
    directory.mkdir()
    config = json.loads((pruned / "config.json").read_text()) | {"model_type": "qwen3"}
    for name in ("auto_map", "per_layer_config"):
        config.pop(name, None)
    (directory / "config.json").write_text(json.dumps(config))
    for path in pruned.glob("*.safetensors*"):
        (directory / path.name).symlink_to(path)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def edited_tokenizer(base: Path, directory: Path, edit: Callable[[dict[str, Any]], Any]) -> Any:
    """Load the base's tokenizer with an edited `tokenizer.json`."""
    directory.mkdir()
    for name in ("config.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base / name, directory)
    content = json.loads((base / "tokenizer.json").read_text())
    edit(content)
    (directory / "tokenizer.json").write_text(json.dumps(content))
    return AutoTokenizer.from_pretrained(directory)


def shift_vocabulary(content: dict[str, Any]) -> None:
    """Give each token but the special ones the id of the next."""
    vocabulary = content["model"]["vocab"]
    special = {token["id"] for token in content["added_tokens"]}
    tokens = [token for token, index in vocabulary.items() if index not in special]
    ids = [vocabulary[token] for token in tokens]
    vocabulary |= zip(tokens, ids[1:] + ids[:1], strict=True)
