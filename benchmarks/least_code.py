"""A stock checkpoint that comes with code of its own, two classes that add nothing: the floor for any that has some."""

import os
import shutil
from pathlib import Path

from harness.faults.planting.checkpoint_files import Json, edit_config

LEAST_CODE = "the same by the least code of its own"
_FILES = {
    "configuration_least.py": """from transformers import Qwen3Config


class LeastConfig(Qwen3Config):
    pass
""",
    "modeling_least.py": """from transformers import Qwen3ForCausalLM

from .configuration_least import LeastConfig


class LeastForCausalLM(Qwen3ForCausalLM):
    config_class = LeastConfig
""",
}


def with_least_code(stock: Path, destination: Path) -> None:
    """Write `stock` with a config and a model class of its own. Shards are links: their pages are the same memory."""
    shutil.copytree(stock, destination, ignore=shutil.ignore_patterns("*.safetensors"))
    for shard in stock.glob("*.safetensors"):
        os.link(shard, destination / shard.name)
    for name, text in _FILES.items():
        (destination / name).write_text(text, encoding="utf-8")

    def change(config: Json) -> None:
        config["architectures"] = ["LeastForCausalLM"]
        config["auto_map"] = {
            "AutoConfig": "configuration_least.LeastConfig",
            "AutoModelForCausalLM": "modeling_least.LeastForCausalLM",
        }

    edit_config(destination, change)
