"""What `generate` gives with return_dict_in_generate=True; class names and fields are those of Transformers 4.6.

sequences (prompts * num_return_sequences, length); sequences_scores (the same,), log-probability / length **
length_penalty of each; scores, one (rows, words) a token, as the word was chosen by (with beams: the whole beam's sum);
logits, the same as the model gave them; beam_indices (as the sequences, new tokens), the row of the scores that each
new token was chosen in, -1 after the end (`compute_transition_scores` reads them);
attentions and hidden states, a tuple over tokens of tuples over layers, the first token's being the whole prompt's.
"""

from dataclasses import dataclass

from torch import Tensor

from polyformer.core.outputs import ModelOutput

Tensors = tuple[Tensor, ...]
Steps = tuple[Tensors, ...]


@dataclass
class GreedySearchDecoderOnlyOutput(ModelOutput):
    """The best word at every step."""

    sequences: Tensor
    scores: Tensors | None = None
    logits: Tensors | None = None
    attentions: Steps | None = None
    hidden_states: Steps | None = None


@dataclass
class SampleDecoderOnlyOutput(GreedySearchDecoderOnlyOutput):
    """Drawn word by word."""


@dataclass
class BeamSearchDecoderOnlyOutput(ModelOutput):
    """The best of several hypotheses."""

    sequences: Tensor
    sequences_scores: Tensor | None = None
    scores: Tensors | None = None
    logits: Tensors | None = None
    beam_indices: Tensor | None = None
    attentions: Steps | None = None
    hidden_states: Steps | None = None


@dataclass
class BeamSampleDecoderOnlyOutput(BeamSearchDecoderOnlyOutput):
    """The best of several hypotheses that were drawn."""


@dataclass
class GreedySearchEncoderDecoderOutput(ModelOutput):
    """The best word at every step."""

    sequences: Tensor
    scores: Tensors | None = None
    logits: Tensors | None = None
    encoder_attentions: Tensors | None = None
    encoder_hidden_states: Tensors | None = None
    decoder_attentions: Steps | None = None
    cross_attentions: Steps | None = None
    decoder_hidden_states: Steps | None = None


@dataclass
class SampleEncoderDecoderOutput(GreedySearchEncoderDecoderOutput):
    """Drawn word by word."""


@dataclass
class BeamSearchEncoderDecoderOutput(ModelOutput):
    """The best of several hypotheses."""

    sequences: Tensor
    sequences_scores: Tensor | None = None
    scores: Tensors | None = None
    logits: Tensors | None = None
    beam_indices: Tensor | None = None
    encoder_attentions: Tensors | None = None
    encoder_hidden_states: Tensors | None = None
    decoder_attentions: Steps | None = None
    cross_attentions: Steps | None = None
    decoder_hidden_states: Steps | None = None


@dataclass
class BeamSampleEncoderDecoderOutput(BeamSearchEncoderDecoderOutput):
    """The best of several hypotheses that were drawn."""


@dataclass
class ContrastiveSearchDecoderOnlyOutput(GreedySearchDecoderOnlyOutput):
    """The best of likely words that differ from what is there already."""


@dataclass
class ContrastiveSearchEncoderDecoderOutput(GreedySearchEncoderDecoderOutput):
    """The best of likely words that differ from what is there already."""


def class_of(encoded: bool, beams: bool, sampled: bool, contrasted: bool) -> type[ModelOutput]:
    """The class of a result."""
    if contrasted:
        return ContrastiveSearchEncoderDecoderOutput if encoded else ContrastiveSearchDecoderOnlyOutput
    return CLASSES[encoded, beams, sampled]


# (has an encoder, beams, sampled) -> the class
CLASSES: dict[tuple[bool, bool, bool], type[ModelOutput]] = {
    (False, False, False): GreedySearchDecoderOnlyOutput,
    (False, False, True): SampleDecoderOnlyOutput,
    (False, True, False): BeamSearchDecoderOnlyOutput,
    (False, True, True): BeamSampleDecoderOnlyOutput,
    (True, False, False): GreedySearchEncoderDecoderOutput,
    (True, False, True): SampleEncoderDecoderOutput,
    (True, True, False): BeamSearchEncoderDecoderOutput,
    (True, True, True): BeamSampleEncoderDecoderOutput,
}
