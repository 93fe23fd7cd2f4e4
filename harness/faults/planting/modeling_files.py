"""The same pruned model, carried by a third party's code: `model_type` qwen3, flags of its own, other cache entries.

Most faults in modeling code are planted in this code, since it is of the kind that they are met in.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from .checkpoint_files import Json, config_of, copy_checkpoint, edit_config, plan_of

FOREIGN_FILE = "modeling_skipping_qwen3.py"
_FOREIGN_CLASS = "SkippingQwen3ForCausalLM"


def foreign_checkpoint(pruned: Path, destination: Path) -> None:
    """Write a sound foreign checkpoint with the weights and the plan of `pruned`, which may be foreign already.

    Weights, manifest, tokenizer and generation config are copied as they are. Our Python files are left out, and
    `config.json` names the foreign class and lists what it skips.
    """
    copy_checkpoint(pruned, destination)
    if is_foreign(pruned):
        return
    for path in destination.glob("*.py"):
        path.unlink()
    (destination / FOREIGN_FILE).write_text(_foreign_code(), encoding="utf-8")

    def change(config: Json) -> None:
        self_attn, mlp = plan_of(config)
        config.pop("per_layer_config", None)
        config.update(
            model_type="qwen3",
            architectures=[_FOREIGN_CLASS],
            auto_map={"AutoModelForCausalLM": f"{Path(FOREIGN_FILE).stem}.{_FOREIGN_CLASS}"},
            skip_attention=sorted(self_attn),
            skip_mlp=sorted(mlp),
        )

    edit_config(destination, change)


def is_foreign(checkpoint: Path) -> bool:
    """Return whether a checkpoint carries the foreign code."""
    return "skip_attention" in config_of(checkpoint) and (checkpoint / FOREIGN_FILE).exists()


def _foreign_code() -> str:
    return resources.files("harness.faults.planting.remote").joinpath(FOREIGN_FILE).read_text(encoding="utf-8")
