"""Names and sizes of the tensors in safetensors files, read before anything is built or loaded.

The file begins with eight bytes, the length of a JSON object: {name: {dtype, shape, data_offsets}}; the rest is data
(safetensors' README, "Format"). The library checks offsets too, but not whether the model of a config.json is the one
whose weights these are, and a network of a million layers is not to be built to find that out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aptlab.bounded import TABLE, Bounds, parse_json, read_bounded_text
from aptlab.errors import CheckpointError, ConfigError
from aptlab.shown import show_line

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LONGEST_HEADER = 100 << 20  # bytes, as in the library
HEADER = Bounds(bytes=LONGEST_HEADER, depth=8, values=20_000_000)
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16}
BITS |= {"I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64}
LAYER = re.compile(r"(?:^|\.)(?:layers|blocks|h)\.(\d{1,9})\.")
SLACK = 2  # a model this many times larger than its file is not built to say in detail what does not fit
REPAIR = "download or copy it again"


@dataclass(frozen=True)
class StoredSizes:
    """What weights files hold, without their numbers.

    file     the file, or the list of files, that is named in errors
    shapes   sizes of every tensor by its name
    """

    file: str
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def layers(self) -> int:
        """One more than the highest number of a layer in a name; 0 where there is none."""
        found = (LAYER.search(name) for name in self.shapes)
        return max((int(match[1]) + 1 for match in found if match), default=0)

    @property
    def weights(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def check_model(self, sizes: Mapping[str, int], asked: int, *, depth: str, source: str) -> None:
        """ConfigError where a model is not the one whose weights these are: more layers, or far more weights.

        sizes   of the model, by the keys that are named
        asked   weights of its matrices, in all layers
        depth   the key of the number of layers
        source  where the sizes stand
        """
        layers, said = self.layers, ", ".join(f"{key}={value}" for key, value in sizes.items() if key != depth)
        if layers and sizes[depth] > layers:
            raise ConfigError(
                f"{depth}={sizes[depth]} in {source}, and {self.file} holds {layers} layers; they belong to different "
                "models"
            )
        if asked > SLACK * self.weights + (1 << 20):
            raise ConfigError(
                f"{said} in {source} make a model of {asked:,} weights, and {self.file} holds {self.weights:,}; they "
                "belong to different models"
            )


def read_places(folder: Path) -> dict[str, str]:
    """The index's table, tensor name -> file name; {} where there is no index. CheckpointError naming file and key."""
    index = folder / INDEX
    if not index.is_file():
        return {}
    try:
        table = parse_json(read_bounded_text(index, TABLE), TABLE)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{index} cannot be read as JSON: {error}; {REPAIR}") from None
    places = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(places, dict) or not places:
        said = type(places).__name__ if isinstance(table, dict) and "weight_map" in table else "nothing"
        raise CheckpointError(
            f"{index}: weight_map must be a table of the file of each weight, there is {said}; {REPAIR}"
        )
    for name, file in places.items():
        if not isinstance(file, str) or file in ("", ".", "..") or re.search(r"[/\\\x00]", file):
            raise CheckpointError(
                f"{index}: weight_map.{show_line(name)[:80]} is {show_line(repr(file))[:80]}, which is no name of a "
                f"file beside it; {REPAIR}"
            )
    return places


def read_stored_sizes(folder: Path, places: Mapping[str, str]) -> StoredSizes:
    """Sizes of all tensors of a folder; CheckpointError for a file that is missing, or no safetensors, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(set(places.values())) or [WEIGHTS]:
        shapes |= read_header(folder / file)
    return StoredSizes(INDEX if places else WEIGHTS, shapes)


def read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Sizes of the tensors of one file by name; CheckpointError naming it."""
    try:
        with open(require_weights(path), "rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, LONGEST_HEADER):
                raise ValueError(f"its header would have {length:,} bytes, the file has {size:,}")
            table = parse_json(file.read(length), HEADER)
        if not isinstance(table, dict):
            raise ValueError("its header is no JSON object")
        entries = {name: entry for name, entry in table.items() if name != "__metadata__"}
        found = {name: read_entry(name, entry, size - 8 - length) for name, entry in entries.items()}
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; {REPAIR}") from None
    return found


def require_weights(path: Path) -> Path:
    """The path itself; CheckpointError where there is no such file."""
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing; aptlab reads safetensors only, convert other files with transformers' save_pretrained"
        )
    return path


def read_entry(name: str, entry: Any, room: int) -> tuple[int, ...]:
    """The sizes of one tensor; ValueError where they do not fit its place among `room` bytes of data."""
    where = f"the header's entry of {show_line(name)[:80]}"
    facts: dict[str, Any] = entry if isinstance(entry, dict) else {}
    shape, places = read_numbers(facts, "shape", where), read_numbers(facts, "data_offsets", where)
    if len(places) != 2 or not places[0] <= places[1] <= room:
        raise ValueError(f"{where} has data_offsets outside of the file")
    bits = BITS.get(str(facts.get("dtype")))
    if bits is not None and math.prod(shape) * bits != 8 * (places[1] - places[0]):
        raise ValueError(f"{where} has another size than its place in the file")
    return tuple(shape)


def read_numbers(facts: Mapping[str, Any], key: str, where: str) -> list[int]:
    """A list of whole numbers from 0 on; ValueError for anything else."""
    numbers = facts.get(key)
    if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{where} has no {key}")
    return numbers
