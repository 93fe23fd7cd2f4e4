"""A checkpoint that knows how often each letter comes, and knows it by one mlp alone."""

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from harness.faults.planting.checkpoint_files import edit_tensors
from harness.text.generation import text_prompts
from harness.tiny import TinySpec, write_tiny_checkpoint
from tests.harness.checks.cases import write_tokenizer

_SPEC = TinySpec(
    layers=2, vocabulary_size=320, hidden_size=16, heads=1, key_value_heads=1, head_dim=8, intermediate_size=16,
    tied=False,
)  # fmt: skip


def write_checkpoint_of_one_mlp(directory: Path) -> Path:
    """Write a checkpoint whose logits are, for every token, the log shares of bytes in our prompts.

    Each embedding is 1 in the first place and 0 elsewhere. The mlp of layer 0 turns that 1 into a large negative
    number, nothing else adds anything, and the final norm makes it -1 times a constant; so without that mlp the logits
    are those of a model that says what is rare.
    """
    write_tiny_checkpoint(_SPEC, directory)
    write_tokenizer(directory)
    log_shares = _log_shares(directory)

    def change(tensors: dict[str, Tensor]) -> None:
        for key, tensor in tensors.items():
            tensors[key] = torch.ones_like(tensor) if key.endswith("norm.weight") else tensor * 0
        tensors["model.embed_tokens.weight"][:, 0] = 1
        for name in ("gate_proj", "up_proj"):
            tensors[f"model.layers.0.mlp.{name}.weight"][0, 0] = 1
        tensors["model.layers.0.mlp.down_proj.weight"][0, 0] = -10
        tensors["lm_head.weight"][:, 0] = -log_shares / _SPEC.hidden_size**0.5

    edit_tensors(directory, change)
    return directory


def _log_shares(directory: Path) -> Tensor:
    """Return the log share of each token in the prompts, none of them being without one."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    counts = Counter(
        token for texts in text_prompts().values() for text in texts for token in tokenizer.encode(text).ids
    )
    shares = torch.tensor([counts[token] + 0.1 for token in range(_SPEC.vocabulary_size)])
    return (shares / shares.sum()).log()
