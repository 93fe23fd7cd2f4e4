"""The config of a pruned model: the one place it reads the plan from, checked in every version of transformers."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.strategies import plans
from pruning import PrunedQwen3Config, PrunePlan

LAYERS = 12


def _plan_of(config: PrunedQwen3Config) -> PrunePlan:
    """Return the plan that a model built from `config` follows."""
    skipped = [config.skipped_sublayers(layer_idx) for layer_idx in range(LAYERS)]
    return PrunePlan(
        self_attn=[layer_idx for layer_idx in range(LAYERS) if "attention" in skipped[layer_idx]],
        mlp=[layer_idx for layer_idx in range(LAYERS) if "mlp" in skipped[layer_idx]],
    )


@given(plan=plans(LAYERS), as_int=st.sets(st.integers(0, LAYERS - 1)))
def test_the_plan_survives_every_copy(
    plan: PrunePlan, as_int: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Layers may be given as strings or ints; dict, JSON, file, deep copy and pickle keep the plan."""
    given_as = {int(key) if int(key) in as_int else key: value for key, value in plan.to_per_layer_config().items()}
    config = PrunedQwen3Config(num_hidden_layers=LAYERS, per_layer_config=given_as)
    assert _plan_of(config) == plan
    folder = tmp_path_factory.mktemp("config")
    config.save_pretrained(folder)
    assert PrunePlan.from_config(json.loads((folder / "config.json").read_text())) == plan
    copies: list[Callable[[], Any]] = [
        lambda: PrunedQwen3Config.from_dict(config.to_dict()),
        lambda: PrunedQwen3Config.from_dict(json.loads(config.to_json_string())),
        lambda: PrunedQwen3Config.from_pretrained(folder),
        lambda: copy.deepcopy(config),
        lambda: pickle.loads(pickle.dumps(config)),
    ]
    for copied in copies:
        assert _plan_of(copied()) == plan


def test_other_overrides_are_kept(tmp_path: Path) -> None:
    """What `per_layer_config` says beside `skip` is there again after saving."""
    per_layer_config = {"1": {"skip": ["mlp"], "note": "a"}, "3": {"note": "b"}}
    # transformers 5.23 wants a default for what only some layers override.
    config = PrunedQwen3Config(num_hidden_layers=4, note="default", per_layer_config=per_layer_config)
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["per_layer_config"] == per_layer_config
    PrunedQwen3Config.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["per_layer_config"] == per_layer_config


REFUSED: list[tuple[Any, str]] = [
    (
        {"1": {"skip": ["mlp"]}, "01": {"skip": ["mlp"]}},
        "per_layer_config names layer 1 twice, as '1' and as '01': keep one",
    ),
    ({"1": {"skip": []}, 1: {"skip": ["mlp"]}}, "per_layer_config names layer 1 twice, as '1' and as 1: keep one"),
    (
        {"12": {"skip": ["mlp"]}},
        "per_layer_config names layer 12, out of range: num_hidden_layers=12, so layers run from 0 to 11",
    ),
    ({"-1": {}}, "per_layer_config has the key '-1', but keys should be layer indexes such as '12'"),
    ({"a": {}}, "per_layer_config has the key 'a', but keys should be layer indexes such as '12'"),
    ({1.0: {}}, "per_layer_config has the key 1.0, but keys should be layer indexes such as '12'"),
    ({True: {}}, "per_layer_config has the key True, but keys should be layer indexes such as '12'"),
    (
        {"0": {"skip": ["self_attn"]}},
        "per_layer_config['0']['skip'] has the unknown word 'self_attn': only 'attention' and 'mlp' can be skipped",
    ),
    ({"0": {"skip": "mlp"}}, "per_layer_config['0']['skip'] is 'mlp', but should be a list such as ['mlp']"),
    ({"0": None}, "per_layer_config['0'] is None, but should be a mapping of overrides"),
    (["mlp"], "per_layer_config is ['mlp'], but should map layer indexes to overrides"),
]


@pytest.mark.parametrize(("per_layer_config", "message"), REFUSED)
def test_what_cannot_be_meant_is_refused(per_layer_config: Any, message: str) -> None:
    """A plan that transformers would let pass, or fold into another, is refused in one line."""
    with pytest.raises(ValueError) as error:
        PrunedQwen3Config(num_hidden_layers=LAYERS, per_layer_config=per_layer_config)
    assert str(error.value) == message
