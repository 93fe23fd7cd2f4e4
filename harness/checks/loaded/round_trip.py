"""The round trip: saved and loaded again, or pruned again, the checkpoint is what it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from harness.checks.check import FaultFound, Numbers, fault, listed
from harness.checks.stored.values import as_bytes
from harness.errors import NotChecked
from harness.models.batches import BATCHES
from harness.models.forward import uncached_logits
from harness.models.session import Session, first_line
from harness.reference.tolerances import assert_logits_close
from harness.subject.stored import HEAD, StoredCheckpoint, read_stored, tensors_file_by_file
from harness.subject.subject import Subject, is_under
from harness.system.scratch import scratch_folder
from harness.system.whose_error import raised_by
from pruning import PrunePlan, PruningError, prune_checkpoint
from pruning.families import FAMILIES
from pruning.plan import sublayers_of

from .candidate import candidate_logits, candidate_runs
from .repetition import compares_passes

_REMEDY = "Let save_pretrained write what state_dict() gives, for a model that holds kept parameters only."


@compares_passes
def round_trip(session: Session) -> Numbers:
    """`save_pretrained` writes the same keys and values, and what it wrote loads and computes the same logits."""
    subject, saved = session.subject, session.scratch / "saved"
    _require_room(saved.parent, 2 * subject.stored.bytes)
    batch = BATCHES["random"](session)
    before = candidate_logits(session, batch)
    try:
        with candidate_runs(session):
            session.model.save_pretrained(saved)
        stored = read_stored(saved)
        surplus = set(stored.tensors) - set(subject.stored.tensors) - {HEAD}
        surplus -= subject.optional_keys
        if surplus and all(is_under(key, subject.plan) for key in surplus):
            subject.findings.append(
                f"saving the loaded model writes {len(surplus)} random tensors of pruned sub-layers: {listed(surplus)}"
            )
            surplus = set()
        missing = set(subject.stored.tensors) - set(stored.tensors) - subject.optional_keys - {HEAD}
        changed = {
            key
            for key, values in tensors_file_by_file(stored.tensors)
            if key in subject.stored.tensors
            and not torch.equal(values, subject.stored.tensors[key].read().to(values.dtype))
        }
        if wrong := missing | surplus | changed:
            raise FaultFound(
                fault(
                    "keys", "saved-differently",
                    f"{len(wrong)} key(s) are not what they were after save_pretrained: {listed(wrong)}",
                    f"missing {len(missing)}, surplus {len(surplus)}, changed {len(changed)}", remedy=_REMEDY,
                )
            )  # fmt: skip
        with candidate_runs(session):
            again = type(session.model).from_pretrained(saved, dtype=session.model.dtype).eval()
            after = uncached_logits(again, batch)
    finally:
        shutil.rmtree(saved, ignore_errors=True)
    try:
        assert_logits_close(
            after, before, dtype=session.mode.precision, operation="reference", context="saved and loaded again"
        )
    except AssertionError as error:
        raise FaultFound(fault("keys", "reload-differs", str(error), remedy=_REMEDY)) from None
    return {"keys": len(stored.tensors), "difference": float((after - before).abs().max())}


def offloaded_save(session: Session) -> Numbers:
    """A model with weights on the disk can be saved, and what is saved has the keys that are stored."""
    saved = session.scratch / "saved"
    _require_room(saved.parent, 2 * session.subject.stored.bytes)
    try:
        session.model.save_pretrained(saved)
        missing = set(session.subject.stored.tensors) - set(read_stored(saved).tensors) - {HEAD}
        problem = f"{len(missing)} kept key(s) are not written: {listed(missing)}" if missing else None
    except Exception as error:
        if not raised_by(error, session.model):
            raise
        problem = f"save_pretrained raises {first_line(error)}"
    finally:
        shutil.rmtree(saved, ignore_errors=True)
    if problem is not None:
        raise FaultFound(
            fault(
                "offload", "offloaded-save", f"the model cannot be saved while weights are on the disk: {problem}",
                "the class registers parameters that are stored nowhere",
                remedy="Register no parameter of a pruned module, or save a model that is whole in memory.",
            )
        )  # fmt: skip
    return {}


def prune_again(subject: Subject) -> Numbers:
    """Pruned once more, every tensor that is left has the bytes that it has here."""
    if (subject.stored.config or {}).get("model_type") not in {family.pruned_model_type for family in FAMILIES}:
        raise NotChecked("the checkpoint was not written by prunecheck: pruning it further is not promised")
    more = _one_more(subject)
    with scratch_folder() as scratch:
        _require_room(scratch, subject.stored.bytes)
        destination = scratch / "pruned-again"
        try:
            prune_checkpoint(subject.root, destination, subject.plan | more, sync=False, checksum=False)
            reason = _differing(read_stored(destination), subject, more)
        except PruningError as error:
            raise NotChecked(f"it cannot be pruned further: {error}") from None
    if reason is not None:
        raise FaultFound(
            fault(
                "files", "cannot-be-pruned-again", f"pruned once more ({more}), the checkpoint is not itself: {reason}",
                remedy="Prune the base again with prunecheck.",
            )
        )  # fmt: skip
    return {"pruned_more": len(more.sublayers)}


def _differing(pruned: StoredCheckpoint, subject: Subject, more: PrunePlan) -> str | None:
    """Return what is wrong with the first tensor that is not what it is in the checkpoint, None if all are right."""
    expected = {key for key in subject.stored.tensors if not is_under(key, more)}
    for key in sorted(expected ^ pruned.tensors.keys()):
        return f"{key} is missing" if key in expected else f"{key} is stored, but should not be"
    for key, values in tensors_file_by_file(pruned.tensors):
        before = subject.stored.tensors[key].read()
        if values.dtype != before.dtype or not torch.equal(as_bytes(values), as_bytes(before)):
            return f"{key} differs from the checkpoint's"
    return None


def _one_more(subject: Subject) -> PrunePlan:
    """Return a plan of the last sub-layer that is kept, empty if none is."""
    kept = [each for each in sublayers_of(int(subject.config["num_hidden_layers"])) if each not in subject.plan]
    return PrunePlan.of(kept[-1:])


def _require_room(directory: Path, wanted: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < wanted + 10**8:
        raise NotChecked(f"it needs {wanted / 1e9:.1f} GB of disk, and {free / 1e9:.1f} GB are free")
