"""Which tokens llama-cpp-python may sample next, so that an answer keeps to a JSON schema: by llguidance."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import llama_cpp
import numpy
from llguidance import LLMatcher, LLTokenizer
from llguidance.llamacpp import lltokenizer_from_vocab
from llguidance.numpy import allocate_token_bitmask, apply_token_bitmask_inplace, fill_next_token_bitmask

from event_schemas.chat import ResponseFormat
from workers.inference.held_schema import held_schema
from workers.inference.port import RequestRefused


class TokenMask:
    """Of one answer."""

    def __init__(self, matcher: LLMatcher, tokens: int) -> None:
        self._matcher = matcher
        self._bits = allocate_token_bitmask(1, tokens)
        self._tokens = tokens

    def apply(self, context: Any) -> None:
        """Leave ``context``, which is about to be sampled, only what may come next."""
        fill_next_token_bitmask(self._matcher, self._bits)
        pointer = llama_cpp.llama_get_logits_ith(context, -1)
        logits = numpy.ctypeslib.as_array(pointer, shape=(self._tokens,))
        apply_token_bitmask_inplace(logits, self._bits)

    def accept(self, token: int) -> None:
        """It was sampled."""
        self._matcher.consume_token(token)


class TokenMasks:
    """Of one model's vocabulary, which takes a second to read: at the first answer that has a schema."""

    def __init__(self, vocab: Any) -> None:
        self._vocab = vocab
        self._tokens: int = llama_cpp.llama_vocab_n_tokens(vocab)
        self._reading = threading.Lock()
        self._tokenizer: LLTokenizer | None = None

    def of(self, wanted: ResponseFormat | None) -> TokenMask | None:
        """None where no schema is wanted. Raises RequestRefused. Blocks."""
        if wanted is None or wanted.json_schema is None:
            return None
        with self._reading:
            if self._tokenizer is None:
                ends = [t for t in range(self._tokens) if llama_cpp.llama_vocab_is_eog(self._vocab, t)]
                with warnings.catch_warnings():
                    # It asks for a token's kind by a name that llama.cpp has renamed.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    self._tokenizer = lltokenizer_from_vocab(self._vocab, eos_token=ends)
        grammar = LLMatcher.grammar_from_json_schema(held_schema(wanted.json_schema))
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise RequestRefused("unsupported", "the model cannot be held to this JSON schema; does anything fit it?")
        return TokenMask(matcher, self._tokens)
