"""Languages are told offline, by a package that is named where it is missing."""

from __future__ import annotations

import importlib.util

import pytest

from aptlab.data import languages
from aptlab.data.languages import UNKNOWN, LanguageDetector, make_language_line
from aptlab.errors import ConfigError

ENGLISH = "The encoder reads the whole sentence before the decoder writes the first word."
CHINESE = "编码器先读完整个句子，然后解码器才写出第一个词。"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"languages are told by py3langid, .* pip install 'aptlab\[languages\]'"):
        LanguageDetector()


def test_english_and_chinese_are_told_apart():
    pytest.importorskip("py3langid", reason="the extra `languages` is not installed")
    languages.get_detector.cache_clear()
    detector = LanguageDetector(["en", "zh"])
    assert [detector.detect(text).code for text in (ENGLISH, CHINESE, " \n")] == ["en", "zh", UNKNOWN]
    assert detector.detect(ENGLISH).probability > 0.9
    assert LanguageDetector(["de", "zh"]).detect(ENGLISH).code == "de"
    with pytest.raises(ConfigError, match="languages: py3langid does not know 'xx'; it knows ace, af"):
        LanguageDetector(["xx"])
    assert make_language_line(["en", "zh"])(ENGLISH, CHINESE).startswith("language: prompt en (1.00), text zh (")
