"""Tokens and ids: the vocabulary half of a tokenizer, and how it grows."""

import inspect
import threading
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, TypedDict, Unpack

from tokenizers import AddedToken, Tokenizer

from polyformer.core.errors import CheckpointError
from polyformer.tokenizers.backend import Backend, RustBackend, load_json, shared_copy
from polyformer.tokenizers.checks import choice, reject_unknown
from polyformer.tokenizers.limits import limit_from
from polyformer.tokenizers.special import SpecialTokens, Token, as_special
from polyformer.tokenizers.tensors import to_lists
from polyformer.tokenizers.text import clean_up

_GROWING = threading.Lock()  # two threads that add tokens must not lose each other's (one for all: pickles stay plain)


class TokenizerOptions(TypedDict, total=False):
    """Options of every tokenizer.

    additional_special_tokens: special tokens without a name.
    model_max_length: the longest row the model takes; None for no limit.
    padding_side, truncation_side: "right" or "left".
    model_input_names: the columns a call returns unless told otherwise, the ids first.
    added_tokens_decoder: tokens beside the vocabulary, by id.
    """

    additional_special_tokens: Sequence[Token] | None
    model_max_length: int | None
    padding_side: str
    truncation_side: str
    model_input_names: Sequence[str]
    pad_token_type_id: int
    clean_up_tokenization_spaces: bool
    added_tokens_decoder: Mapping[int, AddedToken]
    name_or_path: str


class Side:
    """`padding_side` or `truncation_side`: "right" or "left"; on the class, what its instances start with."""

    def __init__(self, default: str) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, tokenizer: Any, owner: type) -> str:
        return self.default if tokenizer is None else tokenizer.__dict__.get(self.name, self.default)

    def __set__(self, tokenizer: Any, value: str) -> None:
        tokenizer.__dict__[self.name] = choice(self.name, value, ("right", "left"))


class Vocabulary(SpecialTokens):
    """Everything about single tokens. The `backend` is never changed, only replaced as a whole by `add_tokens`."""

    model_input_names: Sequence[str] = ("input_ids", "token_type_ids", "attention_mask")
    padding_side = Side("right")
    truncation_side = Side("right")
    is_fast = True

    def __init__(
        self,
        backend: Backend | None = None,
        *,
        tokenizer_file: str | PathLike[str] | None = None,
        tokenizer_object: Tokenizer | None = None,
        own_options: Mapping[str, Any] | None = None,
        bos_token: Token | None = None,
        eos_token: Token | None = None,
        unk_token: Token | None = None,
        sep_token: Token | None = None,
        pad_token: Token | None = None,
        cls_token: Token | None = None,
        mask_token: Token | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> None:
        unknown = options.keys() - TokenizerOptions.__annotations__.keys()
        reject_unknown(unknown, arguments_of(type(self)), type(self).__name__)
        if backend is None and tokenizer_file is not None:
            backend = load_json(tokenizer_file)
        elif backend is None and tokenizer_object is not None:
            backend = RustBackend(shared_copy(tokenizer_object))
        if backend is None:
            raise ValueError(f"{type(self).__name__} needs a vocabulary: give tokenizer_file, or use from_pretrained.")
        self._backend = backend
        self._own_options = dict(own_options or {})
        self.name_or_path = str(options.get("name_or_path", ""))
        self.bos_token, self.eos_token, self.unk_token, self.sep_token = bos_token, eos_token, unk_token, sep_token
        self.pad_token, self.cls_token, self.mask_token = pad_token, cls_token, mask_token
        self.additional_special_tokens = options.get("additional_special_tokens")
        self.model_max_length = options.get("model_max_length")
        self.padding_side = options.get("padding_side") or type(self).padding_side
        self.truncation_side = options.get("truncation_side") or type(self).truncation_side
        self.model_input_names = list(options.get("model_input_names") or type(self).model_input_names)
        self.pad_token_type_id = options.get("pad_token_type_id", type(self).pad_token_type_id)
        self.clean_up_tokenization_spaces = options.get("clean_up_tokenization_spaces", True) is not False
        self._place_added(options.get("added_tokens_decoder") or {})
        self._register_specials()
        self._template = self._backend.template()

    def _place_added(self, tokens: Mapping[int, AddedToken]) -> None:
        """Add tokens from a file, each of which must get the id it has there. A tokenizer.json's own come first."""
        there = self._backend.added_tokens()
        new = [tokens[i] for i in sorted(tokens) if i not in there or str(there[i]) != str(tokens[i])]
        self._backend = self._backend.adding(new)
        for i, token in tokens.items():
            got = self._backend.token_to_id(str(token))
            if got != i:
                raise CheckpointError(
                    f"The added token {str(token)!r} has id {i} in the tokenizer's files but would get {got}, as "
                    f"the vocabulary has {self.vocab_size} tokens: the files do not belong together; save them again."
                )

    def _register_specials(self) -> None:
        """See that every special token is in the vocabulary as one; its options are the backend's if given as a str."""
        there = {str(t): t for t in self._backend.added_tokens().values()}
        tokens = [there.get(t, t) if isinstance(t, str) else t for t in self.all_special_tokens_extended]
        self._backend = self._backend.adding([as_special(t) for t in tokens])

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name_or_path!r}, {len(self)} tokens, "
            f"model_max_length={self.model_max_length}, padding_side={self.padding_side!r}, "
            f"special tokens {self.special_tokens_map})"
        )

    # ---- lengths

    @property
    def model_max_length(self) -> int:
        """The longest row the model takes, special tokens included; if unset NO_LIMIT, a huge int that prints so."""
        return self._model_max_length

    @model_max_length.setter
    def model_max_length(self, value: int | None) -> None:
        self._model_max_length = limit_from(value)

    @property
    def max_len_single_sentence(self) -> int:
        """The most tokens of a single text that fit."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=False)

    @property
    def max_len_sentences_pair(self) -> int:
        """The most tokens of two texts together that fit."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a single text or a pair gets."""
        return self._template.form(pair).added

    # ---- vocabulary

    @property
    def backend(self) -> Backend:
        """What turns one text into tokens."""
        return self._backend

    @property
    def backend_tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer` behind it. Shared by all threads: read it, do not change it."""
        return getattr(self._backend, "tokenizer", None)

    _tokenizer = backend_tokenizer

    def __len__(self) -> int:
        """The number of tokens, added ones included."""
        return self._backend.vocab_size()

    @property
    def vocab_size(self) -> int:
        """The number of tokens without added ones."""
        return self._backend.vocab_size(with_added_tokens=False)

    @property
    def vocab(self) -> dict[str, int]:
        """Token to id, added ones included."""
        return self.get_vocab()

    def get_vocab(self) -> dict[str, int]:
        """Token to id, added ones included; a new dict."""
        return self._backend.vocab()

    def get_added_vocab(self) -> dict[str, int]:
        """Token to id of those that are not in the vocabulary file."""
        own = self._backend.vocab(with_added_tokens=False)
        added = self._backend.added_tokens()
        return {str(added[i]): i for i in sorted(added) if str(added[i]) not in own}

    added_tokens_encoder = property(get_added_vocab)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Id to token of the special and added tokens."""
        return dict(sorted(self._backend.added_tokens().items()))

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a token, or a list of them; for what is not in the vocabulary that of unk_token, or None."""
        if tokens is None:
            return None
        if isinstance(tokens, (str, AddedToken)):
            found = self._backend.token_to_id(str(tokens))
            if found is None and self._unk_token is not None:
                found = self._backend.token_to_id(str(self.unk_token))
            return found
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or a list of them; None for an id outside the vocabulary."""
        ids = to_lists(ids)
        if isinstance(ids, int):
            return self._backend.id_to_token(ids)
        skip = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._backend.id_to_token(int(i)) for i in ids if i not in skip]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text that these tokens stand for."""
        return self._backend.join(tokens)

    # ---- growing

    def add_tokens(self, new_tokens: Token | Sequence[Token], special_tokens: bool = False) -> int:
        """Add tokens at the end of the vocabulary and return how many were new; then resize the model's embeddings.

        They are found in the text before it is split, special ones as written, others after normalisation. A token that
        the vocabulary has already is left as it is, unless it becomes special.
        """
        tokens = [new_tokens] if isinstance(new_tokens, (str, AddedToken)) else list(new_tokens or ())
        wrong = next((t for t in tokens if not isinstance(t, (str, AddedToken))), None)
        if wrong is not None:
            raise TypeError(f"{wrong!r}, of type {type(wrong).__name__}, is not a token: give a str or an AddedToken.")
        made = [as_special(t) if special_tokens else t if isinstance(t, AddedToken) else AddedToken(t) for t in tokens]
        with _GROWING:
            before = len(self)
            new = [t for t in made if t.special or self._backend.token_to_id(t.content) is None]
            self._backend = self._backend.adding(new)
            return len(self) - before

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Any]) -> int:
        """Name special tokens, adding those that are new to the vocabulary, and return how many were.

        special_tokens_dict: names such as "pad_token" with a token, or "additional_special_tokens" with a list.
        """
        names = self.SPECIAL_TOKENS_ATTRIBUTES
        reject_unknown(special_tokens_dict.keys() - set(names), names, "add_special_tokens")
        for name, value in special_tokens_dict.items():
            setattr(self, name, value)
        values = [special_tokens_dict[name] for name in special_tokens_dict]
        tokens = [t for v in values for t in (v if isinstance(v, (list, tuple)) else [v]) if t is not None]
        return self.add_tokens(tokens, special_tokens=True)

    # ---- back to text

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> str:
        """The text of a list, array or tensor of ids. Cleaning takes out spaces before English punctuation."""
        ids = to_lists(token_ids)
        ids = [ids] if isinstance(ids, int) else ids
        lowest = min(ids, default=0)
        if lowest < 0:
            raise ValueError(
                f"{lowest} is not an id of a token: replace what marks ignored labels (-100) by pad_token_id first."
            )
        text = self._backend.decode(ids, skip_special_tokens)
        clean = (
            self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        )
        return clean_up(text) if clean else text

    def batch_decode(
        self,
        sequences: Iterable[Any],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """The text of each row of ids."""
        return [self.decode(ids, skip_special_tokens, clean_up_tokenization_spaces) for ids in sequences]


def arguments_of(cls: type[Vocabulary]) -> list[str]:
    """The names of what a tokenizer's constructor takes."""
    named = inspect.signature(cls.__init__).parameters.values()
    own = [p.name for p in named if p.kind is not p.VAR_KEYWORD and p.name not in ("self", "backend", "own_options")]
    return [*own, *TokenizerOptions.__annotations__]
