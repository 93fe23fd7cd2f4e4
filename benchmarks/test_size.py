"""Does the time per tensor and per shard grow with their number, or the memory with the bytes? docs/size.svg.

The files hold headers alone: what is measured is what there is to do for each tensor and each shard. Beside it stands
Python's own parsing of the same headers and index. Before each run the memory that it needs is touched by a process that
ends at once: a virtual machine gives what nobody uses back to its host, and whoever is first to use it again waits.
"""

import json
import os
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import ROOT, machine
from tests.unit.checkpoints import run_python
from tests.unit.sparse import GIANT, write_many, write_sparse

RECORD = ROOT / "fixtures" / "size.json"
TENSORS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
LAYERS = (4, 12, 32, 95, 300, 900)  # of the giant, in shards of 5 GB
ROUNDS = 5

# Each in a process of its own: its seconds without the imports, and the kernel's own mark of its memory.
_TOUCH = 'b"1" * (2 << 30)'
_WORK = """
import gc, json, sys, time
from pathlib import Path
from pruning import PrunePlan, audit_checkpoint, prune_checkpoint
what, source, destination = sys.argv[1:]
plan = PrunePlan(mlp=(0, 2))
begin = time.perf_counter()
if what == "parse":
    gc.disable()  # as ours is
    parsed = [json.loads(path.read_text()) for path in Path(source).glob("*.index.json")]
    for path in Path(source).glob("*.safetensors"):
        with path.open("rb") as file:
            parsed.append(json.loads(file.read(int.from_bytes(file.read(8), "little"))))
elif what == "plan":
    plan.removed_bytes(source)
elif what == "prune":
    prune_checkpoint(source, destination, plan, checksum=False, sync=False)
else:
    audit_checkpoint(destination, checksum=False)
seconds = time.perf_counter() - begin
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
print(json.dumps([seconds, int(peak) * 1024]))
"""


def measured(source: Path, destination: Path) -> dict[str, dict[str, float]]:
    """Return the median seconds and the peak memory, in bytes, of parsing, a plan, pruning and an audit of headers."""
    seconds: dict[str, list[float]] = {"parse": [], "plan": [], "prune": [], "audit": []}
    peaks = dict.fromkeys(seconds, 0)
    for _ in range(ROUNDS):
        shutil.rmtree(destination, ignore_errors=True)
        for what, times in seconds.items():
            run_python(_TOUCH)
            process = run_python(_WORK, what, source, destination, check=False)
            assert process.returncode == 0, process.stderr
            each, peak = json.loads(process.stdout)
            times.append(each)
            peaks[what] = max(peaks[what], peak)
    return {what: {"seconds": statistics.median(times), "peak": peaks[what]} for what, times in seconds.items()}


@pytest.fixture(scope="module")
def record() -> Any:
    """What is measured; with PRUNECHECK_REWRITE set it is what the plot shows from now on."""
    content: dict[str, Any] = {"machine": machine(), "tensors": [], "shards": []}
    yield content
    print(json.dumps(content, indent=2))
    if os.environ.get("PRUNECHECK_REWRITE"):
        RECORD.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@pytest.mark.parametrize("tensors", TENSORS)
def test_tensors(tensors: int, record: Any, tmp_path: Path) -> None:
    """One shard of so many small tensors."""
    source = write_many(tmp_path / "source", tensors=tensors, shards=1)
    record["tensors"].append({"count": tensors, **measured(source, tmp_path / "out")})
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("layers", LAYERS)
def test_shards(layers: int, record: Any, tmp_path: Path) -> None:
    """So many layers of a model of 235 billion parameters, in shards of 5 GB."""
    source = write_sparse(tmp_path / "source", {**GIANT, "num_hidden_layers": layers})
    files = [path.stat().st_size for path in source.glob("*.safetensors")]
    record["shards"].append({"count": len(files), "bytes": sum(files), **measured(source, tmp_path / "out")})
    shutil.rmtree(tmp_path)
