"""What a registry entry is: an architecture's `Family`, and the `Case`s it stands for, classes with a configuration."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

import polyformer
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.registry import architecture

POOLINGS = ("cls", "attention", "mean", "max", "mean_sqrt", "last", "last4_cls", "weighted_layers")
# Everything, as `make test-all` has it. By default a family's poolings are shared out among the classes that have them,
# so that each is tested once; what is shared code, in heads and renames, is tested on one family.
THOROUGH = os.environ.get("POLYFORMER_TESTS") == "all"
PER_TOKEN = (
    "ForMaskedLM",
    "ForCausalLM",
    "LMHeadModel",
    "DoubleHeadsModel",
    "WithLMHeadModel",
    "ModelWithLMHead",
    "ForTokenClassification",
    "ForPreTraining",
    "ForConditionalGeneration",
    "MTModel",
)


@dataclass(frozen=True)
class Case:
    """One class under one configuration.

    reference: whether the reference has it too (poolings are ours).
    """

    cls: str
    config: dict[str, Any]
    name: str = ""
    reference: bool = True
    family: str = ""

    def __str__(self) -> str:
        parts = [self.cls]
        if self.family not in ("", self.model_class.config_class.model_type):
            parts.append(self.family)  # a second family of the same classes
        return "-".join([*parts, *filter(None, [self.name])])

    @property
    def model_class(self) -> type[PreTrainedModel]:
        return getattr(polyformer, self.cls)

    def configure(self) -> Any:
        return self.model_class.config_class(**self.config)

    def but(self, **changes: Any) -> Case:
        """The same with changes of the configuration."""
        return dataclasses.replace(self, config=self.config | changes)

    @property
    def arguments(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.model_class.forward).parameters)[1:]

    @property
    def kind(self) -> str:
        """The class's name without the architecture's: "Model", "ForMaskedLM"."""
        return self.cls.removeprefix(architecture(self.model_class.config_class.model_type).name)

    @property
    def base(self) -> bool:
        """Whether it is the model without a head."""
        return self.model_class.backbone is self.model_class

    @property
    def causal(self) -> bool:
        return bool(self.configure().causal)

    @property
    def encodes(self) -> bool:
        """Whether it is an encoder-decoder."""
        return "decoder_input_ids" in self.arguments

    @property
    def writes(self) -> bool:
        """Whether it is one that reads two texts: a source, and what has been written for it."""
        return self.encodes and (self.base or self.per_token)

    @property
    def choices(self) -> bool:
        """Whether an input is several texts, (rows, choices, length)."""
        return self.kind in ("ForMultipleChoice", "DoubleHeadsModel")

    @property
    def spans(self) -> bool:
        """Whether it looks for the start and the end of an answer."""
        return "start_positions" in self.arguments

    @property
    def per_token(self) -> bool:
        """Whether there are logits for every token."""
        return self.kind in PER_TOKEN

    @property
    def replaced(self) -> bool:
        """Whether it tells replaced tokens: pretraining with one label a token, 0 or 1."""
        targets = {"next_sentence_label", "sentence_order_label"}
        return self.kind == "ForPreTraining" and not targets & {*self.arguments}


@dataclass(frozen=True)
class Family:
    """An architecture: its classes, a tiny configuration, and what is worth varying in it.

    own_classes: such that the reference has not.
    variants: name -> changes of the configuration, for the classes named (all of them if none are).
    own_variants: such that the reference has not, or that do not run there.
    poolers: the classes that read a pooled vector; each is tested with every pooling.
    own_pooling: the pooling that these have where the configuration names none, if it is one of them.
    refused: inputs that the reference does not take, or takes wrongly: "embeds", "edges", "head_mask", "pads" without a
        mask, or "attentions", which it does not give; or "eval gradients", outside of training.
    rename_of: the family whose classes these are under another name.
    attention_tokens: axes of `attentions` that are tokens, in the text's order.
    fills_chunks: whether its layers' states are those of whole chunks, longer than the text.
    reference_pads: outputs whose tokens the reference pads to a length of its own.
    side: where the reference wants padding.
    unasked: inputs that the reference does not take.
    before: how many states lie before the first token of a text, and in front of the keys of `attentions`.
    unpadded: whether padding changes the reference's answers, so that it must be asked without.
    attends_only: whether tokens meet in attention alone, so that a mask of edges says all of who sees whom.
    unused: parts of names of weights that the reference has and never reads, or that are constants.
    unkept: outputs that the reference gives and ours does not.
    keeps_source: whether the reference remembers what it made of an encoder's states.
    padding_row: whether the padding id's vector starts at zero.
    narrower: endings of names of weights that start smaller than others, and by which factor.
    starts_alike: whether weights start as BERT's do, apart from these.
    vectors: what `inputs_embeds` are, of a model and ids, where that is not the rows of its table.
    kept: how many states of a text of this length the output of this name has along each axis of tokens, where a model
        merges neighbours.
    """

    name: str
    classes: tuple[str, ...]
    tiny: dict[str, Any]
    variants: Mapping[str, tuple[dict[str, Any], tuple[str, ...]]] = field(default_factory=dict)
    own_variants: Mapping[str, tuple[dict[str, Any], tuple[str, ...]]] = field(default_factory=dict)
    poolers: tuple[str, ...] = ()
    own_pooling: str | None = None
    refused: tuple[str, ...] = ()
    rename_of: str | None = None
    attention_tokens: tuple[int, ...] = (-2, -1)
    fills_chunks: bool = False
    reference_pads: tuple[str, ...] = ()
    side: str = "right"
    unasked: tuple[str, ...] = ()
    before: Callable[[Case], int] = lambda case: 0
    unpadded: bool = False
    attends_only: bool = True
    unused: tuple[str, ...] = ()
    own_classes: tuple[str, ...] = ()
    unkept: tuple[str, ...] = ()
    keeps_source: bool = True
    padding_row: bool = True
    narrower: Mapping[str, float] = field(default_factory=dict)
    starts_alike: bool = True
    vectors: Callable[[Any, Tensor], Tensor] = lambda model, ids: model.get_input_embeddings()(ids)
    kept: Callable[[Case, str, int], tuple[int, ...]] = lambda case, name, length: (length, length)

    @property
    def has_base(self) -> bool:
        """Whether one of its classes is the model without a head."""
        return any(Case(cls, self.tiny).base for cls in self.classes)

    def cases(self) -> Iterable[Case]:
        for cls in self.classes:
            yield Case(cls, self.tiny, "", cls not in self.own_classes, self.name)
        for name, (changes, only) in self.variants.items():
            for cls in only or self.classes:
                yield Case(cls, self.tiny | changes, name, True, self.name)
        for name, (changes, only) in self.own_variants.items():
            for cls in only or self.classes:
                yield Case(cls, self.tiny | changes, name, False, self.name)
        for number, pooling in enumerate(POOLINGS):
            turn = self.poolers[number % len(self.poolers) : number % len(self.poolers) + 1] if self.poolers else ()
            for cls in self.poolers if THOROUGH or self.name == "bert" else turn:
                same = pooling == self.own_pooling
                yield Case(cls, self.tiny | {"pooling": pooling}, f"pooling={pooling}", same, self.name)
