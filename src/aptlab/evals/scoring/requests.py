"""Requests of lm-evaluation-harness as rows of tokens, encoded as its own class for transformers models (HFLM) does.

A row is (tokens, count): the last `count` tokens are scored, each from those before it in the row.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aptlab.data.tokenizers import Tokenizer
from aptlab.errors import AptlabError
from aptlab.sample import SamplingRules

Row = tuple[list[int], int]
NEW_TOKENS = 256  # where a task does not say how many
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # the first one given counts
RULES = ("top_k", "top_p", "min_p", "repetition_penalty")
KNOWN = {"until", "do_sample", "temperature", *LIMITS, *RULES}


@dataclass(frozen=True)
class GenerationSettings:
    """How a text is to be generated: stop strings, number of tokens, sampling rules."""

    until: tuple[str, ...]
    new_tokens: int
    rules: SamplingRules


def find_first_token(tokenizer: Tokenizer) -> int:
    """What the first token of a text follows where nothing else is in front: bos, else eos."""
    return tokenizer.eos if tokenizer.bos is None else tokenizer.bos


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> Row:
    """Tokens of both; those of the continuation are what the encoded whole has beyond the encoded context.

    Where tokens merge across the boundary, a row is the context's own tokens and the rest of the whole, as HFLM has it.
    Spaces at the end of the context belong to the continuation. Where the merge leaves nothing of the continuation,
    which HFLM refuses, it is encoded alone.
    """
    first = find_first_token(tokenizer)
    if not context:
        after = tokenizer.encode(continuation, specials=tokenizer.reads_specials)
        return (after, len(after) - 1) if after[:1] == [first] else ([first, *after], len(after))
    trimmed = context.rstrip()
    continuation = context[len(trimmed) :] + continuation
    before = tokenizer.encode_text(trimmed)
    after = tokenizer.encode_text(trimmed + continuation)[len(before) :]
    after = after or tokenizer.encode(continuation, specials=tokenizer.reads_specials)
    return [*(before or [first]), *after], len(after)


def split_row(row: Row, length: int) -> list[Row]:
    """Rows that read at most `length` tokens and score every target once.

    A row that is too long loses the beginning of its context. More targets than `length`, which HFLM refuses, are
    scored in windows that move by half of it, so that each has at least that much in front.
    """
    tokens, count = row
    if count <= length:
        return [(tokens[-(length + 1) :], count)]
    step, rows = max(1, length // 2), []
    for first in range(len(tokens) - count, len(tokens), step):
        last = min(first + step, len(tokens))
        rows.append((tokens[max(0, last - length - 1) : last], last - first))
    return rows


def cut_windows(tokens: Sequence[int], first: int, length: int) -> Iterator[Row]:
    """Rows that score every token of a text once, each row as long as can be; the text follows the token `first`."""
    whole = [first, *tokens]
    for begin in range(1, len(whole), length):
        end = min(begin + length, len(whole))
        yield whole[max(0, end - length - 1) : end], end - begin


def parse_generation_kwargs(kwargs: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> GenerationSettings:
    """The generation settings of a task; `defaults` are sampling rules for what it does not say.

    AptlabError for a setting that means nothing here.
    """
    unknown = sorted(set(kwargs) - KNOWN)
    if unknown:
        raise AptlabError(
            f"the task asks for {unknown[0]}={kwargs[unknown[0]]!r}, which is not known here; change its "
            f"generation_kwargs, allowed: {', '.join(sorted(KNOWN))}"
        )
    until = kwargs.get("until") or ()
    temperature = kwargs.get("temperature")
    sampled = kwargs.get("do_sample")
    if sampled is None:
        sampled = bool(temperature)
    heat = (1.0 if temperature is None else float(temperature)) if sampled else 0.0
    said = {**(defaults or {}), **{name: value for name, value in kwargs.items() if value is not None}}
    return GenerationSettings(
        until=(until,) if isinstance(until, str) else tuple(until),
        new_tokens=int(next((kwargs[name] for name in LIMITS if kwargs.get(name) is not None), NEW_TOKENS)),
        rules=SamplingRules(temperature=heat, **{name: said[name] for name in RULES if said.get(name) is not None}),
    )


def make_request_seeds(requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[int]:
    """One seed per request, out of what it asks; the second of equal ones has another. Batches do not count in."""
    seen: Counter[str] = Counter()
    seeds = []
    for context, kwargs in requests:
        asked = json.dumps([context, dict(kwargs)], sort_keys=True, default=str)
        digest = hashlib.sha256(f"{asked} {seen[asked]}".encode()).digest()
        seen[asked] += 1
        seeds.append(int.from_bytes(digest[:8]))
    return seeds


def group_requests(settings: Sequence[GenerationSettings]) -> Iterator[list[int]]:
    """Indices of requests that can be generated together, in order of appearance."""
    groups: dict[GenerationSettings, list[int]] = {}
    for index, setting in enumerate(settings):
        groups.setdefault(setting, []).append(index)
    yield from groups.values()
