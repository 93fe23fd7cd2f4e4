"""A sound checkpoint and what it was made from, and others made of these, once for all tests."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from harness.faults import foreign_checkpoint, plant
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, prune_checkpoint

Pair = tuple[Path, Path]


@pytest.fixture(scope="session")
def sound(tiny_checkpoints: Callable[..., Pair]) -> Pair:
    """A tiny base without a tokenizer, and a sound checkpoint pruned from it."""
    return tiny_checkpoints()


@pytest.fixture(scope="session")
def faulty(sound: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, of the same base, that lacks keys which its plan keeps."""
    directory = tmp_path_factory.mktemp("faulty") / "faulty"
    plant("kept-keys-lost", sound[1], directory)
    return directory


@pytest.fixture(scope="session")
def foreign(sound: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model carried by a third party's code."""
    directory = tmp_path_factory.mktemp("foreign") / "foreign"
    foreign_checkpoint(sound[1], directory)
    return directory


@pytest.fixture(scope="session")
def with_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A tiny base with a tokenizer of five words, and a sound checkpoint pruned from it."""
    directory = tmp_path_factory.mktemp("words")
    base = write_tiny_checkpoint(TinySpec(layers=2), directory / "base")
    words = ("<pad>", "<bos>", "<eos>", "two", "words")
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(base / "tokenizer.json"))
    (base / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    prune_checkpoint(base, directory / "pruned", PrunePlan(self_attn=(0,), mlp=(1,)), sync=False)
    return base, directory / "pruned"
