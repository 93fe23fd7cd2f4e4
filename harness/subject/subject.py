"""What is judged: a checkpoint, its base, and the plan that was meant. Nothing of the checkpoint runs here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from harness.errors import CannotRun
from pruning import CheckpointError, PlanError, PrunePlan
from pruning.families import FAMILIES
from pruning.files.source import find_checkpoint
from pruning.load import hub_kernel

from .checkpoint_code import CheckpointCode, differences_from_manifest, read_code
from .stock import stock_config, stock_config_object, stock_shapes
from .stored import StoredCheckpoint, read_stored
from .sublayer_keys import Norm, sublayer_of
from .untrusted_files import read_json_or_none

MANIFEST_FILE = "pruning.json"
PRUNED_MODEL_TYPES: Final = frozenset(family.pruned_model_type for family in FAMILIES)


@dataclass(frozen=True)
class Subject:
    """A checkpoint to judge.

    `plan` is the plan that was meant, `plan_source` where it was read; `declared_plan` what config.json says in
    transformers' own words (None if it says nothing), `manifest` the content of pruning.json. `trusted` says whether
    the checkpoint's own code may run. `device_map` and the like belong to loading: see `loading_modes`. `findings`
    and `memory` are what checks leave there: for people, and for the checks of other ways of loading.
    """

    stored: StoredCheckpoint
    base: StoredCheckpoint | None
    plan: PrunePlan
    plan_source: str
    declared_plan: PrunePlan | None
    config_error: str | None
    manifest: Mapping[str, Any] | None
    code: CheckpointCode
    trusted: bool
    findings: list[str] = field(default_factory=list, compare=False)
    memory: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def root(self) -> Path:
        """The checkpoint's directory."""
        return self.stored.root

    @property
    def is_state_dict_only(self) -> bool:
        """Whether the directory holds tensors without a config, so that transformers cannot load it by itself."""
        return self.stored.config is None

    @property
    def says_nothing(self) -> str | None:
        """Why nothing says what the model is, so that none is built; None where its own config, or the base's, does."""
        if self.base is not None or self.stored.config:
            return None
        if self.is_state_dict_only:
            return "a state dict without config.json needs --base, whose config says what it belongs to"
        return "config.json cannot be read, and there is no --base whose config says what it was"

    @cached_property
    def unpruned_config(self) -> Mapping[str, Any] | None:
        """The unpruned model's config.json: the base's, or else what the manifest says that it was; None if neither."""
        if self.base is not None:
            return self.base.config
        noted = self._noted_of_the_source("config")
        try:
            stock_config_object(stock_config(noted))
        except ValueError:  # nothing is noted, or it is no such config
            return None
        return noted

    @cached_property
    def noted_files(self) -> Mapping[str, Any]:
        """Name -> sha256 of the unpruned model's tokenizer and the like, as the manifest has them; empty without."""
        return self._noted_of_the_source("files")

    def _noted_of_the_source(self, name: str) -> Mapping[str, Any]:
        source = (self.manifest or {}).get("source")
        noted = source.get(name) if isinstance(source, Mapping) else None
        return noted if isinstance(noted, Mapping) else {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The stock config of the unpruned model, or else what the checkpoint's own amounts to."""
        return stock_config(self.unpruned_config or self.stored.config or {})

    @cached_property
    def unpruned_keys(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape of the unpruned model: the base's, or else those of the stock class; a tied head left out."""
        if self.base is not None:
            return {key: tensor.shape for key, tensor in self.base.tensors.items()}
        return stock_shapes(self.config)

    @cached_property
    def optional_keys(self) -> set[str]:
        """The keys that may be stored or not: norms in front of pruned sub-layers, which nothing runs."""
        return {f"model.{Norm(each)}.weight" for each in self.plan}

    @cached_property
    def expected_keys(self) -> set[str]:
        """The keys that should be stored, all canonical; `optional_keys` are among them."""
        return {key for key in self.unpruned_keys if not is_under(key, self.plan)}

    def may_run(self) -> bool:
        """Whether loading the checkpoint runs only code that is allowed to."""
        return self.trusted or self.code.released is not None or not self.code.is_own


def is_under(key: str, plan: PrunePlan) -> bool:
    """Whether a canonical key belongs to a sub-layer that a plan prunes."""
    return sublayer_of(key) in plan


def read_subject(
    checkpoint: str | Path,
    base: str | Path | None = None,
    plan: PrunePlan | None = None,
    *,
    trust_remote_code: bool = False,
) -> Subject:
    """Read what is to be judged, headers and JSON only.

    `plan` is the plan that was meant; without it, it is the manifest's, or derived from which keys are absent.
    Raises CannotRun if the checkpoint or its base is none, or the base is pruned itself, broken or no Qwen3, or if the
    two are swapped, or the checkpoint is an unpruned one.
    """
    stored = read_stored(checkpoint)
    base_stored = None if base is None else _read_base(_find_base(base), stored)
    manifest = _read_manifest(stored.root)
    config_error, declared = _declared_plan(stored.config)
    chosen, source = _meant_plan(plan, manifest, declared, stored, base_stored)
    code = read_code(stored.root, stored.config or {})
    if base_stored is not None and chosen.is_empty and not code.is_own:
        _require_pruned(stored, base_stored, manifest)
    return Subject(
        stored=stored,
        base=base_stored,
        plan=chosen,
        plan_source=source,
        declared_plan=declared,
        config_error=config_error,
        manifest=manifest,
        code=code,
        trusted=trust_remote_code,
        findings=differences_from_manifest(code, manifest),
    )


def _find_base(base: str | Path) -> Path:
    """Return the base's directory; a hub id is fetched, or found in the hub's cache."""
    try:
        return find_checkpoint(base)
    except CheckpointError as error:
        raise CannotRun(f"the base {error}") from None


def _require_pruned(stored: StoredCheckpoint, base: StoredCheckpoint, manifest: Mapping[str, Any] | None) -> None:
    """Raise CannotRun for the base itself or a copy: it is of the base's class, and no word or key says otherwise."""
    config, stock = stored.config or {}, base.config or {}
    is_stock = manifest is None and config.get("model_type") == stock.get("model_type")
    if is_stock and not stored.faults and base.tensors.keys() <= stored.tensors.keys():
        raise CannotRun(
            f"nothing is pruned in {stored.root}: it holds every tensor of the base {base.root}; "
            "name the pruned checkpoint first, and the base as --base"
        )


def _read_base(root: Path, judged: StoredCheckpoint) -> StoredCheckpoint:
    base = read_stored(root)
    if base.faults:
        raise CannotRun(f"the base {root} is broken: {base.faults[0].cause}")
    if base.config is None:
        raise CannotRun(f"the base {root} has no config.json: name the unpruned checkpoint's directory")
    if kernel := hub_kernel(base.config):
        raise CannotRun(f"the base {root} asks for code of a hub repository in config.json, {kernel[:100]}: remove it")
    try:
        expected = stock_shapes(stock_config(base.config))
    except ValueError as error:
        raise CannotRun(f"the base {root} cannot be a reference: {error}") from None
    missing = sorted(expected.keys() - base.tensors.keys())
    if missing and judged.tensors.keys() >= set(missing):
        raise CannotRun(
            f"the base {root} lacks {missing[0]}, which {judged.root} holds: they are swapped; "
            "name the pruned checkpoint first, and the unpruned one as --base"
        )
    if missing:
        raise CannotRun(
            f"the base {root} lacks {len(missing)} tensor(s), first {missing[0]}: name the unpruned checkpoint"
        )
    return base


def _read_manifest(root: Path) -> Mapping[str, Any] | None:
    content = read_json_or_none(root / MANIFEST_FILE)
    well_formed = isinstance(content, dict) and all(isinstance(content.get(name), dict) for name in ("plan", "kept"))
    return content if well_formed else None


def _declared_plan(config: Mapping[str, Any] | None) -> tuple[str | None, PrunePlan | None]:
    """Return what is wrong with the plan in a config's `per_layer_config`, and the plan itself, if it has one.

    Under a class of somebody else's the same name may mean another thing, which is none of ours.
    """
    if not config or config.get("per_layer_config") is None:
        return None, None
    if config.get("model_type") not in PRUNED_MODEL_TYPES and not _has_skips(config["per_layer_config"]):
        return None, None
    try:
        return None, PrunePlan.from_config(config)
    except (PlanError, CheckpointError, ValueError) as error:
        return str(error), None


def _has_skips(content: Any) -> bool:
    return isinstance(content, dict) and any(isinstance(each, dict) and "skip" in each for each in content.values())


def _meant_plan(
    plan: PrunePlan | None,
    manifest: Mapping[str, Any] | None,
    declared: PrunePlan | None,
    stored: StoredCheckpoint,
    base: StoredCheckpoint | None,
) -> tuple[PrunePlan, str]:
    if plan is not None:
        return plan, "the plan that was given"
    if manifest is not None:
        try:
            return PrunePlan.from_dict(manifest["plan"]), MANIFEST_FILE
        except PlanError:
            pass  # the check of the manifest says so
    absent = absent_plan(stored, base)
    if absent.is_empty and declared is not None:
        return declared, "config.json"
    return absent, "which keys are absent"


def absent_plan(stored: StoredCheckpoint, base: StoredCheckpoint | None) -> PrunePlan:
    """Return the plan that the stored keys amount to: the unpruned model's sub-layers of which no key is stored."""
    if base is not None:
        unpruned = set(base.tensors)
    else:
        try:
            unpruned = set(stock_shapes(stock_config(stored.config or {})))
        except ValueError:
            return PrunePlan()  # the check of the config says so
    sublayers = {sublayer for key in unpruned if (sublayer := sublayer_of(key)) is not None}
    present = {sublayer for key in stored.tensors if (sublayer := sublayer_of(key)) is not None}
    if not present:
        return PrunePlan() if not stored.tensors else PrunePlan.of(sublayers)
    return PrunePlan.of(sublayers - present)
