"""Reformer: local and LSH layers, whose chunks are shorter than the texts; reading, and writing.

The writers' LSH chunks are so long that two of them, which see each other, hold the texts: only there does a token's
answer hang on nothing that comes after it, however they are sorted. Longer texts are in tests/test_reformer.py.
"""

from zoo_encoders import names
from zoo_family import Family

TINY = dict(
    vocab_size=47,
    attn_layers=["local", "lsh", "lsh"],
    hidden_size=24,
    num_attention_heads=3,
    attention_head_size=6,
    feed_forward_size=40,
    axial_pos_embds=False,
    max_position_embeddings=32,
    num_buckets=4,
    hash_seed=7,
    hidden_dropout_prob=0.0,
    local_attention_probs_dropout_prob=0.0,
    lsh_attention_probs_dropout_prob=0.0,
    local_attn_chunk_length=3,
    lsh_attn_chunk_length=9,
    num_labels=3,
)
SHARED = dict(
    attention_tokens=(),
    fills_chunks=True,
    unpadded=True,  # its chunks are the batch's
    attends_only=False,
    unused=("mask_value_float",),
    padding_row=False,
    narrower={"axes.0": 50.0, "axes.1": 50.0},  # a standard deviation of one
)
GRID = {"axial_pos_embds": True, "axial_pos_shape": [4, 8], "axial_pos_embds_dim": [9, 15]}

READER = Family(
    name="reformer",
    classes=names("Reformer", "Model ForMaskedLM ForSequenceClassification ForQuestionAnswering"),
    tiny=TINY | {"lsh_attn_chunk_length": 3},
    variants={
        "rounds": ({"num_hashes": 2}, ("ReformerForMaskedLM",)),
        "both_sides": ({"local_num_chunks_after": 1, "lsh_num_chunks_after": 1}, ("ReformerForMaskedLM",)),
        "two_numbers": ({"num_buckets": [2, 4]}, ("ReformerModel",)),
        "chunked": ({"chunk_size_feed_forward": 3, "chunk_size_lm_head": 3}, ("ReformerForMaskedLM",)),
        "gelu": ({"hidden_act": "gelu"}, ("ReformerForSequenceClassification",)),
        "regression": ({"num_labels": 1}, ("ReformerForSequenceClassification",)),
    },
    own_variants={  # the reference trains with whole grids alone, and cannot prune
        "grid": (GRID, names("Reformer", "Model ForMaskedLM")),
        "pruned": ({"pruned_heads": {0: [1], 2: [0, 2]}}, ("ReformerForMaskedLM",)),
    },
    poolers=names("Reformer", "Model ForSequenceClassification"),
    refused=("edges", "eval gradients"),
    unkept=("past_buckets_states",),
    **SHARED,
)

WRITER = Family(
    name="reformer-decoder",
    classes=names("Reformer", "Model ModelWithLMHead"),
    tiny=TINY | {"is_decoder": True},
    variants={
        "chunked": ({"chunk_size_lm_head": 3}, ("ReformerModelWithLMHead",)),
    },
    own_variants={"grid": (GRID, ("ReformerModelWithLMHead",))},
    refused=("edges", "eval gradients", "head_mask", "one head_mask"),  # head masks where a text is one chunk
    **SHARED,
)

REFORMERS = (READER, WRITER)
