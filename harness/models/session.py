"""One way of loading, under judgement: the candidate, and an equally loaded stock model of the base beside it.

There are never more than these two in memory. The stock model is the reference of every kind: with the plan's
sub-layers left out, with their last projections zeroed, or as it is.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationMixin, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from harness.errors import NotChecked
from harness.reference.models import load_stock, with_zero_weights, without_sublayers
from harness.subject.checkpoint_code import cannot_be_imported
from harness.subject.stock import stock_config_object
from harness.subject.stored import canonical_key
from harness.subject.subject import Subject, is_under
from harness.subject.sublayer_keys import sublayer_of
from harness.system.signals import ended_by
from pruning.load import hub_kernel

from .bare_state_dict import completed
from .memory import available_bytes, too_large
from .modes import LoadingMode, given_arguments


class Session:
    """The models of one loading mode, loaded when first asked for. `scratch` is a directory for what is written."""

    def __init__(self, subject: Subject, mode: LoadingMode, scratch: Path, model: Any = None) -> None:
        self.subject = subject
        self.mode = mode
        self.scratch = scratch
        self.is_given = model is not None
        self.load_error: BaseException | None = None
        self.refused: str | None = None
        self.loading_report: dict[str, list[str]] | None = None
        self._model: Any = model
        self._reference: Any = None
        self._tokenizer: Any = None
        self.memory: dict[str, Any] = {}

    @property
    def model(self) -> Any:
        """The candidate, in evaluation mode; raises NotChecked if it does not load or its code may not run."""
        if self._model is None:
            if self.load_error is None:
                self._load()
            if self.load_error is not None:
                raise NotChecked(f"the model does not load as {self.mode.name}")
        return self._model

    @property
    def reference(self) -> PreTrainedModel:
        """The stock model of the base, loaded alike; without a base, of the kept tensors, the rest being random.

        Raises NotChecked if there is none.
        """
        if self._reference is None:
            self._reference = self._load_reference()
        model: PreTrainedModel = self._reference
        return model

    @contextmanager
    def pruned_reference(self) -> Iterator[PreTrainedModel]:
        """The reference without the plan's sub-layers."""
        with without_sublayers(self.reference, self.subject.plan.self_attn, self.subject.plan.mlp):
            yield self.reference

    @contextmanager
    def zero_weight_reference(self) -> Iterator[PreTrainedModel]:
        """The reference in which the plan's sub-layers add zeros; raises NotChecked where weights cannot be zeroed."""
        plan = self.subject.plan
        try:
            context = with_zero_weights(self.reference, plan.self_attn, plan.mlp)
            context.__enter__()
        except ValueError as error:
            raise NotChecked(str(error)) from None
        try:
            yield self.reference
        finally:
            context.__exit__(None, None, None)

    @property
    def has_base(self) -> bool:
        """Whether the reference holds the unpruned model's weights, not only the kept ones."""
        return self.subject.base is not None

    @property
    def tokenizer(self) -> Any:
        """The base's tokenizer, or else the checkpoint's own; raises NotChecked if there is none that loads."""
        if self._tokenizer is None:
            source = self.subject.base or self.subject.stored
            if not has_tokenizer(source.root):
                raise NotChecked(f"{source.root} has no tokenizer")
            try:
                config = stock_config_object(self.subject.config)
                self._tokenizer = AutoTokenizer.from_pretrained(source.root, config=config, trust_remote_code=False)
            except Exception as error:  # of many kinds, by version and by what is missing
                raise NotChecked(f"there is no tokenizer that loads: {first_line(error)}") from None
        return self._tokenizer

    def load_again(self) -> Any:
        """Return a second load of the candidate."""
        return self._from_pretrained(self._source(), self.arguments("candidate"))[0]

    def close(self) -> None:
        """Let go of the models."""
        loaded = self._model is not None or self._reference is not None
        self._model = self._reference = None
        self.memory.clear()
        if loaded:  # a third of a second, which a way of loading that is not here need not take
            gc.collect()

    def arguments(self, name: str) -> dict[str, Any]:
        """Return the arguments of `from_pretrained` that the mode stands for; `name` tells offload folders apart."""
        if self.is_given:
            return given_arguments(self._model, self.scratch / name)
        layers = int(self.subject.config["num_hidden_layers"])
        return self.mode.arguments(layers, self.subject.plan, self.scratch / name)

    def _load(self) -> None:
        if self.refused is not None:
            raise NotChecked(self.refused)
        if not self.subject.may_run():
            raise NotChecked("the checkpoint's own code may not run: allow it with --trust-remote-code")
        if self.mode.missing:
            raise NotChecked(self.mode.missing)
        if elsewhere := [text for text in self.subject.code.auto_map.values() if "--" in text]:
            raise NotChecked(f"the code lies in another repository, which is not fetched: {elsewhere[0]}")
        if kernel := hub_kernel(self.subject.stored.config or {}):
            raise NotChecked(f"config.json asks for code of a hub repository, which is not fetched: {kernel[:100]}")
        if (self.subject.code.is_own or self.subject.is_state_dict_only) and (reason := cannot_be_imported()):
            raise NotChecked(reason)
        source, arguments = self._source(), self.arguments("candidate")
        try:
            self._model, report = self._from_pretrained(source, arguments)
        except MemoryError:
            raise NotChecked(f"there is not enough memory for {self.mode.name}") from None
        except (Exception, SystemExit) as error:  # whatever a checkpoint's code raises is what is looked for
            if ended_by(error) is not None:
                raise
            self.load_error = error
            return
        self.loading_report = {
            kind: sorted(key if isinstance(key, str) else str(key[0]) for key in keys)
            for kind, keys in report.items()
            if isinstance(keys, (list, set, tuple, dict))
        }

    def _from_pretrained(self, source: Path, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        # A pickle that lies there would run what it holds: where there are no safetensors, nothing is loaded.
        arguments = arguments | {"use_safetensors": True}
        # Said either way: where it is left out, transformers may ask on the terminal.
        arguments["trust_remote_code"] = self.subject.code.is_own or self.subject.is_state_dict_only
        guard = nullcontext() if self.subject.trusted else no_custom_generate()
        with fresh_auto_classes(), guard:
            # Any: how precisely the loader is typed differs between the supported versions of transformers.
            loaded: Any = AutoModelForCausalLM.from_pretrained(source, output_loading_info=True, **arguments)
        return loaded[0].eval(), loaded[1]

    def _source(self) -> Path:
        """Return the directory to load: the checkpoint, or, for a bare state dict, one that adds our class to it."""
        if not self.subject.is_state_dict_only:
            return self.subject.root
        return completed(self.subject, self.scratch / "state-dict")

    def _load_reference(self) -> Any:
        if self.refused is not None:
            raise NotChecked(self.refused)
        arguments = self.arguments("reference")
        # Other kernels round otherwise: the reference has those that the candidate's class or config chose.
        implementation = getattr(getattr(self._model, "config", None), "_attn_implementation", None)
        if implementation in ("eager", "sdpa"):
            arguments.setdefault("attn_implementation", implementation)
        try:
            with no_custom_generate():
                if self.subject.base is not None:
                    return load_stock(self.subject.base.root, use_safetensors=True, **arguments)
                if self.mode.is_quantised:
                    raise ValueError("without --base a quantiser would meet the random weights of pruned modules")
                return _stock_of_kept_tensors(self.subject, arguments)
        except Exception as error:  # what transformers cannot do here; without a base, a quantiser wants every weight
            raise NotChecked(f"no reference can be loaded as {self.mode.name}: {first_line(error)}") from None


@contextmanager
def fresh_auto_classes() -> Iterator[None]:
    """Make the Auto classes, within the `with`, those of a fresh process: classes that were registered are away.

    (transformers 4.57.6 and 5.23.0, `auto_factory.py` and `configuration_auto.py`: `_extra_content`.)
    """
    mappings: tuple[Any, ...] = (CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING)
    before = [dict(mapping._extra_content) for mapping in mappings]
    try:
        for mapping in mappings:
            mapping._extra_content.clear()
        yield
    finally:
        for mapping, content in zip(mappings, before, strict=True):
            mapping._extra_content.clear()
            mapping._extra_content.update(content)


@contextmanager
def no_custom_generate() -> Iterator[None]:
    """Keep `custom_generate/generate.py` of a directory from running when a model is loaded from it.

    (transformers 4.57.6, `modeling_utils.py`, runs that of every local directory, trusted or not.)
    """
    mixin: Any = GenerationMixin
    before = mixin.load_custom_generate

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("code that comes with weights does not run here")

    mixin.load_custom_generate = refuse
    try:
        yield
    finally:
        mixin.load_custom_generate = before


def _stock_of_kept_tensors(subject: Subject, arguments: dict[str, Any]) -> Any:
    config = stock_config_object(subject.config)
    with fresh_auto_classes():
        stock_class: Any = type(AutoModelForCausalLM.from_config(_smallest(config)))
    arguments = {**arguments, "use_safetensors": True}  # never a pickle that lies there instead
    model, report = stock_class.from_pretrained(subject.root, config=config, output_loading_info=True, **arguments)
    lost = missing_but_kept(subject, [str(key) for key in report["missing_keys"]])
    if lost or report["unexpected_keys"] or report["mismatched_keys"]:
        raise ValueError("the kept tensors do not fill the stock model")
    # What is missing is random and never runs; zeros keep a quantiser and a cache from meeting NaN there.
    return model.eval()


def _smallest(config: Any) -> Any:
    """Return a config of the same class whose model costs nothing to build."""
    return AutoConfig.for_model(
        config.model_type, num_hidden_layers=1, hidden_size=8, intermediate_size=8, num_attention_heads=1,
        num_key_value_heads=1, head_dim=8, vocab_size=8,
    )  # fmt: skip


def missing_but_kept(subject: Subject, keys: list[str]) -> list[str]:
    """Return those keys of a loading report that belong to something that the plan keeps."""
    return [
        key
        for key in keys
        if canonical_key(key) not in subject.optional_keys
        and (sublayer_of(canonical_key(key)) is None or not is_under(canonical_key(key), subject.plan))
    ]


def has_tokenizer(root: Path) -> bool:
    """Whether a directory holds a tokenizer; without one some versions of transformers make an empty one up."""
    return any((root / name).is_file() for name in ("tokenizer.json", "vocab.json", "tokenizer.model"))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, its class's name if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def new_session(
    subject: Subject, mode: LoadingMode, scratch: Path, model: Any = None, memory: int | None = None
) -> Session:
    """Return the session of a mode, with a folder of its own; one whose models do not fit loads none."""
    folder = scratch / mode.name
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(subject, mode, folder, model)
    available = available_bytes() if memory is None else memory
    if model is None and (reason := too_large(subject, mode, available)):
        session.refused = reason
    return session
