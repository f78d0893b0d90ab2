"""Texts while they are written: to a terminal, or as an iterator of pieces.

A streamer is told of the prompt and then of each token (`put`), and of the end (`end`). Pieces joined are the text that
the tokenizer makes of all tokens, less the prompt's: each piece is what decoding them all has added, and what a later
token may still change is held back: the bytes of a character that is not whole, marks that a word goes on ("@@"), and
where the tokenizer takes out spaces before punctuation, a space that may be before some.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from polyformer.generation.stopping import StoppingCriteria, alike

# what may become, behind a space, punctuation that the space is taken out before: . ? ! , ' n't 'm 's 've 're
BEGUN = ("", "n", "n'", "'", "'v", "'r")


class TextStreamer:
    """Prints a text while it is written; one text at a time.

    Args:
        tokenizer: anything with `decode(ids, **how)`.
        skip_prompt: leave the prompt out.
        decode_kwargs: how to decode (skip_special_tokens=True, ...).
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, **decode_kwargs: Any) -> None:
        self.tokenizer, self.skip_prompt, self.decode_kwargs = tokenizer, skip_prompt, decode_kwargs
        cleans = getattr(tokenizer, "clean_up_tokenization_spaces", False)
        wanted = decode_kwargs.get("clean_up_tokenization_spaces")
        self.cleans = bool(cleans if wanted is None else wanted)
        self._forget()

    def _forget(self) -> None:
        self.tokens: list[int] = []
        self.shown = ""  # of the text of these tokens

    def put(self, value: Tensor) -> None:
        """The prompt, (1, length) or (length,), then each new token, (1,)."""
        if len(value) > 1 and (value.dim() > 1 or self.tokens):
            raise ValueError("a streamer shows one text: give one prompt and num_return_sequences=1.")
        begins = not self.tokens
        self.tokens += value.flatten().tolist()
        if begins and self.skip_prompt:
            self.shown = self._decode()
        else:
            self._show(whole=False)

    def end(self) -> None:
        """Show what was held back."""
        self._show(whole=True)
        self.on_finalized_text("", stream_end=True)
        self._forget()

    def _decode(self, more: Sequence[int] = ()) -> str:
        return str(self.tokenizer.decode([*self.tokens, *more], **self.decode_kwargs)) if self.tokens else ""

    def _show(self, whole: bool) -> None:
        text = self._decode()
        kept = text if whole else self._settled(text)
        if kept.startswith(self.shown):
            piece = kept[len(self.shown) :]
        elif text.startswith(self.shown):  # less is sure than is shown already
            return
        else:  # the prompt's end looks otherwise with the text behind it
            piece = kept[alike(self.shown, kept) :]
        self.shown = kept
        if piece:
            self.on_finalized_text(piece)

    def _settled(self, text: str) -> str:
        """The beginning of a text that no further token changes."""
        more = self._decode(self.tokens[-1:])
        text = text[: alike(text, more)].rstrip("\ufffd")
        space = text.rfind(" ")
        return text[:space] if self.cleans and space >= 0 and text[space + 1 :] in BEGUN else text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """What to do with a piece: here print it."""
        print(text, end="\n" if stream_end else "", flush=True)


class TextIteratorStreamer(TextStreamer):
    """The pieces of a text, to iterate over while another thread writes it.

    Args:
        timeout: seconds to wait for a piece before queue.Empty is raised; None = as long as it takes.
    """

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.timeout = timeout
        self.pieces: queue.Queue[str | None] = queue.Queue()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.pieces.put(text)
        if stream_end:
            self.pieces.put(None)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = self.pieces.get(timeout=self.timeout)
        if piece is None:
            raise StopIteration
        return piece


class _Left(StoppingCriteria):
    """Nobody reads the text any more."""

    over = False

    def __call__(self, ids: Tensor, scores: Tensor) -> bool:
        return self.over


def stream(write: Callable[..., Any], *inputs: Any, tokenizer: Any, **options: Any) -> Iterator[str]:
    """The text of one prompt, piece by piece as it is written.

        for piece in stream(model.generate, ids, tokenizer=tokenizer, max_new_tokens=50): ...

    Args:
        write: `model.generate`, called with `inputs` and `options` in a thread of its own, which ends with the loop.
        tokenizer: what makes text of ids.

    Raises:
        whatever `write` raises, after the pieces that came before.
    """
    pieces = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    left = _Left()
    failure: list[BaseException] = []
    criteria = [*(options.pop("stopping_criteria", None) or ()), left]

    def work() -> None:
        try:
            write(*inputs, streamer=pieces, tokenizer=tokenizer, stopping_criteria=criteria, **options)
        except BaseException as error:
            failure.append(error)
            pieces.pieces.put(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield from pieces
    finally:
        left.over = True
        thread.join()
    if failure:
        raise failure[0]
