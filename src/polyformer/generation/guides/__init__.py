"""What a text may be: one of some, or one that a regular expression or a grammar describes.

A Guide is given to `generate` as prefix_allowed_tokens_fn. It looks at the new tokens only and names those that may
come next, so that whatever is written can still become a whole text of its language; eos may come where it is one.
"""

from collections.abc import Sequence
from typing import Any

from polyformer.generation.guides.grammar import grammar
from polyformer.generation.guides.guide import Guide, TextGuide, TrieGuide
from polyformer.generation.guides.language import Language
from polyformer.generation.guides.regex import regex

__all__ = ["GrammarGuide", "Guide", "Language", "RegexGuide", "TextGuide", "TrieGuide", "grammar", "regex"]


class RegexGuide(TextGuide):
    """Texts that `re.fullmatch(pattern, text)` matches.

    All of Python's syntax is understood that describes a regular language: classes, groups, alternatives, repetitions,
    flags, and ^ and $ at the ends. What looks around or back (lookahead, \\b, \\1), and possessive or atomic parts, are
    refused in a sentence.

    Args:
        pattern: as `re` has it.
        tokenizer: of the model.
        flags: of `re`.
        eos_token_id: one or several; the tokenizer's by default.
        free_space: whether a space may stand before the text, as the first token of most vocabularies has it.
    """

    def __init__(
        self,
        pattern: str,
        tokenizer: Any,
        flags: int = 0,
        eos_token_id: int | Sequence[int] | None = None,
        free_space: bool = True,
    ) -> None:
        super().__init__(regex(pattern, flags), tokenizer, eos_token_id, free_space)


class GrammarGuide(TextGuide):
    """Texts of a context-free grammar, in the notation of `grammar`.

    Args:
        rules: the grammar, e.g. 'root ::= "(" root ")" | [0-9]+'.
        tokenizer: of the model.
        start: the rule that a whole text follows; the first one by default.
        eos_token_id: one or several; the tokenizer's by default.
        free_space: whether a space may stand before the text, as the first token of most vocabularies has it.
    """

    def __init__(
        self,
        rules: str,
        tokenizer: Any,
        start: str | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        free_space: bool = True,
    ) -> None:
        super().__init__(grammar(rules, start), tokenizer, eos_token_id, free_space)
