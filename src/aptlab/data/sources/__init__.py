"""Where documents come from. No torch."""

from aptlab.data.sources.kinds import Document, Hub, Note, Source, Stdlib, TextFiles, fingerprint_parts

__all__ = ["Document", "Hub", "Note", "Source", "Stdlib", "TextFiles", "fingerprint_parts"]
