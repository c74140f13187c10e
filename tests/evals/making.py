"""Texts and tokenizers for the tests of long-context tasks."""

from __future__ import annotations

import functools
import json
import string
import tempfile
from pathlib import Path

from aptlab.data.tokenizers import BPE, ByteTokenizer, Tokenizer, TokenizerFile
from aptlab.evals.tasks import ListedTexts

BODIES = [
    "Rivers begin as springs. Some of them reach the sea; others end in a lake.\nA delta forms where the water slows.",
    "def area(width, height):\n    return width * height\n\nprint(area(3, 4))\n",
    "Snow falls in winter. It melts in spring! Does ice float? It does, since it is lighter than water.\n\n" * 3,
    "A long line without any end of a sentence " * 12,
    "Äpfel und Öl: naïve café, 日本語のテキスト。 Emoji 👩‍👧 too.\n",
]


def documents() -> ListedTexts:
    return ListedTexts(BODIES)


def corpus() -> list[str]:
    """Text that teaches a tokenizer the words of prompts, and something else."""
    from aptlab.evals.tasks import PasskeyTask, TaskSampler, build_ruler_tasks

    prompts = []
    for task in [*build_ruler_tasks().values(), PasskeyTask()]:
        made = TaskSampler(task, tokenizer=ByteTokenizer(), length=2048, texts=documents(), seed=99)
        prompts += [ByteTokenizer().decode(made.make(index).tokens) for index in range(2)]
    return [*BODIES * 4, *prompts]


@functools.cache
def tokenizer(kind: str) -> Tokenizer:
    """`bytes`; `bpe`, trained here; `file`, a tokenizer.json that marks words by ▁ as Llama's does."""
    if kind == "bytes":
        return ByteTokenizer()
    folder = Path(tempfile.mkdtemp())
    if kind == "bpe":
        return BPE(vocab=600).prepare(lambda: iter(corpus()), key="k", folder=folder)
    return TokenizerFile(path=str(marked(folder / "tokenizer.json"))).prepare(lambda: iter([]), key="k", folder=folder)


def marked(path: Path) -> Path:
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers, trainers

    fast = Fast(models.BPE(unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.decoder = decoders.Metaspace()
    alphabet = [character for character in string.printable if character != " "]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<unk>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    fast.train_from_iterator(corpus(), trainer=trainer)
    path.write_text(json.dumps(json.loads(fast.to_str())))
    return path
