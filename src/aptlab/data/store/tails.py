"""Cut the end off a text, at a border that a reader would choose."""

from __future__ import annotations

BORDERS = (b"\n\n", b"\n", b" ")  # paragraph, line, word


def cut_tail(text: str, share: float) -> tuple[str, str]:
    """The text in two, of which the second has about `share` of the UTF-8 bytes; neither is empty.

    The cut is at the nearest end of a paragraph within an eighth of the tail, else of a line, of a word, else exact but
    for a whole character. Texts of one character come back whole, with an empty tail.
    """
    data = text.encode("utf-8", "surrogatepass")
    want = max(1, round(len(data) * share))
    at = _find_border(data, len(data) - want, slack=want // 8)
    return data[:at].decode("utf-8", "surrogatepass"), data[at:].decode("utf-8", "surrogatepass")


def _find_border(data: bytes, at: int, *, slack: int) -> int:
    """The position of the cut nearest to `at`."""
    low, high = max(0, at - slack), at + slack
    for border in BORDERS:
        before, after = data.rfind(border, low, at), data.find(border, at, high)
        ends = [place + len(border) for place in (before, after) if place >= 0]
        ends = [end for end in ends if 0 < end < len(data)]
        if ends:
            return min(ends, key=lambda end: abs(end - at))
    while at > 0 and _continues(data, at):
        at -= 1
    if at == 0:
        at = 1
        while at < len(data) and _continues(data, at):
            at += 1
    return at


def _continues(data: bytes, at: int) -> bool:
    """Whether the byte at `at` is inside a character."""
    return data[at] & 0xC0 == 0x80
