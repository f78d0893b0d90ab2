"""BART, mBART, Pegasus and Marian, and the decoders of theirs that write alone."""

from zoo_encoders import names
from zoo_family import Family

TINY = dict(
    vocab_size=47,
    d_model=24,
    encoder_layers=2,
    decoder_layers=3,
    encoder_attention_heads=2,
    decoder_attention_heads=3,
    encoder_ffn_dim=40,
    decoder_ffn_dim=36,
    max_position_embeddings=32,
    dropout=0.0,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=2,
    num_labels=3,
)
ALONE = {"is_decoder": True, "is_encoder_decoder": False}


def scaled(model, ids):
    """Token vectors as the halves have them."""
    return model.get_input_embeddings()(ids) * model.encoder.embed.scale


def family(name, prefix, kinds, variants=None, own_variants=None, poolers=(), unused=(), **changes):
    """The classes with both halves."""
    return Family(
        name=name,
        classes=names(prefix, f"Model {kinds}"),
        tiny=TINY | changes,
        variants=variants or {},
        own_variants=own_variants or {},
        poolers=poolers,
        unused=unused,
        vectors=scaled,
    )


def alone(name, prefix, unused=(), **changes):
    """The decoder without its encoder."""
    return Family(f"{name}-decoder", names(prefix, "ForCausalLM"), TINY | ALONE | changes, unused=unused)


WRITER, READER, ANSWERER = "ForConditionalGeneration", "ForSequenceClassification", "ForQuestionAnswering"
BART = family(
    "bart",
    "Bart",
    f"{WRITER} {READER} {ANSWERER}",
    variants={
        "untied": ({"tie_word_embeddings": False}, names("Bart", WRITER)),
        "chunked": ({"chunk_size_feed_forward": 3}, names("Bart", ANSWERER)),
        "relu": ({"activation_function": "relu"}, names("Bart", ANSWERER)),
    },
    own_variants={  # the reference has single labels always, and prunes nothing
        "regression": ({"num_labels": 1}, names("Bart", READER)),
        "multi_label": ({"problem_type": "multi_label_classification"}, names("Bart", READER)),
        "pruned": ({"pruned_heads": {0: [1], 2: [0, 2]}}, names("Bart", ANSWERER)),
    },
    poolers=names("Bart", READER),
)
MBART = family("mbart", "MBart", f"{WRITER} {READER} {ANSWERER}", scale_embedding=True)
PEGASUS = family("pegasus", "Pegasus", WRITER, unused=("embed_positions",), scale_embedding=True)
MARIAN = family(
    "marian", "Marian", "MTModel", unused=("embed_positions",), scale_embedding=True, activation_function="swish"
)
SEQ2SEQ = (
    BART,
    MBART,
    PEGASUS,
    MARIAN,
    alone("bart", "Bart"),
    alone("mbart", "MBart"),
    alone("pegasus", "Pegasus", ("embed_positions",)),
    alone("marian", "Marian", ("embed_positions",)),
)
