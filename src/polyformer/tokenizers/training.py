"""A new vocabulary for an old tokenizer: same class, pipeline and special tokens, pieces learnt from texts.

    normaliser, splitter, decoder, template    kept
    special tokens                             kept, in their order: those before the learnt tokens stay before them,
                                               those after them (GPT-2's end of text, T5's sentinels) stay after them
    all other tokens                           learnt anew: WordPiece (Schuster and Nakajima 2012), BPE (Sennrich et al.
                                               2016), Unigram (Kudo 2018) or whole words, whichever the tokenizer uses

The new tokenizer is opened from a tokenizer.json and options, exactly as a saved one is.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from polyformer.tokenizers import files, special
from polyformer.tokenizers.backend import added_token_json
from polyformer.tokenizers.checks import check_text, reject_unknown

if TYPE_CHECKING:
    from polyformer.tokenizers.base import PreTrainedTokenizer

Kind = TypeVar("Kind", bound="PreTrainedTokenizer")
Spec = dict[str, Any]  # a tokenizer.json, or a part of one
Names = Mapping[str, str]  # the old text of a special token -> the new one

_OPTIONS = {  # what the trainer of each kind of model takes besides vocab_size and special_tokens
    "WordPiece": ("show_progress", "min_frequency", "limit_alphabet", "initial_alphabet"),
    "BPE": ("show_progress", "min_frequency", "limit_alphabet", "initial_alphabet", "max_token_length"),
    "Unigram": ("show_progress", "initial_alphabet", "shrinking_factor", "max_piece_length", "n_sub_iterations"),
    "WordLevel": ("show_progress", "min_frequency"),
}


def train_new(
    tokenizer: Kind,
    texts: Iterable[str | Sequence[str]],
    vocab_size: int,
    length: int | None,
    new_special_tokens: Sequence[special.Token] | None,
    special_tokens_map: Names | None,
    options: Mapping[str, Any],
) -> Kind:
    """See `PreTrainedTokenizer.train_new_from_iterator`."""
    names, added = special_tokens_map or {}, list(new_special_tokens or ())
    spec = _spec(tokenizer)
    model = spec["model"]
    known = _OPTIONS[model["type"]]
    reject_unknown(options.keys() - set(known), known, f"training a {model['type']} model")
    layout = _lay_out(spec, names, added)
    if not isinstance(vocab_size, int) or vocab_size <= layout.size:
        raise ValueError(
            f"vocab_size={vocab_size!r} leaves no room beside the {layout.size} special tokens: use a larger number."
        )
    learner, trainer = _learner(tokenizer.backend_tokenizer, model, layout, names, vocab_size, options)
    counted = _Texts(texts)
    _learn(learner, trainer, counted, length, vocab_size - layout.last)
    learnt = json.loads(learner.to_str())["model"]
    model |= {key: learnt[key] for key in ("vocab", "merges", "unk_id", "unk_token") if key in learnt and key in model}
    ids = layout.place(spec)
    spec["post_processor"] = _rewired(spec["post_processor"], names, ids)
    return _opened(type(tokenizer), spec, _config(tokenizer, names, added))


def _spec(tokenizer: "PreTrainedTokenizer") -> Spec:
    text = tokenizer.backend.json()
    if text is None or tokenizer.backend_tokenizer is None or "tokenizer_file" not in tokenizer.vocab_files_names:
        raise ValueError(
            f"{type(tokenizer).__name__} does not run on the tokenizers library, so no vocabulary can be learnt for it "
            "here: make its files with the tool of the original, or train another family's tokenizer."
        )
    spec: Spec = json.loads(text)
    return spec


# ---- special tokens


@dataclass
class _Layout:
    """Special tokens, as entries of `added_tokens`, by where they lie.

    before, after: the learnt tokens, in the model's vocabulary. beside: after those, and not in the model's vocabulary.
    bytes: what a model with byte_fallback spells unknown characters with.
    """

    before: list[Spec]
    after: list[Spec]
    beside: list[Spec]
    bytes: list[str]

    @property
    def first(self) -> list[str]:
        """What the trainer is to put first."""
        return [*(entry["content"] for entry in self.before), *self.bytes]

    @property
    def last(self) -> int:
        """How many come after what is learnt."""
        return len(self.after) + len(self.beside)

    @property
    def size(self) -> int:
        return len(self.first) + self.last

    def place(self, spec: Spec) -> dict[str, int]:
        """Put the special tokens into a spec whose model is trained; returns the id of each."""
        model = spec["model"]
        ids = _vocab(model)
        for entry in (*self.after, *self.beside):
            ids.setdefault(entry["content"], len(ids))
        inside = [entry["content"] for entry in self.after]
        if model["type"] == "Unigram":
            model["vocab"] += [[token, 0.0] for token in inside]
        else:
            model["vocab"] |= {token: ids[token] for token in inside}
        entries = [*self.before, *self.after, *self.beside]
        spec["added_tokens"] = [entry | {"id": ids[entry["content"]]} for entry in entries]
        return {entry["content"]: entry["id"] for entry in spec["added_tokens"]}


def _lay_out(spec: Spec, names: Names, new: Sequence[special.Token]) -> _Layout:
    model, in_model = spec["model"], _vocab(spec["model"])
    entries: dict[str, Spec] = {e["content"]: e for e in spec["added_tokens"] if e["special"]}
    for token in (_unknown(model), *_in_template(spec["post_processor"])):
        if token is not None and token not in entries:
            entries[token] = added_token_json(special.as_special(token)) | {"id": in_model[token]}
    strange = next((name for name in names if name not in entries), None)
    if strange is not None:
        raise ValueError(
            f"special_tokens_map renames {strange!r}, which is no special token here: there are "
            f"{', '.join(map(repr, entries))}."
        )
    last = max((i for token, i in in_model.items() if token not in entries), default=-1)
    layout = _Layout([], [], [], [f"<0x{byte:02X}>" for byte in range(256)] if model.get("byte_fallback") else [])
    for token, entry in sorted(entries.items(), key=lambda item: item[1]["id"]):
        group = layout.before if entry["id"] < last else layout.after if token in in_model else layout.beside
        group.append(entry | {"content": names.get(token, token)})
    there = {names.get(token, token) for token in entries}
    layout.before += [added_token_json(special.as_special(t)) for t in new if str(t) not in there]
    return layout


def _vocab(model: Spec) -> dict[str, int]:
    """Token to id of a model's own vocabulary."""
    if model["type"] == "Unigram":
        return {token: i for i, (token, _) in enumerate(model["vocab"])}
    return dict(model["vocab"])


def _unknown(model: Spec) -> str | None:
    """The token for what is not in the vocabulary."""
    if model["type"] == "Unigram":
        return None if model["unk_id"] is None else model["vocab"][model["unk_id"]][0]
    token: str | None = model["unk_token"]
    return token


def _in_template(processor: Spec | None) -> Iterator[str]:
    """The special tokens that a post-processor puts around texts."""
    match processor:
        case {"type": "TemplateProcessing", "special_tokens": named}:
            for entry in named.values():
                yield from entry["tokens"]
        case {"type": "BertProcessing" | "RobertaProcessing", "cls": [first, _], "sep": [last, _]}:
            yield from (first, last)
        case {"type": "Sequence", "processors": steps}:
            for step in steps:
                yield from _in_template(step)


def _rewired(processor: Any, names: Names, ids: Mapping[str, int]) -> Any:
    """The post-processor with the new texts and ids of its special tokens."""

    def pair(old: Sequence[Any]) -> list[Any]:
        token = names.get(old[0], old[0])
        return [token, ids[token]]

    def piece(old: Spec) -> Spec:
        inner = old.get("SpecialToken")
        return old if inner is None else {"SpecialToken": inner | {"id": names.get(inner["id"], inner["id"])}}

    match processor:
        case {"type": "TemplateProcessing", "special_tokens": named, "single": single, "pair": both}:
            made = {}
            for name, entry in named.items():
                tokens = [names.get(token, token) for token in entry["tokens"]]
                new = names.get(name, name)
                made[new] = {"id": new, "ids": [ids[token] for token in tokens], "tokens": tokens}
            return processor | {
                "special_tokens": made,
                "single": [piece(p) for p in single],
                "pair": [piece(p) for p in both],
            }
        case {"type": "BertProcessing" | "RobertaProcessing", "cls": first, "sep": last}:
            return processor | {"cls": pair(first), "sep": pair(last)}
        case {"type": "Sequence", "processors": steps}:
            return processor | {"processors": [_rewired(step, names, ids) for step in steps]}
    return processor


# ---- learning


class _Texts:
    """The texts, each looked at before the Rust library sees it, and counted."""

    def __init__(self, texts: Iterable[str | Sequence[str]]) -> None:
        if isinstance(texts, (str, bytes)):
            raise TypeError("the texts must be an iterator of texts, or of lists of them: put a single one in a list.")
        self.texts, self.count = texts, 0

    def __iter__(self) -> Iterator[list[str]]:
        for item in self.texts:
            batch: list[Any] = list(item) if isinstance(item, (list, tuple)) else [item]
            for text in batch:
                if not (isinstance(text, str) and text.isascii()):
                    check_text(text, f"text {self.count}")
                self.count += 1
            yield batch


def _learner(
    old: Tokenizer, model: Spec, layout: _Layout, names: Names, vocab_size: int, options: Mapping[str, Any]
) -> tuple[Tokenizer, trainers.Trainer]:
    """A tokenizer that knows nothing yet, with the old one's normaliser and splitter, and its trainer."""
    given: Spec = {"show_progress": sys.stderr is not None and sys.stderr.isatty(), **options}
    given |= {"vocab_size": vocab_size - layout.last, "special_tokens": layout.first}
    marks = {name: model[name] for name in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(name)}
    unknown = _unknown(model)
    named: Spec = {} if unknown is None else {"unk_token": names.get(unknown, unknown)}
    blank: models.Model
    trainer: trainers.Trainer
    match model["type"]:
        case "WordPiece":
            blank, trainer = models.WordPiece(**named), trainers.WordPieceTrainer(**marks, **given)
        case "BPE":
            if _byte_level(old):
                given.setdefault("initial_alphabet", pre_tokenizers.ByteLevel.alphabet())
            blank, trainer = models.BPE(**named), trainers.BpeTrainer(**marks, **given)
        case "Unigram":
            blank, trainer = models.Unigram(), trainers.UnigramTrainer(**named, **given)
        case _:
            blank, trainer = models.WordLevel(**named), trainers.WordLevelTrainer(**given)
    learner = Tokenizer(blank)
    for part in ("normalizer", "pre_tokenizer"):
        if getattr(old, part) is not None:
            setattr(learner, part, getattr(old, part))
    return learner, trainer


def _byte_level(tokenizer: Tokenizer) -> bool:
    """Whether text is spelt in bytes, all 256 of which the vocabulary then needs."""
    parts = (tokenizer.normalizer, tokenizer.pre_tokenizer)
    return any(b'"ByteLevel"' in part.__getstate__() for part in parts if part is not None)


def _learn(learner: Tokenizer, trainer: trainers.Trainer, texts: _Texts, length: int | None, room: int) -> None:
    """Train; ValueError if there is no text, or more characters in it than there is room for tokens."""
    small = (
        "vocab_size is too small for the special tokens and every character of the texts: use a larger one, or give "
        "texts with fewer different characters."
    )
    try:
        learner.train_from_iterator(texts, trainer, length)
    except Exception as e:  # the library raises no narrower kind
        if "not large enough" not in str(e):
            raise
        raise ValueError(small) from e
    if not texts.count:
        raise ValueError("there was no text to learn from: give texts, and not an iterator that was used up before.")
    if learner.get_vocab_size() > room:
        raise ValueError(small)


# ---- the new tokenizer


def _config(tokenizer: "PreTrainedTokenizer", names: Names, new: Sequence[special.Token]) -> Spec:
    """tokenizer_config.json of the new tokenizer."""

    def renamed(token: special.Token) -> special.Token:
        text = names.get(str(token), str(token))
        made: special.Token = (
            text if isinstance(token, str) else special.from_json(added_token_json(token) | {"content": text})
        )
        return made

    config = tokenizer._config()
    named: Spec = {
        name: [renamed(t) for t in token] if isinstance(token, list) else renamed(token)
        for name, token in tokenizer.special_tokens_map_extended.items()
    }
    known = {names.get(token, token) for token in tokenizer.all_special_tokens}
    extra = [*named.get(special.EXTRA, []), *(t for t in new if str(t) not in known)]
    if extra:
        named[special.EXTRA] = extra
    return config | {name: special.to_json(token, mark=True) for name, token in named.items()}


def _opened(cls: type[Kind], spec: Spec, config: Spec) -> Kind:
    """The tokenizer, as if it had been saved."""
    with TemporaryDirectory() as folder:
        for name, content in ((files.FAST, spec), (files.CONFIG, config)):
            Path(folder, name).write_text(files.to_text(content), encoding="utf-8")
        made = cls.from_pretrained(folder)
    made.name_or_path = ""
    return made
