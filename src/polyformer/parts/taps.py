"""One recorder, passed down a stack, for the hidden states and attention weights that a caller asks for."""

from typing import Protocol

from torch import Tensor


class Unpacks(Protocol):
    """What undoes how the layers' tokens lie."""

    def unpack(self, x: Tensor) -> Tensor: ...


class Taps:
    """Collects what the layers show; lists that were not asked for are None.

    hidden_states: (rows, length, width), the embeddings first, then every layer.
    attentions, cross_attentions: (rows, heads, queries, keys), one a layer.
    """

    def __init__(self, layout: Unpacks, *, hidden_states: bool, attentions: bool) -> None:
        self.layout = layout
        self.hidden_states: list[Tensor] | None = [] if hidden_states else None
        self.attentions: list[Tensor] | None = [] if attentions else None
        self.cross_attentions: list[Tensor] | None = [] if attentions else None

    def state(self, x: Tensor) -> None:
        """A layer's output, packed or not."""
        if self.hidden_states is not None:
            self.hidden_states.append(self.layout.unpack(x))

    def saw(self, weights: Tensor | None) -> None:
        """A self-attention's weights."""
        if self.attentions is not None and weights is not None:
            self.attentions.append(weights)

    def saw_across(self, weights: Tensor | None) -> None:
        """A cross-attention's weights."""
        if self.cross_attentions is not None and weights is not None:
            self.cross_attentions.append(weights)

    def seen(self, what: str) -> tuple[Tensor, ...] | None:
        """One of the lists above as a tuple, or None where it was not asked for."""
        found: list[Tensor] | None = getattr(self, what)
        return None if found is None else tuple(found)
