"""Why a text became these tokens: what each step of a tokenizer made of it.

    text -> normalise -> split -> cut -> template -> tokens

The steps are gone again one by one with the tokenizer's own parts, and shown only if they lead to the very tokens that
the tokenizer gives. A backend that is not made of such parts shows which characters became which tokens.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from tokenizers import PreTokenizedString, Tokenizer

from polyformer.tokenizers.backend import Backend, RustBackend, Tokens
from polyformer.tokenizers.checks import check_text
from polyformer.tokenizers.table import table

if TYPE_CHECKING:
    from polyformer.tokenizers.base import PreTrainedTokenizer

Span = tuple[int, int]  # characters of a text as given, the end excluded
Row = dict[str, Any]


@dataclass
class Step:
    """One step. name: of it. by: what does it. rows: what came out, as columns of plain values."""

    name: str
    by: str
    rows: list[Row] = field(default_factory=list)

    def __str__(self) -> str:
        lines = table(self.rows) or ["    nothing"]
        return "\n".join([f"{self.name}: {self.by}" if self.by else self.name, *lines])


@dataclass
class Explanation:
    """What `explain` gives: print it, go through its `steps`, or take it as a dict or as JSON.

    steps: text, normalise, changes, split, cut (those that the backend has), template, tokens. In their rows `of` is
    the text, A or B, and `characters` the span in it.
    """

    tokenizer: str
    steps: list[Step]

    def __str__(self) -> str:
        numbered = (f"{number} {step}" for number, step in enumerate(self.steps, 1))
        return "\n\n".join([self.tokenizer, *numbered])

    __repr__ = __str__

    def __getitem__(self, name: str) -> list[Row]:
        """The rows of the step of this name."""
        found = next((step.rows for step in self.steps if step.name == name), None)
        if found is None:
            raise KeyError(f"there is no step {name!r}; there are {', '.join(step.name for step in self.steps)}.")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the JSON."""
        steps = [{"name": step.name, "by": step.by, "rows": step.rows} for step in self.steps]
        return {"tokenizer": self.tokenizer, "steps": steps}

    def to_json(self, indent: int | None = 2) -> str:
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)


def explain(tokenizer: "PreTrainedTokenizer", text: str, pair: str | None = None) -> Explanation:
    """See `PreTrainedTokenizer.explain`."""
    texts = [text] if pair is None else [text, pair]
    for name, given in zip(("text", "pair"), texts, strict=False):
        check_text(given, name)
    backend = tokenizer.backend
    made = list(backend.encode(texts, False, True))
    named = list(zip(("A", "B") if len(texts) == 2 else ("",), texts, made, strict=False))
    steps = [Step("text", "", [{"of": of, "text": t, "length": len(t)} for of, t, _ in named])]
    pipeline = Pipeline(backend) if isinstance(backend, RustBackend) else None
    trails = [trail for _, t, tokens in named if pipeline and (trail := pipeline.trail(t, tokens))]
    if pipeline and len(trails) == len(named):
        for name, by in pipeline.names.items():
            rows = [{"of": of} | row for (of, _, _), trail in zip(named, trails, strict=True) for row in trail[name]]
            steps.append(Step(name, by, rows))
    else:
        rows = [{"of": of} | row for of, t, tokens in named for row in _words(t, tokens)]
        steps.append(Step("cut", type(backend).__name__.removesuffix("Backend"), rows))
    steps += _finish(tokenizer, [tokens for _, _, tokens in named], texts)
    return Explanation(f"{type(tokenizer).__name__} of {len(tokenizer)} tokens", steps)


def _finish(tokenizer: "PreTrainedTokenizer", made: Sequence[Tokens], texts: Sequence[str]) -> Iterator[Step]:
    """The special tokens around the texts, and the row as the model gets it."""
    form = tokenizer._template.form(len(texts) == 2)
    lengths = [len(tokens.ids) for tokens in made]
    pieces = ["AB"[p.text] if p.text is not None else p.token for p in form.pieces]
    yield Step("template", "", [{"piece": t, "type": p.type} for t, p in zip(pieces, form.pieces, strict=True)])
    none = [None] * len(form.pieces)
    columns: dict[str, list[Any]] = {
        "of": form.spread(lengths, [t if p.text is not None else "" for t, p in zip(pieces, form.pieces, strict=True)]),
        "token": form.weave([tokens.tokens for tokens in made], form.tokens),
        "id": form.weave([tokens.ids for tokens in made], form.ids),
        "type": form.types(lengths),
        "characters": form.weave([tokens.offsets for tokens in made], none),
    }
    sources = [[text[a:b] for a, b in tokens.offsets] for text, tokens in zip(texts, made, strict=True)]
    columns["text"] = form.weave(sources, none)
    rows = zip(*columns.values(), strict=True)
    yield Step("tokens", "", [{"position": i} | dict(zip(columns, row, strict=True)) for i, row in enumerate(rows)])


def _words(text: str, tokens: Tokens) -> Iterator[Row]:
    """Which characters became which tokens, a row a word, as far as the backend tells words."""
    start = 0
    while start < len(tokens.ids):
        word, end = tokens.word_ids[start], start + 1
        while end < len(tokens.ids) and word is not None and tokens.word_ids[end] == word:
            end += 1
        span = (tokens.offsets[start][0], tokens.offsets[end - 1][1])
        yield {"characters": span, "text": text[slice(*span)], "tokens": list(tokens.tokens[start:end])}
        start = end


# ---- backends on the Rust library


class Pipeline:
    """The parts of a `tokenizers.Tokenizer`, one after another."""

    def __init__(self, backend: RustBackend) -> None:
        self.backend: Backend = backend
        self.tokenizer: Tokenizer = backend.tokenizer

    @cached_property
    def names(self) -> dict[str, str]:
        """The steps, and what does them."""
        of = {name: _describe(self._spec[name]) for name in ("normalizer", "pre_tokenizer", "model")}
        steps = {"normalise": of["normalizer"], "changes": "characters that normalisation changed"}
        steps = steps if self._spec["normalizer"] else {}
        return steps | {"split": of["pre_tokenizer"] or "at added tokens alone", "cut": of["model"]}

    @cached_property
    def _spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads(self.tokenizer.to_str())
        return spec

    def trail(self, text: str, tokens: Tokens) -> dict[str, list[Row]] | None:
        """The rows of each step; None if the steps do not lead to these tokens."""
        added = self._added(text, tokens)
        split = self._split(text, added)
        cuts = [Cut([added[span]]) if span in added else self._cut(piece) for piece, span in split]
        if [i for cut in cuts for i in cut.ids] != list(tokens.ids):
            return None
        characters = self._characters(text, added)
        pieces = list(zip(split, cuts, strict=True))
        return {
            "normalise": [{"text": "".join(char for char, _ in characters)}],
            "changes": list(_changes(text, characters)),
            "split": [
                {"characters": span, "text": text[slice(*span)], "piece": piece, "note": "" if cut.tokens else "added"}
                for (piece, span), cut in pieces
            ],
            "cut": [{"piece": p, "tokens": cut.tokens} | cut.why for (p, _), cut in pieces if cut.tokens],
        }

    def _added(self, text: str, tokens: Tokens) -> dict[Span, int]:
        """Spans of the text that were found to be added tokens, before anything else, and their ids."""
        known = self.backend.added_tokens()
        found = {}
        for i, (start, end) in zip(tokens.ids, tokens.offsets, strict=True):
            if i in known and self._same(text[start:end].strip(), str(known[i]).strip()):
                # byte-level processors leave the space that the token took along out of its offsets
                while known[i].lstrip and text[:start][-1:].isspace():
                    start -= 1
                while known[i].rstrip and text[end:][:1].isspace():
                    end += 1
                found[start, end] = i
        return found

    def _same(self, a: str, b: str) -> bool:
        normalizer = self.tokenizer.normalizer
        return a == b or (normalizer is not None and normalizer.normalize_str(a) == normalizer.normalize_str(b))

    def _normalised(self, text: str, added: Mapping[Span, int]) -> PreTokenizedString:
        """The text, parted at added tokens, with what lies between normalised."""
        edges = sorted({0, len(text), *(edge for span in added for edge in span)})
        spans = list(pairwise(edges))
        parted = PreTokenizedString(text)
        parted.split(lambda _, whole: [whole[a:b] for a, b in spans])
        normalizer, turn = self.tokenizer.normalizer, iter(spans)
        if normalizer is not None:
            parted.normalize(lambda part: None if next(turn) in added else normalizer.normalize(part))
        return parted

    def _characters(self, text: str, added: Mapping[Span, int]) -> list[tuple[str, Span]]:
        """Each character of the normalised text, and what of the text it comes from."""
        parted = self._normalised(text, added)
        parted.split(lambda _, part: [part[i : i + 1] for i in range(len(part.normalized))])
        return [(char, span) for char, span, _ in _splits(parted)]

    def _split(self, text: str, added: Mapping[Span, int]) -> list[tuple[str, Span]]:
        """The pieces that the model gets one by one, an added token being one whole."""
        parted = self._normalised(text, added)
        if self.tokenizer.pre_tokenizer is not None:
            self.tokenizer.pre_tokenizer.pre_tokenize(parted)
        inside = [(piece, span) for piece, span, _ in _splits(parted) if not _within(span, added)]
        return sorted([*inside, *((text[slice(*span)], span) for span in added)], key=lambda item: item[1])

    # ---- why the model cut a piece like this

    def _cut(self, piece: str) -> "Cut":
        tokens = self.tokenizer.model.tokenize(piece)
        values = [token.value for token in tokens]
        reason = self._reasons.get(self._spec["model"]["type"])
        return Cut([token.id for token in tokens], values, reason(piece, values) if reason else {})

    @cached_property
    def _reasons(self) -> dict[str, Callable[[str, list[str]], Row]]:
        return {"WordPiece": self._longest_first, "BPE": self._merged, "Unigram": self._scored}

    def _longest_first(self, piece: str, tokens: list[str]) -> Row:
        """For the unknown token: where no piece of the vocabulary fits."""
        model = self._spec["model"]
        vocab, most = model["vocab"], model["max_input_chars_per_word"]
        if tokens != [model["unk_token"]] or piece in vocab:
            return {"why": ""}
        if len(piece) > most:
            return {"why": f"longer than {most} characters"}
        start, prefix = 0, ""
        while start < len(piece):
            rest = piece[start:]
            longest = next((n for n in range(len(rest), 0, -1) if prefix + rest[:n] in vocab), None)
            if longest is None:
                return {"why": f"no token is the start of {prefix + rest}"}
            start, prefix = start + longest, model["continuing_subword_prefix"]
        return {"why": ""}

    def _merged(self, piece: str, tokens: list[str]) -> Row:
        """The merges that were made, in their order; none where they do not lead to these tokens."""
        prefix, suffix = (self._spec["model"][f] or "" for f in ("continuing_subword_prefix", "end_of_word_suffix"))
        symbols = [prefix * (i > 0) + char for i, char in enumerate(piece)]
        symbols[-1] += suffix
        done: list[str] = []
        while pairs := [pair for pair in pairwise(symbols) if pair in self._ranks]:
            left, right = best = min(pairs, key=self._ranks.__getitem__)
            at = list(pairwise(symbols)).index(best)
            symbols[at : at + 2] = [left + right.removeprefix(prefix)]
            done.append(f"{left}+{right}")
        return {"merges": done if symbols == tokens else []}

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        merges = self._spec["model"]["merges"]
        return {tuple(m.split(" ") if isinstance(m, str) else m): rank for rank, m in enumerate(merges)}

    def _scored(self, piece: str, tokens: list[str]) -> Row:
        """The log probability of each token, None for what is unknown; no other row of tokens has a higher sum."""
        scores = [self._scores.get(token) for token in tokens]
        known = [score for score in scores if score is not None]
        return {
            "scores": [None if score is None else round(score, 2) for score in scores],
            "sum": round(sum(known), 2) if len(known) == len(scores) else None,
        }

    @cached_property
    def _scores(self) -> dict[str, float]:
        return dict(self._spec["model"]["vocab"])


def _describe(part: Mapping[str, Any] | None) -> str:
    """A part of a tokenizer in a line: its kind, and the options that are on."""
    if part is None:
        return ""
    inner = part.get("normalizers") or part.get("pretokenizers") or []
    if inner:
        return ", ".join(map(_describe, inner))
    on = [name for name, value in part.items() if value is True]
    return f"{part['type']} ({', '.join(on)})" if on else str(part["type"])


@dataclass
class Cut:
    """A piece's tokens, and why these; of an added token only its id."""

    ids: list[int]
    tokens: list[str] = field(default_factory=list)
    why: Row = field(default_factory=dict)


def _splits(parted: PreTokenizedString) -> list[tuple[str, Span, Any]]:
    found: list[tuple[str, Span, Any]] = parted.get_splits("original", "char")
    return found


def _within(span: Span, spans: Mapping[Span, int]) -> bool:
    return any(a <= span[0] and span[1] <= b for a, b in spans)


def _changes(text: str, characters: Sequence[tuple[str, Span]]) -> Iterator[Row]:
    """Stretches of the text that came out of normalisation as something else."""
    units: list[tuple[int, int, str]] = []  # the whole text in order, each stretch with what became of it
    reached = 0
    for char, (start, end) in [*characters, ("", (len(text), len(text)))]:
        if start > reached:
            units.append((reached, start, ""))  # left out
        if units and start < reached:  # two characters out of one
            before = units.pop()
            start, char = before[0], before[2] + char
        units.append((start, max(end, reached), char))
        reached = max(end, reached)
    for changed, group in groupby(units, key=lambda unit: text[unit[0] : unit[1]] != unit[2]):
        if changed:
            stretch = list(group)
            span = (stretch[0][0], stretch[-1][1])
            yield {"characters": span, "from": text[slice(*span)], "to": "".join(made for _, _, made in stretch)}
