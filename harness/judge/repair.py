"""Put right what is stored, and look again: what then still fails is a fault of the code, by itself.

A model that is loaded from faulty files computes faulty logits whatever its code does. So where files, config or keys
are at fault and the checkpoint brings code of its own, that code is judged over tensors pruned anew from the base.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.checks.stored.config import computing_entries
from harness.subject.stored import CONFIG_FILE
from harness.subject.subject import Subject, read_subject
from harness.system.scratch import scratch_folder
from pruning import PruningError, prune_checkpoint
from pruning.families import FAMILIES


@contextmanager
def repaired(subject: Subject) -> Iterator[Subject | None]:
    """Yield the subject with its stored parts put right, in a scratch directory; None where that says nothing new.

    Weights, tokenizer and the config of the unpruned model come from the base, the plan is the one that was meant;
    Python files and what the config has beyond the base's are the subject's own, unless the stock model reads it, too.
    """
    if subject.base is None or not subject.code.is_own or subject.code.released or not subject.may_run():
        yield None
        return
    with scratch_folder() as scratch:
        directory = scratch / "repaired"
        try:
            # Links would do for the weights, but transformers must find files as it would find the checkpoint's.
            prune_checkpoint(subject.base.root, directory, subject.plan, sync=False, checksum=False)
        except (PruningError, OSError):
            yield None
            return
        for path in directory.glob("*.py"):
            path.unlink()
        for name in subject.code.checksums:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(subject.root / name, directory / name)
        (directory / CONFIG_FILE).write_text(json.dumps(_repaired_config(subject)), encoding="utf-8")
        yield read_subject(directory, subject.base.root, subject.plan, trust_remote_code=True)


def _repaired_config(subject: Subject) -> dict[str, Any]:
    base = dict((subject.base.config if subject.base is not None else None) or {})
    own = dict(subject.stored.config or {})
    own.pop("quantization_config", None)
    own_words = own.keys() - base.keys() - computing_entries()  # by which the code knows its plan, say
    config = {**{name: own[name] for name in own if name in own_words}, **base}
    config |= {name: own[name] for name in ("model_type", "architectures", "auto_map") if name in own}
    if own.get("model_type") in {family.pruned_model_type for family in FAMILIES}:
        config["per_layer_config"] = subject.plan.to_per_layer_config()
    return config
