import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning import PlanError, PrunePlan, SubLayer, removed_bytes
from tests.unit.checkpoints import exactly, run_python, write_checkpoint

INDEXES = st.lists(st.integers(0, 99_999), unique=True)
PLANS = st.builds(PrunePlan, self_attn=INDEXES, mlp=INDEXES)
SMALL_INDEXES = st.lists(st.integers(0, 5), unique=True)
SMALL_PLANS = st.builds(PrunePlan, self_attn=SMALL_INDEXES, mlp=SMALL_INDEXES)

NOT_AN_ITEM = "is not an integer or a range such as 12 or 17-20"
BEYOND = "is out of range: no model has layers beyond 99999"


@pytest.mark.parametrize(
    ("text", "indexes"),
    [
        ("", ()),
        (" ", ()),
        ("3", (3,)),
        ("0,12,17-20", (0, 12, 17, 18, 19, 20)),
        (" 4 , 1-2 ", (1, 2, 4)),
        ("5-5", (5,)),
        ("007", (7,)),
        ("99999", (99_999,)),
    ],
)
def test_parse_reads_indexes_and_ranges(text, indexes):
    """A command-line list holds indexes and ranges, both ends included, in any order."""
    assert PrunePlan.parse(self_attn=text) == PrunePlan(self_attn=indexes)
    assert PrunePlan.parse(mlp=text).mlp == indexes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-1", "mlp index -1 is negative: layers are numbered from 0"),
        ("3,1,3", "mlp index 3 is named twice: name each layer once"),
        ("1-4,3", "mlp index 3 is named twice: name each layer once"),
        ("20-17", "mlp range 20-17 is empty: 17 comes before 20; write 17-20"),
        ("1.5", f"mlp item '1.5' {NOT_AN_ITEM}"),
        ("x", f"mlp item 'x' {NOT_AN_ITEM}"),
        ("1,,2", f"mlp item '' {NOT_AN_ITEM}"),
        ("1,", f"mlp item '' {NOT_AN_ITEM}"),
        (",", f"mlp item '' {NOT_AN_ITEM}"),
        ("1-", f"mlp item '1-' {NOT_AN_ITEM}"),
        ("-2-3", f"mlp item '-2-3' {NOT_AN_ITEM}"),
        ("1 2", f"mlp item '1 2' {NOT_AN_ITEM}"),
        ("1_0", f"mlp item '1_0' {NOT_AN_ITEM}"),
        ("+1", f"mlp item '+1' {NOT_AN_ITEM}"),
        ("1e3", f"mlp item '1e3' {NOT_AN_ITEM}"),
        ("٣", f"mlp item '٣' {NOT_AN_ITEM}"),
        ("²", f"mlp item '²' {NOT_AN_ITEM}"),
        ("1–3", f"mlp item '1–3' {NOT_AN_ITEM}"),
        ("True", f"mlp item 'True' {NOT_AN_ITEM}"),
        ("x" * 100, f"mlp item 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx... {NOT_AN_ITEM}"),
        ("100000", f"mlp index 100000 {BEYOND}"),
        ("9" * 12, f"mlp item '999999999999' {BEYOND}"),
        ("-" + "9" * 12, f"mlp item '-999999999999' {BEYOND}"),
        ("9" * 5000, f"mlp item '99999999999999999999999999999999999999999999999999999999... {BEYOND}"),
        ("0-99999999999", f"mlp item '0-99999999999' {BEYOND}"),
        ("0-999999999", "mlp range 0-999999999 is longer than any model: check its ends"),
        ("500000-500001", f"mlp index 500000 {BEYOND}"),
    ],
)
def test_parse_refuses(text, message):
    """What is no list of distinct layer indexes is refused in one line that names it."""
    with pytest.raises(PlanError, match=exactly(message)):
        PrunePlan.parse(mlp=text)


@pytest.mark.parametrize(
    ("indexes", "message"),
    [
        ((1.0,), "self_attn index 1.0 is not an integer: layers are numbered 0, 1, 2, ..."),
        (("1",), "self_attn index '1' is not an integer: layers are numbered 0, 1, 2, ..."),
        ((True,), "self_attn index True is not an integer: layers are numbered 0, 1, 2, ..."),
        ((None,), "self_attn index None is not an integer: layers are numbered 0, 1, 2, ..."),
        ((-3,), "self_attn index -3 is negative: layers are numbered from 0"),
        ((2, 2), "self_attn index 2 is named twice: name each layer once"),
        ((10**5,), f"self_attn index 100000 {BEYOND}"),
        ((10**5000,), f"self_attn index a int too long to print {BEYOND}"),
        ((-(10**5000),), "self_attn index a int too long to print is negative: layers are numbered from 0"),
        ("12", "self_attn is '12', but should be layer indexes such as (12, 17)"),
        (b"12", "self_attn is b'12', but should be layer indexes such as (12, 17)"),
        (12, "self_attn is 12, but should be layer indexes such as (12, 17)"),
        (None, "self_attn is None, but should be layer indexes such as (12, 17)"),
    ],
)
def test_the_constructor_refuses(indexes, message):
    """Indexes given in Python obey the same rules as those on the command line."""
    with pytest.raises(PlanError, match=exactly(message)):
        PrunePlan(self_attn=indexes)


@given(PLANS)
def test_lists_round_trip(plan):
    """The command-line lists of a plan, read again, are the plan."""
    assert PrunePlan.parse(**plan.to_lists()) == plan


@given(PLANS)
def test_dicts_round_trip(plan):
    """The dict of a plan, read again and through JSON, is the plan."""
    assert PrunePlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@given(plan=PLANS, kept=st.dictionaries(st.integers(0, 99_999), st.just({"sliding_window": 5})))
def test_configs_round_trip_and_keep_other_overrides(plan, kept):
    """A plan in a config, read again, is the plan, and overrides of another kind stay."""
    config = {
        "num_hidden_layers": 100_000,
        "per_layer_config": plan.to_per_layer_config({str(k): v for k, v in kept.items()}),
    }
    assert PrunePlan.from_config(json.loads(json.dumps(config))) == plan
    assert list(config["per_layer_config"]) == sorted(config["per_layer_config"], key=int)
    rest = {
        int(key): {"sliding_window": 5}
        for key, value in config["per_layer_config"].items()
        if "sliding_window" in value
    }
    assert rest == kept


def test_per_layer_config_is_in_the_words_of_transformers():
    """Attention is skipped as `attention`, not `self_attn`; the skips that were there are replaced."""
    present = {"01": {"skip": ["mlp"], "head_dim": 4}, "2": {"skip": ["attention"]}, "0": {}}
    assert PrunePlan(self_attn=(1, 3), mlp=(3,)).to_per_layer_config(present) == {
        "1": {"head_dim": 4, "skip": ["attention"]},
        "3": {"skip": ["attention", "mlp"]},
    }


@given(PLANS)
def test_indexes_are_sorted_and_plans_hashable(plan):
    """A plan's indexes are sorted tuples, whatever they were built from, and equal plans have one hash."""
    again = PrunePlan(self_attn=reversed(plan.self_attn), mlp=set(plan.mlp))
    assert again == plan
    assert hash(again) == hash(plan)
    assert list(again.self_attn) == sorted(again.self_attn)
    assert isinstance(again.mlp, tuple)


def test_plans_are_frozen():
    """A plan cannot be changed."""
    with pytest.raises(AttributeError):
        PrunePlan(mlp=(1,)).mlp = (2,)


@given(one=SMALL_PLANS, other=SMALL_PLANS)
def test_set_operations(one, other):
    """Union, intersection and difference act on each sub-layer's indexes alone."""
    for sublayer in ("self_attn", "mlp"):
        mine, theirs = set(getattr(one, sublayer)), set(getattr(other, sublayer))
        assert set(getattr(one | other, sublayer)) == mine | theirs
        assert set(getattr(one & other, sublayer)) == mine & theirs
        assert set(getattr(one - other, sublayer)) == mine - theirs
        assert all((SubLayer(index, sublayer) in one) == (index in mine) for index in range(6))
    assert one.is_empty == (one == PrunePlan())
    assert set(one.whole_layers) == set(one.self_attn) & set(one.mlp)


@given(plan=SMALL_PLANS)
def test_a_plan_is_a_set_of_sublayers(plan):
    """A plan gives its sub-layers as they run, knows which it has, and is made of them again."""
    sublayers = list(plan)
    assert [str(each) for each in sublayers] == [
        f"layers.{index}.{kind}" for index in range(6) for kind in plan.to_dict() if index in plan.to_dict()[kind]
    ]
    assert plan.sublayers == set(sublayers)
    assert all(each in plan for each in sublayers)
    assert None not in plan
    assert PrunePlan.of(reversed(sublayers)) == plan


def test_a_sublayer_that_comes_twice():
    """A plan of a sub-layer that comes twice is refused, as a list with an index that does is."""
    with pytest.raises(PlanError, match=exactly("mlp index 3 is named twice: name each layer once")):
        PrunePlan.of([SubLayer(3, "mlp"), SubLayer(3, "mlp")])


def test_text():
    """A plan reads like its command-line lists."""
    assert str(PrunePlan()) == "nothing pruned"
    assert str(PrunePlan(mlp=(3, 4, 5, 9))) == "mlp 3-5,9"
    assert str(PrunePlan(self_attn=(1,), mlp=(2, 3))) == "self_attn 1, mlp 2-3"


def test_files_round_trip(tmp_path):
    """A plan written to a JSON file, read again, is the plan; a missing key prunes nothing."""
    plan = PrunePlan(self_attn=(4, 0), mlp=(7,))
    plan.to_file(tmp_path / "plan.json")
    assert (tmp_path / "plan.json").read_text() == '{"self_attn": [0, 4], "mlp": [7]}\n'
    assert PrunePlan.from_file(tmp_path / "plan.json") == plan
    (tmp_path / "plan.json").write_text('{"mlp": [7]}')
    assert PrunePlan.from_file(str(tmp_path / "plan.json")) == PrunePlan(mlp=(7,))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"attention": [1]}', "the plan has the unknown key 'attention': only 'self_attn' and 'mlp' are known"),
        ("[1, 2]", 'the plan is [1, 2], but should be {"self_attn": [...], "mlp": [...]}'),
        ("null", 'the plan is None, but should be {"self_attn": [...], "mlp": [...]}'),
        ('{"mlp": "1-3"}', "mlp is '1-3', but should be a list of layer indexes"),
        ('{"mlp": {"1": 2}}', "mlp is {'1': 2}, but should be a list of layer indexes"),
        ('{"mlp": null}', "mlp is None, but should be a list of layer indexes"),
        ('{"mlp": [1, true]}', "mlp index True is not an integer: layers are numbered 0, 1, 2, ..."),
        ('{"mlp": [[1]]}', "mlp index [1] is not an integer: layers are numbered 0, 1, 2, ..."),
        ('{"mlp": [1], "mlp": [2]}', "the key 'mlp' appears twice"),
        ('{"mlp": [1]', "not JSON at line 1, column 12: Expecting ',' delimiter"),
        ("", "not JSON at line 1, column 1: Expecting value"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_files_are_refused_by_name(tmp_path, content, message):
    """A JSON file that is no plan is refused in one line that begins with its path."""
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(PlanError, match=exactly(f"{path}: {message}")):
        PrunePlan.from_file(path)


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path):
    """A missing file, a directory, and bytes that are no text are refused in one line each."""
    with pytest.raises(PlanError, match=exactly(f"{tmp_path}/none.json: no such file or directory")):
        PrunePlan.from_file(tmp_path / "none.json")
    with pytest.raises(PlanError, match=exactly(f"{tmp_path}: is a directory")):
        PrunePlan.from_file(tmp_path)
    (tmp_path / "plan.json").write_bytes(b'{"mlp": "\xff"}')
    with pytest.raises(PlanError, match=exactly(f"{tmp_path}/plan.json: not UTF-8 at byte 9")):
        PrunePlan.from_file(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text(f'{{"mlp": [{"1" * 5000}]}}')
    with pytest.raises(PlanError, match=exactly(f"{tmp_path}/plan.json: a number of 5000 digits")):
        PrunePlan.from_file(tmp_path / "plan.json")


KEYS = "but keys should be layer indexes such as '12'"


@pytest.mark.parametrize(
    ("per_layer_config", "message"),
    [
        (
            {"0": {"skip": ["atention"]}},
            "per_layer_config['0']['skip'] has the unknown word 'atention': only 'attention' and 'mlp' can be skipped",
        ),
        (
            {"0": {"skip": ["self_attn"]}},
            "per_layer_config['0']['skip'] has the unknown word 'self_attn': only 'attention' and 'mlp' can be skipped",
        ),
        (
            {"0": {"skip": [["mlp"]]}},
            "per_layer_config['0']['skip'] has the unknown word ['mlp']: only 'attention' and 'mlp' can be skipped",
        ),
        ({"0": {"skip": "mlp"}}, "per_layer_config['0']['skip'] is 'mlp', but should be a list such as ['mlp']"),
        ({"0": {"skip": None}}, "per_layer_config['0']['skip'] is None, but should be a list such as ['mlp']"),
        ({"1": {}, "01": {}}, "per_layer_config names layer 1 twice, as '1' and as '01': keep one"),
        ({"1": {}, 1: {}}, "per_layer_config names layer 1 twice, as '1' and as 1: keep one"),
        ({"3": {}}, "per_layer_config names layer 3, out of range: num_hidden_layers=3, so layers run from 0 to 2"),
        ({-1: {}}, "per_layer_config names layer -1, out of range: num_hidden_layers=3, so layers run from 0 to 2"),
        ({"-1": {}}, f"per_layer_config has the key '-1', {KEYS}"),
        ({"٣": {}}, f"per_layer_config has the key '٣', {KEYS}"),
        ({"1" * 10: {}}, f"per_layer_config has the key '1111111111', {KEYS}"),
        ({True: {}}, f"per_layer_config has the key True, {KEYS}"),
        ({"default": {}}, f"per_layer_config has the key 'default', {KEYS}"),
        ({"0": ["mlp"]}, "per_layer_config['0'] is ['mlp'], but should be a mapping of overrides"),
        (["mlp"], "per_layer_config is ['mlp'], but should map layer indexes to overrides"),
    ],
)
def test_configs_are_refused(per_layer_config, message):
    """What transformers lets pass in `per_layer_config` is refused: unknown words, a layer twice, out of range."""
    with pytest.raises(PlanError, match=exactly(message)):
        PrunePlan.from_config({"num_hidden_layers": 3, "per_layer_config": per_layer_config})


@pytest.mark.parametrize("count", [None, "3", 3.0, True, 0, -1, 100_001])
def test_configs_without_a_layer_count_are_refused(count):
    """A config must say how many layers there are, as an int."""
    message = f"num_hidden_layers is {count!r}, but should be a positive number of layers"
    with pytest.raises(PlanError, match=exactly(message)):
        PrunePlan.from_config({"num_hidden_layers": count})


@pytest.mark.parametrize("per_layer_config", [None, {}, {"1": {}}, {"1": {"skip": []}}, {"1": {"head_dim": 4}}])
def test_configs_that_skip_nothing(per_layer_config):
    """No `per_layer_config`, an empty one, and one of other overrides prune nothing."""
    assert PrunePlan.from_config({"num_hidden_layers": 3, "per_layer_config": per_layer_config}).is_empty
    assert PrunePlan.from_config({"num_hidden_layers": 3}).is_empty


def test_out_of_range_names_value_and_range():
    """An index beyond a model's layers is refused with the index and the range."""
    PrunePlan(self_attn=(27,)).require_layers(28)
    with pytest.raises(PlanError, match=exactly("mlp index 28 is out of range: the checkpoint has layers 0 to 27")):
        PrunePlan(self_attn=(0,), mlp=(3, 28)).require_layers(28)


def test_removed_bytes(tmp_path):
    """The bytes a plan removes from a checkpoint are those of the tensors under its sub-layers."""
    write_checkpoint(tmp_path, layers=3, shards=2, dtype="F32")
    tensor = 2 * 3 * 4
    assert removed_bytes(tmp_path, PrunePlan()) == 0
    assert removed_bytes(tmp_path, PrunePlan(mlp=(0, 2))) == 2 * 3 * tensor
    assert removed_bytes(str(tmp_path), PrunePlan(self_attn=(1,), mlp=(1,))) == (6 + 3) * tensor
    with pytest.raises(PlanError, match=exactly("self_attn index 3 is out of range: the checkpoint has layers 0 to 2")):
        removed_bytes(tmp_path, PrunePlan(self_attn=(3,)))


def test_the_plan_needs_the_standard_library_only():
    """Importing the plan, or all of `pruning`, loads none of the libraries that models need."""
    code = (
        "import sys, pruning.plan, pruning\n"
        "heavy = {'torch', 'transformers', 'safetensors', 'huggingface_hub', 'numpy', 'psutil', 'rich', 'typer'}\n"
        "sys.exit(repr(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    run_python(code)
