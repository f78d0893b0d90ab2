"""T5 in its two versions, and mT5."""

from zoo_encoders import names
from zoo_family import Family

TINY = dict(
    vocab_size=47,
    d_model=20,
    d_kv=8,
    d_ff=40,
    num_layers=3,
    num_decoder_layers=3,
    num_heads=3,
    relative_attention_num_buckets=8,
    dropout_rate=0.0,
    decoder_start_token_id=0,
)
V11 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
KINDS = "Model ForConditionalGeneration EncoderModel"

T5 = Family(
    name="t5",
    classes=names("T5", KINDS),
    tiny=TINY,
    variants={
        "v1.1": (V11, names("T5", KINDS)),
        "untied": ({"tie_word_embeddings": False}, ("T5ForConditionalGeneration",)),
    },
    # the reference takes no bias off a pruned head
    own_variants={"pruned": ({"pruned_heads": {0: [1], 2: [0, 2], 4: [1]}}, ("T5ForConditionalGeneration",))},
    starts_alike=False,
)
MT5 = Family("mt5", names("MT5", KINDS), TINY | V11, rename_of="t5", starts_alike=False)

T5S = (T5, MT5)
