"""XLNet; its second stream, its memory and reading backwards are in test_xlnet.py."""

from zoo_encoders import names
from zoo_family import Family

SEQUENCES = names("XLNet", "ForSequenceClassification ForMultipleChoice")

XLNET = Family(
    name="xlnet",
    classes=names(
        "XLNet",
        "Model LMHeadModel ForSequenceClassification ForMultipleChoice ForTokenClassification "
        "ForQuestionAnsweringSimple ForQuestionAnswering",
    ),
    tiny=dict(
        vocab_size=47,
        d_model=24,
        n_layer=3,
        n_head=3,
        d_inner=40,
        dropout=0.0,
        summary_last_dropout=0.0,
        mem_len=7,
        start_n_top=3,
        end_n_top=2,
        num_labels=3,
    ),
    variants={
        "clamped": ({"clamp_len": 3, "use_mems_train": True}, ("XLNetLMHeadModel",)),
        "forgets": ({"use_mems_eval": False}, ("XLNetForTokenClassification",)),
        "chunked": ({"chunk_size_feed_forward": 1}, ("XLNetModel",)),
        "untied": ({"tie_word_embeddings": False, "ff_activation": "relu"}, ("XLNetLMHeadModel",)),
        "bare": ({"summary_use_proj": False, "summary_activation": None}, SEQUENCES[1:]),
        "regression": ({"num_labels": 1}, SEQUENCES[:1]),
    },
    own_variants={
        # the reference reads padding, or takes no mask
        "mean": ({"summary_type": "mean"}, SEQUENCES[:1]),
        "uni": ({"attn_type": "uni"}, names("XLNet", "Model LMHeadModel")),
        "pruned": ({"pruned_heads": {0: [1], 2: [0, 2]}}, ("XLNetForTokenClassification",)),
    },
    poolers=("XLNetModel", *SEQUENCES),
    refused=("edges",),
    side="left",
    attends_only=False,
    padding_row=False,
)
