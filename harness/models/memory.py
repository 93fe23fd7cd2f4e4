"""Whether the models of a loading mode fit into memory, told from what is stored."""

from __future__ import annotations

import math

import psutil

from harness.subject.subject import Subject

from .modes import LoadingMode

# Bytes of a parameter while it is loaded: a quantiser reads each in bfloat16 before it makes it small.
_BYTES = {"float32": 4, "bfloat16": 2, "8bit": 2, "4bit": 2}
# Beside the weights: activations, logits of a few hundred tokens over the vocabulary, and what the libraries take.
_ROOM = 1.2


def available_bytes() -> int:
    """Return the bytes of memory that are free on this machine."""
    available: int = psutil.virtual_memory().available
    return available


def model_bytes(elements: int, precision: str) -> int:
    """Return about how many bytes of memory it takes to load and run models of so many parameters in all."""
    return int(elements * _BYTES[precision] * _ROOM)


def too_large(subject: Subject, mode: LoadingMode, available: int) -> str | None:
    """Return why the candidate and its reference cannot be loaded into `available` bytes, None if they can."""
    if subject.says_nothing is not None:
        return subject.says_nothing
    if mode.is_offloaded and mode.place == "disk-all":
        return None
    elements = sum(math.prod(tensor.shape) for tensor in subject.stored.tensors.values())
    elements += sum(math.prod(shape) for shape in subject.unpruned_keys.values())
    wanted = model_bytes(elements, mode.precision)
    if wanted <= available:
        return None
    return f"the models need about {wanted / 1e9:.1f} GB as {mode.name}, and {available / 1e9:.1f} GB are free"
