"""A text to train on that needs its context: documents of the stdlib, and questions whose answers stand before them.

Half of the documents ask for a pass key or one of RULER's needles, at lengths up to the context, from other seeds than
the evaluations use; the other half is plain text. So a small model learns in minutes to look back.

    python benchmarks/positions/corpus.py --out outputs/corpus.jsonl --documents 60000 --context 512
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
from pathlib import Path

from aptlab.data.sources import Stdlib
from aptlab.data.tokenizers import Bytes
from aptlab.evals.tasks.haystack import Listed
from aptlab.evals.tasks.needle import PassKey
from aptlab.evals.tasks.ruler import ruler
from aptlab.evals.tasks.sample import Samples, Task

SEED = 1_000_003  # far from the seeds of evaluations
NEEDLES = ("niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1")


def tasks() -> list[Task]:
    known = ruler("text")
    return [PassKey(name="passkey"), *(known[name] for name in NEEDLES)]


def part(job: tuple[int, int, int]) -> list[str]:
    """Some of the documents, as lines of JSON."""
    number, count, context = job
    texts = [text for _, text in Stdlib().documents()]
    tokenizer = Bytes().prepare(lambda: iter(()), key="", folder=Path())
    chance, made, lines = random.Random(SEED + number), {}, []
    for index in range(count):
        if index % 2:
            text = chance.choice(texts)
            begin = chance.randrange(max(1, len(text) - context))
            lines.append(text[begin : begin + context])
            continue
        task, length = chance.choice(tasks()), chance.choice([context * n // 8 for n in range(6, 9)])
        key = (task.name, length)
        if key not in made:
            made[key] = Samples(task, tokenizer=tokenizer, length=length, texts=Listed(texts), seed=SEED + number)
        sample = made[key].make(index)
        lines.append(tokenizer.decode([*sample.tokens, *sample.answer]))
    return [json.dumps({"text": line}) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=60_000)
    parser.add_argument("--context", type=int, default=512)
    args = parser.parse_args()
    workers = os.cpu_count() or 1
    jobs = [(number, args.documents // workers, args.context) for number in range(workers)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(workers) as pool, open(args.out, "w") as file:
        for lines in pool.imap(part, jobs):
            file.writelines(f"{line}\n" for line in lines)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
