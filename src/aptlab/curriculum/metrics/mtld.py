"""Lexical diversity of a row's text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aptlab.curriculum.metrics.base import DifficultyMetric
from aptlab.errors import ConfigError

if TYPE_CHECKING:
    from aptlab.data.rows.numbered import RowContents

# A letter of Chinese or Japanese is a word, for nothing stands between words there; all else are runs of letters.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")


@dataclass(frozen=True, kw_only=True)
class MTLD(DifficultyMetric):
    """Measure of textual lexical diversity: mean length, in words, of strings that keep their type-token ratio.

    MTLD = (n / F(words) + n / F(reversed words)) / 2

    F counts factors: words are read until types / tokens is below `threshold`, then anew; what is left at the end
    counts (1 - ratio) / (1 - threshold) of a factor (McCarthy and Jarvis 2010, "MTLD, vocd-D, and HD-D", Behavior
    Research Methods 42(2), with the threshold 0.72). Where no word ever comes twice, F = 0 and the value is n; a row
    without words is 0. Short rows make it coarse: 256 bytes are about 40 words. Words are runs of letters and digits,
    in lower case.
    """

    threshold: float = 0.72

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(f"threshold={self.threshold} must lie between 0 and 1; the paper has 0.72")

    def measure(self, contents: RowContents, fitted: Any) -> np.ndarray:
        """Raises ConfigError for rows that are no text."""
        del fitted
        texts = contents.list_texts()
        if texts is None:
            raise ConfigError(
                "MTLD counts words, and these rows are no text; take CompressionRatio, UnigramNLL or ModelLoss, and in "
                "curriculum=campus take it out with metrics.<its name>=null"
            )
        return np.array([compute_mtld(WORD.findall(text.lower()), self.threshold) for text in texts])


def compute_mtld(words: Sequence[str], threshold: float) -> float:
    """The mean of both directions."""
    count = len(words)
    forward, backward = (count_factors(side, threshold) for side in (words, words[::-1]))
    return (count / (forward or 1.0) + count / (backward or 1.0)) / 2


def count_factors(words: Sequence[str], threshold: float) -> float:
    """Factors of the words in their order, the last one in part."""
    factors, tokens, types = 0.0, 0, set[str]()
    for word in words:
        tokens += 1
        types.add(word)
        if len(types) < threshold * tokens:
            factors, tokens, types = factors + 1, 0, set()
    return factors + ((1 - len(types) / tokens) / (1 - threshold) if tokens else 0.0)
