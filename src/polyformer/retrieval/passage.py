"""A document, and a passage that knows which characters of which document it is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be cut into passages.

    name: what citations call it, a path or an id. meta: whatever else is known of it, JSON; passages keep it.
    """

    name: str
    text: str
    title: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document: document.text[start:end] == text.

    id: its number in the index, given once and never given again; -1 before it has one.
    """

    text: str
    document: str = ""
    title: str = ""
    start: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)
    id: int = -1

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    def line(self, number: int) -> bytes:
        """This passage as the line of a file, with this number as its id."""
        fields: dict[str, Any] = {"id": number, "document": self.document, "title": self.title, "start": self.start}
        fields |= {"text": self.text} | ({"meta": dict(self.meta)} if self.meta else {})
        made = json.dumps(fields, ensure_ascii=False, allow_nan=False)
        return made.encode("utf-8", "surrogatepass") + b"\n"  # JSON may hold half a character; it is given back so

    @classmethod
    def from_line(cls, line: bytes) -> "Passage":
        """The passage that `line` wrote. Raises ValueError, TypeError or KeyError for anything else."""
        fields = json.loads(line.decode("utf-8", "surrogatepass"))
        made = cls(
            fields["text"], fields["document"], fields["title"], fields["start"], fields.get("meta", {}), fields["id"]
        )
        if not (isinstance(made.text, str) and isinstance(made.start, int) and isinstance(made.id, int)):
            raise TypeError("not a passage")
        return made
