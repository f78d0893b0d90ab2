"""What a model reads: the sum of a token's, its position's and its segment's vectors."""

import torch
from torch import Tensor, nn

from polyformer.parts.layout import tracing


class Embeddings(nn.Module):
    """Token, position and segment embeddings, summed, normalised, dropped out (BERT).

    Args:
        tokens, positions, types: how many of each.
        width: of the vectors.
        pad: id whose row starts at zero and gets no gradient.
        pad_position: position of which the same is true.
    """

    def __init__(
        self,
        tokens: int,
        positions: int,
        types: int,
        width: int,
        norm: nn.Module,
        dropout: float,
        pad: int | None = None,
        pad_position: int | None = None,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width, padding_idx=pad)
        self.positions = nn.Embedding(positions, width, padding_idx=pad_position)
        self.types = nn.Embedding(types, width)
        self.norm = norm
        self.drop = nn.Dropout(dropout)

    def forward(self, ids: Tensor | None, types: Tensor | None, positions: Tensor, vectors: Tensor | None) -> Tensor:
        """ids, types (...) int64, positions broadcastable to them; vectors (..., width) for ids -> (..., width)."""
        x = self.tokens(ids) if vectors is None else vectors
        x = x + self.positions(positions)
        x = x + (self.types.weight[0] if types is None else self.types(types))
        return self.drop(self.norm(x))


class UnplacedEmbeddings(Embeddings):
    """The same without positions, for models whose attention knows them; their table is in the files all the same."""

    def forward(self, ids: Tensor | None, types: Tensor | None, positions: Tensor, vectors: Tensor | None) -> Tensor:
        x = self.tokens(ids) if vectors is None else vectors
        x = x + (self.types.weight[0] if types is None else self.types(types))
        return self.drop(self.norm(x))


class PlacedTokens(nn.Module):
    """Token and position embeddings, summed, dropped out (GPT). A segment, where there is one, is a token too.

    Args:
        tokens, positions: how many of each.
        width: of the vectors.
    """

    def __init__(self, tokens: int, positions: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width)
        self.positions = nn.Embedding(positions, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, ids: Tensor | None, types: Tensor | None, positions: Tensor, vectors: Tensor | None) -> Tensor:
        """ids, types (...) int64, positions broadcastable to them; vectors (..., width) for ids -> (..., width)."""
        x = self.tokens(ids) if vectors is None else vectors
        x = x + self.positions(positions)
        return self.drop(x if types is None else x + self.tokens(types))


def token_table(tokens: int, width: int, pad: int | None) -> nn.Embedding:
    """A table of token vectors; that of the id `pad` starts at zero and gets no gradient."""
    if pad is not None and not 0 <= pad < tokens:
        raise ValueError(f"pad_token_id {pad} is outside of a vocabulary of {tokens} tokens: set one of the two.")
    return nn.Embedding(tokens, width, pad)


class ScaledEmbeddings(nn.Module):
    """Token embeddings times a number, and positions, summed, normalised, dropped out (BART and its kin).

    Args:
        tokens: the table, which several of these may share.
        positions: from numbers of positions to vectors.
        scale: of the token vectors; not of vectors given in place of ids.
    """

    def __init__(
        self, tokens: nn.Embedding, positions: nn.Module, norm: nn.Module, dropout: float, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.positions = positions
        self.norm = norm
        self.drop = nn.Dropout(dropout)
        self.scale = scale

    def forward(self, ids: Tensor | None, positions: Tensor, vectors: Tensor | None) -> Tensor:
        """ids (...) int64, positions broadcastable to them; vectors (..., width) for ids -> (..., width)."""
        x = self.tokens(ids) * self.scale if vectors is None else vectors
        return self.drop(self.norm(x + self.positions(positions).to(x.dtype)))


class LanguageEmbeddings(nn.Module):
    """Token, position and language embeddings, summed, normalised, dropped out (XLM).

    A segment, where there is one, is a token too: its vector is that of the word of its number.

    Args:
        tokens: how many, and with `pad` the id whose row starts at zero and gets no gradient.
        positions: the table of position vectors, learnt or not.
        languages: how many, or 0 for no vectors of theirs.
        width: of the vectors.
    """

    def __init__(
        self,
        tokens: int,
        positions: nn.Embedding,
        languages: int,
        width: int,
        norm: nn.Module,
        dropout: float,
        pad: int | None = None,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width, padding_idx=pad)
        self.positions = positions
        self.languages = nn.Embedding(languages, width) if languages else None
        self.norm = norm
        self.drop = nn.Dropout(dropout)

    def forward(
        self,
        ids: Tensor | None,
        languages: Tensor | None,
        types: Tensor | None,
        positions: Tensor,
        vectors: Tensor | None,
    ) -> Tensor:
        """ids, languages, types (...) int64, positions broadcastable to them; vectors (..., width) for ids.

        Returns:
            (..., width).
        """
        x = self.tokens(ids) if vectors is None else vectors
        x = x + self.positions(positions)
        if languages is not None and self.languages is not None:
            x = x + self.languages(languages)
        if types is not None:
            x = x + self.tokens(types)
        return self.drop(self.norm(x))


def batch_shape(ids: Tensor | None, vectors: Tensor | None) -> tuple[int, int]:
    """(rows, length) of whichever of ids (rows, length) and vectors (rows, length, width) was given."""
    given = ids if ids is not None else vectors
    if given is None or (ids is not None and vectors is not None):
        raise ValueError("give either input_ids or inputs_embeds, one of the two.")
    wanted = 2 if ids is not None else 3
    if given.dim() != wanted:
        name, shape = ("input_ids", "(rows, length)") if ids is not None else ("inputs_embeds", "(rows, length, width)")
        raise ValueError(f"{name} must have shape {shape}, not {tuple(given.shape)}: one row a sequence.")
    if not tracing() and not given.shape[1]:
        raise ValueError("the sequences have no tokens: give at least one, if only the special ones.")
    return given.shape[0], given.shape[1]


def check_width(vectors: Tensor | None, width: int) -> None:
    """Raise one clear sentence for inputs_embeds of another width than the model's."""
    if vectors is not None and not tracing() and vectors.shape[-1] != width:
        raise ValueError(f"inputs_embeds are {vectors.shape[-1]} wide, but this model's embeddings are {width} wide.")


REMEDIES = {
    "input_ids": "is this the model's own tokenizer, were tokens added to it?",
    "modal_start_tokens": "is this the model's own tokenizer, were tokens added to it?",
    "modal_end_tokens": "is this the model's own tokenizer, were tokens added to it?",
    "token_type_ids": "this model tells that many segments apart.",
    "position_ids": "this model knows that many positions.",
    "langs": "this model knows that many languages.",
}


def check_ids(ids: Tensor | None, limit: int, name: str, shape: tuple[int, int]) -> None:
    """Raise one clear sentence for ids that are no integers, not of this shape or one row of it, or not in [0, limit).

    The last only for ids on the CPU: elsewhere a look at them would make the device wait, and it reports them itself.
    """
    if ids is None or tracing():
        return
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} are {ids.dtype}, but ids are integers: torch.int64.")
    if tuple(ids.shape) not in (shape, (1, shape[1]), shape[1:]):
        raise ValueError(f"{name} has shape {tuple(ids.shape)}, but {shape} was expected: one a token.")
    if ids.device.type != "cpu" or not ids.numel():
        return
    low, high = (int(v) for v in ids.aminmax())
    if low < 0 or high >= limit:
        raise ValueError(
            f"{name} has {low if low < 0 else high}, but only 0 to {limit - 1} are known: {REMEDIES[name]}"
        )


def check_length(length: int, limit: int, given: Tensor | None = None) -> None:
    """Raise one clear sentence for more tokens than there are positions; those `given` by the caller may recur."""
    if not tracing() and given is None and length > limit:
        raise ValueError(
            f"a sequence of {length} tokens is too long for this model, which knows {limit} positions: "
            f"truncate it (truncation=True, max_length={limit}) or cut it into windows."
        )
