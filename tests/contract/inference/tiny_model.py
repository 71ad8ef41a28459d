"""A model of two small layers with weights made at random, saved as Hugging Face saves models."""

from __future__ import annotations

from pathlib import Path

import pytest

_WORDS = """
the rain falls on a quiet town and then light comes back to it while over many roofs one old bird sings of what nobody
heard la secret Count User Assistant System Sing Hello You are sailor Ahoy who Nobody note is capital France
"""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


def save_tiny_model(folder: Path, *, chat_template: str | None = None, eos: bool = False, layers: int = 2) -> Path:
    """It knows a few words and never ends by itself, unless ``eos``: then each of its words ends the answer."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", *dict.fromkeys(_WORDS.split())]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(words),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=16384,
                bos_token_id=1,
                eos_token_id=list(range(3, len(words))) if eos else 2,
            )
        )
        # Never the unknown word, nor an end by chance.
        torch.nn.init.constant_(model.lm_head.weight[:3], 0.0)
    model.save_pretrained(folder)
    return folder
