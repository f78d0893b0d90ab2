"""Checkpoint tables of models made of models: the parts' own tables, each under its name."""

import dataclasses

import pytest
import torch
from torch import nn

import polyformer
from polyformer.core.composite import Composite, Part, Verbatim
from polyformer.core.keymap import Fuse

TINY = dict(vocab_size=47, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40)


@dataclasses.dataclass
class Example:
    """A composite of a BERT, a BERT that writes, and a module without a table."""

    table: Composite
    parts: dict[str, tuple[str, polyformer.PreTrainedModel | nn.Module]]


@pytest.fixture
def example():
    encoder = polyformer.BertModel(polyformer.BertConfig(**TINY))
    decoder = polyformer.BertLMHeadModel(polyformer.BertConfig(**TINY, is_decoder=True, add_cross_attention=True))
    plain = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    table = Composite(
        [
            Part("question", "reader", encoder.keys),
            Part("answer.inner", "writer", decoder.keys, base=False),
            Part("eye", "image", Verbatim()),
        ],
        [("bridge.{q|k}.weight", "join.weight", Fuse())],
        heads=[("out.{p}", "scores.{p}")],
        drop=["question_copy.weight"],
        fresh=["join."],
        prefix="whole",
    )
    return Example(
        table, {"reader": ("question", encoder), "writer": ("answer.inner", decoder), "image": ("eye", plain)}
    )


@pytest.mark.parametrize("base", [True, False], ids=["alone", "in a task"])
def test_a_composite_is_its_parts_under_their_names(example, base):
    """Writing gives each part's own file under its name, reading undoes it, prefixes may be there or not."""
    lead = "" if base else "whole."
    ours, want = {}, {}
    for name, (file, module) in example.parts.items():
        state = module.state_dict()
        ours |= {f"{lead}{name}.{key}": value for key, value in state.items()}
        saved = state if isinstance(module, nn.Sequential) else module.keys.save(state, base=module.is_base)
        want |= {f"{lead}{file}.{key}": value for key, value in saved.items()}
    join = torch.randn(4, 2)
    ours[f"{lead}join.weight"] = join
    want |= {f"{lead}bridge.q.weight": join[:2], f"{lead}bridge.k.weight": join[2:]}
    if not base:
        ours["scores.bias"] = want["out.bias"] = torch.randn(3)
    written = example.table.save(ours, base=base)
    assert written.keys() == want.keys()
    assert all(torch.equal(written[key], value) for key, value in want.items())
    assert f"{lead}answer.inner.bert.encoder.layer.1.crossattention.self.key.bias" in written
    assert f"{lead}answer.inner.cls.predictions.bias" in written
    shapes = {name: value.shape for name, value in ours.items()}
    for file in (written, {key.removeprefix("whole."): value for key, value in written.items()}):
        read = example.table.load(file, shapes, base=base)
        assert read.keys() == ours.keys()
        assert all(torch.equal(read[name], value) for name, value in ours.items())


def test_what_a_composite_claims_and_what_not(example):
    names = [
        "whole.question.embeddings.position_ids",  # dropped by the part
        "question_copy.weight",  # dropped by the whole
        "question.embeddings.LayerNorm.gamma",  # an old name, of a part that has old names
        "eye.0.gamma",  # none there
        "question.no_such",
        "nobody",
        "question.encoder.layer.0.attention.self.query.bias",
        "mine",
    ]
    plan = example.table.plan(names, base=False, own=["mine"])
    assert plan.names == frozenset(names)
    assert sorted(plan.dropped) == ["question_copy.weight", "whole.question.embeddings.position_ids"]
    assert sorted(plan.unclaimed) == ["nobody", "question.no_such"]
    assert {name: match.theirs for name, match in plan.matches.items()} == {
        "whole.reader.embed.norm.weight": ("question.embeddings.LayerNorm.gamma",),
        "whole.image.0.gamma": ("eye.0.gamma",),
        "mine": ("mine",),
    }
    (cut,) = plan.incomplete.values()
    assert cut.theirs[0] == "question.encoder.layer.0.attention.self.query.bias"
    assert "whole.answer.inner.no_such" not in example.table.names(["whole.writer.no_such"], base=False)[0]
    with pytest.raises(KeyError, match=r"whole\.reader\.no_such"):
        example.table.save({"whole.reader.no_such": torch.zeros(1)}, base=False)


def test_what_may_be_new_in_a_composite(example):
    may = example.table.may_be_new
    assert may("reader.pooler.dense.weight")
    assert not may("reader.embed.norm.weight")
    assert may("writer.bert.layers.0.cross.q.weight")
    assert may("writer.lm.dense.weight")  # a part's head is as new as any
    assert not may("writer.bert.layers.0.attn.qkv.weight")
    assert may("image.1.num_batches_tracked")
    assert not may("image.1.running_mean")
    assert may("join.weight")
