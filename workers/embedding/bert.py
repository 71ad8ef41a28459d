"""The forward pass of BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805) for sentence embeddings, in numpy.

Mean pooling over the tokens and a length of one, as Sentence-BERT has it (Reimers and Gurevych 2019,
https://arxiv.org/abs/1908.10084).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_EPSILON = 1e-12
_MASKED = np.float32(-1e9)

Array = Any
"""A numpy array of float32."""


class Bert:
    """``weights`` are named as Hugging Face names those of a ``BertModel``. All of it blocks."""

    def __init__(self, weights: Mapping[str, Array], heads: int) -> None:
        self._weights = weights
        self._heads = heads
        self._layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
        # What goes into one token's query, key and value goes in one multiplication.
        self._attention = [
            tuple(
                np.concatenate([weights[f"encoder.layer.{n}.attention.self.{part}.{kind}"] for part in _PARTS])
                for kind in ("weight", "bias")
            )
            for n in range(self._layers)
        ]

    @property
    def dimensions(self) -> int:
        return int(self._weights["embeddings.word_embeddings.weight"].shape[1])

    def sentences(self, ids: Array, mask: Array) -> Array:
        """A vector of length one for each row of ``ids``, tokens of which ``mask`` has ones where there are any."""
        hidden = self._embedded(ids)
        # No token looks at what only fills its row up.
        bias = ((1 - mask) * _MASKED).astype(np.float32)[:, None, None, :]
        for layer in range(self._layers):
            hidden = self._layer(layer, hidden, bias)
        weight = mask.astype(np.float32)[:, :, None]
        pooled = (hidden * weight).sum(axis=1) / weight.sum(axis=1)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True).clip(_EPSILON)

    def _embedded(self, ids: Array) -> Array:
        weights = self._weights
        words = weights["embeddings.word_embeddings.weight"][ids]
        places = weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        first = weights["embeddings.token_type_embeddings.weight"][0]
        return self._normalised("embeddings.LayerNorm", words + places + first)

    def _layer(self, number: int, hidden: Array, bias: Array) -> Array:
        at = f"encoder.layer.{number}."
        mixed = self._linear(f"{at}attention.output.dense", self._attended(number, hidden, bias))
        hidden = self._normalised(f"{at}attention.output.LayerNorm", mixed + hidden)
        wide = _gelu(self._linear(f"{at}intermediate.dense", hidden))
        return self._normalised(f"{at}output.LayerNorm", self._linear(f"{at}output.dense", wide) + hidden)

    def _attended(self, number: int, hidden: Array, bias: Array) -> Array:
        rows, length, width = hidden.shape
        weight, offset = self._attention[number]
        mixed = hidden.reshape(-1, width) @ weight.T + offset
        split = mixed.reshape(rows, length, 3, self._heads, width // self._heads)
        query, key, value = split.transpose(2, 0, 3, 1, 4)
        scores = query @ key.swapaxes(-1, -2) / np.float32(np.sqrt(width // self._heads)) + bias
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        return (scores @ value).swapaxes(1, 2).reshape(rows, length, width)

    def _linear(self, name: str, values: Array) -> Array:
        # Of two dimensions, it is one multiplication; of three, one for each row.
        flat = values.reshape(-1, values.shape[-1]) @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return flat.reshape(*values.shape[:-1], -1)

    def _normalised(self, name: str, values: Array) -> Array:
        centred = values - values.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(_EPSILON))
        return centred / spread * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


_PARTS = ("query", "key", "value")


def _gelu(values: Array) -> Array:
    return values * (1 + _erf(values * np.float32(1 / np.sqrt(2)))) / 2


def _erf(values: Array) -> Array:
    """Abramowitz and Stegun 7.1.26: wrong by 1.5e-7 at most, which is float32's own grain. numpy has none."""
    size = np.abs(values)
    t = 1 / (1 + np.float32(0.3275911) * size)
    polynomial = t * np.float32(1.061405429) - np.float32(1.453152027)
    for coefficient in (1.421413741, -0.284496736, 0.254829592):
        polynomial = polynomial * t + np.float32(coefficient)
    return np.sign(values) * (1 - polynomial * t * np.exp(-size * size))
