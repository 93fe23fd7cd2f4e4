"""Work in a process of its own, as a user would start it: its seconds from start to end, and its peak memory."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

PRUNE = "from harness.cli.main import main\nmain()"

# What people write who have no tool: everything is loaded, and what is kept is saved.
LOAD_AND_SAVE = """
import sys, torch
from transformers import AutoConfig, AutoModelForCausalLM
source, destination, *prefixes = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
kept = {key: value for key, value in model.state_dict().items() if not key.startswith(tuple(prefixes))}
model.save_pretrained(destination, state_dict=kept, max_shard_size="600MB")
"""

# What people write who care for memory: one shard at a time.
SHARD_BY_SHARD = """
import sys
from pathlib import Path
from safetensors import safe_open
from safetensors.torch import save_file
source, destination, *prefixes = sys.argv[1:]
Path(destination).mkdir()
for path in sorted(Path(source).glob("*.safetensors")):
    with safe_open(path, "pt") as shard:
        kept = {key: shard.get_tensor(key) for key in shard.keys() if not key.startswith(tuple(prefixes))}
    save_file(kept, Path(destination) / path.name, metadata={"format": "pt"})
"""

# The kernel's own mark, which unlike ru_maxrss begins anew with the program.
_WITH_PEAK = """
import atexit, sys
def tell():
    peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
    print(f"peak {peak}", file=sys.stderr)
atexit.register(tell)
"""


def run_fresh(code: str, *arguments: object) -> float:
    """Run Python code with `sys.argv[1:]` in a fresh process; return its peak resident memory in bytes."""
    process = subprocess.run(
        [sys.executable, "-c", _WITH_PEAK + code, *map(str, arguments)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise RuntimeError(process.stderr)
    [peak] = [line.split()[1] for line in process.stderr.splitlines() if line.startswith("peak ")]
    return int(peak) * 1024
