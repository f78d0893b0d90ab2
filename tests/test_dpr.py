"""What DPR has to itself: padding told by its id, vectors of a width of their own, spans and relevance."""

import pytest
import torch

import polyformer
import zoo
from test_parity import ours_with, reference_config

FAMILY = zoo.FAMILY["dpr"]
TEXTS = torch.tensor([[5, 6, 7, 8], [9, 8, 0, 0]])  # the second padded by the padding id


@pytest.mark.parametrize("cls", FAMILY.classes)
def test_padding_without_a_mask_is_the_reference_s(cls, oracle):
    """The encoders tell it by its id, the reader reads it."""
    case = zoo.Case(cls, FAMILY.tiny, family="dpr")
    weights = oracle.init(cls, reference_config(case), seed=3)
    want = oracle.run(cls, reference_config(case), weights, {"input_ids": TEXTS})
    with torch.no_grad():
        got = ours_with(case, weights, torch.float64)(TEXTS)
    assert got.keys() == want.keys()
    for name, value in got.items():
        torch.testing.assert_close(value, want[name], rtol=1e-9, atol=1e-9)


def test_what_comes_after_the_reference_s_arguments(oracle):
    """head_mask and position_ids are ours."""
    for cls in FAMILY.classes:
        case = zoo.Case(cls, FAMILY.tiny, family="dpr")
        assert list(case.arguments[len(oracle.arguments(cls)) :]) == ["position_ids", "head_mask"]
        model = zoo.make(case)
        with torch.no_grad():
            plain = model(TEXTS, position_ids=torch.arange(4)[None], head_mask=torch.ones(3, dtype=torch.float64))
            torch.testing.assert_close(plain[0], model(TEXTS)[0])
            assert not torch.allclose(plain[0], model(TEXTS, head_mask=torch.zeros(3, dtype=torch.float64))[0])
    with pytest.raises(TypeError, match="DPRReader has no argument 'token_type_ids'"):
        model(TEXTS, token_type_ids=torch.zeros_like(TEXTS))


@pytest.mark.parametrize("projection", [0, 10])
def test_how_wide_the_vectors_are(projection):
    model = zoo.make(zoo.Case("DPRQuestionEncoder", FAMILY.tiny), projection_dim=projection)
    assert model.embeddings_size == (projection or 24) == model(TEXTS).pooler_output.shape[1]


def test_a_pooler_of_transformers_4_6_is_left_out_and_not_taken_for_ours(tmp_path):
    """No name in its files is that of config.pooling="cls", which is trained."""
    model = zoo.make(zoo.Case("DPRReader", FAMILY.tiny))
    model.save_pretrained(tmp_path, safe_serialization=False)
    tensors = torch.load(tmp_path / "pytorch_model.bin")
    theirs = "span_predictor.encoder.bert_model.pooler.dense."
    assert not [name for name in tensors if "pooler" in name]
    tensors |= {theirs + "weight": torch.randn(24, 24), theirs + "bias": torch.randn(24)}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    report = polyformer.DPRReader.from_pretrained(tmp_path).load_report
    assert sorted(report.dropped) == [theirs + "bias", theirs + "weight"]
    assert report.clean
    assert not report.unexpected
    report = polyformer.DPRReader.from_pretrained(tmp_path, pooling="cls").load_report
    assert [name for name in report.missing if "pooler.cls" in name] == report.missing != []
