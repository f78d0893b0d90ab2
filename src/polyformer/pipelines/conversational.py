"""Conversations: what was said so far, and the next answer (as DialoGPT, Zhang et al. 2019, arXiv 1911.00536).

A dialogue model reads the turns one after another, each ended by eos, and writes the next one.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from polyformer.pipelines.rows import called
from polyformer.pipelines.text_generation import Prompt, TextGenerationPipeline


class Conversation:
    """What a user and a model have said to each other, and what the user says next.

    text: the user's first words. conversation_id: a UUID, drawn if not given.
    past_user_inputs, generated_responses: earlier turns, as many of each.
    """

    def __init__(
        self,
        text: str | None = None,
        conversation_id: uuid.UUID | None = None,
        past_user_inputs: Sequence[str] | None = None,
        generated_responses: Sequence[str] | None = None,
    ) -> None:
        self.uuid = uuid.uuid4() if conversation_id is None else conversation_id
        self.past_user_inputs = list(past_user_inputs or ())
        self.generated_responses = list(generated_responses or ())
        self.new_user_input = text
        if len(self.past_user_inputs) != len(self.generated_responses):
            raise ValueError(
                f"there are {len(self.past_user_inputs)} earlier inputs and {len(self.generated_responses)} answers: "
                f"give one answer for each."
            )

    def add_user_input(self, text: str, overwrite: bool = False) -> None:
        """What the user says next; ValueError if something is not answered yet, unless it is to be replaced."""
        if self.new_user_input is not None and not overwrite:
            raise ValueError(
                f"{self.new_user_input!r} is not answered yet: give the conversation to the pipeline first, or pass "
                f"overwrite=True."
            )
        self.new_user_input = text

    def append_response(self, response: str) -> None:
        """What the model answers to the newest input."""
        self.generated_responses.append(response)

    def mark_processed(self) -> None:
        """The newest input becomes an earlier one."""
        if self.new_user_input is not None:
            self.past_user_inputs.append(self.new_user_input)
        self.new_user_input = None

    def iter_texts(self) -> Iterator[tuple[bool, str]]:
        """All turns, (whether it is the user's, text)."""
        for said, answered in zip(self.past_user_inputs, self.generated_responses, strict=True):
            yield True, said
            yield False, answered
        if self.new_user_input is not None:
            yield True, self.new_user_input

    def __repr__(self) -> str:
        lines = [f"{'user' if own else 'bot'} >> {text}" for own, text in self.iter_texts()]
        return "\n".join([f"Conversation {self.uuid}", *lines]) + "\n"


class ConversationalPipeline(TextGenerationPipeline):
    """A conversation whose newest input has no answer yet, or a list of them: the model's answer is added to each.

    The turns that fit are read, the oldest are left out; `minimum_tokens` are kept free for the answer.
    """

    task: ClassVar[str] = "conversational"
    minimum_tokens: ClassVar[int] = 32

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Answer; options as of text-generation, less those of its results. The conversations themselves come back."""
        alone = isinstance(inputs, Conversation)
        conversations = [inputs] if alone else list(inputs)
        for number, one in enumerate(conversations):
            if not isinstance(one, Conversation):
                raise TypeError(f"{called(number)} is a {type(one).__name__}: give a Conversation.")
            if one.new_user_input is None:
                raise ValueError(f"{called(number)} has nothing to answer: call add_user_input first.")
        super().__call__(conversations, return_full_text=False, **options)
        return conversations[0] if alone else conversations

    def prepare(self, texts: Sequence[Any], first: int, options: Mapping[str, Any]) -> list[list[Prompt]]:
        eos = self.tokenizer.eos_token_id
        found = []
        for number, conversation in enumerate(texts, first):
            turns = self._ids([text for _, text in conversation.iter_texts()])
            ids = [token for turn in turns for token in [*turn, *([] if eos is None else [eos])]]
            how, limit = options["how"], self.limit
            most = how.max_length if how.max_new_tokens is None else limit
            free = self.minimum_tokens if how.max_new_tokens is None else how.max_new_tokens
            room = min((m for m in (most, limit) if m is not None), default=None)
            if room is not None and len(ids) > max(1, room - free):
                ids = ids[-max(1, room - free) :]
            found.append([Prompt(ids, number=number)])
        return found

    def answer(self, text: Conversation, rows: Sequence[Any], options: Mapping[str, Any]) -> Conversation:
        (row,) = rows
        text.append_response(self._after(row.ids, row.result[0], options["clean"]).strip())
        text.mark_processed()
        return text
