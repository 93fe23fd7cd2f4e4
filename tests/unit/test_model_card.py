"""README.md of a pruned checkpoint: the source's card, byte for byte, with a part of ours behind its front matter."""

import hashlib
import json
import os
import re

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from hypothesis import given
from hypothesis import strategies as st

from pruning import PrunePlan, prune_checkpoint
from pruning.files.model_card import HEAD_BYTES, with_section
from tests.unit.checkpoints import CARD_BEGIN, CARD_END, cards, read_files, write_checkpoint

PLAN = PrunePlan(self_attn=(0, 1), mlp=(1,))
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FRONT = b"---\nlibrary_name: transformers\n---\n"


def card_of(root, plan=PLAN, **options):
    """Prune a checkpoint and return the new card."""
    prune_checkpoint(root, root.parent / "out", plan, sync=False, overwrite=True, **options)
    return (root.parent / "out" / "README.md").read_bytes()


def section_of(card):
    """Return the part of a card between our comments, as text."""
    return re.search(b"^%b\n(.*)^%b" % (CARD_BEGIN, CARD_END), card, re.MULTILINE | re.DOTALL)[1].decode()


def described_as(root, **source):
    """Rewrite what the manifest of a pruned checkpoint says of its source."""
    manifest = json.loads((root / "pruning.json").read_text())
    manifest["source"] |= source
    (root / "pruning.json").write_text(json.dumps(manifest))


@given(card=cards(), first=st.binary(max_size=20), second=st.binary(max_size=20))
def test_the_source_s_card_stays(card, first, second):
    """All bytes of a card stay, in their order, but for an earlier part of ours, which is replaced, never stacked."""
    first, second = (part.replace(b"<", b"") + b"\n" for part in (first, second))
    once = with_section(card, first, FRONT)
    ours, later = (CARD_BEGIN + b"\n" + part + CARD_END + b"\n" for part in (first, second))
    before, found, after = once.partition(ours)
    assert found
    if CARD_BEGIN not in card:
        assert before + after in (card, FRONT + card, card + b"\n")
    assert with_section(once, second, FRONT) == before + later + after


@given(card=cards())
def test_the_hub_s_library_reads_the_same_front_matter(card):
    """The block that huggingface_hub finds at the start of a card, if anything is in it, it finds in the new one."""
    text = card.decode("ascii", "replace")
    found = REGEX_YAML_BLOCK.search(text)
    if found is not None and found.group(2):
        new = with_section(card, b"x\n", FRONT).decode("ascii", "replace")
        assert REGEX_YAML_BLOCK.search(new).group(2) == found.group(2)


@pytest.mark.parametrize(
    "front",
    ["---\nlicense: mit\n---\n", "---\r\nlicense: mit\r\n---\r\n",
     "\ufeff---\nlicense: mit\n---\n", "\n---\nlicense: mit\n--- \n"],
    ids=ascii,
)  # fmt: skip
def test_front_matter_comes_first(tmp_path, front):
    """Front matter stays at the very start, whatever its line ends; behind it comes our part, then the source's."""
    source = write_checkpoint(tmp_path / "source")
    (source / "README.md").write_bytes(f"{front}\n# Title\n".encode() + b"\xff")
    card = card_of(source)
    assert card.startswith(front.encode() + CARD_BEGIN + b"\n# Pruned checkpoint\n")
    assert card.endswith(CARD_END + b"\n\n# Title\n\xff")
    if front.startswith("---"):  # the others are left to how lenient its reader is
        assert ModelCard(card.decode("latin-1")).data.license == "mit"


@pytest.mark.parametrize("card", [b"# Title\n", b"", b"---\nlicense: mit\n\n# No fence\n", b"text\n---\na: b\n---\n"])
def test_a_card_without_front_matter(tmp_path, card):
    """Where no front matter can be told, the card begins with one of ours, and the source's follows whole."""
    source = write_checkpoint(tmp_path / "source")
    (source / "README.md").write_bytes(card)
    new = card_of(source)
    assert new.startswith(FRONT + CARD_BEGIN)
    assert new.endswith(CARD_END + b"\n" + card)


def test_what_it_says(tmp_path):
    """It says the plan, the bytes before and after, how to load it, and the commands that check and make it."""
    text = section_of(card_of(write_checkpoint(tmp_path / "source")))
    for line in (
        "| pruned | 3 of 6 sub-layers |",
        "| `self_attn` of layers | 0-1 |",
        "| `mlp` of layers | 1 |",
        "| bytes of tensors before | 420 |",
        "| bytes of tensors after | 240 (57.1%) |",
        'model = AutoModelForCausalLM.from_pretrained("DST", trust_remote_code=True)',
        'model = load_pruned("DST")',
        "$ prunecheck check DST --base SRC",
        "$ prunecheck prune SRC DST --self-attn 0-1 --mlp 1",
    ):
        assert f"\n{line}\n" in text


def test_nothing_pruned(tmp_path):
    """Without anything pruned there is no command that prunes nothing, which would be refused."""
    text = section_of(card_of(write_checkpoint(tmp_path / "source"), PrunePlan()))
    assert "| `mlp` of layers | none |" in text
    assert "prunecheck prune " not in text


def test_nothing_of_this_machine(tmp_path):
    """The card does not depend on where the source lies or what its directory is called, nor on the checksums."""
    cards = set()
    for name in ("some-private-name", "other"):
        source = write_checkpoint(tmp_path / name / name)
        cards |= {card_of(source), card_of(source, checksum=False)}
    assert len(cards) == 1
    assert b"private" not in cards.pop()


def test_the_base_of_a_hub_id(tmp_path):
    """A source of the hub is named, with its commit, in the front matter too if there is none."""
    snapshot = tmp_path / "models--some-org--a.b_c" / "snapshots" / COMMIT
    card = card_of(write_checkpoint(snapshot))
    assert card.startswith(b"---\nlibrary_name: transformers\nbase_model: some-org/a.b_c\n---\n")
    assert ModelCard(card.decode()).data.base_model == "some-org/a.b_c"
    text = section_of(card)
    assert f"`some-org/a.b_c`, revision `{COMMIT}`" in text
    assert "$ prunecheck check DST --base some-org/a.b_c\n" in text
    assert f"$ prunecheck prune some-org/a.b_c DST --self-attn 0-1 --mlp 1 --revision {COMMIT}\n" in text


@pytest.mark.parametrize(
    "name", ["a/b`; rm", "a/b\n---\n", "a/-->", "/etc/x", "../x", "a/b: c", "-x/y", "a/--base", "ü/x", 5, None, "a"]
)  # fmt: skip
def test_a_hostile_name_stays_out(tmp_path, name):
    """A name in a manifest that is no plain hub id does not come into the card."""
    source = write_checkpoint(tmp_path / "source")
    expected = card_of(source)
    prune_checkpoint(source, tmp_path / "first", PLAN)
    described_as(tmp_path / "first", name=name, revision=COMMIT)
    assert card_of(tmp_path / "first", PrunePlan()) == expected


@pytest.mark.parametrize("revision", ["main", "`", 5, COMMIT.upper(), f"{COMMIT}\n"])
def test_a_hostile_revision_stays_out(tmp_path, revision):
    """A revision that is no commit does not come into the card, and with it no name."""
    source = write_checkpoint(tmp_path / "source")
    expected = card_of(source)
    prune_checkpoint(source, tmp_path / "first", PLAN)
    described_as(tmp_path / "first", name="a/b", revision=revision)
    assert card_of(tmp_path / "first", PrunePlan()) == expected


@pytest.mark.parametrize("size", [None, "9", -1, 10**900])
def test_a_manifest_that_does_not_say_what_was_lost(tmp_path, size):
    """If the size of what was pruned before cannot be known, the card says so."""
    prune_checkpoint(write_checkpoint(tmp_path / "source"), tmp_path / "first", PLAN)
    manifest = json.loads((tmp_path / "first" / "pruning.json").read_text())
    next(iter(manifest["pruned"].values()))["bytes"] = size
    (tmp_path / "first" / "pruning.json").write_text(json.dumps(manifest))
    text = section_of(card_of(tmp_path / "first", PrunePlan()))
    assert "| bytes of tensors before | unknown |\n| bytes of tensors after | 240 |\n" in text


def test_what_the_owner_wrote_stays(tmp_path):
    """Pruning once more keeps what was written into the card around our part, above it too."""
    source = write_checkpoint(tmp_path / "source")
    (source / "README.md").write_text("---\nlicense: mit\n---\n# Title\n")
    once = card_of(source)
    edited = once.replace(CARD_BEGIN, b"# Mine\n" + CARD_BEGIN).replace(b"# Title", b"# Other").replace(b"mit", b"bsd")
    (tmp_path / "out" / "README.md").write_bytes(edited.replace(b"\n", b"\r\n"))
    prune_checkpoint(tmp_path / "out", tmp_path / "more", PrunePlan(mlp=(2,)))
    more = (tmp_path / "more" / "README.md").read_bytes()
    assert more.startswith(b"---\r\nlicense: bsd\r\n---\r\n" + CARD_BEGIN)
    assert more.endswith(CARD_END + b"\n# Mine\r\n# Other\r\n")
    assert "| `mlp` of layers | 1-2 |" in section_of(more)


def test_the_manifest_has_the_source_s_card(tmp_path):
    """The manifest notes the sha256 of the card as the source has it; without one, none."""
    source = write_checkpoint(tmp_path / "source")
    card_of(source)
    assert json.loads((tmp_path / "out" / "pruning.json").read_text())["source"]["files"] == {}
    (source / "README.md").write_bytes(b"x" * (HEAD_BYTES + 5))
    assert card_of(source).endswith(b"x" * (HEAD_BYTES + 5))
    files = json.loads((tmp_path / "out" / "pruning.json").read_text())["source"]["files"]
    assert files == {"README.md": hashlib.sha256(b"x" * (HEAD_BYTES + 5)).hexdigest()}


@pytest.mark.parametrize("kind", ["FIFO", "directory", "link to nowhere"])
def test_what_is_no_card(tmp_path, kind):
    """What is no file is left behind and listed; the pruned checkpoint has a card of its own all the same."""
    source = write_checkpoint(tmp_path / "source")
    expected = card_of(source)
    path = source / "README.md"
    {"FIFO": os.mkfifo, "directory": os.mkdir, "link to nowhere": lambda at: at.symlink_to("nowhere")}[kind](path)
    result = prune_checkpoint(source, tmp_path / "new", PLAN)
    assert result.left_behind == ("README.md/" if kind == "directory" else "README.md",)
    assert read_files(tmp_path / "new")["README.md"] == expected


def test_other_spellings_are_left_behind(tmp_path):
    """The hub reads README.md alone: a card under another spelling is left behind and listed."""
    source = write_checkpoint(tmp_path / "source")
    (source / "readme.md").write_text("x")
    assert prune_checkpoint(source, tmp_path / "new", PLAN).left_behind == ("readme.md",)


def test_a_card_made_to_be_slow():
    """Cards of nothing but fences, line breaks or our comments take no time that grows with their size's square."""
    for part in (b"\n", b"---", b"---\n", b"\n---", b"\n--- ", b"\n" + CARD_BEGIN, b"\n" + CARD_END, b" \t"):
        for start in (b"", b"---\n"):
            card = start + part * (HEAD_BYTES // len(part))
            with_section(card, b"x\n", FRONT)
