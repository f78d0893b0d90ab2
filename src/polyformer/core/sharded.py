"""A checkpoint spread over several files, which an index holds together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from .errors import CheckpointError
from .files import DOWNLOAD_AGAIN, listing, read_index
from .weightfile import Checkpoint


class Sharded(Checkpoint):
    """The tensors of an `*.index.json`, read from the shards beside it.

    Tensors that a shard holds and the index does not name are not part of the checkpoint.
    """

    def __init__(self, path: Path, open_file: Callable[[Path], Checkpoint]) -> None:
        self.path = path
        index = read_index(path)
        missing = [name for name in index.shards if not (path.parent / name).is_file()]
        if missing:
            raise CheckpointError(f"{path} names shards that are not beside it: {listing(missing)}; download them.")
        self._shards: dict[str, Checkpoint] = {}
        self._home = index.weight_map
        try:
            for name in index.shards:
                self._shards[name] = open_file(path.parent / name)
            self._check()
        except BaseException:
            self.close()
            raise
        self.metadata = dict(self._shards[index.shards[0]].metadata)

    def keys(self) -> list[str]:
        return list(self._home)

    def __contains__(self, key: object) -> bool:
        return key in self._home

    def shape(self, key: str) -> tuple[int, ...]:
        return self._shard(key).shape(key)

    def dtype(self, key: str) -> torch.dtype:
        return self._shard(key).dtype(key)

    def read(self, key: str, out: Tensor) -> None:
        self._shard(key).read(key, out)

    def read_many(self, pairs: Iterable[tuple[str, Tensor]]) -> None:
        by_shard: dict[str, list[tuple[str, Tensor]]] = defaultdict(list)
        for key, out in pairs:
            self._shard(key)
            by_shard[self._home[key]].append((key, out))
        for name in sorted(by_shard):
            self._shards[name].read_many(by_shard[name])

    def tensor(self, key: str) -> Tensor:
        return self._shard(key).tensor(key)

    def mapped(self, key: str) -> Tensor | None:
        return self._shard(key).mapped(key)

    def close(self) -> None:
        for shard in self._shards.values():
            shard.close()

    def _shard(self, key: str) -> Checkpoint:
        try:
            return self._shards[self._home[key]]
        except KeyError:
            raise self._refuse_key(key) from None

    def _check(self) -> None:
        held = {name: set(shard.keys()) for name, shard in self._shards.items()}
        absent = [key for key, name in self._home.items() if key not in held[name]]
        if absent:
            shard = self._shards[self._home[absent[0]]].path
            raise CheckpointError(
                f"{self.path} says that {shard.name} holds {listing(absent)}, but it does not: "
                f"the index and the shards are of different checkpoints; {DOWNLOAD_AGAIN}."
            )
