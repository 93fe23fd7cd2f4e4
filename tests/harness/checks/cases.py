"""Tiny checkpoints, unpruned and soundly pruned, for the checks to judge, and the ways of judging a fault in them."""

import functools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from harness.faults import Fault, SoundVariant
from harness.judge.judge import check_checkpoint, check_model
from harness.report.outcomes import CheckRecord
from harness.report.report import Report
from harness.system.libraries import quiet_libraries
from harness.tiny import TinySpec, write_tiny_checkpoint
from pruning import PrunePlan, prune_checkpoint

_SMALL: dict[str, Any] = {"hidden_size": 16, "heads": 2, "key_value_heads": 1, "head_dim": 8, "intermediate_size": 16}
# In the order in which a case is looked for that meets what a fault or a variant requires.
SPECS = {
    "untied": (
        TinySpec(layers=4, layer_types="mixed", tied=False, dtype="bfloat16", shards=3),
        PrunePlan(self_attn=(0, 1), mlp=(1,)),
    ),
    "tied": (TinySpec(layers=3, vocabulary_size=320), PrunePlan(self_attn=(1,), mlp=(0,))),
    "long": (TinySpec(layers=12, **_SMALL), PrunePlan(self_attn=(1,), mlp=(4,))),
    "nothing": (TinySpec(layers=2, **_SMALL), PrunePlan()),
    "everything": (TinySpec(layers=2, **_SMALL), PrunePlan(self_attn=(0, 1), mlp=(0, 1))),
}
# What is told of a fault under another family than its own, and why.
TOLD_OTHERWISE = {
    "layer-idx-stale": ("config", "deleting layers changes their number, which is a fault before any cache is used"),
}
# The dearest checks are the last: none of the faults is left to them alone.
WITHOUT_TEXT = "not text"
PLAIN: dict[str, Any] = {"device_map": ("plain",), "dtype": ("float32",), "quantisation": ()}


@dataclass(frozen=True)
class Case:
    """An unpruned checkpoint, and the sound pruned one that was made from it by `plan`."""

    base: Path
    sound: Path
    plan: PrunePlan


def cases_in(folder: Path) -> Callable[[str], Case]:
    """Return a function from the name of a spec to its case, which is made in `folder` when first asked for."""

    @functools.cache
    def case(name: str) -> Case:
        spec, plan = SPECS[name]
        # transformers names the modules of a checkpoint's code after its directory.
        base, sound = folder / f"{name}_base", folder / f"{name}_sound"
        write_tiny_checkpoint(spec, base)
        if spec.vocabulary_size >= 256:
            write_tokenizer(base)
        prune_checkpoint(base, sound, plan, sync=False)
        return Case(base, sound, plan)

    return case


def suitable_case(mutation: Fault | SoundVariant, case: Callable[[str], Case]) -> Case:
    """Return the first case in which a fault can be planted, or of which a variant can be made."""
    return next(found for found in map(case, SPECS) if mutation.requires(found.sound) is None)


def write_tokenizer(checkpoint: Path) -> None:
    """Write a tokenizer whose tokens are the 256 bytes, and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    content = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")


def judge(case: Case, checkpoint: Path | None = None, **options: Any) -> Report:
    """Judge a checkpoint, the case's sound one if none is given, in plain float32 unless options say otherwise."""
    arguments = {"base": case.base, "trust_remote_code": True, **PLAIN, **options}
    return check_checkpoint(case.sound if checkpoint is None else checkpoint, **arguments)


@contextmanager
def judged_load(mutation: Fault | SoundVariant, case: Case, keyword: str | None = None) -> Iterator[Report]:
    """Yield the report on the model that a wrong, or unusual, load gives."""
    assert mutation.load is not None
    with quiet_libraries(), mutation.load(case.sound) as model:
        yield judge_model(model, case, keyword)


def judge_model(model: Any, case: Case, keyword: str | None = None) -> Report:
    """Judge a model with the checkpoint that it comes from: the third party's scratch copy, or else the sound one."""
    own = Path(model.config._name_or_path)
    checkpoint = own if own.is_dir() and "Skipping" in type(model).__name__ else case.sound
    return check_model(model, checkpoint=checkpoint, base=case.base, keyword=keyword)


def judge_mutation(mutation: Fault | SoundVariant, case: Case, folder: Path, **options: Any) -> Report:
    """Judge a case's sound checkpoint after the mutation; planted copies go into a new directory of `folder`."""
    if mutation.load is not None:
        with judged_load(mutation, case, options.get("keyword")) as report:
            return report
    assert mutation.plant is not None
    destination = folder / re.sub(r"\W", "_", f"{mutation.id} {case.sound.name}")
    mutation.plant(case.sound, destination)
    return judge(case, destination, **options)


def told_family(fault: Fault) -> str:
    """Return the family that a report names first."""
    return TOLD_OTHERWISE.get(fault.id, (fault.family, ""))[0]


def record(report: Report, name: str) -> CheckRecord:
    """Return what one check came to."""
    (found,) = (check for check in report.checks if check.name == name)
    return found


def told(report: Report) -> str:
    """Return a report in short, for the message of a failed assertion."""
    return f"{report.verdict}: {[(fault.family, fault.cause) for fault in report.faults]}, {report.findings}"
