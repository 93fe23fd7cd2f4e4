"""A checkpoint's own code in a process where prunecheck cannot be imported."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

_PROGRAM = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pruning", "harness"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
checkpoint, folder = sys.argv[1:]
ids, found = torch.load(f"{folder}/ids.pt"), []
for step in range(2):
    model = AutoModelForCausalLM.from_pretrained(checkpoint, trust_remote_code=True)
    with torch.no_grad():
        found.append(model(ids, use_cache=False).logits.float())
    checkpoint = f"{folder}/saved_{step}"
    model.save_pretrained(checkpoint)
torch.save(found, f"{folder}/logits.pt")
"""


def logits_elsewhere(checkpoint: Path, ids: torch.Tensor) -> list[torch.Tensor]:
    """Return the logits of `ids` (batch, tokens) after a load, and after a save and another load.

    Raises RuntimeError, with the last line that the process wrote, if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.save(ids, f"{folder}/ids.pt")
        finished = subprocess.run(
            [sys.executable, "-P", "-c", _PROGRAM, str(checkpoint), folder],
            cwd=folder,
            env={**os.environ, "HF_MODULES_CACHE": f"{folder}/modules", "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if finished.returncode:
            raise RuntimeError(finished.stderr.strip().rpartition("\n")[2])
        found: list[torch.Tensor] = torch.load(f"{folder}/logits.pt")
        return found
