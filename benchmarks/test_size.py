"""Does the time per tensor and per shard grow with their number, or the memory with the bytes? docs/size.svg.

The files hold headers alone: what is measured is what there is to do for each tensor and each shard. Beside it stands
Python's own parsing of the same headers and index. Before each run a process that ends at once touches as much memory:
a virtual machine gives what nobody uses to its host, and who is first to use it again waits. All rounds are
recorded. Their median is what is shown: the shortest would favour few tensors, for a run of a tenth of a second finds a
quiet moment of the machine sooner than one of ten.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import ROOT, machine
from tests.unit.checkpoints import run_python
from tests.unit.sparse import GIANT, write_many, write_sparse

RECORD = ROOT / "fixtures" / "size.json"
TENSORS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
LAYERS = (4, 12, 32, 95, 300, 900)  # of the giant, in shards of 5 GB
WHAT = ("parse", "plan", "prune", "audit")
ROUNDS = 5

# Each in a process of its own: its seconds without the imports, and the kernel's own mark of its memory.
_TOUCH = 'import sys; b"1" * int(sys.argv[1])'
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


def run(what: str, source: Path, destination: Path, memory: int) -> tuple[float, int]:
    """Return the seconds and the peak memory, in bytes, of one of ours or of parsing.

    `memory` is how many bytes are touched before.
    """
    run_python(_TOUCH, memory)
    process = run_python(_WORK, what, source, destination, check=False)
    assert process.returncode == 0, process.stderr
    seconds, peak = json.loads(process.stdout)
    return seconds, peak


def measured(sources: dict[int, Path], memory: Callable[[int], int]) -> list[dict[str, Any]]:
    """Return, of each count of tensors or shards, the seconds of every round and the peak memory of all.

    All counts are measured by turns, so that a machine that is slow for a while is so for each.
    """
    seconds: dict[tuple[int, str], list[float]] = {}
    peaks: dict[tuple[int, str], int] = {}
    for _ in range(ROUNDS):
        for count, source in sources.items():
            destination = source.with_name("out")
            for what in WHAT:
                each, peak = run(what, source, destination, memory(count))
                seconds.setdefault((count, what), []).append(each)
                peaks[count, what] = max(peaks.get((count, what), 0), peak)
            shutil.rmtree(destination)
    return [
        {
            "count": count,
            **{what: {"seconds": seconds[count, what], "peak": peaks[count, what]} for what in WHAT},
        }
        for count in sources
    ]


@pytest.fixture(scope="module")
def record() -> Any:
    """What is measured; with PRUNECHECK_REWRITE set it is what the plot shows from now on."""
    content: dict[str, Any] = {"machine": machine(), "tensors": [], "shards": []}
    yield content
    print(json.dumps(content, indent=2))
    if os.environ.get("PRUNECHECK_REWRITE"):
        RECORD.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def test_tensors(record: Any, tmp_path: Path) -> None:
    """One shard of so many small tensors."""
    sources = {count: write_many(tmp_path / str(count) / "source", tensors=count, shards=1) for count in TENSORS}
    record["tensors"] += measured(sources, memory=lambda count: 3 * 10**8 + 1200 * count)
    shutil.rmtree(tmp_path)


def test_shards(record: Any, tmp_path: Path) -> None:
    """So many layers of a model of 235 billion parameters, in shards of 5 GB."""
    sources = {}
    for layers in LAYERS:
        source = write_sparse(tmp_path / str(layers) / "source", {**GIANT, "num_hidden_layers": layers})
        sources[len(list(source.glob("*.safetensors")))] = source
    record["shards"] += measured(sources, memory=lambda count: 3 * 10**8)
    shutil.rmtree(tmp_path)
