"""ConvBERT: three heads of attention and three kernels a layer."""

from zoo_encoders import TINY, names
from zoo_family import Family

CONVBERT = Family(
    name="convbert",
    classes=names(
        "ConvBert",
        "Model ForMaskedLM ForSequenceClassification ForMultipleChoice ForTokenClassification ForQuestionAnswering",
    ),
    # norms at 1e-5, where the reference has them in the word head whatever layer_norm_eps says
    tiny=TINY | {"num_attention_heads": 6, "embedding_size": 16, "layer_norm_eps": 1e-5, "conv_kernel_size": 5},
    variants={
        "same_width": ({"embedding_size": 24}, ("ConvBertModel", "ConvBertForMaskedLM")),
        "groups": ({"num_groups": 2}, ("ConvBertModel", "ConvBertForMaskedLM")),
        "one_tap": ({"conv_kernel_size": 1}, ("ConvBertModel",)),
        "wider_than_texts": ({"conv_kernel_size": 21}, ("ConvBertModel", "ConvBertForTokenClassification")),
        "chunked": ({"chunk_size_feed_forward": 3}, ("ConvBertModel",)),
        "relu": ({"hidden_act": "relu"}, names("ConvBert", "ForMaskedLM ForSequenceClassification")),
        "summary": (
            {"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"},
            ("ConvBertForMultipleChoice",),
        ),
        "untied": ({"tie_word_embeddings": False}, ("ConvBertForMaskedLM",)),
        "regression": ({"num_labels": 1}, ("ConvBertForSequenceClassification",)),
        "multi_label": ({"problem_type": "multi_label_classification"}, ("ConvBertForSequenceClassification",)),
    },
    own_variants={
        "pruned": ({"pruned_heads": {0: [1], 2: [0, 2]}}, ("ConvBertModel", "ConvBertForTokenClassification")),
        "even_taps": ({"conv_kernel_size": 4}, ("ConvBertModel",)),
        "head_ratio": ({"head_ratio": 3}, ("ConvBertModel", "ConvBertForMaskedLM")),
        "one_head": ({"head_ratio": 7}, ("ConvBertModel",)),
    },
    poolers=names("ConvBert", "Model ForSequenceClassification ForMultipleChoice"),
    unpadded=True,
    attends_only=False,
)
