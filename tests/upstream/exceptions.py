"""Tests that stock passes and ours need not, each with the reason."""

EXCEPTIONS = {
    "test_attention_outputs": "it wants the attentions of every layer; a layer without attention has none to give",
}
