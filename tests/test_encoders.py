"""What single encoders have to themselves: RoBERTa's numbering, ELECTRA's summaries, ALBERT's groups, first tokens."""

import pytest
import torch
from torch import nn

import polyformer
import zoo
from polyformer.core.errors import ConfigError
from test_parity import ours_with, reference_config


def test_roberta_numbers_tokens_as_the_reference_does(oracle):
    """With padding ids inside a text and before it, masked or not, and from the cache on."""
    case = zoo.first(zoo.FAMILY["roberta"], "ForCausalLM", "decoder")
    weights = oracle.init(case.cls, reference_config(case), seed=2)
    model = ours_with(case, weights, torch.float64)
    ids = torch.tensor([[0, 5, 1, 1, 6, 2], [1, 1, 7, 8, 1, 9]])
    mask = (ids != 1).long()
    for inputs in ({"input_ids": ids}, {"input_ids": ids, "attention_mask": mask}):
        want = oracle.run(case.cls, reference_config(case), weights, inputs)["logits"]
        with torch.no_grad():
            got = model(**inputs).logits
        keep = torch.ones_like(ids) if len(inputs) == 1 else mask
        torch.testing.assert_close(got[keep.bool()], want[keep.bool()], rtol=1e-9, atol=1e-9)


def test_roberta_has_fewer_places_than_positions():
    model = zoo.make(zoo.first(zoo.FAMILY["roberta"]))
    model(torch.full((1, 30), 5))
    with pytest.raises(ValueError, match="31 tokens is too long for this model, which knows 30 positions"):
        model(torch.full((1, 31), 5))
    with pytest.raises(ConfigError, match="positions are counted from it"):
        polyformer.RobertaConfig(pad_token_id=None)


def test_a_rename_s_checkpoint_is_its_own(tmp_path):
    case = zoo.first(zoo.FAMILY["xlm-roberta"], "ForMaskedLM")
    zoo.make(case).save_pretrained(tmp_path)
    assert type(polyformer.AutoModelForMaskedLM.from_pretrained(tmp_path)).__name__ == "XLMRobertaForMaskedLM"
    with pytest.raises(ConfigError, match="model_type 'xlm-roberta', not 'camembert'"):
        polyformer.CamembertForMaskedLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["first", "last", "mean", "cls_index"])
@pytest.mark.parametrize("projected", [True, False])
def test_electra_s_summaries(kind, projected, oracle):
    """The reference's on unpadded rows, of which padding changes nothing."""
    case = zoo.first(zoo.FAMILY["electra"], "ForMultipleChoice").but(summary_type=kind, summary_use_proj=projected)
    weights = oracle.init(case.cls, reference_config(case), seed=2)
    model = ours_with(case, weights, torch.float64)
    rows = zoo.sentences(case, (9, 5))
    padded = zoo.without_labels(zoo.batch(rows, side="left", extra=2))
    with torch.no_grad():
        got = model(**padded).logits
    for row, logits in zip(rows, got, strict=True):
        alone = zoo.without_labels(zoo.batch([row]))
        want = oracle.run(case.cls, reference_config(case), weights, alone)["logits"][0]
        torch.testing.assert_close(logits, want, rtol=1e-9, atol=1e-9)


def test_electra_refuses_an_unknown_summary():
    with pytest.raises(ConfigError, match="summary_type is 'attn'; there are first, last, mean, cls_index"):
        polyformer.ElectraConfig(summary_type="attn")


@pytest.mark.parametrize("kind", ["ElectraForMaskedLM", "AlbertForMaskedLM", "AlbertForPreTraining"])
def test_the_norm_of_a_word_head_has_the_configuration_s_eps(kind):
    """As in the TensorFlow originals, whose layer norms all have 1e-12."""
    family = zoo.FAMILY["albert" if "Albert" in kind else "electra"]
    assert zoo.make(zoo.Case(kind, family.tiny), layer_norm_eps=1e-12).lm.norm.eps == 1e-12


def test_albert_s_layers_share_weights():
    """Blocks are as many as groups have; each layer runs those of its group, in order."""
    case = zoo.Case("AlbertModel", zoo.FAMILY["albert"].tiny)
    model = zoo.make(case, num_hidden_layers=5, num_hidden_groups=2, inner_group_num=2)
    assert len(model.blocks()) == 4
    ran = []
    for number, block in enumerate(model.blocks()):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    model(torch.tensor([[1, 2, 3]]))
    assert ran == [0, 1] * 3 + [2, 3] * 2
    with pytest.raises(ConfigError, match="5 layers can be shared out among 1 to 5 groups"):
        polyformer.AlbertConfig(num_hidden_layers=5, num_hidden_groups=6)


def test_distilbert_s_uniform_names():
    config = polyformer.DistilBertConfig(hidden_size=12, num_attention_heads=2, num_hidden_layers=1)
    assert (config.dim, config.n_heads, config.n_layers) == (12, 2, 1)
    assert config.hidden_size == 12
    assert {"dim", "n_heads", "n_layers"} <= config.to_dict().keys()
    assert not {"hidden_size", "num_attention_heads", "num_hidden_layers"} & config.to_dict().keys()


def test_fixed_positions_are_not_trained_and_come_back(tmp_path):
    case = zoo.first(zoo.FAMILY["distilbert"], "ForMaskedLM", "sinusoidal")
    torch.manual_seed(0)
    model = case.model_class(case.configure())
    table = model.distilbert.embed.positions.weight
    model(torch.tensor([[1, 2]]), labels=torch.tensor([[1, 2]])).loss.backward()
    assert table.grad is None
    model.save_pretrained(tmp_path)
    again = case.model_class.from_pretrained(tmp_path).distilbert.embed.positions.weight
    assert torch.equal(again, table)
    assert not again.requires_grad


@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra"])
def test_a_classifier_reads_the_first_token_unless_told_otherwise(family):
    """No pooler where the configuration names none; with one, the head takes its width."""
    case = zoo.first(zoo.FAMILY[family], "ForSequenceClassification")
    model = zoo.make(case)
    assert model.base_model.pooler is None
    inputs = zoo.without_labels(zoo.batch(zoo.sentences(case, (6, 4)), side="left"))
    first = []
    model.classifier.register_forward_pre_hook(lambda _, args: first.append(args[0]))
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states[-1]
    assert torch.equal(first[0], torch.stack([states[0, 0], states[1, 2]]))
    wide = zoo.make(case, pooling="last4_cls")
    assert isinstance(wide.classifier.dense, nn.Linear)
    assert wide.classifier.dense.in_features == 4 * 24
