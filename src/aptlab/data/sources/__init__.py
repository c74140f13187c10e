"""Where documents come from. No torch."""

from aptlab.data.sources.base import Document, Note, Source, fingerprint_parts
from aptlab.data.sources.files import TextFiles
from aptlab.data.sources.hub import Hub
from aptlab.data.sources.installed import Installed
from aptlab.data.sources.joined import Joined
from aptlab.data.sources.pairs import Pair, PairFiles, PairSource, RandomPairs, TextPairs
from aptlab.data.sources.stdlib import Stdlib

__all__ = [
    "Document",
    "Hub",
    "Installed",
    "Joined",
    "Note",
    "Pair",
    "PairFiles",
    "PairSource",
    "RandomPairs",
    "Source",
    "Stdlib",
    "TextFiles",
    "TextPairs",
    "fingerprint_parts",
]
