"""A tiny checkpoint and a plan for it: a case to test with, and the Python that makes it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, prune_checkpoint


@dataclass(frozen=True)
class PrunedCase:
    """A tiny checkpoint, as `spec` describes it, and the plan to prune it by. Its repr is the Python that makes it."""

    spec: TinySpec
    plan: PrunePlan

    def write(self, directory: Path) -> tuple[Path, Path]:
        """Write `directory/base` and, pruned, `directory/pruned`, and return both.

        Raises FileExistsError or PruningError where they are already: each case wants a directory of its own.
        """
        base = write_tiny_checkpoint(self.spec, directory / "base")
        prune_checkpoint(base, directory / "pruned", self.plan, sync=False)
        return base, directory / "pruned"

    def snippet(self) -> str:
        """Return Python to paste that writes the two checkpoints and loads the pruned one."""
        return (
            "from pathlib import Path\n"
            "from tempfile import mkdtemp\n"
            "\n"
            "from harness.testing.cases import PrunedCase\n"
            "from harness.tiny import TinySpec\n"
            "from pruning import PrunePlan, load_pruned\n"
            "\n"
            f"case = {self!r}\n"
            "base, pruned = case.write(Path(mkdtemp()))\n"
            "model = load_pruned(pruned)\n"
        )
