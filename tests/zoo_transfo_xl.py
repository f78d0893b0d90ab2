"""Transformer-XL: words in three clusters, a memory of seven tokens."""

from zoo_encoders import names
from zoo_family import Family

WORDS = names("TransfoXL", "Model LMHeadModel")

TRANSFO_XL = Family(
    name="transfo-xl",
    classes=names("TransfoXL", "Model LMHeadModel ForSequenceClassification"),
    tiny=dict(
        vocab_size=47,
        cutoffs=[9, 21],
        d_model=24,
        d_embed=24,
        n_head=3,
        d_head=8,
        d_inner=40,
        n_layer=3,
        mem_len=7,
        clamp_len=9,
        div_val=2,
        dropout=0.0,
        pad_token_id=0,
        num_labels=3,
    ),
    variants={
        "one_table": ({"div_val": 1}, WORDS[1:]),
        "projected": ({"div_val": 1, "d_embed": 16, "tie_projs": [False, True, True]}, WORDS[1:]),
        "all_seen": ({"same_length": False, "clamp_len": -1}, WORDS[1:]),
        "forgets": ({"same_length": False, "mem_len": 0}, WORDS[:1]),
        "pre_norm": ({"pre_lnorm": True}, WORDS[:1]),
        "shared_biases": ({"untie_r": False}, WORDS[1:]),
        "untied": ({"tie_word_embeddings": False, "proj_share_all_but_first": False}, WORDS[1:]),
        "regression": ({"num_labels": 1}, ("TransfoXLForSequenceClassification",)),
    },
    own_variants={
        # where the reference breaks on -100, does not prune, or knows one kind of loss
        "one_cluster": ({"cutoffs": []}, WORDS[1:]),
        "pruned": ({"pruned_heads": {0: [1], 2: [0, 2]}}, WORDS[1:]),
        "chunked": ({"chunk_size_feed_forward": 3}, WORDS[1:]),
        "multi_label": ({"problem_type": "multi_label_classification"}, ("TransfoXLForSequenceClassification",)),
    },
    poolers=names("TransfoXL", "Model ForSequenceClassification"),
    refused=("edges",),
    unpadded=True,
    unasked=("attention_mask",),
    before=lambda case: case.configure().mem_len,
    attends_only=False,
    unused=("pos_emb.inv_freq",),
    starts_alike=False,
)
