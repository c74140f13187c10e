"""Which language a text is in, by py3langid (Lui & Baldwin 2012, langid.py; the extra `languages`): offline, no torch.

py3langid is a BSD-3 fork of langid.py whose model of 139 languages ships in its package: nothing is loaded from a
network. Name the languages that can occur: among all, a sentence of Mandarin is easily told as Wu. A number goes with
every answer.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from aptlab.errors import ConfigError

UNKNOWN = "und"  # ISO 639 for undetermined


class Language(NamedTuple):
    """An ISO 639 code, und where no text is, and the probability that the detector gives it."""

    code: str
    probability: float


class LanguageDetector:
    """The likeliest language of a text.

    among  ISO 639 codes to choose among; none: all that the model knows. ConfigError for one that it does not, and
           where the package is missing
    """

    def __init__(self, among: Sequence[str] = ()) -> None:
        if importlib.util.find_spec("py3langid") is None:
            raise ConfigError(
                "languages are told by py3langid, which is not installed; pip install 'aptlab[languages]'"
            )
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self._model: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        known = {code for code, _ in self._model.rank("")}
        if unknown := [code for code in among if code not in known]:
            raise ConfigError(f"languages: py3langid does not know {unknown[0]!r}; it knows {', '.join(sorted(known))}")
        if among:
            self._model.set_languages(list(among))

    def detect(self, text: str) -> Language:
        """The language of a text."""
        if not text.strip():
            return Language(UNKNOWN, 0.0)
        code, probability = self._model.classify(text)
        return Language(str(code), float(probability))


@functools.cache
def get_detector(among: tuple[str, ...] = ()) -> LanguageDetector:
    """The detector, whose model takes some time to read; it is read once."""
    return LanguageDetector(among)


def make_language_line(among: Sequence[str]) -> Callable[[str, str], str]:
    """A function of a prompt and its text that tells the language of both in one line. ConfigError as the detector."""
    detect = get_detector(tuple(among)).detect

    def describe(prompt: str, text: str) -> str:
        found = {"prompt": detect(prompt), "text": detect(text)}
        told = (f"{name} {language.code} ({language.probability:.2f})" for name, language in found.items())
        return f"language: {', '.join(told)}"

    return describe
