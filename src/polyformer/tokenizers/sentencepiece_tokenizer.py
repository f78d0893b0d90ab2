"""What the tokenizers over a `spiece.model` share: reading it or a tokenizer.json, and writing both."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import ClassVar

from tokenizers import normalizers, processors

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import files, sentencepiece
from polyformer.tokenizers.backend import load_json
from polyformer.tokenizers.base import PreTrainedTokenizer
from polyformer.tokenizers.sentencepiece import Entry, Scored, SentencePieceBackend
from polyformer.tokenizers.sentencepiece_model import SentencePieceModel, parse, read_model
from polyformer.tokenizers.special import Token

FilePath = str | PathLike[str]


class SentencePieceTokenizer(PreTrainedTokenizer):
    """Base of a family: it may lay ids out in its own way, clean the text, and put special tokens around it.

    vocab_file: a spiece.model, or tokenizer_file: a tokenizer.json (used if both are given; the other is kept, to be
    saved again).
    """

    vocab_files_names: ClassVar[Mapping[str, str]] = {"vocab_file": "spiece.model", "tokenizer_file": files.FAST}

    # Where special tokens go around one text and a pair, each piece with its token type; tokenizer.json has its own.
    forms: ClassVar[tuple[str, str]] = ("$A:0", "$A:0 $B:0")
    # Whether the text is split at all white space, so that none is left at its end.
    words: ClassVar[bool] = False

    _model_file: bytes | None = None

    def _entries(self, model: SentencePieceModel) -> Sequence[Entry]:
        """The vocabulary in the order of its ids, given the pieces of a model file."""
        return sentencepiece.scored(model)

    def _pieces(self, entries: Scored) -> Scored:
        """The reverse of `_entries`."""
        return entries

    def _read(
        self,
        vocab_file: FilePath | None,
        tokenizer_file: FilePath | None,
        around: Mapping[str, Token],
        before: Sequence[normalizers.Normalizer] = (),
    ) -> SentencePieceBackend:
        """The backend in a file. around: the special tokens that `forms` speaks of. before: what cleans the text."""
        if tokenizer_file is not None:
            self._model_file = None if vocab_file is None else Path(vocab_file).read_bytes()
            return SentencePieceBackend(load_json(tokenizer_file).tokenizer)
        if vocab_file is None:
            raise ValueError(
                f"{type(self).__name__} needs a vocabulary: give vocab_file or tokenizer_file, or use from_pretrained."
            )
        model = read_model(vocab_file)
        self._model_file = model.data
        entries = self._entries(model)
        unk_id = next(i for i, (piece, _) in enumerate(entries) if piece == model.pieces[model.unk_id])
        tokenizer = sentencepiece.assemble(model, entries, unk_id, before, self.words)
        ids = {str(token): tokenizer.token_to_id(str(token)) for token in around.values()}
        for name, token in around.items():
            if ids[str(token)] is None:
                raise CheckpointError(
                    f"{vocab_file} has no {str(token)!r}, which is needed as the {name}: check that it is this "
                    f"model's vocabulary, or pass {name}= with the token that plays this part there."
                )
        if ids:
            single, pair = ([piece.format(**around) for piece in form.split()] for form in self.forms)
            tokenizer.post_processor = processors.TemplateProcessing(
                single=single, pair=pair, special_tokens=list(ids.items())
            )
        return SentencePieceBackend(tokenizer)

    def vocabulary_files(self) -> dict[str, str | bytes]:
        """The model file: byte for byte the one that was read, or one made from the vocabulary of a tokenizer.json."""
        if self._model_file is not None and self._is_of(self._model_file):
            return {self.vocab_files_names["vocab_file"]: self._model_file}
        model = sentencepiece.model_in(self.backend_tokenizer, self._pieces)
        return {} if model is None else {self.vocab_files_names["vocab_file"]: model.to_bytes()}

    def _is_of(self, file: bytes) -> bool:
        """Whether the vocabulary is this file's, as far as both go: tokens may have been added to either."""
        vocab = self.backend.vocab(with_added_tokens=False)
        try:
            entries = zip(sorted(vocab, key=vocab.__getitem__), self._entries(parse(file)), strict=False)
        except (ValueError, CheckpointError):  # damaged, or of another family, beside a tokenizer.json that is neither
            return False
        return all(token == piece for token, (piece, _) in entries)
