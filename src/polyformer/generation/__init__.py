"""Writing text with any model that scores the next word: options, score processors, stopping, searches."""

from polyformer.generation.config import GenerationConfig
from polyformer.generation.decoder import Decoder, EncodedDecoder
from polyformer.generation.generate import generate
from polyformer.generation.outputs import (
    BeamSampleDecoderOnlyOutput,
    BeamSampleEncoderDecoderOutput,
    BeamSearchDecoderOnlyOutput,
    BeamSearchEncoderDecoderOutput,
    GreedySearchDecoderOnlyOutput,
    GreedySearchEncoderDecoderOutput,
    SampleDecoderOnlyOutput,
    SampleEncoderDecoderOutput,
)
from polyformer.generation.processors import LogitsProcessor

__all__ = [
    "BeamSampleDecoderOnlyOutput",
    "BeamSampleEncoderDecoderOutput",
    "BeamSearchDecoderOnlyOutput",
    "BeamSearchEncoderDecoderOutput",
    "Decoder",
    "EncodedDecoder",
    "GenerationConfig",
    "GreedySearchDecoderOnlyOutput",
    "GreedySearchEncoderDecoderOutput",
    "LogitsProcessor",
    "SampleDecoderOnlyOutput",
    "SampleEncoderDecoderOutput",
    "generate",
]
