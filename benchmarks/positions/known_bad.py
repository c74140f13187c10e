"""What is expected to fail in the pinned versions of peers, and which claim of the project's notes says so.

An entry that passes is reported: upstream was repaired, or the claim was wrong.
"""

from __future__ import annotations

from typing import NamedTuple


class Bad(NamedTuple):
    """A cell of the table: project, pinned version, kind of positions, law; and where the claim comes from."""

    project: str
    version: str
    name: str
    law: str
    source: str


PINS = {
    "transformers": "5.23.0",
    "rotary-embedding-torch": "0.9.1",
    "x-transformers": "2.31.10",
    "torchscale": "0.3.0",
    "torchtune": "0.6.1",
}
CLAIMS = (
    ("transformers", "dynamic", "cached", "row 1; transformers #25104"),
    ("transformers", "longrope", "cached", "row 2; transformers #33129"),
    ("transformers", "dynamic", "batched", "row 3"),
    ("transformers", "longrope", "batched", "row 3"),
    ("transformers", "dynamic", "packed", "row 3 (max over the row), by reading"),
    ("transformers", "longrope", "packed", "row 3 (max over the row), by reading"),
    ("transformers", "llama4 temperature", "shift", "row 5"),
    ("transformers", "llama4 temperature", "left pad", "row 5"),
    ("transformers", "llama4 temperature", "packed", "row 5, by reading"),
    ("rotary-embedding-torch", "lang", "bf16", "row 7"),
    ("rotary-embedding-torch", "cached keys", "bf16", "row 7"),
    ("rotary-embedding-torch", "xpos", "cached", "row 8"),
    ("x-transformers", "rotary", "bf16", "row 9"),
    ("x-transformers", "xpos", "bf16", "row 9"),
    ("torchscale", "xpos", "bf16", "row 9"),
    ("transformers", "default", "10M", "section 2.2"),
    ("rotary-embedding-torch", "lang", "10M", "section 2.2"),
    ("x-transformers", "rotary", "10M", "section 2.2"),
    ("torchtune", "rope", "10M", "section 2.2"),
    ("x-transformers", "xpos", "10M", "section 1.5: overflow beyond 72,000 tokens"),
    ("torchscale", "xpos", "10M", "section 1.5: overflow beyond 72,000 tokens"),
)
LLAMAS = ("default", "yarn", "longrope", "llama3", "proportional")
LLAMAS_4 = ("llama4", "llama4 temperature", "llama4 chunked")
FOUND_HERE = {
    ("transformers", "bf16"): LLAMAS + LLAMAS_4,
    ("transformers", "shift"): ("dynamic",),
    ("rotary-embedding-torch", "bf16"): ("lang interpolated", "lang ntk", "lang learned", "xpos"),
    ("x-transformers", "bf16"): ("rotary interpolated", "rotary ntk", "polar", "dynamic bias"),
}
KNOWN_BAD = tuple(Bad(project, PINS[project], name, law, source) for project, name, law, source in CLAIMS) + tuple(
    Bad(project, PINS[project], name, law, "found by this benchmark")
    for (project, law), names in FOUND_HERE.items()
    for name in names
)
