"""The named special tokens of a tokenizer: `cls_token`, `cls_token_id`, `special_tokens_map` and their like."""

from collections.abc import Mapping, Sequence
from typing import Any, overload

from tokenizers import AddedToken

Token = str | AddedToken

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
EXTRA = "additional_special_tokens"


def as_special(token: Token) -> AddedToken:
    """The token as the vocabulary holds it: special, and by default found in the text as written."""
    if isinstance(token, AddedToken):
        return AddedToken(
            token.content,
            single_word=token.single_word,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            normalized=token.normalized,
            special=True,
        )
    return AddedToken(token, normalized=False, special=True)


def from_json(value: Any) -> Any:
    """A special token as the files hold it: None, a str, the options of an AddedToken, or a list of those."""
    if isinstance(value, Mapping):
        known = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
        return AddedToken(**{k: v for k, v in value.items() if k in known})
    return [from_json(v) for v in value] if isinstance(value, (list, tuple)) else value


def to_json(value: Any, mark: bool = False) -> Any:
    """The reverse: a str unless the token has options; those get the label of tokenizer_config.json if `mark`."""
    if isinstance(value, AddedToken):
        names = ("content", "single_word", "lstrip", "rstrip", "normalized")
        options = {name: getattr(value, name) for name in names}
        if not (value.single_word or value.lstrip or value.rstrip or value.normalized):
            return value.content
        return options | ({"__type": "AddedToken"} if mark else {})
    return [to_json(v, mark) for v in value] if isinstance(value, (list, tuple)) else value


class TokenText:
    """`tokenizer.mask_token`: the text of a special token, None while unset. The value set lies in `_mask_token`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.slot = "_" + name

    @overload
    def __get__(self, tokenizer: None, owner: type) -> "TokenText": ...
    @overload
    def __get__(self, tokenizer: Any, owner: type) -> str | None: ...
    def __get__(self, tokenizer: Any, owner: type) -> "TokenText | str | None":
        if tokenizer is None:
            return self
        value = getattr(tokenizer, self.slot)
        return None if value is None else str(value)

    def __set__(self, tokenizer: Any, value: Token | None) -> None:
        if not (value is None or isinstance(value, (str, AddedToken))):
            raise TypeError(
                f"{self.slot[1:]} is {value!r}, of type {type(value).__name__}: give the token's text (a str), "
                f"or set {self.slot[1:]}_id."
            )
        setattr(tokenizer, self.slot, value)


class SpaceEater(TokenText):
    """A token that, given as a str, takes the space before it along: the mask of RoBERTa and its kin."""

    def __set__(self, tokenizer: Any, value: Token | None) -> None:
        made = AddedToken(value, lstrip=True, normalized=False, special=True) if isinstance(value, str) else value
        super().__set__(tokenizer, made)


class TokenId:
    """`tokenizer.mask_token_id`: the id of that token, None while it is unset; setting it sets the token."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name.removesuffix("_id")

    @overload
    def __get__(self, tokenizer: None, owner: type) -> "TokenId": ...
    @overload
    def __get__(self, tokenizer: Any, owner: type) -> int | None: ...
    def __get__(self, tokenizer: Any, owner: type) -> "TokenId | int | None":
        if tokenizer is None:
            return self
        token: str | None = getattr(tokenizer, self.name)
        return None if token is None else tokenizer.convert_tokens_to_ids(token)

    def __set__(self, tokenizer: Any, value: int | None) -> None:
        token = None if value is None else tokenizer.convert_ids_to_tokens(value)
        if value is not None and token is None:
            raise ValueError(f"{self.name}_id={value} is not in the vocabulary of {len(tokenizer)} tokens.")
        setattr(tokenizer, self.name, token)


class SpecialTokens:
    """Mixin with the special tokens: names for entries of the vocabulary. `add_special_tokens` also adds entries."""

    SPECIAL_TOKENS_ATTRIBUTES = (*NAMES, EXTRA)

    bos_token, eos_token, unk_token, sep_token = TokenText(), TokenText(), TokenText(), TokenText()
    pad_token, cls_token, mask_token = TokenText(), TokenText(), TokenText()
    bos_token_id, eos_token_id, unk_token_id, sep_token_id = TokenId(), TokenId(), TokenId(), TokenId()
    pad_token_id, cls_token_id, mask_token_id = TokenId(), TokenId(), TokenId()
    pad_token_type_id: int = 0

    _bos_token: Token | None
    _eos_token: Token | None
    _unk_token: Token | None
    _sep_token: Token | None
    _pad_token: Token | None
    _cls_token: Token | None
    _mask_token: Token | None
    _additional_special_tokens: list[Token]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        raise NotImplementedError

    @property
    def additional_special_tokens(self) -> list[str]:
        """Further special tokens, without a name."""
        return [str(t) for t in self._additional_special_tokens]

    @additional_special_tokens.setter
    def additional_special_tokens(self, tokens: Sequence[Token] | None) -> None:
        if isinstance(tokens, str):
            raise TypeError(f"additional_special_tokens={tokens!r} must be a list of tokens: write [{tokens!r}].")
        self._additional_special_tokens = list(tokens or [])

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        return [self.convert_tokens_to_ids(t) for t in self.additional_special_tokens]

    @property
    def special_tokens_map_extended(self) -> dict[str, Any]:
        """Name to token, as set (an AddedToken keeps its options); unset names are left out."""
        named = {name: getattr(self, "_" + name) for name in NAMES}
        if self._additional_special_tokens:
            named[EXTRA] = list(self._additional_special_tokens)
        return {name: token for name, token in named.items() if token is not None}

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        """Name to text of the token (a list of texts for additional_special_tokens)."""
        return {
            name: [str(t) for t in token] if isinstance(token, list) else str(token)
            for name, token in self.special_tokens_map_extended.items()
        }

    @property
    def all_special_tokens_extended(self) -> list[Token]:
        """Every special token once, as set."""
        tokens: dict[str, Token] = {}
        for value in self.special_tokens_map_extended.values():
            for token in value if isinstance(value, list) else [value]:
                tokens.setdefault(str(token), token)
        return list(tokens.values())

    @property
    def all_special_tokens(self) -> list[str]:
        """The text of every special token, once."""
        return [str(t) for t in self.all_special_tokens_extended]

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `all_special_tokens`."""
        return [self.convert_tokens_to_ids(t) for t in self.all_special_tokens]
