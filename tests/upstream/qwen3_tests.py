"""transformers' own model tests over stock Qwen3 and over ours: classes that differ in config and models alone.

The name keeps them out of our usual run: they need the source package of transformers on the path.
"""

import importlib
import importlib.util
import unittest
from typing import Any, ClassVar

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model, set_seed
from transformers.models.auto import modeling_auto
from upstream_tests.generation.test_utils import GenerationTesterMixin
from upstream_tests.test_modeling_common import ModelTesterMixin, ids_tensor

from pruning.remote.configuration_pruned_qwen3 import PrunedQwen3Config
from pruning.remote.modeling_pruned_qwen3 import PrunedQwen3ForCausalLM, PrunedQwen3Model

PLAN = {"0": {"skip": ["attention"]}, "1": {"skip": ["mlp"]}, "2": {"skip": ["attention", "mlp"]}}

# The tests know by the names in these lists which models have no head and which compute a loss.
modeling_auto.MODEL_MAPPING_NAMES[PrunedQwen3Config.model_type] = PrunedQwen3Model.__name__
modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[PrunedQwen3Config.model_type] = PrunedQwen3ForCausalLM.__name__


def _mixins_of_this_release() -> tuple[type, ...]:
    """Return the mixins of training, tensor parallelism and FSDP, as far as this release has them."""
    mixins = []
    for module_name, name, allowed in (
        ("test_training_mixin", "TrainingTesterMixin", None),
        ("test_tensor_parallel_mixin", "TensorParallelTesterMixin", "TP_DISTRIBUTED_TEST_MODEL_TYPES"),
        ("test_fsdp_mixin", "FSDPTesterMixin", "FSDP_DISTRIBUTED_TEST_MODEL_TYPES"),
    ):
        if importlib.util.find_spec(f"upstream_tests.{module_name}") is not None:
            module = importlib.import_module(f"upstream_tests.{module_name}")
            if allowed is not None:
                setattr(module, allowed, None)  # these tests run for a few model types, unless told so
            mixins.append(getattr(module, name))
    return tuple(mixins)


class Qwen3Tester:
    """What transformers' mixins ask of the tester of a model: tiny configs and inputs."""

    config_class: type = Qwen3Config
    base_model_class: type = Qwen3Model
    causal_lm_class: type = Qwen3ForCausalLM
    per_layer_config: ClassVar[dict[str, Any]] = {}
    is_training = True
    batch_size = 13
    seq_length = 7
    num_hidden_layers = 3
    hidden_size = 32
    num_attention_heads = 2
    vocab_size = 99

    def get_config(self) -> Any:
        """Return a config of the least sizes in which layers, heads and widths can be told apart."""
        return self.config_class(
            num_hidden_layers=self.num_hidden_layers,
            hidden_size=self.hidden_size,
            intermediate_size=37,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=2,
            head_dim=16,
            vocab_size=self.vocab_size,
            max_position_embeddings=512,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            **self.per_layer_config,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        """Return a config, and token ids (batch, tokens) with a mask of as many tokens in row i as it has, up to i."""
        input_ids = ids_tensor([self.batch_size, self.seq_length], self.vocab_size)
        return self.get_config(), {"input_ids": input_ids, "attention_mask": torch.tril(torch.ones_like(input_ids))}


class PrunedQwen3Tester(Qwen3Tester):
    """Ours: layer 0 without attention, layer 1 without mlp, layer 2 without both."""

    config_class = PrunedQwen3Config
    base_model_class = PrunedQwen3Model
    causal_lm_class = PrunedQwen3ForCausalLM
    per_layer_config: ClassVar = {"per_layer_config": PLAN}


class _Qwen3Test(ModelTesterMixin, GenerationTesterMixin, *_mixins_of_this_release()):
    model_tester: ClassVar[Any]
    # The test is for models from 2023 on, by the year in the licence at the top of their files; ours have none there.
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self) -> None:
        super().setUp()
        self.all_model_classes = (self.model_tester.base_model_class, self.model_tester.causal_lm_class)
        set_seed(0)  # the same draws for both classes, whichever runs first


class TestStock(_Qwen3Test, unittest.TestCase):
    """The stock model."""

    model_tester = Qwen3Tester()


class TestPruned(_Qwen3Test, unittest.TestCase):
    """The pruned model."""

    model_tester = PrunedQwen3Tester()
