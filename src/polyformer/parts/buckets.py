"""What a Reformer remembers between decoding steps: what each attention read, and in which buckets that fell.

Kept are the states, not keys and values: of these only the few that a new token is near to, in the text or by its hash,
are made again (parts/chunks.py, parts/lsh.py). A forward pass works on a `fork()` of the state it is given and gives
that back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Tape:
    """A tensor that grows along one axis.

    dim: which. capacity: how long it can become; then it is written in place, and of tapes forked from one another only
    the newest may be appended to. None = it grows by concatenation.
    """

    dim: int
    capacity: int | None = None
    buffer: Tensor | None = None
    length: int = 0

    @property
    def data(self) -> Tensor | None:
        """What has been written so far."""
        if self.buffer is None or self.buffer.shape[self.dim] == self.length:
            return self.buffer
        return self.buffer.narrow(self.dim, 0, self.length)

    def append(self, x: Tensor) -> Tensor:
        """Add to its end; all of it comes back."""
        total = self.length + x.shape[self.dim]
        if self.capacity is None:
            self.buffer = x if self.data is None else torch.cat([self.data, x], self.dim)
        else:
            if total > self.capacity:
                raise ValueError(f"{total} tokens do not fit a state made for {self.capacity}.")
            if self.buffer is None:
                shape = list(x.shape)
                shape[self.dim] = self.capacity
                self.buffer = x.new_empty(shape)
            self.buffer.narrow(self.dim, self.length, x.shape[self.dim]).copy_(x)
        self.length = total
        written = self.data
        assert written is not None
        return written

    def reorder(self, rows: Tensor) -> "Tape":
        """Take these rows, (new rows,) int64; only what has been written is moved."""
        moved = Tape(self.dim, self.capacity)
        if self.data is not None:
            moved.append(self.data.index_select(0, rows))
        return moved

    def upto(self, length: int) -> "Tape":
        """The first `length` alone."""
        return Tape(self.dim, self.capacity, self.buffer, min(length, self.length))

    def fork(self) -> "Tape":
        return self.upto(self.length)


@dataclass
class BucketMemory:
    """What one layer remembers: states (rows, length, width) and, where they were hashed, buckets.

    Buckets are (rows, heads, rounds, length) int64; there are none until a text is longer than a chunk.
    counts: how many buckets they are told apart by, so that later tokens are hashed alike.
    """

    states: Tape = field(default_factory=lambda: Tape(1))
    buckets: Tape = field(default_factory=lambda: Tape(3))
    counts: list[int] | None = None

    @property
    def length(self) -> int:
        return self.states.length

    def reorder(self, rows: Tensor) -> "BucketMemory":
        return BucketMemory(self.states.reorder(rows), self.buckets.reorder(rows), self.counts)

    def upto(self, length: int) -> "BucketMemory":
        return BucketMemory(self.states.upto(length), self.buckets.upto(length), self.counts)

    def fork(self) -> "BucketMemory":
        return BucketMemory(self.states.fork(), self.buckets.fork(), self.counts)

    def tensors(self) -> tuple[Tensor | None, Tensor | None]:
        """(buckets or None, states), as Transformers 4 has them."""
        return self.buckets.data, self.states.data


@dataclass
class BucketState:
    """What a decoder remembers, layer by layer.

    Reads like the `past_buckets_states` of Transformers 4: `len(state)` layers, `state[i]` is that layer's (buckets,
    states): (rows, heads, rounds, length) int64 or None, and (rows, length, width).
    """

    layers: list[BucketMemory]

    @classmethod
    def empty(cls, layers: int, capacity: int | None = None) -> "BucketState":
        """Nothing yet; with `capacity` tokens preallocated where that is given."""
        return cls([BucketMemory(Tape(1, capacity), Tape(3, capacity)) for _ in range(layers)])

    @classmethod
    def of(cls, past: "PastBuckets") -> "BucketState":
        """A state to continue from, forked; old-style pairs (buckets or None, states) are understood too.

        Raises:
            TypeError: something else.
        """
        if isinstance(past, BucketState):
            return cls([layer.fork() for layer in past.layers])
        if isinstance(past, Tensor) or not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in past):
            raise TypeError("past_buckets_states are a pair (buckets, states) a layer: give back what you were given.")
        state = cls.empty(len(past))
        for layer, (buckets, states) in zip(state.layers, past, strict=True):
            if states is not None:
                layer.states.append(states)
            if buckets is not None:
                layer.buckets.append(buckets)
        return state

    @property
    def length(self) -> int:
        """Tokens remembered."""
        return self.layers[0].length

    def reorder(self, rows: Tensor) -> "BucketState":
        """The state whose row i is row rows[i] of this one; rows (new rows,) int64."""
        return BucketState([layer.reorder(rows) for layer in self.layers])

    def upto(self, length: int) -> "BucketState":
        """The state before the tokens that came after the first `length`."""
        return BucketState([layer.upto(length) for layer in self.layers])

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, i: int) -> tuple[Tensor | None, Tensor | None]:
        return self.layers[i].tensors()

    def __iter__(self) -> Iterator[tuple[Tensor | None, Tensor | None]]:
        return (layer.tensors() for layer in self.layers)


def _with_counts(state: BucketState, counts: list[list[int] | None]) -> BucketState:
    for layer, known in zip(state.layers, counts, strict=True):
        layer.counts = known
    return state


PastBuckets = BucketState | Sequence[tuple[Tensor | None, Tensor | None]]

torch.utils._pytree.register_pytree_node(
    BucketState,
    lambda s: ([list(pair) for pair in s], [layer.counts for layer in s.layers]),
    lambda pairs, counts: _with_counts(BucketState.of(tuple((pair[0], pair[1]) for pair in pairs)), counts),
    serialized_type_name="polyformer.BucketState",
    to_dumpable_context=lambda c: c,
    from_dumpable_context=lambda c: c,
)
