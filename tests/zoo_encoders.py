"""BERT and its kin: RoBERTa, XLM-RoBERTa, CamemBERT."""

from zoo_family import Family

TINY = dict(
    vocab_size=47,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=32,
    type_vocab_size=2,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    num_labels=3,
)


def names(prefix: str, kinds: str) -> tuple[str, ...]:
    """Class names: a prefix and the kinds after it."""
    return tuple(prefix + kind for kind in kinds.split())


BERT = Family(
    name="bert",
    classes=names(
        "Bert",
        "Model ForPreTraining LMHeadModel ForMaskedLM ForNextSentencePrediction ForSequenceClassification "
        "ForMultipleChoice ForTokenClassification ForQuestionAnswering",
    ),
    tiny=TINY,
    variants={
        "relative_key": ({"position_embedding_type": "relative_key"}, ("BertModel", "BertForMaskedLM")),
        "relative_key_query": ({"position_embedding_type": "relative_key_query"}, ("BertModel", "BertLMHeadModel")),
        "chunked": ({"chunk_size_feed_forward": 3}, ("BertModel",)),
        "pruned": ({"pruned_heads": {0: [1], 2: [0, 2]}}, ("BertModel", "BertForTokenClassification")),
        "gelu_new": ({"hidden_act": "gelu_new"}, ("BertForMaskedLM",)),
        "untied": ({"tie_word_embeddings": False}, ("BertForMaskedLM", "BertForPreTraining")),
        "regression": ({"num_labels": 1}, ("BertForSequenceClassification",)),
        "multi_label": ({"problem_type": "multi_label_classification"}, ("BertForSequenceClassification",)),
        "decoder": ({"is_decoder": True}, ("BertModel", "BertLMHeadModel")),
        "decoder_relative": (
            {"is_decoder": True, "position_embedding_type": "relative_key_query"},
            ("BertLMHeadModel",),
        ),
        "cross": ({"is_decoder": True, "add_cross_attention": True}, ("BertModel", "BertLMHeadModel")),
    },
    poolers=names("Bert", "Model ForPreTraining ForNextSentencePrediction ForSequenceClassification ForMultipleChoice"),
    own_pooling="cls",
)

ROBERTA_KINDS = (
    "Model ForMaskedLM ForCausalLM ForSequenceClassification ForMultipleChoice ForTokenClassification "
    "ForQuestionAnswering"
)

ROBERTA = Family(
    name="roberta",
    classes=names("Roberta", ROBERTA_KINDS),
    tiny=TINY,
    variants={
        "relative_key": ({"position_embedding_type": "relative_key"}, ("RobertaModel",)),
        "relative_key_query": ({"position_embedding_type": "relative_key_query"}, ("RobertaForMaskedLM",)),
        "chunked": ({"chunk_size_feed_forward": 3}, ("RobertaModel",)),
        "pruned": ({"pruned_heads": {0: [1], 2: [0, 2]}}, ("RobertaForTokenClassification",)),
        "relu": ({"hidden_act": "relu"}, ("RobertaForMaskedLM", "RobertaForSequenceClassification")),
        "untied": ({"tie_word_embeddings": False}, ("RobertaForMaskedLM",)),
        "pad_5": ({"pad_token_id": 5}, ("RobertaForMaskedLM",)),
        "regression": ({"num_labels": 1}, ("RobertaForSequenceClassification",)),
        "multi_label": ({"problem_type": "multi_label_classification"}, ("RobertaForSequenceClassification",)),
        "decoder": ({"is_decoder": True}, ("RobertaModel", "RobertaForCausalLM")),
        "cross": ({"is_decoder": True, "add_cross_attention": True}, ("RobertaForCausalLM",)),
    },
    poolers=("RobertaForSequenceClassification", "RobertaForMultipleChoice"),
)

# The same code as RoBERTa's under another name: checked class by class, without its variants.
XLM_ROBERTA = Family("xlm-roberta", names("XLMRoberta", ROBERTA_KINDS), TINY, rename_of="roberta")
CAMEMBERT = Family("camembert", names("Camembert", ROBERTA_KINDS), TINY, rename_of="roberta")

DISTILBERT = Family(
    name="distilbert",
    classes=names(
        "DistilBert",
        "Model ForMaskedLM ForSequenceClassification ForMultipleChoice ForTokenClassification ForQuestionAnswering",
    ),
    tiny=dict(
        vocab_size=47,
        dim=24,
        n_layers=3,
        n_heads=3,
        hidden_dim=40,
        max_position_embeddings=32,
        dropout=0.0,
        attention_dropout=0.0,
        qa_dropout=0.0,
        seq_classif_dropout=0.0,
        num_labels=3,
    ),
    variants={
        "sinusoidal": ({"sinusoidal_pos_embds": True}, ("DistilBertModel", "DistilBertForMaskedLM")),
        "chunked": ({"chunk_size_feed_forward": 3}, ("DistilBertModel",)),
        "pruned": ({"pruned_heads": {0: [1], 2: [0, 2]}}, ("DistilBertForTokenClassification",)),
        "relu": ({"activation": "relu"}, ("DistilBertForMaskedLM",)),
        "untied": ({"tie_word_embeddings": False}, ("DistilBertForMaskedLM",)),
        "regression": ({"num_labels": 1}, ("DistilBertForSequenceClassification",)),
        "multi_label": ({"problem_type": "multi_label_classification"}, ("DistilBertForSequenceClassification",)),
    },
    poolers=names("DistilBert", "Model ForSequenceClassification ForMultipleChoice"),
    refused=("embeds", "edges"),
)

# Norms at 1e-5, where the reference has them in the word heads of ELECTRA and ALBERT whatever layer_norm_eps says.
ELECTRA = Family(
    name="electra",
    classes=names(
        "Electra",
        "Model ForPreTraining ForMaskedLM ForSequenceClassification ForMultipleChoice ForTokenClassification "
        "ForQuestionAnswering",
    ),
    tiny=TINY | {"embedding_size": 16, "layer_norm_eps": 1e-5, "summary_last_dropout": 0.0},
    variants={
        "same_width": ({"embedding_size": 24}, ("ElectraModel", "ElectraForMaskedLM")),
        "relative_key_query": ({"position_embedding_type": "relative_key_query"}, ("ElectraModel",)),
        "chunked": ({"chunk_size_feed_forward": 3}, ("ElectraModel",)),
        "pruned": ({"pruned_heads": {0: [1], 2: [0, 2]}}, ("ElectraForTokenClassification",)),
        "relu": (
            {"hidden_act": "relu", "summary_activation": "tanh"},
            names("Electra", "ForPreTraining ForMaskedLM ForSequenceClassification ForMultipleChoice"),
        ),
        "no_projection": ({"summary_use_proj": False, "summary_activation": None}, ("ElectraForMultipleChoice",)),
        "untied": ({"tie_word_embeddings": False}, ("ElectraForMaskedLM",)),
        "regression": ({"num_labels": 1}, ("ElectraForSequenceClassification",)),
        "multi_label": ({"problem_type": "multi_label_classification"}, ("ElectraForSequenceClassification",)),
    },
    poolers=names("Electra", "Model ForSequenceClassification ForMultipleChoice"),
)

ALBERT = Family(
    name="albert",
    classes=names(
        "Albert",
        "Model ForPreTraining ForMaskedLM ForSequenceClassification ForMultipleChoice ForTokenClassification "
        "ForQuestionAnswering",
    ),
    tiny=TINY | {"embedding_size": 16, "layer_norm_eps": 1e-5, "classifier_dropout_prob": 0.0},
    variants={
        "groups": ({"num_hidden_groups": 2}, ("AlbertModel", "AlbertForPreTraining")),
        "inner": ({"inner_group_num": 2}, ("AlbertModel", "AlbertForMaskedLM")),
        "same_width": ({"embedding_size": 24}, ("AlbertForMaskedLM",)),
        "relative_key_query": ({"position_embedding_type": "relative_key_query"}, ("AlbertModel",)),
        "chunked": ({"chunk_size_feed_forward": 3}, ("AlbertModel",)),
        "pruned": ({"num_hidden_groups": 3, "pruned_heads": {0: [1], 2: [0, 2]}}, ("AlbertForTokenClassification",)),
        "relu": ({"hidden_act": "relu"}, ("AlbertForMaskedLM",)),
        "untied": ({"tie_word_embeddings": False}, ("AlbertForMaskedLM",)),
        "regression": ({"num_labels": 1}, ("AlbertForSequenceClassification",)),
        "multi_label": ({"problem_type": "multi_label_classification"}, ("AlbertForSequenceClassification",)),
    },
    poolers=names("Albert", "Model ForPreTraining ForSequenceClassification ForMultipleChoice"),
    own_pooling="cls",
    refused=("edges",),
)

# Its classes are BERTs with a vector or spans to read; none is the model without a head, none has a loss.
DPR = Family(
    name="dpr",
    classes=names("DPR", "ContextEncoder QuestionEncoder Reader"),
    tiny=TINY,
    variants={
        "projection": ({"projection_dim": 10}, names("DPR", "ContextEncoder QuestionEncoder")),
        "relative_key": ({"position_embedding_type": "relative_key"}, ("DPRReader",)),
    },
    poolers=names("DPR", "ContextEncoder QuestionEncoder Reader"),
    unused=("bert_model.pooler.",),
)

ENCODERS = (BERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, DISTILBERT, ELECTRA, ALBERT, DPR)
