"""The same tokens as the reference writes, chance included, and the same with every kind of model there is."""

import pytest
import torch

import zoo
from test_parity import ours_with, reference_config

WAYS = {
    "greedy": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "bad_words_ids": [[5], [6, 7]], "min_length": 8},
    "beams": {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 1.4, "early_stopping": True},
    "beams to the end": {"num_beams": 3, "length_penalty": 0.6, "no_repeat_ngram_size": 2, "min_length": 7},
    "groups": {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 0.7, "num_return_sequences": 4},
    "sampling": {"do_sample": True, "temperature": 1.7, "top_k": 9, "top_p": 0.8, "num_return_sequences": 2},
    "drawn beams": {"do_sample": True, "num_beams": 3, "temperature": 1.4, "top_k": 8, "num_return_sequences": 2},
}
WRITERS = [zoo.first(zoo.FAMILY[name], "LMHeadModel") for name in ("gpt2", "ctrl")]
TRANSLATORS = [zoo.first(zoo.FAMILY[name], "ForConditionalGeneration") for name in ("bart", "t5") if name in zoo.FAMILY]


@zoo.each([*WRITERS, *TRANSLATORS])
@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_the_reference_writes_the_same(case, options, oracle):
    weights = oracle.init(case.cls, reference_config(case), seed=9)
    ids = torch.randint(8, 40, (3, 6))
    asked = {"input_ids": ids, "max_length": 13, "eos_token_id": 3, "pad_token_id": 0, **options}
    asked |= {"return_dict_in_generate": True, "output_scores": True}
    if case in TRANSLATORS:
        asked["decoder_start_token_id"] = 2
    dtype = torch.float32 if "num_beam_groups" in options else torch.float64  # its groups know no other
    want = oracle.run(case.cls, reference_config(case), weights, asked, method="generate", seed=4, dtype=dtype)
    model = ours_with(case, weights, dtype)
    torch.manual_seed(4)
    got = model.generate(**asked)
    assert torch.equal(got.sequences, want["sequences"])
    if "sequences_scores" in want:
        torch.testing.assert_close(got.sequences_scores, want["sequences_scores"], rtol=1e-4, atol=1e-5)
