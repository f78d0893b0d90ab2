"""Funnel: three blocks, of which the second repeats its layer."""

from zoo_encoders import names
from zoo_family import Case, Family


def halved(length: int, *, separate_cls: bool = True, truncate_seq: bool = True, **_: object) -> int:
    """How many states a text has after one merging (section 2.2): by moving from pair to pair."""
    count, begin = (1, 1) if separate_cls else (0, 0)
    end = length - 1 if separate_cls and truncate_seq and length > 2 else length
    while begin < end:
        count, begin = count + 1, begin + 2
    return count


def kept(case: Case, name: str, length: int) -> tuple[int, ...]:
    c, states, pairs = case.config, [length], []
    decoded = case.kind in ("Model", *DECODED)
    now = length
    for number, (size, repeats) in enumerate(zip(c["block_sizes"], c["block_repeats"], strict=True)):
        before, now = now, halved(now, **c) if number else now
        pairs += [(now, before if c.get("pool_q_only", True) else now), *[(now, now)] * (size * repeats - 1)]
        states += [now] * size * repeats
    if decoded:
        states += [length] * (1 + c["num_decoder_layers"])
        pairs += [(length, length)] * c["num_decoder_layers"]
    kind, _, number = name.partition(".")
    if kind == "attentions":
        return pairs[int(number)]
    if kind == "hidden_states":
        return states[int(number)], 0
    return states[-1] if kind == "last_hidden_state" else length, 0


DECODED = ("ForPreTraining", "ForMaskedLM", "ForTokenClassification", "ForQuestionAnswering")
SEQUENCES = names("Funnel", "ForSequenceClassification ForMultipleChoice")
TWO = names("Funnel", "BaseModel Model")

FUNNEL = Family(
    name="funnel",
    classes=(*TWO, *names("Funnel", " ".join(DECODED)), *SEQUENCES),
    tiny=dict(
        vocab_size=47,
        block_sizes=[1, 1, 1],
        block_repeats=[1, 2, 1],
        num_decoder_layers=1,
        d_model=24,
        n_head=3,
        d_head=6,
        d_inner=40,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        num_labels=3,
    ),
    variants={
        "factorized": ({"attention_type": "factorized"}, (*TWO, "FunnelForSequenceClassification")),
        "max": ({"pooling_type": "max"}, (*TWO, "FunnelForMaskedLM")),
        "untruncated": ({"truncate_seq": False}, (*TWO, "FunnelForTokenClassification")),
        "untruncated_max": ({"truncate_seq": False, "pooling_type": "max"}, ("FunnelForMaskedLM",)),
        "no_cls": ({"separate_cls": False}, (*TWO, "FunnelForTokenClassification")),
        "no_cls_max": ({"separate_cls": False, "pooling_type": "max"}, ("FunnelForSequenceClassification",)),
        "all_pooled": ({"pool_q_only": False}, (*TWO, "FunnelForQuestionAnswering")),
        "first_repeats": ({"block_sizes": [2, 2, 1], "block_repeats": [2, 2, 1]}, (*TWO, "FunnelForMaskedLM")),
        "one_block": ({"block_sizes": [2], "block_repeats": [1]}, TWO),
        "two_decoders": ({"num_decoder_layers": 2}, ("FunnelForTokenClassification",)),
        "no_decoder": ({"num_decoder_layers": 0}, ("FunnelForTokenClassification",)),
        "chunked": ({"chunk_size_feed_forward": 3}, ("FunnelModel",)),
        "relu": ({"hidden_act": "relu"}, names("Funnel", "ForMaskedLM ForPreTraining ForSequenceClassification")),
        "untied": ({"tie_word_embeddings": False}, ("FunnelForMaskedLM",)),
        "regression": ({"num_labels": 1}, ("FunnelForSequenceClassification",)),
        "multi_label": ({"problem_type": "multi_label_classification"}, ("FunnelForSequenceClassification",)),
    },
    own_variants={
        "pruned": ({"pruned_heads": {0: [1], 2: [0, 2], 3: [2]}}, ("FunnelModel", "FunnelForTokenClassification")),
        "pad_5": ({"pad_token_id": 5}, ("FunnelForMaskedLM",)),  # where the reference breaks
    },
    poolers=(*TWO, *SEQUENCES),
    refused=("edges", "head_mask", "one head_mask"),
    unpadded=True,
    attends_only=False,
    starts_alike=False,
    vectors=lambda model, ids: model.embed(ids),
    kept=kept,
)
