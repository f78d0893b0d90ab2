"""Tiny models that write, for the tests of generation."""

import itertools
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import nn

from polyformer import BertConfig, BertLMHeadModel
from polyformer.core.outputs import ModelOutput
from polyformer.parts.attention import CrossAttention
from polyformer.parts.layout import Layout
from polyformer.parts.state import Past, State

PROMPTS = torch.tensor([[3, 4, 5], [6, 7, 8], [9, 1, 10], [11, 2, 5]])
RAGGED = [[3, 4, 5], [8], [9, 6, 1, 10], [11, 2]]


def tiny(words=12, seed=0, std=0.4, **changes):
    """A causal model of random weights."""
    torch.manual_seed(seed)
    options = {
        "vocab_size": words, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 64, "is_decoder": True, "initializer_range": std,
    }  # fmt: skip
    return BertLMHeadModel(BertConfig(**{**options, **changes})).eval()


def written(model, ids=PROMPTS, seed=5, **options):
    options = {"max_length": 11, "eos_token_id": 7, "pad_token_id": 0, **options}
    return model.generate(ids, generator=torch.Generator().manual_seed(seed), **options)


def logp(model, texts):
    """Of the next words after each token of the texts, lists of one length: (texts, length, words); without a cache."""
    with torch.no_grad():
        return model(torch.tensor(texts), use_cache=False).logits.log_softmax(-1)


def every_text(model, prompt, new, eos):
    """All texts of up to `new` tokens, cut after eos, with their log-probabilities: {tokens: sum}."""
    words = model.config.vocab_size
    endings = [list(ending) for ending in itertools.product(range(words), repeat=new)]
    found = {}
    scores = logp(model, [[*prompt, *text] for text in endings])[:, len(prompt) - 1 :]
    for text, each in zip(endings, scores, strict=True):
        text = text[: text.index(eos) + 1] if eos in text else text
        found[tuple(text)] = float(each[torch.arange(len(text)), torch.tensor(text)].sum())
    return found


def chi_square(counts, p):
    """Pearson's statistic of counts against probabilities; what cannot come must not have."""
    assert not counts[p == 0].any()
    expected = (p * counts.sum())[p > 0]
    return float(((counts[p > 0] - expected) ** 2 / expected).sum())


# ---- states of other kinds -------------------------------------------------------------------------------------------


@dataclass
class Total:
    """A state of another kind: the sum of what was read."""

    total: torch.Tensor

    def reorder(self, rows):
        return Total(self.total[rows])


@dataclass
class Answer(ModelOutput):
    logits: torch.Tensor
    mems: Total | None = None


@dataclass
class Encoded(ModelOutput):
    last_hidden_state: torch.Tensor
    hidden_states: tuple | None = None


class Summing(nn.Module):
    """A language model that remembers a sum, in `mems`."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(is_encoder_decoder=False)
        self.device = torch.device("cpu")
        self.embed, self.out = nn.Embedding(12, 8), nn.Linear(8, 12)

    def get_output_embeddings(self):
        return self.out

    def forward(self, input_ids, attention_mask=None, mems=None, use_cache=None, return_dict=True):
        x = self.embed(input_ids)
        if attention_mask is not None:
            x = x * attention_mask[:, -x.shape[1] :, None]
        x = x.cumsum(1) + (0 if mems is None else mems.total[:, None])
        found = Answer(self.out(x.sin()))
        if use_cache:
            found.mems = found["mems"] = Total(x[:, -1])
        return found


class Translating(Summing):
    """An encoder-decoder: the decoder's sum begins with the mean of the source."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(is_encoder_decoder=True, decoder_start_token_id=1, pad_token_id=0)
        self.reads = 0

    def get_encoder(self):
        return self.encode

    def encode(self, input_ids, attention_mask=None, return_dict=True, output_hidden_states=False):
        self.reads += 1
        x = self.embed(input_ids)
        return Encoded(x, (x,) if output_hidden_states else None)

    def forward(
        self, attention_mask=None, decoder_input_ids=None, encoder_outputs=None, mems=None, use_cache=None,
        output_hidden_states=False, return_dict=True,
    ):  # fmt: skip
        if mems is None:
            states = encoder_outputs[0]
            real = torch.ones(states.shape[:2]) if attention_mask is None else attention_mask
            mems = Total((states * real[..., None]).sum(1) / real.sum(1, keepdim=True))
        return super().forward(decoder_input_ids, None, mems, use_cache)


@dataclass
class Translated(ModelOutput):
    logits: torch.Tensor
    past_key_values: State | None = None
    decoder_hidden_states: tuple | None = None
    cross_attentions: tuple | None = None


class Reading(nn.Module):
    """An encoder-decoder of one layer with the parts that real ones have: its own earlier words, and the source."""

    def __init__(self, words=12, width=16, heads=2):
        super().__init__()
        torch.manual_seed(1)
        self.config = SimpleNamespace(
            is_encoder_decoder=True, decoder_start_token_id=1, pad_token_id=0, num_hidden_layers=1, vocab_size=words
        )
        self.device = torch.device("cpu")
        self.embed, self.out = nn.Embedding(words, width), nn.Linear(width, words)
        self.qkv, self.cross = nn.Linear(width, 3 * width), CrossAttention(width, heads)
        self.heads = heads
        for p in self.parameters():
            nn.init.normal_(p, std=0.7)
        self.eval()
        self.projected = []  # (rows of the source) each time it is projected
        self.cross.kv.register_forward_hook(lambda m, x, y: self.projected.append(len(y)))

    def get_output_embeddings(self):
        return self.out

    def get_encoder(self):
        return self.encode

    def encode(self, input_ids, attention_mask=None, return_dict=True, output_attentions=False):
        return Encoded(self.embed(input_ids).cumsum(1).sin())

    def forward(
        self,
        attention_mask=None,
        decoder_input_ids=None,
        decoder_attention_mask=None,
        encoder_outputs=None,
        past_key_values: Past | None = None,
        use_cache=None,
        output_attentions=False,
        output_hidden_states=False,
        return_dict=True,
    ):
        x = self.embed(decoder_input_ids)
        state = State.of(past_key_values) if past_key_values is not None else State.empty(1)
        layout = Layout.of(
            x.shape[:2], decoder_attention_mask, x.device, causal=True, past=state.length, packable=False
        )
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        k, v = state.layers[0].own.append(k, v)
        y = nn.functional.scaled_dot_product_attention(q, k, v, layout.mask, is_causal=layout.causal)
        x = x + y.transpose(1, 2).flatten(2)
        across = Layout.across(attention_mask, layout.positions)
        taps = Weights() if output_attentions else None
        x = x + self.cross(x, encoder_outputs[0], across, state.layers[0].cross, None, taps)
        return Translated(
            self.out(x.sin()), state if use_cache else None, (x,) if output_hidden_states else None,
            (taps.across,) if output_attentions else None,
        )  # fmt: skip


class Weights:
    """What attention is told to show."""

    attentions = ()

    def saw_across(self, weights):
        self.across = weights
