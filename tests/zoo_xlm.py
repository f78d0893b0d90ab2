"""XLM and FlauBERT, the latter once more normalised before its layers."""

from zoo_encoders import names
from zoo_family import Family

KINDS = (
    "Model WithLMHeadModel ForSequenceClassification ForMultipleChoice ForTokenClassification "
    "ForQuestionAnsweringSimple ForQuestionAnswering"
)
TINY = dict(
    vocab_size=47,
    emb_dim=24,
    n_layers=3,
    n_heads=3,
    max_position_embeddings=32,
    dropout=0.0,
    attention_dropout=0.0,
    summary_first_dropout=0.0,
    embed_init_std=0.02,
    start_n_top=3,
    end_n_top=2,
    num_labels=3,
)


def family(name: str, prefix: str, refused: tuple[str, ...], **changes: object) -> Family:
    return Family(
        name=name,
        classes=names(prefix, KINDS),
        tiny=TINY | changes,
        variants={
            "langs": ({"n_langs": 3}, names(prefix, "Model WithLMHeadModel ForMultipleChoice")),
            "sinusoidal": ({"sinusoidal_embeddings": True}, names(prefix, "Model")),
            "relu": ({"gelu_activation": False}, names(prefix, "WithLMHeadModel")),
            "chunked": ({"chunk_size_feed_forward": 3}, names(prefix, "Model")),
            "pruned": ({"pruned_heads": {0: [1], 2: [0, 2]}}, names(prefix, "ForTokenClassification")),
            "untied": ({"tie_word_embeddings": False}, names(prefix, "WithLMHeadModel")),
            "causal": ({"causal": True}, names(prefix, "Model WithLMHeadModel")),
            "tanh": ({"summary_activation": "tanh"}, names(prefix, "ForSequenceClassification ForMultipleChoice")),
            "regression": ({"num_labels": 1}, names(prefix, "ForSequenceClassification")),
            "multi_label": (
                {"problem_type": "multi_label_classification"},
                names(prefix, "ForSequenceClassification"),
            ),
        },
        own_variants={
            "asm": ({"asm": True, "asm_cutoffs": [9, 20], "asm_div_value": 2.0}, names(prefix, "WithLMHeadModel")),
        },
        poolers=names(prefix, "Model ForSequenceClassification ForMultipleChoice"),
        refused=refused,
    )


XLM = family("xlm", "XLM", ("edges", "pads"))
FLAUBERT = family("flaubert", "Flaubert", ("edges", "pads"))
FLAUBERT_PRE_NORM = family("flaubert-pre-norm", "Flaubert", ("edges", "pads", "attentions"), pre_norm=True)
XLMS = (XLM, FLAUBERT, FLAUBERT_PRE_NORM)
