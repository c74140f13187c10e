"""What every benchmark shares: who measured (machine, versions, command), and the table it leaves behind."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aptlab.report.statistics import ConfidenceInterval

QUIET = 1.3  # load average of a machine on which nothing but a benchmark runs
RESULTS = Path(__file__).parent / "results"


def versions(*names: str) -> str:
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            module = importlib.import_module(name) if importlib.util.find_spec(name) else None
            found.append(f"{name} {getattr(module, '__version__', 'absent')}")
    return ", ".join(found)


def machine() -> str:
    """Processor, cores and accelerator, as the results name them."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    text = f"{os.cpu_count()} cores of {cpu}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        text += f", {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return text


def describe_load() -> str:
    """What else runs on the machine, where it is more than one process that measures."""
    load = os.getloadavg()[2]
    return f"; other work ran beside: load average {load:.1f} over a quarter of an hour" if load > QUIET else ""


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An aligned Markdown table."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write(name: str, title: str, body: str, *packages: str) -> Path:
    """benchmarks/results/<name>.md with its provenance; also printed."""
    command = "python " + " ".join([os.path.relpath(sys.argv[0]), *sys.argv[1:]])
    text = (
        f"# {title}\n\n{body}\n\n- machine: {machine()}{describe_load()}\n"
        f"- versions: Python {platform.python_version()}, {versions(*packages)}\n"
        f"- command: `{command}`\n- date: {datetime.date.today()}\n"
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text(text)
    print(text)
    return path


def format_interval(found: ConfidenceInterval | None, digits: int = 4, sign: str = "") -> str:
    """`mean ± half`, the mean alone where the seeds are not enough for an interval, `-` where there is none."""
    if found is None:
        return "-"
    half = "" if found.half is None else f" ± {found.half:.{digits}f}"
    return f"{found.mean:{sign}.{digits}f}{half}"


def spread(values: Sequence[float]) -> str:
    """median (min to max)"""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"
