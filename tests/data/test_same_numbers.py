"""Batches of a seed stay what they were: digests recorded before sources and rows were apart."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from aptlab.data.module import TextData
from aptlab.data.rows import Mixed, Packed, RowKind
from aptlab.data.store.split import Split
from aptlab.data.tokenizers import ByteTokenizer

NUMBERS = (0, 1, 2, 63, 64, 65, 200, 1000)
RECORDED: list[tuple[RowKind, int, int, int, str]] = [
    (
        Packed(),
        16,
        4,
        3,
        "83330ee013a757d6 3998a5df6765b04f 2f0458f5dfac4d03 b0f3ad6ce65f5d9e "
        "8561e7e7201ce30f da2251d3c8a7660d 28e9ecab3db473aa a29a21c925a97487",
    ),
    (
        Packed(document_mask=True),
        16,
        4,
        3,
        "717ca130113d8a50 0363fe47cd4e57f9 22ef91af8514e433 6481acf609b6cc9c "
        "031eae8e2883d70c 819db32177297c1c 81ac249602823d40 5b0a3f15d6b9baea",
    ),
    (
        Mixed(original_len=16),
        64,
        4,
        3,
        "97c3cbf6192d9db1 039ef4c5fa7c6bdd 8012d5b5d1a9ae79 e49c87403d7c7262 "
        "e750d8081dd08758 5aa41f4ffcb1b1ea 10a086c4e9e37472 9a013ead0d50f1a6",
    ),
    (
        Mixed(original_len=16, short=0.5, packed=0.1),
        64,
        8,
        5,
        "b2bac562073d7ce1 0dbfe79ec77bbcf8 af9f6145b61c22cb 0f5d3ebae0587bdc "
        "9557c97c63ac0040 efc86d0c71e74a2a 500db5e191c02deb 2ded3a73517fbd2b",
    ),
]


def digest(batch: dict[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(batch):
        array: np.ndarray = batch[name].numpy()
        found.update(name.encode() + array.tobytes() + str(batch[name].shape).encode())
    return found.hexdigest()[:16]


@pytest.mark.parametrize(("rows", "context", "batch", "seed", "digests"), RECORDED)
def test_a_seed_gives_the_batches_that_it_gave(rows, context, batch, seed, digests, texts):
    data = TextData(
        texts, tokenizer=ByteTokenizer(), context=context, batch=batch, seed=seed, rows=rows, split=Split(0.2)
    )
    loader = data.train_dataloader()
    assert [digest(loader.batch_at(number)) for number in NUMBERS] == digests.split()
