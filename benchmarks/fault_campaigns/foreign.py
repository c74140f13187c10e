"""Flips and cuts of the files of a Hugging Face folder: one line that names a file, or an import of what now stands.

safetensors and JSON carry no checksum, so a flip inside a weight, a name or a number leaves a whole file with other
content. That is counted apart. What is never allowed: another exception than our own, a message of several lines, a
message without a file, and a wait.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.fault_campaigns.row import Row

from aptlab.errors import AptlabError
from aptlab.models.hf import build_tokenizer_files, convert_to_hf, describe_decoder, read_folder
from aptlab.restore.hf_import import convert_hf_folder
from aptlab.testing import make_tiny_decoder

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", INDEX, WEIGHTS)
ABOUT = (*FILES, "the weights do not fit config.json")  # what a message may name
LONGEST = 30.0  # seconds of one import of a tiny model, on a machine that does other things
SHOWN = 5  # failures in a note
TOLD, IMPORTED = "told", "imported"


def run(count: int, seed: int) -> list[Row]:
    """Two rows, flips and cuts, of `count` each, spread over the files."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        whole = make_model_folder(Path(place) / "whole")
        return [
            count_faults("F13 model folder, one bit flipped", "one bit of one file", flip_bit, whole, count, draw),
            count_faults("F13 model folder, file cut", "one file cut anywhere", cut_file, whole, count, draw),
        ]


def make_model_folder(folder: Path) -> Path:
    """A whole folder of a tiny model: weights in one shard with an index, a tokenizer with the files beside it."""
    net = make_tiny_decoder(vocab=257)
    described = describe_decoder(net, context=16, eos=256)
    weights = convert_to_hf(net, described.family)
    folder.mkdir(parents=True)
    from safetensors.torch import save_file

    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    texts = build_tokenizer_files({"kind": "bytes"}, longest=64)
    tokenizer = json.loads(texts.pop("tokenizer.json"))
    texts |= {"tokenizer.json": json.dumps(tokenizer), "config.json": json.dumps(described.config)}
    texts["generation_config.json"] = json.dumps({"eos_token_id": 256, "temperature": 0.7})
    texts[INDEX] = json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, WEIGHTS)})
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def flip_bit(content: bytes, name: str, draw: random.Random) -> bytes:
    """One bit of a file; of weights mostly in the header, where a flip can do more than change a number."""
    end = len(content)
    if name == WEIGHTS and draw.random() < 0.9:
        end = 8 + int.from_bytes(content[:8], "little")
    place = draw.randrange(end)
    changed = bytearray(content)
    changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut_file(content: bytes, name: str, draw: random.Random) -> bytes:
    """A file that ends too early; of weights half of the cuts are in the header."""
    del name
    return content[: draw.randrange(len(content) if draw.random() < 0.5 else min(len(content), 2000))]


def count_faults(fault: str, injected: str, damage, whole: Path, count: int, draw: random.Random) -> Row:
    """Damage one file after the other, import the folder each time, and count how that ended."""
    ends: Counter[str] = Counter()
    failures: list[str] = []
    for number in range(count):
        name = FILES[number % len(FILES)]
        with tempfile.TemporaryDirectory() as place:
            folder = Path(shutil.copytree(whole, Path(place) / "folder"))
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(damage(content, name, draw))
            end = import_damaged(folder)
        ends[end if end in (TOLD, IMPORTED) else "failed"] += 1
        if end not in (TOLD, IMPORTED):
            failures.append(f"{name}: {end}")
    note = (
        f"{ends[TOLD]} told in one line, {ends[IMPORTED]} imported as what then stood there (safetensors and JSON have "
        "no checksum)"
    )
    shown = "; ".join(failures[:SHOWN])
    return Row(fault, injected, tried=count, held=count - len(failures), note=f"{note}; {shown}" if shown else note)


def import_damaged(folder: Path) -> str:
    """TOLD, IMPORTED, or what went wrong."""
    begun = time.monotonic()
    try:
        source = read_folder(folder)
        convert_hf_folder(folder, source=source)
        end = IMPORTED
    except AptlabError as error:
        end = judge_message(str(error), folder)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        end = f"{type(error).__name__}: {str(error)[:120]}"
    seconds = time.monotonic() - begun
    return end if seconds < LONGEST else f"{end} after {seconds:.0f} s"


def judge_message(message: str, folder: Path) -> str:
    """TOLD for one line that names a file; a list of the weights that do not fit has one line for each."""
    if not any(word in message for word in (*ABOUT, str(folder))):
        return f"no file in: {message[:120]}"
    first = message.partition("\n")[0]
    if "\n" in message and not first.startswith("the weights do not fit config.json"):
        return f"several lines: {message[:120]}"
    return TOLD
