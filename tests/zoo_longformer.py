"""Longformer: windows that differ from layer to layer, all smaller than the texts."""

from zoo_encoders import TINY, names
from zoo_family import Family

LONGFORMER = Family(
    name="longformer",
    classes=names(
        "Longformer",
        "Model ForMaskedLM ForSequenceClassification ForMultipleChoice ForTokenClassification ForQuestionAnswering",
    ),
    tiny=TINY | {"attention_window": [4, 8, 4]},
    variants={
        "one_window": ({"attention_window": 4}, ("LongformerModel", "LongformerForMaskedLM")),
        "chunked": ({"chunk_size_feed_forward": 4}, ("LongformerModel",)),
        "relu": ({"hidden_act": "relu"}, names("Longformer", "ForMaskedLM ForSequenceClassification")),
        "untied": ({"tie_word_embeddings": False}, ("LongformerForMaskedLM",)),
        "pad_5": ({"pad_token_id": 5}, ("LongformerForMaskedLM",)),
        "regression": ({"num_labels": 1}, ("LongformerForSequenceClassification",)),
        "multi_label": ({"problem_type": "multi_label_classification"}, ("LongformerForSequenceClassification",)),
    },
    poolers=names("Longformer", "ForSequenceClassification ForMultipleChoice"),
    refused=("edges", "one head_mask"),
    attention_tokens=(-2,),
    reference_pads=("hidden_states", "attentions", "global_attentions"),
)
