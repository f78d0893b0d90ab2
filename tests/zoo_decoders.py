"""GPT, GPT-2 and CTRL: always causal."""

from zoo_encoders import names
from zoo_family import Family

TINY = dict(
    vocab_size=47,
    n_positions=32,
    n_ctx=32,
    n_embd=24,
    n_layer=3,
    n_head=3,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
    summary_first_dropout=0.0,
    pad_token_id=0,
    num_labels=3,
)
CONSTANTS = (".attn.bias", ".masked_bias", ".crossattention.bias")  # triangles of ones

GPT = Family(
    name="openai-gpt",
    classes=names("OpenAIGPT", "Model LMHeadModel DoubleHeadsModel ForSequenceClassification"),
    tiny=TINY,
    variants={
        "swish": ({"afn": "swish"}, ("OpenAIGPTModel",)),
        "chunked": ({"chunk_size_feed_forward": 3}, ("OpenAIGPTModel",)),
        "pruned": ({"pruned_heads": {0: [1], 2: [0, 2]}}, ("OpenAIGPTLMHeadModel",)),
        "untied": ({"tie_word_embeddings": False}, ("OpenAIGPTLMHeadModel",)),
        "tanh": ({"summary_activation": "tanh"}, ("OpenAIGPTDoubleHeadsModel",)),
        "regression": ({"num_labels": 1}, ("OpenAIGPTForSequenceClassification",)),
    },
    own_variants={"relu": ({"afn": "relu"}, ("OpenAIGPTLMHeadModel",))},  # breaks there
    poolers=names("OpenAIGPT", "Model DoubleHeadsModel ForSequenceClassification"),
    refused=("edges",),
    unused=CONSTANTS,
    padding_row=False,
)

GPT2 = Family(
    name="gpt2",
    classes=names("GPT2", "Model LMHeadModel DoubleHeadsModel ForSequenceClassification ForTokenClassification"),
    own_classes=("GPT2ForTokenClassification",),
    tiny=TINY | {"classifier_dropout": 0.0},
    variants={
        "relu": ({"activation_function": "relu", "n_inner": 40}, names("GPT2", "Model LMHeadModel")),
        "unscaled": ({"scale_attn_weights": False}, names("GPT2", "Model LMHeadModel")),
        "chunked": ({"chunk_size_feed_forward": 3}, ("GPT2Model",)),
        "pruned": ({"pruned_heads": {0: [1], 2: [0, 2]}}, ("GPT2LMHeadModel",)),
        "untied": ({"tie_word_embeddings": False}, names("GPT2", "LMHeadModel DoubleHeadsModel")),
        "tanh": ({"summary_activation": "tanh"}, ("GPT2DoubleHeadsModel",)),
        "regression": ({"num_labels": 1}, ("GPT2ForSequenceClassification",)),
        "cross": ({"add_cross_attention": True}, names("GPT2", "Model LMHeadModel")),
    },
    own_variants={
        "scaled_by_layer": ({"scale_attn_by_inverse_layer_idx": True}, names("GPT2", "Model LMHeadModel")),
        "multi_label": ({"problem_type": "multi_label_classification"}, ("GPT2ForSequenceClassification",)),
    },
    poolers=names("GPT2", "Model DoubleHeadsModel ForSequenceClassification"),
    refused=("edges",),
    unused=CONSTANTS,
    keeps_source=False,
    padding_row=False,
    narrower=dict.fromkeys(("attn.out.weight", "ffn.down.weight"), 6**-0.5),
)

CTRL = Family(
    name="ctrl",
    classes=names("CTRL", "Model LMHeadModel ForSequenceClassification"),
    tiny=TINY | {"dff": 40},
    variants={
        "chunked": ({"chunk_size_feed_forward": 3}, ("CTRLModel",)),
        "pruned": ({"pruned_heads": {0: [1], 2: [0, 2]}}, ("CTRLLMHeadModel",)),
        "untied": ({"tie_word_embeddings": False}, ("CTRLLMHeadModel",)),
        "regression": ({"num_labels": 1}, ("CTRLForSequenceClassification",)),
    },
    poolers=names("CTRL", "Model ForSequenceClassification"),
    refused=("edges",),
    padding_row=False,
)

DECODERS = (GPT, GPT2, CTRL)
