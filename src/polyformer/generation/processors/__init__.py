"""What changes the scores of the next word before one is chosen."""

from polyformer.generation.processors.base import NEVER, LogitsProcessor, Processor, Processors
from polyformer.generation.processors.chain import processors_for, warpers_for
from polyformer.generation.processors.distribution import (
    Diversity,
    EpsilonCutoff,
    EtaCutoff,
    MinP,
    RemoveInvalid,
    Renormalized,
    Temperature,
    TopK,
    TopP,
    Typical,
)
from polyformer.generation.processors.length import ForcedToken, LengthDecay, MinLength
from polyformer.generation.processors.repetition import (
    EncoderNoRepeatNGram,
    EncoderRepetitionPenalty,
    NoRepeatNGram,
    RepetitionPenalty,
)
from polyformer.generation.processors.words import BadWords, PrefixAllowed, PrefixFunction, SequenceBias, Suppress

__all__ = [
    "NEVER",
    "BadWords",
    "Diversity",
    "EncoderNoRepeatNGram",
    "EncoderRepetitionPenalty",
    "EpsilonCutoff",
    "EtaCutoff",
    "ForcedToken",
    "LengthDecay",
    "LogitsProcessor",
    "MinLength",
    "MinP",
    "NoRepeatNGram",
    "PrefixAllowed",
    "PrefixFunction",
    "Processor",
    "Processors",
    "RemoveInvalid",
    "Renormalized",
    "RepetitionPenalty",
    "SequenceBias",
    "Suppress",
    "Temperature",
    "TopK",
    "TopP",
    "Typical",
    "processors_for",
    "warpers_for",
]
