"""A release of transformers in which the KV cache has yet another name: in every forward of Qwen3, and in its outputs.

Made of the installed release, by patching: nothing of ours may notice.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from transformers import Cache
from transformers.models.qwen3 import modeling_qwen3
from transformers.utils import ModelOutput

NEW_NAME = "kv_memory"


def rename_the_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let attention, decoder layer and models take the cache as `NEW_NAME`, and models put it out by that name."""
    old_name = _cache_parameter(modeling_qwen3.Qwen3Attention.forward)
    renamed = _module_with(_rewritten(old_name), folder, monkeypatch)
    for name in ("Qwen3Attention", "Qwen3DecoderLayer", "Qwen3Model"):
        monkeypatch.setattr(getattr(modeling_qwen3, name), "forward", getattr(renamed, name).forward)
    for model_class in (modeling_qwen3.Qwen3Model, modeling_qwen3.Qwen3ForCausalLM):
        monkeypatch.setattr(model_class, "forward", _taking_the_new_name(model_class.forward, old_name))
    causal: Any = modeling_qwen3.Qwen3ForCausalLM
    monkeypatch.setattr(causal, "forward", _putting_out_the_new_name(causal.forward))
    update = causal._update_model_kwargs_for_generation

    def with_old_outputs(self: Any, outputs: Any, *args: Any, **kwargs: Any) -> Any:
        return update(self, outputs.before, *args, **kwargs)

    # What generate reads of an output it would read by the new name, too.
    monkeypatch.setattr(causal, "_update_model_kwargs_for_generation", with_old_outputs)


def _cache_parameter(forward: Any) -> str:
    parameters = inspect.signature(forward).parameters.values()
    return next(each.name for each in parameters if "Cache" in str(each.annotation))


def _rewritten(old_name: str) -> str:
    """Return the source of Qwen3's modeling file, in which attention and decoder layer know the new name alone."""
    source = inspect.getsource(modeling_qwen3)
    for name in ("Qwen3Attention", "Qwen3DecoderLayer"):
        before = inspect.getsource(getattr(modeling_qwen3, name))
        after = re.sub(rf"(?<!\")\b{old_name}\b(?!\")", NEW_NAME, before)
        assert f"{NEW_NAME}=" in after or f"{NEW_NAME}:" in after
        source = source.replace(before, after.replace(f'new_name="{old_name}"', f'new_name="{NEW_NAME}"'))
    source, count = re.subn(
        rf"(decoder_layer\(\n[^)]*?)\b{old_name}={old_name}", rf"\g<1>{NEW_NAME}={old_name}", source
    )
    assert count == 1
    return source


def _module_with(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = folder / "modeling_qwen3_renamed.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"{modeling_qwen3.__package__}.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def _taking_the_new_name(forward: Callable[..., Any], old_name: str) -> Callable[..., Any]:
    """Return a forward whose signature has the new name; callers that know the old one are served until they follow."""
    signature = inspect.signature(forward)
    old = _cache_parameter(forward)

    @functools.wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if NEW_NAME in kwargs:
            kwargs[old_name] = kwargs.pop(NEW_NAME)
        return forward(*args, **kwargs)

    parameters = [each.replace(name=NEW_NAME) if each.name == old else each for each in signature.parameters.values()]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return wrapper


@dataclass
class RenamedOutput(ModelOutput):
    """What a causal language model puts out; its attribute `before` is the output of the installed release."""

    loss: Any = None
    logits: Any = None
    kv_memory: Any = None
    hidden_states: Any = None
    attentions: Any = None


def _putting_out_the_new_name(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        before = forward(*args, **kwargs)
        items = {NEW_NAME if isinstance(value, Cache) else name: value for name, value in before.items()}
        output = RenamedOutput(**items)
        object.__setattr__(output, "before", before)
        return output

    wrapper.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return wrapper
