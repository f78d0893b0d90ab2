"""Texts that a model is to write, where a family encodes them otherwise than those it reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

# Those within whose as_target_tokenizer this thread (or task) is: no state of the tokenizer, which others use too.
_WRITING: ContextVar[tuple[Any, ...]] = ContextVar("writing", default=())


class TargetMode:
    """Mixin with `as_target_tokenizer`; a family asks `_writing` which of its two ways of encoding is wanted."""

    @property
    def _writing(self) -> bool:
        return any(tokenizer is self for tokenizer in _WRITING.get())

    @contextmanager
    def as_target_tokenizer(self) -> Iterator[None]:
        """Within it, and in this thread alone, texts are encoded as targets."""
        before = _WRITING.set((*_WRITING.get(), self))
        try:
            yield
        finally:
            _WRITING.reset(before)
