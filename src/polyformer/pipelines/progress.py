"""A progress bar for work that takes longer than a moment, on a terminal, on stderr."""

import sys
from types import TracebackType
from typing import Any, Self

MOMENT = 1.0  # seconds without a bar


class Progress:
    """Counts what is done; a context manager. Draws nothing unless stderr is a terminal, or `show` says so.

    show: True = draw at once and anywhere, False = never, None = on a terminal, once the work has taken a moment.
    total: how many there will be, None where nobody knows.
    """

    def __init__(self, total: int | None, unit: str, show: bool | None = None) -> None:
        wanted = sys.stderr is not None and sys.stderr.isatty() if show is None else show
        self._bar: Any = None
        self._done = 0.0
        if wanted:
            from tqdm import tqdm

            delay = 0.0 if show else MOMENT
            self._bar = tqdm(total=total, unit=f" {unit}", delay=delay, leave=bool(show), dynamic_ncols=True)

    def advance(self, count: float) -> None:
        """So many more are done; parts of one add up."""
        self._done += count
        if self._bar is not None:
            self._bar.update(round(self._done) - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
