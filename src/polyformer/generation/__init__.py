"""Writing text with any model that scores the next word: options, score processors, stopping, searches, guides."""

from polyformer.generation.config import GenerationConfig
from polyformer.generation.constraints import Constraint, DisjunctiveConstraint, PhrasalConstraint
from polyformer.generation.decoder import Decoder, EncodedDecoder
from polyformer.generation.generate import generate
from polyformer.generation.guides import GrammarGuide, Guide, RegexGuide, TrieGuide
from polyformer.generation.outputs import (
    BeamSampleDecoderOnlyOutput,
    BeamSampleEncoderDecoderOutput,
    BeamSearchDecoderOnlyOutput,
    BeamSearchEncoderDecoderOutput,
    ContrastiveSearchDecoderOnlyOutput,
    ContrastiveSearchEncoderDecoderOutput,
    GreedySearchDecoderOnlyOutput,
    GreedySearchEncoderDecoderOutput,
    SampleDecoderOnlyOutput,
    SampleEncoderDecoderOutput,
)
from polyformer.generation.processors import LogitsProcessor
from polyformer.generation.stopping import MaxLength, MaxTime, StoppingCriteria, StopStrings
from polyformer.generation.streaming import TextIteratorStreamer, TextStreamer, stream
from polyformer.generation.transitions import compute_transition_scores

__all__ = [
    "BeamSampleDecoderOnlyOutput",
    "BeamSampleEncoderDecoderOutput",
    "BeamSearchDecoderOnlyOutput",
    "BeamSearchEncoderDecoderOutput",
    "Constraint",
    "ContrastiveSearchDecoderOnlyOutput",
    "ContrastiveSearchEncoderDecoderOutput",
    "Decoder",
    "DisjunctiveConstraint",
    "EncodedDecoder",
    "GenerationConfig",
    "GrammarGuide",
    "GreedySearchDecoderOnlyOutput",
    "GreedySearchEncoderDecoderOutput",
    "Guide",
    "LogitsProcessor",
    "MaxLength",
    "MaxTime",
    "PhrasalConstraint",
    "RegexGuide",
    "SampleDecoderOnlyOutput",
    "SampleEncoderDecoderOutput",
    "StopStrings",
    "StoppingCriteria",
    "TextIteratorStreamer",
    "TextStreamer",
    "TrieGuide",
    "compute_transition_scores",
    "generate",
    "stream",
]
