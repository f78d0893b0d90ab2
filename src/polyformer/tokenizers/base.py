"""`PreTrainedTokenizer`: text to the columns a model takes, and back. The base of every tokenizer here.

    normalise -> split -> tokens     the backend, of each text alone (backend.py)
    cut, special tokens, padding     arithmetic on the result, per call (assemble.py, truncation.py, padding.py)

Truncation and padding are arguments of a call and never state, so that one tokenizer may serve any number of threads
with different settings. Names, order of arguments and results are those of transformers 4.6 and its fast tokenizers.

A family of tokenizers says how its backend is built from its vocabulary files, and which files those are; see bert.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, ClassVar, Self

from polyformer.core.atomic import write_all
from polyformer.core.files import refuse_escape
from polyformer.tokenizers import assemble, files, special
from polyformer.tokenizers.checks import reject_unknown
from polyformer.tokenizers.encoding import BatchEncoding, CharSpan, Encoding, TokenSpan
from polyformer.tokenizers.explain import Explanation, explain
from polyformer.tokenizers.inputs import samples_of
from polyformer.tokenizers.limits import NO_LIMIT
from polyformer.tokenizers.plan import Plan, check_tensors, old_names, plan_lengths
from polyformer.tokenizers.rows import Rows
from polyformer.tokenizers.special import Token
from polyformer.tokenizers.vocabulary import TokenizerOptions, arguments_of

__all__ = ["BatchEncoding", "CharSpan", "Encoding", "PreTrainedTokenizer", "TokenSpan", "TokenizerOptions"]

_CALL = (
    "text", "text_pair", "add_special_tokens", "padding", "truncation", "max_length", "stride", "is_split_into_words",
    "pad_to_multiple_of", "return_tensors", "return_token_type_ids", "return_attention_mask",
    "return_overflowing_tokens", "return_special_tokens_mask", "return_offsets_mapping", "return_length", "verbose",
)  # fmt: skip

# Options that callers pass to any tokenizer, but that only some families have: nothing to say against them elsewhere.
_ELSEWHERE = {"use_fast", "add_prefix_space", "do_lower_case", "trust_remote_code", "from_slow", "legacy"}


class PreTrainedTokenizer(Rows):
    """Text to ids and back. Call it: `tokenizer(["one text", "another"], padding=True, return_tensors="pt")`.

    This class itself reads any tokenizer.json: `PreTrainedTokenizer(tokenizer_file=..., pad_token="[PAD]")`.
    """

    vocab_files_names: ClassVar[Mapping[str, str]] = {"tokenizer_file": files.FAST}
    any_vocab_file: ClassVar[bool] = False  # whether one of these files is enough

    def __call__(
        self,
        text: str | Sequence[Any],
        text_pair: str | Sequence[Any] | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        **unknown: Any,
    ) -> BatchEncoding:
        """Encode a text, a pair of texts, or a batch of either.

        text, text_pair: a str, or a list of them; with is_split_into_words a list of words, or a list of those. A batch
            may also hold pairs. An empty text_pair beside a single text counts as none, as in transformers.
        padding: True or "longest" (to the longest row), "max_length", or False; to a multiple of pad_to_multiple_of.
        truncation: True or "longest_first", "only_first", "only_second", or False; to max_length or, without one, to
            model_max_length. max_length alone truncates too.
        return_overflowing_tokens: what was cut off becomes further rows, each repeating `stride` tokens of the one
            before; overflow_to_sample_mapping tells which text a row is from.
        return_tensors: "pt" or "np" for int64 of shape (batch, length), a single text being a batch of one.
        return_token_type_ids, return_attention_mask: None means as in model_input_names.

        Returns input_ids and, as asked, token_type_ids, attention_mask, special_tokens_mask, offset_mapping (characters
        of each token, [start, end)), length. Raises TypeError for what is not text, ValueError for the rest.
        """
        padding, truncation = old_names(unknown, padding, truncation, _CALL)
        plan = Plan(
            plan_lengths(padding, truncation, max_length, stride, pad_to_multiple_of, self.model_max_length, verbose),
            special=add_special_tokens,
            tensors=check_tensors(return_tensors),
            types=self._wants("token_type_ids", return_token_type_ids),
            attention=self._wants("attention_mask", return_attention_mask),
            overflow=return_overflowing_tokens,
            special_mask=return_special_tokens_mask,
            offsets=return_offsets_mapping,
            length=return_length,
        )
        samples, batched = samples_of(text, text_pair, is_split_into_words, self.contract)
        filler = self._filler(plan.lengths.padding is not None)
        batch = assemble.encode(
            self._backend, self._template, self.contract, samples, is_split_into_words, plan, filler
        )
        if not (batched or return_tensors):
            batch.data = self.contract.single(batch.data, return_overflowing_tokens)
        return batch

    def encode(
        self,
        text: str | Sequence[Any],
        text_pair: str | Sequence[Any] | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        stride: int = 0,
        return_tensors: str | None = None,
        **more: Any,
    ) -> Any:
        """The ids of a text or a pair: a list, or a (1, length) tensor. `more`: as for a call."""
        return self(
            text, text_pair, add_special_tokens=add_special_tokens, padding=padding, truncation=truncation,
            max_length=max_length, stride=stride, return_tensors=return_tensors, **more,
        )["input_ids"]  # fmt: skip

    def encode_plus(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        **unknown: Any,
    ) -> BatchEncoding:
        """A call with one text or pair; the older name."""
        return self(
            text, text_pair, add_special_tokens=add_special_tokens, padding=padding, truncation=truncation,
            max_length=max_length, stride=stride, is_split_into_words=is_split_into_words,
            pad_to_multiple_of=pad_to_multiple_of, return_tensors=return_tensors,
            return_token_type_ids=return_token_type_ids, return_attention_mask=return_attention_mask,
            return_overflowing_tokens=return_overflowing_tokens, return_special_tokens_mask=return_special_tokens_mask,
            return_offsets_mapping=return_offsets_mapping, return_length=return_length, verbose=verbose, **unknown,
        )  # fmt: skip

    def batch_encode_plus(
        self,
        batch_text_or_text_pairs: Sequence[Any],
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        **unknown: Any,
    ) -> BatchEncoding:
        """A call with a batch of texts, or of pairs; the older name."""
        if not isinstance(batch_text_or_text_pairs, (list, tuple)):
            raise TypeError(f"batch_encode_plus takes a list, not a {type(batch_text_or_text_pairs).__name__}.")
        return self(
            batch_text_or_text_pairs, None, add_special_tokens=add_special_tokens, padding=padding,
            truncation=truncation, max_length=max_length, stride=stride, is_split_into_words=is_split_into_words,
            pad_to_multiple_of=pad_to_multiple_of, return_tensors=return_tensors,
            return_token_type_ids=return_token_type_ids, return_attention_mask=return_attention_mask,
            return_overflowing_tokens=return_overflowing_tokens, return_special_tokens_mask=return_special_tokens_mask,
            return_offsets_mapping=return_offsets_mapping, return_length=return_length, verbose=verbose, **unknown,
        )  # fmt: skip

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False, **more: Any) -> list[str]:
        """The tokens of a text (or pair) as texts. `more`: as for a call."""
        # With offsets, lest the text is encoded a second time for what a call leaves out otherwise.
        more.setdefault("return_offsets_mapping", True)
        return self(text, pair, add_special_tokens=add_special_tokens, **more).tokens()

    # ---- sequence to sequence

    @contextmanager
    def as_target_tokenizer(self) -> Iterator[None]:
        """Within it, texts are encoded as targets; the same as sources unless a family says otherwise."""
        yield

    def prepare_seq2seq_batch(
        self,
        src_texts: Sequence[str],
        tgt_texts: Sequence[str] | None = None,
        max_length: int | None = None,
        max_target_length: int | None = None,
        padding: bool | str = "longest",
        return_tensors: str | None = None,
        truncation: bool | str = True,
        **more: Any,
    ) -> BatchEncoding:
        """Sources as by a call, and the ids of the targets as `labels`."""
        more.pop("src_lang", None), more.pop("tgt_lang", None)
        shared: dict[str, Any] = {"padding": padding, "return_tensors": return_tensors, "truncation": truncation}
        shared |= {"verbose": False} | more
        batch = self(src_texts, max_length=max_length, **shared)
        if tgt_texts is not None:
            with self.as_target_tokenizer():
                targets = self(tgt_texts, max_length=max_target_length or max_length, **shared)
            batch["labels"] = targets["input_ids"]
        return batch

    # ---- a new vocabulary, a look inside

    def train_new_from_iterator(
        self,
        text_iterator: Iterable[str | Sequence[str]],
        vocab_size: int,
        length: int | None = None,
        new_special_tokens: Sequence[Token] | None = None,
        special_tokens_map: Mapping[str, str] | None = None,
        **trainer_options: Any,
    ) -> Self:
        """A new tokenizer of this class and pipeline whose vocabulary is learnt from texts; this one stays as it is.

        text_iterator: texts, or lists of them, gone through once. length: how many there are, for the progress bar,
            which is drawn on a terminal only.
        vocab_size: tokens in all, special ones included; fewer come out where the texts do not give so many.
        new_special_tokens: further special tokens. special_tokens_map: old text of a special token to its new one.
        trainer_options: of the Rust trainer, such as min_frequency, limit_alphabet, initial_alphabet, show_progress.

        Special tokens keep their parts, options and order, not their ids; ordinary added tokens are left behind. The
        trainers settle ties at random, so that two runs may differ in a few rare tokens.
        Raises ValueError if vocab_size is too small, if there is no text, and from a family that does not run on the
        tokenizers library; TypeError for what is not text.
        """
        from polyformer.tokenizers.training import train_new

        return train_new(
            self, text_iterator, vocab_size, length, new_special_tokens, special_tokens_map, trainer_options
        )

    def explain(self, text: str, pair: str | None = None) -> Explanation:
        """Why a text (or pair) becomes these tokens, step by step: print it, or see its `steps` and `to_dict()`."""
        return explain(self, text, pair)

    # ---- files

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        *,
        cache_dir: str | PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str | None = None,
        subfolder: str = "",
        **overrides: Any,
    ) -> Self:
        """The tokenizer in a folder, of a vocabulary file, or on the hub, as any version of transformers saved it.

        overrides: options of the constructor that win over the saved ones, such as `model_max_length=128`.
        Raises CheckpointError for a missing or damaged file, TypeError for an option that does not exist.
        """
        hub = {
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
            "token": token,
            "revision": revision,
            "subfolder": subfolder,
        }
        saved = files.read(pretrained_model_name_or_path, cls.vocab_files_names, hub, cls.any_vocab_file)
        known = arguments_of(cls)
        unknown = overrides.keys() - {*known, *saved.options, *_ELSEWHERE}
        reject_unknown(unknown, known, f"{cls.__name__}.from_pretrained")
        named = {*special.NAMES, special.EXTRA}
        mine = {k: v for k, v in overrides.items() if k in known or k in saved.options}
        mine |= {k: special.from_json(v) for k, v in mine.items() if k in named}
        options = cls._options_of(saved) | mine
        taken = {name: options[name] for name in options if name in known}
        taken |= {name: file for name, file in saved.files.items() if name in known and name not in taken}
        taken |= {"name_or_path": str(pretrained_model_name_or_path), "added_tokens_decoder": saved.added}
        tokenizer = cls(**taken)
        tokenizer._own_options = {k: v for k, v in options.items() if k not in known} | tokenizer._own_options
        return tokenizer

    @classmethod
    def _options_of(cls, saved: files.Saved) -> dict[str, Any]:
        """The options that were saved, for a family that knows some of them to be wrong to set right."""
        return saved.options

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """Options of the constructor, and what else tokenizer_config.json held."""
        return self._own_options | self.special_tokens_map_extended

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
        push_to_hub: bool = False,
    ) -> tuple[str, ...]:
        """Write the tokenizer to a folder, for this library and transformers 4.x and 5.x; returns the paths.

        All files appear at once, so that a crash leaves what was there. legacy_format: True for the vocabulary files
        alone, False for tokenizer.json alone, None for both; where a family has only one of them, that one.
        """
        if push_to_hub:
            raise NotImplementedError("push_to_hub is not part of this library: save, then use `hf upload`.")
        fast = None if legacy_format else self._backend.json()
        texts = self.vocabulary_files() if fast is None or legacy_format is None else {}
        fast = self._backend.json() if fast is None and not texts else fast  # a vocabulary in the form that there is
        added = self.get_added_vocab()
        if added and (texts or legacy_format is not False):
            texts[files.ADDED] = files.to_text(added)
        if fast is not None:
            texts[files.FAST] = fast
        specials = self.special_tokens_map_extended
        texts[files.SPECIALS] = files.to_text({k: special.to_json(v) for k, v in specials.items()})
        texts[files.CONFIG] = files.to_text(self._config())
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        refuse_escape(prefix or "-", "filename_prefix")
        stale = () if prefix else (files.ADDED, files.FAST, *self.vocab_files_names.values())
        written = write_all(save_directory, {prefix + name: text for name, text in texts.items()}, stale)
        return tuple(str(path) for path in written)

    def save_vocabulary(
        self, save_directory: str | PathLike[str], filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write the vocabulary files alone, without added tokens; returns the paths."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        written = write_all(save_directory, {prefix + name: text for name, text in self.vocabulary_files().items()})
        return tuple(str(path) for path in written)

    def vocabulary_files(self) -> dict[str, str | bytes]:
        """Name to content of the family's own vocabulary files; a tokenizer that is only a tokenizer.json has none."""
        return {}

    def _config(self) -> dict[str, Any]:
        """What goes into tokenizer_config.json: options that differ from what the class has anyway."""
        cls = type(self)
        config = dict(self._own_options)
        config |= {k: special.to_json(v, mark=True) for k, v in self.special_tokens_map_extended.items()}
        if self.model_max_length < NO_LIMIT:
            config["model_max_length"] = self.model_max_length
        for name in ("padding_side", "truncation_side", "pad_token_type_id"):
            if getattr(self, name) != getattr(cls, name):
                config[name] = getattr(self, name)
        if list(self.model_input_names) != list(cls.model_input_names):
            config["model_input_names"] = list(self.model_input_names)
        config["clean_up_tokenization_spaces"] = self.clean_up_tokenization_spaces
        config["tokenizer_class"] = "PreTrainedTokenizerFast" if cls is PreTrainedTokenizer else cls.__name__
        return config
