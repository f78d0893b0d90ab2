"""The parts of a `tokenizers.Tokenizer` that do what a SentencePiece model says, and the backend they make up.

normalise      the charsmap of the file, then runs of spaces folded
split          at spaces, each written ▁ in front of the word it begins
cut            unigram: the likeliest row of pieces (Kudo 2018); bpe: merges, the best score first
"""

import base64
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import files
from polyformer.tokenizers.backend import RustBackend, TextSide, Tokens
from polyformer.tokenizers.charsmap import Charsmap, Rewritten, charsmap_of
from polyformer.tokenizers.sentencepiece_model import SPECIALS, Kind, SentencePieceModel

SPACE = "▁"  # U+2581, what a space is written as

Entry = tuple[str, float]  # a piece and its score
Scored = list[Entry]


class Columns(Sequence[Entry]):
    """Pieces and their scores, one list each: a quarter of a million pairs would take longer to make than to use."""

    def __init__(self, pieces: Sequence[str], scores: Sequence[float]) -> None:
        self.pieces, self.scores = pieces, scores

    def __iter__(self) -> Iterator[Entry]:
        return zip(self.pieces, self.scores, strict=True)

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: Any) -> Any:
        part = self.pieces[index], self.scores[index]
        return Columns(*part) if isinstance(index, slice) else part


# ---- the backend


class SentencePieceBackend(RustBackend):
    """A `tokenizers.Tokenizer` that normalises as SentencePiece does, also where the library alone would not."""

    def encode(self, texts: Sequence[TextSide], split: bool, detail: bool) -> Sequence[Tokens]:
        """As RustBackend.encode."""
        rewritten = {i: parts for i, side in enumerate(texts) if (parts := self._rewritten(side, split))}
        if not rewritten:
            return super().encode(texts, split, detail)
        sides = list(texts)
        for i, parts in rewritten.items():
            sides[i] = parts[0].text if isinstance(sides[i], str) else [part.text for part in parts]
        tokens = super().encode(sides, split, detail)
        if not detail:
            return tokens
        return [Moved.back(t, rewritten[i]) if i in rewritten else t for i, t in enumerate(tokens)]

    def _rewritten(self, side: TextSide, split: bool) -> list[Rewritten]:
        """The text, or each of its words, with clusters of accents as SentencePiece has them; [] if all stay."""
        words: list[Any] = list(side) if split and isinstance(side, (list, tuple)) else [side]
        if not all(isinstance(word, str) for word in words) or all(map(str.isascii, words)) or self._charsmap is None:
            return []  # what is no text will be refused where it is encoded
        changes = {c: new for word in words for c, new in self._charsmap.changes(word).items() if c not in self._kept}
        return [Rewritten(word, changes) for word in words] if changes else []

    @cached_property
    def _charsmap(self) -> Charsmap | None:
        """The table in the normaliser; None where there is none, or where letters and accents are parted before it."""
        steps = steps_of(self.tokenizer)
        tables = [step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled"]
        if len(tables) != 1 or any(step["type"] in ("NFKD", "NFD", "StripAccents") for step in steps):
            return None
        return charsmap_of(base64.b64decode(tables[0]))

    @cached_property
    def _kept(self) -> set[str]:
        """Clusters in added tokens, which are to be found as they are."""
        added = [str(token) for token in self.added_tokens().values()]
        return {c for token in added if self._charsmap is not None for c in self._charsmap.changes(token)}

    def json(self) -> str | None:
        """The text of tokenizer.json; the prefix of words is named as it was before tokenizers 0.14, too."""
        text = super().json()
        return text and files.to_text(_with_old_names(json.loads(text)))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tokenizer,)


def _with_old_names(spec: Any) -> Any:
    """The spec with `add_prefix_space` wherever there is `prepend_scheme`, which older versions do not know."""
    if isinstance(spec, list):
        return [_with_old_names(value) for value in spec] if spec and isinstance(spec[0], dict) else spec
    if not isinstance(spec, dict):
        return spec
    prefix = {"add_prefix_space": spec["prepend_scheme"] != "never"} if "prepend_scheme" in spec else {}
    return {key: _with_old_names(value) for key, value in spec.items()} | prefix


class Moved(NamedTuple):
    """The tokens of a rewritten text, with offsets in the text that was given."""

    ids: list[int]
    tokens: list[str]
    offsets: list[tuple[int, int]]
    word_ids: list[int | None]

    @classmethod
    def back(cls, t: Tokens, parts: list[Rewritten]) -> "Moved":
        """t: the tokens of the parts, a text or its words."""
        words = t.word_ids if len(parts) > 1 else [0] * len(t.ids)
        offsets = [
            span if word is None else parts[word].before(span) for span, word in zip(t.offsets, words, strict=True)
        ]
        return cls(t.ids, t.tokens, offsets, t.word_ids)


# ---- the parts


def assemble(
    model: SentencePieceModel,
    vocab: Sequence[Entry] | None = None,
    unk_id: int | None = None,
    before: Sequence[normalizers.Normalizer] = (),
    words: bool = False,
) -> Tokenizer:
    """A tokenizer that does what the model file says, without special tokens.

    vocab, unk_id: the entries in the order of their ids, where the family lays them out otherwise than the file.
    before: what the family does to the text first.
    words: split at every kind of white space, as families do that never see a space at the end of a text.
    """
    tokenizer = Tokenizer(model_of(model, vocab, unk_id))
    normalizer = normalizer_of(model, before)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter_of(model, words)
    tokenizer.decoder = decoder_of(model)
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in whole(model)])
    return tokenizer


def whole(model: SentencePieceModel) -> list[str]:
    """Pieces that a bpe model finds in the text without merging: the user-defined ones of more than a character."""
    if model.algorithm != "bpe":
        return []
    kinds = zip(model.pieces, model.kinds, strict=True)
    return [piece for piece, kind in kinds if kind == Kind.USER_DEFINED and len(piece) > 1]


def scored(model: SentencePieceModel) -> Columns:
    """The pieces and their scores; user-defined pieces get the bonus that lets SentencePiece prefer them."""
    defined = Kind.USER_DEFINED
    if defined not in model.kinds:
        return Columns(model.pieces, model.scores)
    rows = zip(model.pieces, model.scores, model.kinds, strict=True)
    return Columns(model.pieces, [0.1 * (len(p.encode()) - 1) if kind == defined else s for p, s, kind in rows])


def model_of(
    model: SentencePieceModel, vocab: Sequence[Entry] | None = None, unk_id: int | None = None
) -> models.Model:
    """What cuts a word into pieces; CheckpointError as `check`."""
    check(model)
    vocab = scored(model) if vocab is None else vocab
    unk_id = model.unk_id if unk_id is None else unk_id
    if model.algorithm == "unigram":
        return models.Unigram(vocab, unk_id, model.byte_fallback)
    ids = {piece: i for i, (piece, _) in enumerate(vocab)}
    unk = vocab[unk_id][0]
    return models.BPE(ids, merges(model), unk_token=unk, fuse_unk=True, byte_fallback=model.byte_fallback)


def check(model: SentencePieceModel) -> None:
    """CheckpointError for what the library cannot do."""
    if model.treat_whitespace_as_suffix or not model.escape_whitespaces:
        raise CheckpointError(
            "This SentencePiece model marks the ends of words (treat_whitespace_as_suffix), or no words at all, which "
            "no family of this library does: train it with the default options."
        )
    if model.algorithm not in ("unigram", "bpe"):
        raise CheckpointError(
            f"This SentencePiece model cuts text by the algorithm {model.algorithm!r}; only unigram and bpe are known "
            "here."
        )


def merges(model: SentencePieceModel) -> list[tuple[str, str]]:
    """The merges of a bpe model: every way to make a piece out of two, the best score first."""
    held = {p for p, kind in zip(model.pieces, model.kinds, strict=True) if kind in (Kind.NORMAL, Kind.USER_DEFINED)}
    ranked: list[tuple[float, int, str, str]] = []
    for piece, score, kind in zip(model.pieces, model.scores, model.kinds, strict=True):
        if kind == Kind.NORMAL:
            pairs = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
            ranked += [(-score, -len(left), left, right) for left, right in pairs if left in held and right in held]
    return [(left, right) for _, _, left, right in sorted(ranked)]


def model_in(tokenizer: Tokenizer, pieces_of: Callable[[Scored], Scored]) -> SentencePieceModel | None:
    """The model file that a tokenizer.json was made from, as far as it tells; None if there was none.

    pieces_of: takes the entries in the order of their ids, and leaves the pieces of the file.
    """
    spec = json.loads(tokenizer.to_str())
    kind, unk = spec["model"]["type"], spec["model"].get("unk_token")
    if kind == "Unigram":
        entries: Scored = [(piece, score) for piece, score in spec["model"]["vocab"]]
        unk = None if spec["model"]["unk_id"] is None else entries[spec["model"]["unk_id"]][0]
    elif kind == "BPE" and spec["pre_tokenizer"] and "Metaspace" in json.dumps(spec["pre_tokenizer"]):
        entries = _ranked(spec["model"])
    else:
        return None
    pieces = pieces_of(entries)
    special = {token["content"]: token["special"] for token in spec["added_tokens"]}
    steps = steps_of(tokenizer)
    tables = [base64.b64decode(step["precompiled_charsmap"]) for step in steps if step["type"] == "Precompiled"]
    return SentencePieceModel(
        [piece for piece, _ in pieces],
        [score for _, score in pieces],
        [_kind(piece, unk, special, bool(spec["model"].get("byte_fallback"))) for piece, _ in pieces],
        kind.lower(),
        charsmap=tables[0] if tables else b"",
        add_dummy_prefix='"prepend_scheme": "never"' not in json.dumps(spec["pre_tokenizer"]),
        remove_extra_whitespaces=any(step.get("pattern") == {"Regex": " {2,}"} for step in steps),
        byte_fallback=bool(spec["model"].get("byte_fallback")),
        specials=SPECIALS | {"unk": unk},
    )


def _ranked(bpe: dict[str, Any]) -> Scored:
    """The entries of a BPE model with scores that make SentencePiece merge in the same order."""
    made = dict.fromkeys("".join(m.split(" ", 1) if isinstance(m, str) else m) for m in bpe["merges"])
    ids = bpe["vocab"]
    pieces = sorted(ids, key=ids.__getitem__)
    order = {piece: rank for rank, piece in enumerate([*made, *(p for p in pieces if p not in made)])}
    return [(piece, -float(order[piece])) for piece in pieces]


def _kind(piece: str, unk: str | None, special: dict[str, bool], bytes_too: bool) -> Kind:
    if piece == unk:
        return Kind.UNKNOWN
    if piece in special:
        return Kind.CONTROL if special[piece] else Kind.USER_DEFINED
    return Kind.BYTE if bytes_too and re.fullmatch("<0x[0-9A-F]{2}>", piece) else Kind.NORMAL


def normalizer_of(
    model: SentencePieceModel, before: Sequence[normalizers.Normalizer] = ()
) -> normalizers.Normalizer | None:
    """What is done to the text: first `before`, then what the file says; None for nothing."""
    steps = list(before)
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
        # A text of itself begins with ▁ where somebody wrote one; the word gets its own all the same.
        first = normalizers.Replace(Regex(rf"\A{SPACE}"), f" {SPACE}")
        steps.append(first if model.add_dummy_prefix else normalizers.Strip(left=True, right=False))
    elif model.add_dummy_prefix:
        steps.append(normalizers.Prepend(" "))  # beside a space that is there
    return normalizers.Sequence(steps) if steps else None


def steps_of(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The steps of a normaliser as tokenizer.json has them, those of a sequence one by one."""
    if tokenizer.normalizer is None:
        return []
    steps = [json.loads(tokenizer.normalizer.__getstate__())]
    while any("normalizers" in step for step in steps):
        steps = [inner for step in steps for inner in step.get("normalizers", [step])]
    return steps


def crosses(model: SentencePieceModel) -> bool:
    """Whether pieces of the model reach from word to word."""
    pieces = "\0".join(model.pieces)
    return pieces.count(SPACE) > pieces.startswith(SPACE) + pieces.count(f"\0{SPACE}")


def splitter_of(model: SentencePieceModel, words: bool = False) -> pre_tokenizers.PreTokenizer:
    """What splits the text into words, in one piece where pieces of the model reach from word to word."""
    scheme = ("first" if whole(model) else "always") if model.add_dummy_prefix else "never"
    marks = pre_tokenizers.Metaspace(SPACE, scheme, split=not crosses(model))
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marks]) if words else marks


def decoder_of(model: SentencePieceModel) -> decoders.Decoder:
    """What makes a text of pieces."""
    marks = decoders.Metaspace(SPACE, "always" if model.add_dummy_prefix else "never")
    return decoders.Sequence([decoders.ByteFallback(), marks]) if model.byte_fallback else marks
