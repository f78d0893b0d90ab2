"""What survives between decoding steps: keys and values already computed.

A forward pass works on a `fork()` of the state it is given and gives that back, so that the one passed in stays as it
was; nothing is stored on a module.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class KV:
    """Keys and values of one self-attention, (rows, heads, length, dim), growing by concatenation."""

    keys: Tensor | None = None
    values: Tensor | None = None

    @property
    def length(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new tokens; all of them come back."""
        self.keys = k if self.keys is None else torch.cat([self.keys, k], 2)
        self.values = v if self.values is None else torch.cat([self.values, v], 2)
        return self.keys, self.values

    def reorder(self, rows: Tensor) -> "KV":
        """Take these rows, as a beam search does; (new rows,) int64."""
        if self.keys is None or self.values is None:
            return KV()
        return KV(self.keys.index_select(0, rows), self.values.index_select(0, rows))

    def fork(self) -> "KV":
        return KV(self.keys, self.values)

    def upto(self, length: int) -> "KV":
        """The first tokens alone."""
        if self.keys is None or self.values is None:
            return KV()
        return KV(self.keys[:, :, :length], self.values[:, :, :length])


@dataclass
class PreallocatedKV:
    """The same in two buffers of `capacity` tokens that are written in place: nothing is copied from step to step.

    States forked or reordered from one another share the buffers, so only the newest may be used further.

    buffers: keys and values, (rows or more, heads, capacity, dim), of which the first `rows` count.
    """

    capacity: int
    buffers: tuple[Tensor, Tensor] | None = None
    length: int = 0
    rows: int = 0

    @property
    def keys(self) -> Tensor | None:
        return None if self.buffers is None else self.buffers[0][: self.rows, :, : self.length]

    @property
    def values(self) -> Tensor | None:
        return None if self.buffers is None else self.buffers[1][: self.rows, :, : self.length]

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values of new tokens; views of all of them come back."""
        rows, heads, new, dim = k.shape
        if self.length + new > self.capacity:
            raise ValueError(f"{self.length} + {new} tokens do not fit a cache made for {self.capacity}.")
        if self.buffers is None:
            self.buffers = (k.new_empty(rows, heads, self.capacity, dim), v.new_empty(rows, heads, self.capacity, dim))
            self.rows = rows
        for buffer, fresh in zip(self.buffers, (k, v), strict=True):
            buffer[:rows, :, self.length : self.length + new] = fresh
        self.length += new
        return self.buffers[0][:rows, :, : self.length], self.buffers[1][:rows, :, : self.length]

    def reorder(self, rows: Tensor) -> "PreallocatedKV":
        """Take these rows. Those that stay where they are do not move, of the others the tokens written so far."""
        if self.buffers is None:
            return PreallocatedKV(self.capacity)
        places = torch.arange(len(rows), device=rows.device)
        if len(rows) > len(self.buffers[0]):
            keys, values = (old.new_empty(len(rows), *old.shape[1:]) for old in self.buffers)
        else:
            keys, values = self.buffers
            places = places[rows != places]
        if len(places):
            for old, new in zip(self.buffers, (keys, values), strict=True):
                moved = old[:, :, : self.length].index_select(0, rows[places])
                new[:, :, : self.length].index_copy_(0, places, moved)
        return PreallocatedKV(self.capacity, (keys, values), self.length, len(rows))

    def fork(self) -> "PreallocatedKV":
        return PreallocatedKV(self.capacity, self.buffers, self.length, self.rows)

    def upto(self, length: int) -> "PreallocatedKV":
        """The first tokens alone; what is appended next takes the place of the others."""
        return PreallocatedKV(self.capacity, self.buffers, length, self.rows)


class CrossKV:
    """Keys and values of the encoder's states, projected once and read at every step.

    The beams of a prompt share them: `copies` rows side by side read the same source.

    shared: keys and values as they are held, (sources, heads, source length, dim).
    """

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None, copies: int = 1) -> None:
        self.shared, self.copies = (keys, values), copies

    @property
    def keys(self) -> Tensor | None:
        """(rows, heads, source length, dim); a copy where rows share a source."""
        return _each(self.shared[0], self.copies)

    @keys.setter
    def keys(self, keys: Tensor) -> None:
        self.shared = (keys, self.shared[1])

    @property
    def values(self) -> Tensor | None:
        return _each(self.shared[1], self.copies)

    @values.setter
    def values(self, values: Tensor) -> None:
        self.shared = (self.shared[0], values)

    def reorder(self, rows: Tensor) -> "CrossKV":
        """Take these rows; as many side by side as may share a source do."""
        keys, values = self.shared
        if keys is None or values is None:
            return CrossKV()
        sources, counts = (rows // self.copies).unique_consecutive(return_counts=True)
        copies = math.gcd(*counts.tolist())
        sources = sources.repeat_interleave(counts // copies)
        if not torch.equal(sources, torch.arange(len(keys), device=rows.device)):
            keys, values = keys.index_select(0, sources), values.index_select(0, sources)
        return CrossKV(keys, values, copies)

    def fork(self) -> "CrossKV":
        return CrossKV(*self.shared, self.copies)


def _each(held: Tensor | None, copies: int) -> Tensor | None:
    return held if held is None or copies == 1 else held.repeat_interleave(copies, 0)


@dataclass
class LayerState:
    """What one decoder layer remembers."""

    own: KV | PreallocatedKV
    cross: CrossKV

    def reorder(self, rows: Tensor) -> "LayerState":
        return LayerState(self.own.reorder(rows), self.cross.reorder(rows))

    def fork(self) -> "LayerState":
        return LayerState(self.own.fork(), self.cross.fork())

    def upto(self, length: int) -> "LayerState":
        return LayerState(self.own.upto(length), self.cross.fork())

    def tensors(self) -> tuple[Tensor, ...]:
        """(keys, values), and the cross-attention's two where there is one."""
        found = (self.own.keys, self.own.values, self.cross.keys, self.cross.values)
        return tuple(t for t in found if t is not None)


@dataclass
class State:
    """What a decoder remembers, layer by layer.

    Reads like the `past_key_values` of Transformers 4: `len(state)` layers, `state[i]` is that layer's tuple of tensors
    (keys, values[, cross keys, cross values]), each (rows, heads, length, dim).
    """

    layers: list[LayerState]

    @classmethod
    def empty(cls, layers: int, capacity: int | None = None) -> "State":
        """Nothing yet; with `capacity` tokens preallocated where that is given."""
        if capacity is None:
            return cls([LayerState(KV(), CrossKV()) for _ in range(layers)])
        return cls([LayerState(PreallocatedKV(capacity), CrossKV()) for _ in range(layers)])

    @classmethod
    def of(cls, past: "Past") -> "State":
        """A state to continue from, forked; old-style tuples of tensors are understood too.

        Raises:
            TypeError: a dictionary, as Transformers 4 has it for XLM.
        """
        if isinstance(past, State):
            return cls([layer.fork() for layer in past.layers])
        if isinstance(past, Tensor):
            raise TypeError("past_key_values is a tensor, maybe one meant for another place: give arguments by name.")
        if isinstance(past, Mapping):
            raise TypeError("a cache is no dictionary: begin with State.empty(layers) and give the new tokens alone.")
        return cls([LayerState(KV(t[0], t[1]), CrossKV(t[2], t[3]) if len(t) > 2 else CrossKV()) for t in past])

    @property
    def length(self) -> int:
        """Tokens remembered."""
        return self.layers[0].own.length

    def reorder(self, rows: Tensor) -> "State":
        """The state whose row i is row rows[i] of this one; rows (new rows,) int64."""
        return State([layer.reorder(rows) for layer in self.layers])

    def upto(self, length: int) -> "State":
        """The state before the tokens that came after the first `length`."""
        return State([layer.upto(length) for layer in self.layers])

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        return self.layers[i].tensors()

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return (layer.tensors() for layer in self.layers)


Past = State | tuple[tuple[Tensor, ...], ...]

torch.utils._pytree.register_pytree_node(
    State,
    lambda s: ([list(layer.tensors()) for layer in s.layers], None),
    lambda tensors, _: State.of(tuple(tuple(t) for t in tensors)),
    serialized_type_name="polyformer.State",
    to_dumpable_context=lambda c: c,
    from_dumpable_context=lambda c: c,
)
