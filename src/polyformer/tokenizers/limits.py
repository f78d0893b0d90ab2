"""A length without a bound: an int to compare with, that says what it is when printed."""

from typing import Any


class NoLimit(int):
    """Larger than any real length, and still so after special tokens are taken off; printed it reads "no limit"."""

    def __new__(cls) -> "NoLimit":
        return super().__new__(cls, 10**30)

    def __sub__(self, other: Any) -> "NoLimit":
        return self

    def __repr__(self) -> str:
        return "no limit"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format("no limit", spec)

    def __reduce__(self) -> str:
        return "NO_LIMIT"

    def __copy__(self) -> "NoLimit":
        return self

    def __deepcopy__(self, memo: Any) -> "NoLimit":
        return self


NO_LIMIT = NoLimit()


def limit_from(value: int | float | None) -> int:
    """The limit a file or a caller names; None and the 1e30 that older files hold mean that there is none."""
    if value is None or value >= 1e20:
        return NO_LIMIT
    if value < 1 or value != int(value):
        raise ValueError(
            f"model_max_length={value} is not a length: give a positive whole number, or None for no limit."
        )
    return int(value)
