"""Pruned checkpoints as earlier releases of prunecheck wrote them."""

import hashlib
import json
from pathlib import Path

RELEASED = Path(__file__).parents[2] / "fixtures" / "released"
OLD = "0.1.0"


def carry_old_code(checkpoint: Path) -> Path:
    """Make a checkpoint that was pruned now what 0.1.0 would have written: code, auto_map and manifest; return it."""
    for path in checkpoint.glob("*.py"):
        path.unlink()
    code = {path.name: path.read_bytes() for path in sorted((RELEASED / OLD).glob("*.py"))}
    for name, content in code.items():
        (checkpoint / name).write_bytes(content)
    config = json.loads((checkpoint / "config.json").read_text())
    del config["auto_map"]["AutoModel"]
    (checkpoint / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    manifest = json.loads((checkpoint / "pruning.json").read_text())
    manifest["tool"]["version"] = OLD
    manifest["code"] = {name: hashlib.sha256(content).hexdigest() for name, content in code.items()}
    (checkpoint / "pruning.json").write_text(json.dumps(manifest))
    return checkpoint
