"""What ConvBERT has to itself: half attention, half convolution; grouped matrices; pruning that spares the queries."""

import pytest
import torch

import polyformer
import zoo
from polyformer.core.errors import ConfigError
from polyformer.models.convbert import GroupedLinear

FAMILY = zoo.FAMILY["convbert"]


@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("groups", [1, 4])
def test_any_head_ratio_is_that_of_transformers_5(ratio, groups, tmp_path):
    """4.6 runs with a ratio of 2 only; later versions give attention half of the width whatever the ratio."""
    transformers = pytest.importorskip("transformers", reason="transformers 5 is not installed (extra [test])")
    case = zoo.first(FAMILY, "ForMaskedLM")
    model = zoo.make(case, dtype=torch.float32, head_ratio=ratio, num_groups=groups)
    model.save_pretrained(tmp_path)
    theirs = transformers.ConvBertForMaskedLM.from_pretrained(tmp_path).eval()
    ids = torch.randint(1, 47, (2, 9))
    with torch.no_grad():
        ours = model(ids, output_attentions=True)
        torch.testing.assert_close(ours.logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)
    assert ours.attentions[0].shape == (2, max(1, 6 // ratio), 9, 9)


def test_the_reference_s_answers_on_padded_batches_are_those_of_each_row_alone(oracle):
    """Which ours are, whatever the padding, while its own are not."""
    from test_parity import ours_with, reference_config

    case = zoo.first(FAMILY)
    weights = oracle.init(case.cls, reference_config(case), seed=2)
    model = ours_with(case, weights, torch.float64)
    rows = zoo.sentences(case, (9, 5))
    for side in ("right", "left"):
        padded = zoo.batch(rows, side=side, extra=2)
        with torch.no_grad():
            got = model(**padded)
        for i, row in enumerate(rows):
            length = len(row["input_ids"])
            alone = oracle.run(case.cls, reference_config(case), weights, zoo.batch([row]))
            mine = zoo.outputs_of_row(case, got, i, length, side=side, longest=11)
            torch.testing.assert_close(mine["last_hidden_state"], alone["last_hidden_state"][0], rtol=1e-9, atol=1e-9)
    together = oracle.run(case.cls, reference_config(case), weights, zoo.batch(rows))["last_hidden_state"]
    assert (together[1, :5] - alone["last_hidden_state"][0]).abs().max() > 1e-3


@pytest.mark.parametrize("packable", [True, False], ids=["packed", "padded"])
def test_pruned_heads_leave_their_queries_to_the_convolution(packable, tmp_path):
    """Pruning is zeroing the heads' attention, which a head mask does."""
    case = zoo.first(FAMILY)
    model = zoo.make(case)
    inputs = zoo.batch(zoo.sentences(case, (7, 5)))
    mask = torch.ones(3, 3, dtype=torch.float64)
    mask[0, 1] = mask[2, 0] = mask[2, 2] = 0
    with torch.no_grad():
        want = model(**inputs, head_mask=mask).last_hidden_state
    model.prune_heads({0: [1]})
    model.prune_heads({2: {0}})
    model.prune_heads({2: [2]})  # numbers are those of the unpruned model
    model.packable = packable
    real = inputs["attention_mask"].bool()
    model.save_pretrained(tmp_path)
    for pruned in (model, case.model_class.from_pretrained(tmp_path, torch_dtype=torch.float64)):
        with torch.no_grad():
            torch.testing.assert_close(pruned(**inputs).last_hidden_state[real], want[real])
    with pytest.raises(ValueError, match="it has heads 0 to 2"):
        model.prune_heads({1: [3]})


def test_a_hole_in_the_mask_is_not_read_and_keeps_its_position():
    """By attention or by convolution."""
    model = zoo.make(zoo.first(FAMILY))
    ids, mask = torch.randint(6, 47, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[0, 3:5] = 0
    with torch.no_grad():
        want = model(ids, mask).last_hidden_state[mask.bool()]
        got = model(ids.where(mask.bool(), 5), mask).last_hidden_state[mask.bool()]
        closed = model(ids[:1, [0, 1, 2, 5, 6, 7, 8]]).last_hidden_state[0]
    assert torch.equal(got, want)
    assert not torch.allclose(closed, want[:7])


def test_grouped_linear():
    layer = GroupedLinear(6, 4, 2).double()
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    halves = [x[..., 3 * g : 3 * g + 3] @ layer.weight[g] for g in range(2)]
    torch.testing.assert_close(layer(x), torch.cat(halves, -1) + layer.bias)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head_ratio": 0}, "head_ratio is 0, but it is at least 1"),
        ({"conv_kernel_size": 0}, "conv_kernel_size is 0"),
        ({"hidden_size": 27, "num_attention_heads": 9}, "no multiple of twice the 4 heads"),
        ({"num_groups": 5}, "not both multiples of num_groups 5"),
        ({"summary_type": "attn"}, "there are first, last, mean, cls_index"),
    ],
)
def test_impossible_configurations(fields, message):
    with pytest.raises(ConfigError, match=message):
        polyformer.ConvBertConfig(**fields)


def test_the_norm_of_the_word_head_has_the_configuration_s_eps():
    """As in the original, whose layer norms all have 1e-12."""
    assert zoo.make(zoo.first(FAMILY, "ForMaskedLM"), layer_norm_eps=1e-12).lm.norm.eps == 1e-12
