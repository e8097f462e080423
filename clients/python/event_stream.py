"""Server-sent events out of the bytes of a stream, by the rules of the WHATWG's HTML standard.

The bytes may come in pieces of any size, cut anywhere, also within a character or a line end.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its type, and its data with lines joined by line feeds."""

    name: str
    data: str


class EventStream:
    """The events of one connection. What is unfinished when it ends was never sent."""

    def __init__(self, last_id: str = "") -> None:
        """`last_id` holds until the stream tells another."""
        self.last_id = last_id
        # How long the server asks to wait before connecting again.
        self.retry_seconds = 0.0
        # Takes a byte order mark off the front; bytes that are no UTF-8 read as U+FFFD.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._line: list[str] = []
        self._after_cr = False
        self._name = ""
        self._data: list[str] = []
        self._id = last_id

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that are whole with this piece."""
        for line in self._lines(self._decoder.decode(chunk)):
            if line:
                self._take(line)
                continue
            self.last_id = self._id
            if self._data:
                yield Event(self._name or "message", "\n".join(self._data))
            self._name, self._data = "", []

    def _lines(self, text: str) -> Iterator[str]:
        """The lines that are whole now; they end with CR LF, LF or CR."""
        if not text:
            return
        if self._after_cr:
            text = text.removeprefix("\n")
        # Not str.splitlines: it knows other line ends, which may stand in data.
        *whole, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._after_cr = text.endswith("\r")
        for end in whole:
            line = "".join((*self._line, end))
            self._line.clear()
            yield line
        self._line.append(rest)

    def _take(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry_seconds = int(value) / 1000
