"""The tokenizer and the generation config: what does the same is sound in any form, what does not is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from harness.checks.stored.generation_settings import GENERATION_FILE
from harness.faults.planting.checkpoint_files import copy_checkpoint, edit_config, edit_json, read_json, write_json
from harness.report.report import Report
from harness.subject.stock import stock_config_object
from harness.system.libraries import quiet_libraries
from pruning import PrunePlan, load_pruned, prune_checkpoint
from tests.harness.checks.cases import Case, judge, judge_model, record, told

pytestmark = pytest.mark.outermost

TOKENIZER = "stored.tokenizer"
# huggingface.co/Qwen/Qwen3-0.6B, tokenizer.json
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
Edit = Callable[[Path], Any]


def entries(name: str, **values: Any) -> Edit:
    """Return an edit that sets entries of a JSON file, which it makes if need be."""

    def edit(root: Path) -> None:
        content = read_json(root / name) if (root / name).exists() else {}
        write_json(root / name, content | values)

    return edit


def saved_again(root: Path) -> None:
    """Load the tokenizer and save it, as transformers does."""
    config = stock_config_object({"vocab_size": 320})
    with quiet_libraries():
        AutoTokenizer.from_pretrained(root, config=config).save_pretrained(root)


def saved_alone(root: Path) -> None:
    """Save tokenizer.json by the tokenizers library, padding and truncation being on."""
    tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
    tokenizer.enable_padding(length=8)
    tokenizer.enable_truncation(8)
    tokenizer.save(str(root / "tokenizer.json"))


def without_tokenizer_json(root: Path) -> None:
    """Keep what the tokenizer knows in vocab.json and merges.txt alone."""
    (root / "tokenizer.json").unlink()


def template_in_a_file(root: Path) -> None:
    """Move the chat template into a file of its own, which ends with a line break."""
    content = read_json(root / "tokenizer_config.json")
    (root / "chat_template.jinja").write_text(content.pop("chat_template") + "\n", encoding="utf-8")
    write_json(root / "tokenizer_config.json", content)


def named_template(root: Path) -> None:
    """Write the chat template as a list of named ones."""
    template = read_json(root / "tokenizer_config.json")["chat_template"]
    entries("tokenizer_config.json", chat_template=[{"name": "default", "template": template}])(root)


def merges_header(root: Path) -> None:
    """Put the line before the merges that some releases write."""
    path = root / "merges.txt"
    path.write_text("#version: 0.2\n" + path.read_text(encoding="utf-8"), encoding="utf-8")


@pytest.fixture(scope="module")
def qwen(case: Callable[[str], Case], tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return a case whose tokenizer has merges, special tokens, and the files that Qwen's releases have."""
    folder = tmp_path_factory.mktemp("qwen")
    base = folder / "qwen_base"
    copy_checkpoint(case("tied").base, base)
    content = read_json(base / "tokenizer.json")
    vocabulary = content["model"]["vocab"] | {"he": 256, "ll": 257, "hell": 258}
    special = {"<|endoftext|>": 259, "<|im_start|>": 260, "<|im_end|>": 261}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["model"] |= {"vocab": vocabulary, "merges": ["h e", "l l", "he ll"]}
    content["added_tokens"] = [{"id": number, "content": name, **flags} for name, number in special.items()]
    write_json(base / "tokenizer.json", content)
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.save(str(base / "tokenizer.json"))
    write_json(base / "vocab.json", vocabulary)
    (base / "merges.txt").write_text("h e\nl l\nhe ll\n", encoding="utf-8")
    decoder = {str(number): {"content": name, **flags} for name, number in special.items()}
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    settings = {
        "tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": decoder, "chat_template": template,
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None, "unk_token": None,
        "model_max_length": 131072, "padding_side": "left", "add_prefix_space": False,
    }  # fmt: skip
    write_json(base / "tokenizer_config.json", settings)
    plan = PrunePlan(self_attn=(1,), mlp=(0,))
    prune_checkpoint(base, folder / "qwen_sound", plan, sync=False)
    return Case(base, folder / "qwen_sound", plan)


def judged(case: Case, folder: Path, edit: Edit, keyword: str = TOKENIZER) -> Report:
    """Judge a case's sound checkpoint after an edit."""
    checkpoint = folder / "edited"
    copy_checkpoint(case.sound, checkpoint)
    edit(checkpoint)
    return judge(case, checkpoint, keyword=keyword)


@pytest.mark.parametrize(
    "edit",
    [saved_again, saved_alone, without_tokenizer_json, template_in_a_file, named_template, merges_header],
    ids=lambda edit: edit.__name__,
)
def test_another_form_is_sound(edit: Edit, qwen: Case, tmp_path: Path) -> None:
    """A tokenizer in another form that does the same is sound, and what is said of it is a finding at most."""
    report = judged(qwen, tmp_path, edit)
    assert record(report, TOKENIZER).outcome == "passed", told(report)


def test_text_of_a_tokenizer_saved_again(qwen: Case, tmp_path: Path) -> None:
    """What a model says through a tokenizer that was saved again is what it should say."""
    report = judged(qwen, tmp_path, saved_again, keyword="stored or load or logits.identity.random or text")
    assert report.verdict == "sound", told(report)


@pytest.mark.parametrize("name", ["pad_token", "bos_token"])
def test_a_token_where_the_base_has_none(name: str, qwen: Case, tmp_path: Path) -> None:
    """A special token that is named where the base names none, and that changes no text, is a finding."""
    base = tmp_path / "base"
    copy_checkpoint(qwen.base, base)
    entries("tokenizer_config.json", pad_token=None)(base)
    report = judged(
        Case(base, qwen.sound, qwen.plan), tmp_path, entries("tokenizer_config.json", **{name: "<|im_start|>"})
    )
    assert record(report, TOKENIZER).outcome == "passed", told(report)
    assert f"the tokenizer says {name}='<|im_start|>', where the base says nothing" in report.findings


WRONG: dict[str, tuple[Edit, str]] = {
    "a merge is lost": (
        lambda root: edit_json(root / "tokenizer.json", lambda content: content["model"]["merges"].pop()),
        "'hell' becomes [256, 257], but should be [258]",
    ),
    "a token is another": (
        lambda root: edit_json(
            root / "tokenizer.json", lambda content: content["model"]["vocab"].update({"he": 257, "ll": 256})
        ),
        "2 token(s) differ: 'he' is 257, but should be 256",
    ),
    "lower case": (entries("tokenizer.json", normalizer={"type": "Lowercase"}), "'A' becomes ["),
    "padding": (
        entries("tokenizer_config.json", padding_side="right"),
        "padding_side='right', but should be 'left'",
    ),
    "cut off": (
        entries("tokenizer_config.json", model_max_length=4),
        "model_max_length=4, but should be 131072",
    ),
    "special tokens split": (
        entries("tokenizer_config.json", split_special_tokens=True),
        "split_special_tokens=True, but should be False",
    ),
    "end of text": (
        entries("tokenizer_config.json", eos_token="<|im_start|>"),
        "eos_token='<|im_start|>', but should be '<|im_end|>'",
    ),
    "end of text in a file of its own": (
        entries("special_tokens_map.json", eos_token={"content": "<|im_start|>"}),
        "eos_token='<|im_start|>', but should be '<|im_end|>'",
    ),
    "added token": (
        entries("added_tokens.json", **{"<think>": 300}),
        "added_tokens.json: '<think>' is 300, but should be absent",
    ),
    "template": (
        entries("tokenizer_config.json", chat_template="X{{ messages[0]['content'] }}"),
        "the chat template makes 'X What is 2+2? ' of a conversation, but should '<|im_start|>user\\n What",
    ),
    "template in a file that comes first": (
        lambda root: (root / "chat_template.jinja").write_text("{{ raise_exception('no') }}", encoding="utf-8"),
        "the chat template makes 'TemplateError: no' of a conversation, but should ",
    ),
    "settings cut off": (
        lambda root: (root / "tokenizer_config.json").write_text("{", encoding="utf-8"),
        "it does not load: ",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_something_else(name: str, qwen: Case, tmp_path: Path) -> None:
    """A tokenizer that does something else is a fault of its family, and the evidence says what it does."""
    edit, evidence = WRONG[name]
    report = judged(qwen, tmp_path, edit)
    (fault,) = report.faults
    assert (fault.family, fault.id) == ("tokenizer", "tokenizer-files-differ")
    assert any(evidence in line for line in fault.evidence), fault.evidence


def test_no_tokenizer_at_all(qwen: Case, tmp_path: Path) -> None:
    """A checkpoint without any of the tokenizer's files needs the base's, which is a finding."""

    def remove(root: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
            (root / name).unlink()

    report = judged(qwen, tmp_path, remove)
    assert record(report, TOKENIZER).outcome == "passed", told(report)
    assert "the checkpoint has no tokenizer: the base's has to be used" in report.findings


@pytest.mark.parametrize(
    "values",
    [
        {"do_sample": None},
        {"temperature": 1.0, "top_p": 1.0, "top_k": 50, "repetition_penalty": 1.0, "max_length": 20, "num_beams": 1},
        {"eos_token_id": [2]},
        {"transformers_version": "4.0.0", "_from_model_config": True},
        {"use_cache": False, "output_scores": True, "return_dict_in_generate": True},
    ],
)
def test_settings_that_say_the_same(values: dict[str, Any], case: Callable[[str], Case], tmp_path: Path) -> None:
    """Defaults, written or left out, one end token in a list, and what chooses no token are no faults."""
    report = judged(case("untied"), tmp_path, entries(GENERATION_FILE, **values))
    assert record(report, TOKENIZER).outcome == "passed", told(report)


@pytest.mark.parametrize(
    "values",
    [
        {"suppress_tokens": [5, 6]},
        {"begin_suppress_tokens": [7]},
        {"forced_bos_token_id": 9},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 30},
        {"bad_words_ids": [[5]]},
        {"guidance_scale": 2.0},
        {"min_p": 0.5},
        {"num_beams": 4},
        {"num_return_sequences": 2},
        {"stop_strings": ["a"]},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"token_healing": True},
        {"sequence_bias": [[[5], 10.0]]},
        {"encoder_repetition_penalty": 2.0},
        {"exponential_decay_length_penalty": [1, 2.0]},
        {"eos_token_id": [2, 5]},
    ],
    ids=str,
)
def test_settings_that_choose_other_tokens(values: dict[str, Any], case: Callable[[str], Case], tmp_path: Path) -> None:
    """A setting that chooses other tokens is told where it is stored, and the cache and the code are not blamed."""
    report = judged(case("untied"), tmp_path, entries(GENERATION_FILE, **values), keyword="stored or load or text")
    (fault,) = report.faults
    assert fault.family == "tokenizer", told(report)
    assert any(next(iter(values)) in line for line in (fault.cause, *fault.evidence))


def test_settings_in_the_config_of_the_model(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Settings of generation in config.json, where old releases keep them, are told as well."""
    report = judged(
        case("untied"), tmp_path, lambda root: edit_config(root, lambda config: config.update(no_repeat_ngram_size=2))
    )
    (fault,) = report.faults
    assert (fault.family, fault.cause) == ("tokenizer", "config.json differs from the base's in no_repeat_ngram_size")
    assert fault.evidence == ("no_repeat_ngram_size=2, but should be 0",)


def test_settings_of_a_given_model(case: Callable[[str], Case]) -> None:
    """Settings that a user gave a model are a finding, and what it says is judged without them."""
    model: Any = load_pruned(case("untied").sound)
    model.generation_config.suppress_tokens = [3, 4, 5]
    model.generation_config.num_beams = 2
    report = judge_model(model, case("untied"), keyword="stored or load or logits.identity.random or text")
    assert report.verdict == "sound", told(report)
    (finding,) = (line for line in report.findings if "generation config" in line)
    assert "suppress_tokens=[3, 4, 5]" in finding
    assert model.generation_config.num_beams == 2


def test_a_template_that_raises(qwen: Case, tmp_path: Path) -> None:
    """Where the candidate's own chat template raises, the check of the text says that, and blames no cache."""
    report = judged(
        qwen, tmp_path, entries("tokenizer_config.json", chat_template="{{ raise_exception('no') }}"), keyword="text"
    )
    assert [fault.family for fault in report.faults] == ["tokenizer"], told(report)
    assert report.faults[0].cause == "the tokenizer raises TemplateError: no"


def test_evidence_is_json(qwen: Case, tmp_path: Path) -> None:
    """What is told of a tokenizer can be written into a report."""
    report = judged(qwen, tmp_path, entries("tokenizer.json", normalizer={"type": "Lowercase"}))
    assert json.loads(json.dumps(report.faults[0].evidence))


def test_code_in_place_of_generate(case: Callable[[str], Case], tmp_path: Path) -> None:
    """Code that takes the place of `generate` is told as that; the model itself is judged by its class's own."""

    def add(root: Path) -> None:
        (root / "custom_generate").mkdir()
        code = "def generate(model, input_ids, **kwargs):\n    return input_ids\n"
        (root / "custom_generate" / "generate.py").write_text(code, encoding="utf-8")

    report = judged(case("untied"), tmp_path, add, keyword="stored or load or beam or text")
    (fault,) = report.faults
    assert (fault.family, fault.cause) == ("code", "custom_generate/generate.py takes the place of generate")
