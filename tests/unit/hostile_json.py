"""One property of all bytes: as config, index, manifest or plan they are read, or refused in one line, and no more."""

import json
import os
import shutil
from pathlib import Path

from pruning import PrunePlan, PruningError, audit_checkpoint, prune_checkpoint
from pruning.files.source import read_source
from pruning.plan import layer_count
from tests.unit.checkpoints import read_files, write_checkpoint
from tests.unit.differential import LONGEST

KINDS = ("config.json", "model.safetensors.index.json", "pruning.json", "plan.json")


class Stage:
    """Three sound checkpoints in a folder, of each of which one file's bytes are a stranger's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sound: dict[str, bytes] = {}
        for kind, shards in zip(KINDS[:3], (1, 2, 2), strict=True):
            root = write_checkpoint(folder / kind.partition(".")[0], shards=shards)
            if kind == "pruning.json":
                prune_checkpoint(root, folder / "pruned", PrunePlan(mlp=(0,)), sync=False)
                shutil.rmtree(root)
                (folder / "pruned").rename(root)
            self.sound[kind] = (root / kind).read_bytes()
        self.sound["plan.json"] = b'{"self_attn": [1, 2], "mlp": [0]}'

    def try_bytes(self, kind: str, content: bytes) -> bool:
        """Check that a file of this kind with these bytes is read, or refused in one line; return which."""
        try:
            if kind == "plan.json":
                path = self.folder / kind
                path.write_bytes(content)
                plan = PrunePlan.from_file(path)
                assert PrunePlan.from_dict(plan.to_dict()) == plan
                return True
            root = self.folder / kind.partition(".")[0]
            (root / kind).write_bytes(content)
            self._prune(root)
        except PruningError as error:
            line = str(error)
            assert line.isprintable(), line
            assert len(line) <= LONGEST, line
            return False
        return True

    def _prune(self, root: Path) -> None:
        """Prune what was read; what is refused leaves nothing, and what is not is a checkpoint again."""
        out = self.folder / "out"
        before = sorted(os.listdir(self.folder))
        source = read_source(root)
        try:
            prune_checkpoint(root, out, PrunePlan(self_attn=(1,)), sync=False)
            audit_checkpoint(out)
            again = read_source(out)
            assert layer_count(again.config) == layer_count(source.config)
            assert again.plan == source.plan | PrunePlan(self_attn=(1,))
            for name, data in read_files(out).items():
                if name.endswith(".json"):
                    json.loads(data)
        except PruningError:
            assert not out.exists()
            raise
        finally:
            shutil.rmtree(out, ignore_errors=True)
            assert sorted(os.listdir(self.folder)) == before
