"""Every architecture that writes, whatever it remembers: with its state or without, in a batch or alone."""

import pytest
import torch

import zoo

WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.0},
    "contrastive": {"penalty_alpha": 0.5, "top_k": 3},
    "lookup": {"prompt_lookup_num_tokens": 3},
}
REFUSED = {
    ("transfo-xl", "prompt_lookup_num_tokens"): "cannot take back tokens that it has read",
    ("xlnet", "prompt_lookup_num_tokens"): "guesses one place at a time",
    ("xlnet", "penalty_alpha"): "guesses one place at a time",
}
HEADS = ("LMHeadModel", "WithLMHead", "WithLMHeadModel", "ForConditionalGeneration", "ForCausalLM", "MTModel")
WRITERS = [
    case
    for family in zoo.FAMILIES
    for case in [next((c for c in zoo.CASES if c.family == family.name and c.cls.endswith(HEADS)), None)]
    if case is not None
]
PROMPTS = [[9, 12, 31], [8], [20, 6, 14, 20, 6], [30, 30]]


def writes(case):
    return case.causal or "ForConditionalGeneration" in case.cls or "MTModel" in case.cls or case.family == "xlnet"


@zoo.each([c for c in WRITERS if writes(c)])
@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_a_batch_with_a_state_is_each_alone_without(case, options):
    model = zoo.make(case)
    asked = dict(max_new_tokens=6, eos_token_id=3, pad_token_id=0, **options)
    if model.config.is_encoder_decoder:
        asked["decoder_start_token_id"] = 2
    for (family, option), sentence in REFUSED.items():
        if case.family == family and option in options:
            with pytest.raises(ValueError, match=sentence):
                model.generate([[8, 4, 8, 4, 8]], **asked)
            return
    together = model.generate(PROMPTS, **asked)
    copies = len(together) // len(PROMPTS)
    start = 1 if model.config.is_encoder_decoder else 5
    for i, prompt in enumerate(PROMPTS):
        # XLNet's words see later ones, unless their keys are kept
        alone = model.generate([prompt], use_cache=case.family == "xlnet", **asked)[
            :, min(start, len(prompt)) if start > 1 else 1 :
        ]
        mine = together[copies * i : copies * (i + 1), start:]
        assert torch.equal(mine[:, : alone.shape[1]], alone)
        assert not mine[:, alone.shape[1] :].any()
