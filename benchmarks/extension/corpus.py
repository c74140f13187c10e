"""A text to train on that needs its context: documents of the stdlib, and questions whose answers stand before them.

Half of the documents ask for a pass key, a magic number, or one of RULER's 13 tasks, from other seeds than the
evaluations use; the other half is plain text. All of it comes from the training side of `source=stdlib`, so that the
validation side is new to a model. Every document has exactly `--context` tokens with the end-of-text token behind it,
so that the rows of `aptlab train data.files=… context=…` are whole documents and no question loses its answer.

    python benchmarks/extension/corpus.py --out outputs/corpus.jsonl --documents 120000 --context 512
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
from functools import cache
from pathlib import Path

import numpy as np

from aptlab.data.module import TextData
from aptlab.data.sources import Stdlib
from aptlab.data.tokenizers import ByteTokenizer, Tokenizer
from aptlab.evals.tasks.haystack import ListedTexts
from aptlab.evals.tasks.needle import PasskeyTask
from aptlab.evals.tasks.ruler import build_ruler_tasks
from aptlab.evals.tasks.sample import TaskSampler
from aptlab.search.needles import make_needle_sample

SEED = 1_000_003  # far from the seeds of evaluations
MAGIC = "magic number"  # the needle of `aptlab search`
# Retrieval of one thing is what the rest is learned from, so it comes more often.
OFTEN = {"passkey": 3, MAGIC: 3, "niah_single_1": 2, "niah_single_2": 3, "niah_multikey_1": 3}


@cache
def text_data() -> TextData:
    """The stdlib in bytes; its two sides are what is trained on and what is measured."""
    return TextData(Stdlib(), tokenizer=ByteTokenizer(), context=512, batch=1)


@cache
def documents(side: str) -> list[str]:
    """Texts of one side ("train" or "val"), without what is not ASCII, so that a byte is a character."""
    stored, tokenizer = getattr(text_data().store, side), text_data().tokenizer
    ends = zip(stored.offsets[:-1], stored.offsets[1:])
    texts = (tokenizer.decode(stored.tokens[first:last].tolist()) for first, last in ends)
    return [text.encode("ascii", "ignore").decode() for text in texts]


def kinds() -> list[str]:
    """Names of the question kinds, as often as they are drawn."""
    names = ["passkey", MAGIC, *build_ruler_tasks("text")]
    return [name for name in names for _ in range(OFTEN.get(name, 1))]


@cache
def maker(name: str, length: int, seed: int, side: str) -> TaskSampler:
    """Samples of a task at a length, with haystacks from one side of the text."""
    task = PasskeyTask(name="passkey") if name == "passkey" else build_ruler_tasks("text")[name]
    return TaskSampler(task, tokenizer=tokenizer(), length=length, texts=ListedTexts(documents(side)), seed=seed)


def tokenizer() -> Tokenizer:
    return text_data().tokenizer


def plain(length: int, chance: random.Random) -> str:
    """Some `length` characters of one training document; documents are drawn by how much text they have."""
    texts = [text for text in documents("train") if len(text) >= length] or [" ".join(documents("train"))]
    text = chance.choices(texts, weights=[len(text) for text in texts])[0] if len(texts) > 1 else texts[0]
    begin = chance.randrange(len(text) - length + 1)
    return text[begin : begin + length]


def question(name: str, length: int, chance: random.Random, index: int, seed: int) -> list[int]:
    """A text with a question and its answer, `length` tokens; what is left behind the answer is plain text."""
    if name == MAGIC:
        row = np.array(tokenizer().encode(plain(length, chance)), dtype=np.int64)
        return make_needle_sample(row, tokenizer(), chance.random(), length, 0, chance).tokens.tolist()
    sample = maker(name, length, seed, "train").make(index)
    tokens = [*sample.tokens, *sample.answer]
    missing = length - len(tokens)
    return tokens + (tokenizer().encode("\n" + plain(missing, chance))[:missing] if missing else [])


def document(length: int, chance: random.Random, index: int, seed: int) -> list[int]:
    """One document of exactly `length` tokens: odd ones are plain."""
    if index % 2:
        return tokenizer().encode(plain(length, chance))
    return question(chance.choice(kinds()), length, chance, index, seed)


def part(job: tuple[int, int, int]) -> list[str]:
    """Some of the documents, as lines of JSON."""
    number, count, context = job
    chance = random.Random(SEED + number)
    made = (document(context - 1, chance, index, SEED + number) for index in range(count))
    return [json.dumps({"text": tokenizer().decode(tokens)}) for tokens in made]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=120_000)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    documents("train")  # builds the cache once
    size = min(500, -(-args.documents // args.workers))
    jobs = [(number, size, args.context) for number in range(-(-args.documents // size))]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(args.workers) as pool, open(args.out, "w") as file:
        for lines in pool.imap(part, jobs):
            file.writelines(f"{line}\n" for line in lines)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
