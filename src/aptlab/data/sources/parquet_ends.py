"""The first and the last bytes of a Parquet file, looked at before pyarrow is imported, which takes a second.

A file begins and ends with the magic `PAR1`, or `PARE` where its footer is encrypted; before the last one stand four
bytes with the length of the footer, little-endian (Apache Parquet format, "File format").
"""

from __future__ import annotations

from pathlib import Path

PLAIN, ENCRYPTED = b"PAR1", b"PARE"
LEAST = 12  # bytes: two magics and a length


def find_end_problem(path: Path) -> str | None:
    """Why a file is no whole Parquet file that can be read here, in words that follow `name: `; raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < LEAST:
            return f"its {size} bytes are fewer than the {LEAST} of an empty one"
        file.seek(0)
        first = file.read(4)
        file.seek(size - 8)
        last = file.read(8)
    if first == last[4:] == ENCRYPTED:
        return "its footer is encrypted (PARE), and there is no key here; write it without encryption"
    if first != PLAIN:
        return f"it begins with {first!r} where {PLAIN!r} belongs"
    if last[4:] != PLAIN:
        return f"it ends with {last[4:]!r} where {PLAIN!r} belongs, so its end may be missing"
    footer = int.from_bytes(last[:4], "little")
    if footer > size - LEAST:
        return f"its footer would have {footer:,} bytes, and the file has {size:,}"
    return None
