"""The end of a text at a stop string, while it is being written. No torch."""

from __future__ import annotations

from collections.abc import Sequence


class StopText:
    """Text in pieces in, the same text out up to the first stop string, which itself never shows.

    An ending that could still become a stop string is held back until it is clear whether it does.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stops = tuple(stop for stop in stops if stop)
        self.stopped = False
        self._held = ""

    def push(self, piece: str) -> str:
        """The text that is safe to show now; nothing any more once `stopped`."""
        if self.stopped:
            return ""
        text = self._held + piece
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self, piece: str = "") -> str:
        """The last piece and what was held back."""
        shown = self.push(piece)
        rest, self._held = self._held, ""
        return shown + rest


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """A finished text up to its first stop string."""
    found = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return text[: min(found, default=len(text))]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest ending of `text` that is a beginning of `stop`."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)
