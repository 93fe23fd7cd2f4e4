"""The model families that can be pruned: their names, and which of our files a pruned checkpoint carries.

A family is one line in `FAMILIES` and a pair of files in `pruning/remote/`, `configuration_pruned_<type>.py` and
`modeling_pruned_<type>.py`. All else follows from the names, as it does in transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from .errors import CheckpointError
from .untrusted_files import shortened

# What the modeling files of every family import.
_SHARED_FILES = ("hollow_modules.py", "per_layer_skip.py", "pruned_models.py")


@dataclass(frozen=True)
class Family:
    """A model family: its `model_type`, as in `config.json`, and the prefix of its class names."""

    model_type: str
    class_prefix: str

    @property
    def pruned_model_type(self) -> str:
        """The `model_type` of its pruned checkpoints."""
        return f"pruned_{self.model_type}"

    @property
    def architecture(self) -> str:
        """The stock class, as in `architectures`."""
        return f"{self.class_prefix}ForCausalLM"

    @property
    def pruned_architecture(self) -> str:
        """Our class, as in `architectures`."""
        return f"Pruned{self.architecture}"

    @property
    def modeling_module(self) -> str:
        """The name of the module that defines our class."""
        return f"modeling_{self.pruned_model_type}"

    @property
    def auto_map(self) -> dict[str, str]:
        """The `auto_map` of its pruned checkpoints: Auto class -> file and class."""
        return {
            "AutoConfig": f"configuration_{self.pruned_model_type}.Pruned{self.class_prefix}Config",
            "AutoModel": f"{self.modeling_module}.Pruned{self.class_prefix}Model",
            "AutoModelForCausalLM": f"{self.modeling_module}.{self.pruned_architecture}",
        }

    @property
    def code_names(self) -> tuple[str, ...]:
        """The names of the Python files of its pruned checkpoints."""
        return (f"configuration_{self.pruned_model_type}.py", f"{self.modeling_module}.py", *_SHARED_FILES)

    def code_files(self) -> dict[str, bytes]:
        """Return these files by name, verbatim."""
        return {name: resources.files("pruning.remote").joinpath(name).read_bytes() for name in self.code_names}


FAMILIES = (Family("qwen3", "Qwen3"),)


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family of a config dict, pruned or not; raises CheckpointError if it is of none."""
    model_type = config.get("model_type")
    for family in FAMILIES:
        if model_type in (family.model_type, family.pruned_model_type):
            return family
    known = ", ".join(repr(family.model_type) for family in FAMILIES)
    raise CheckpointError(f"config.json: model_type is {shortened(model_type)}, but only {known} can be pruned")
