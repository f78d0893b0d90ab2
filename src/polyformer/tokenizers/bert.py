"""BERT's tokenizer: WordPiece over a vocab.txt, one token a line (Devlin et al. 2018, google-research/bert).

Text is cleaned, lower-cased and stripped of accents (uncased vocabularies), split at white space, punctuation and
around each Chinese character; each word is then cut greedily into the longest pieces the vocabulary has, `##` marking
those inside a word.
"""

import json
import warnings
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, ClassVar, Unpack

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers import files
from polyformer.tokenizers.backend import Backend, RustBackend, load_json, shared_copy
from polyformer.tokenizers.base import PreTrainedTokenizer, TokenizerOptions
from polyformer.tokenizers.special import Token


class BertTokenizer(PreTrainedTokenizer):
    """Text to BERT's ids and back: `[CLS] A [SEP]`, or `[CLS] A [SEP] B [SEP]` with token types 0 and 1.

    vocab_file: a vocab.txt, or tokenizer_file: a tokenizer.json (used if both are given).
    do_lower_case, tokenize_chinese_chars, strip_accents: None leaves it to tokenizer.json; for a vocab.txt it means
        True, True, and as do_lower_case.
    do_basic_tokenize: False splits a vocab.txt's text at white space only, and cleans nothing.
    never_split: tokens of the vocabulary that are kept whole and as written, between characters that are no letters.

    Raises CheckpointError for a vocabulary that is missing, has a line twice, or lacks [UNK], [CLS] or [SEP].
    """

    vocab_files_names: ClassVar[Mapping[str, str]] = {"vocab_file": "vocab.txt", "tokenizer_file": files.FAST}

    # Where special tokens go around one text and a pair, each piece with its token type; tokenizer.json has its own.
    forms: ClassVar[tuple[str, str]] = (
        "{cls_token}:0 $A:0 {sep_token}:0",
        "{cls_token}:0 $A:0 {sep_token}:0 $B:1 {sep_token}:1",
    )

    def __init__(
        self,
        vocab_file: str | PathLike[str] | None = None,
        do_lower_case: bool | None = None,
        do_basic_tokenize: bool = True,
        never_split: Iterable[str] | None = None,
        unk_token: Token = "[UNK]",
        sep_token: Token = "[SEP]",
        pad_token: Token = "[PAD]",
        cls_token: Token | None = "[CLS]",
        mask_token: Token = "[MASK]",
        tokenize_chinese_chars: bool | None = None,
        strip_accents: bool | None = None,
        *,
        tokenizer_file: str | PathLike[str] | None = None,
        bos_token: Token | None = None,
        eos_token: Token | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        flags = {
            "lowercase": do_lower_case,
            "handle_chinese_chars": tokenize_chinese_chars,
            "strip_accents": strip_accents,
        }
        if tokenizer_file is not None:
            backend: Backend = _with_normalizer(load_json(tokenizer_file), flags)
            _require(backend, tokenizer_file, unk_token=unk_token)
        elif vocab_file is not None:
            around = {"cls_token": cls_token, "sep_token": sep_token}
            needed = {"unk_token": unk_token} | {k: v for k, v in around.items() if v is not None}
            backend = self._from_vocab(vocab_file, flags, do_basic_tokenize, needed)
        else:
            raise ValueError(
                f"{type(self).__name__} needs a vocabulary: give vocab_file or tokenizer_file, or use from_pretrained."
            )
        kept = [token for token in never_split or () if backend.token_to_id(token) is not None]
        backend = backend.adding([AddedToken(token, single_word=True, normalized=False) for token in kept])
        super().__init__(
            backend,
            own_options={
                "do_lower_case": _lowercases(backend) if do_lower_case is None else do_lower_case,
                "do_basic_tokenize": do_basic_tokenize,
                "never_split": list(never_split) if never_split is not None else None,
                "tokenize_chinese_chars": True if tokenize_chinese_chars is None else tokenize_chinese_chars,
                "strip_accents": strip_accents,
            },
            bos_token=bos_token,
            eos_token=eos_token,
            unk_token=unk_token,
            sep_token=sep_token,
            pad_token=pad_token,
            cls_token=cls_token,
            mask_token=mask_token,
            **options,
        )

    def _from_vocab(
        self, path: str | PathLike[str], flags: dict[str, bool | None], basic: bool, specials: dict[str, Token]
    ) -> Backend:
        """The backend over a vocabulary file; `specials` are unk_token and those that `forms` speaks of."""
        tokenizer = Tokenizer(read_model(path, str(specials["unk_token"])))
        ids = {name: tokenizer.token_to_id(str(token)) for name, token in specials.items()}
        for name, token in specials.items():
            if ids[name] is None:
                raise CheckpointError(
                    f"{path} has no {str(token)!r}, which is needed as the {name}: check that it is the vocabulary of "
                    f"this model, or pass {name}= with the token that plays this part there."
                )
        if basic:
            lower, chinese = flags["lowercase"] is not False, flags["handle_chinese_chars"] is not False
            tokenizer.normalizer = normalizers.BertNormalizer(
                clean_text=True, handle_chinese_chars=chinese, strip_accents=flags["strip_accents"], lowercase=lower
            )
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer() if basic else pre_tokenizers.WhitespaceSplit()
        tokenizer.decoder = decoders.WordPiece(prefix="##")
        around = {name: str(token) for name, token in specials.items() if name != "unk_token"}
        single, pair = ([piece.format(**around) for piece in form.split()] for form in self.forms)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=[(token, ids[name]) for name, token in around.items()]
        )
        return RustBackend(tokenizer)

    def vocabulary_files(self) -> dict[str, str | bytes]:
        """The vocabulary, a token a line, without added ones; nothing if ids have gaps, which lines cannot express."""
        vocab = self.backend.vocab(with_added_tokens=False)
        tokens = sorted(vocab, key=vocab.__getitem__)
        whole = [vocab[token] for token in tokens] == list(range(len(tokens))) and not any("\n" in t for t in tokens)
        name = self.vocab_files_names["vocab_file"]
        return {name: "".join(token + "\n" for token in tokens)} if whole else {}


def read_model(path: str | PathLike[str], unk_token: str) -> models.WordPiece:
    """The Rust model over a file; CheckpointError for an unreadable one or a token on two lines."""
    text = files.read_text(path, "vocab.txt")
    if _read_alike(text) and str(path).isprintable():  # as a name is not that Rust could not be given
        with warnings.catch_warnings():  # of versions before 0.23, that it takes no file for ever
            warnings.filterwarnings("ignore", ".*will not create from files", DeprecationWarning)
            model = models.WordPiece(str(path), unk_token=unk_token)
        if Tokenizer(model).get_vocab_size() == text.removesuffix("\n").count("\n") + 1:
            return model
    return models.WordPiece(_vocab(text, path), unk_token=unk_token)


def _read_alike(text: str) -> bool:
    """Whether Rust, which is faster, would have these tokens, too: it takes white space from the end of each."""
    chars = np.frombuffer((text.removesuffix("\n") + "\n").encode("utf-32-le"), np.uint32)
    return "\r" not in text and not np.isin(chars[np.flatnonzero(chars == 10) - 1], _SPACES).any()


_SPACES = [i for i in range(0x3001) if chr(i).isspace()]


def _vocab(text: str, path: str | PathLike[str]) -> dict[str, int]:
    """Token to id, its line number from 0."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while not lines[-1].strip():
        lines.pop()
    vocab = dict(zip(lines, range(len(lines)), strict=True))
    if len(vocab) < len(lines):
        first: dict[str, int] = {}
        token, number = next((t, i) for i, t in enumerate(lines) if first.setdefault(t, i) != i)
        raise CheckpointError(
            f"{path} has the token {token!r} on lines {first[token] + 1} and {number + 1}, so that one id would be "
            "lost: give the second a name of its own, such as [unused_x], to keep the other ids as they are."
        )
    return vocab


def _with_normalizer(backend: RustBackend, flags: dict[str, bool | None]) -> RustBackend:
    """The backend with what was asked for explicitly, where tokenizer.json says otherwise."""
    normalizer = backend.tokenizer.normalizer
    state = json.loads(normalizer.__getstate__()) if normalizer is not None else {}
    wanted = {key: value for key, value in flags.items() if value is not None and state.get(key) != value}
    if state.get("type") != "BertNormalizer" or not wanted:
        return backend
    tokenizer = shared_copy(backend.tokenizer)
    arguments = {key: value for key, value in (state | wanted).items() if key != "type"}
    tokenizer.normalizer = normalizers.BertNormalizer(**arguments)
    return RustBackend(tokenizer)


def _lowercases(backend: Backend) -> bool:
    return isinstance(backend, RustBackend) and bool(getattr(backend.tokenizer.normalizer, "lowercase", False))


def _require(backend: Backend, path: Any, **named: Token) -> None:
    for name, token in named.items():
        if backend.token_to_id(str(token)) is None:
            raise CheckpointError(
                f"{path} has no {str(token)!r}, which was to be the {name}: pass {name}= with the token that plays "
                "this part there, or use the tokenizer class the file was made for."
            )
