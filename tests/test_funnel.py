"""What Funnel has to itself: any length, in any batch; how neighbours are merged and stretched again; its start."""

import pytest
import torch
from torch import nn

import polyformer
import zoo
from polyformer.core.errors import CheckpointError, ConfigError
from polyformer.models.funnel import MERGES, Halving, Level
from test_parity import flat, ours_with, reference_config
from zoo_funnel import halved

FAMILY = zoo.FAMILY["funnel"]
EVERY = {"output_attentions": True, "output_hidden_states": True}
WAYS = {
    "plain": {},
    "max": {"pooling_type": "max"},
    "untruncated": {"truncate_seq": False},
    "no_cls": {"separate_cls": False},
    "all_pooled": {"pool_q_only": False},
    "no_cls_all_pooled_max": {"separate_cls": False, "pool_q_only": False, "pooling_type": "max"},
}
PADDINGS = {
    "right": dict(side="right", extra=1),
    "left": dict(side="left", extra=2),
    "garbage left": dict(side="left", garbage=47),
}


def texts(case, lengths):
    """With [CLS]'s own segment in front."""
    rows = zoo.sentences(case, lengths)
    for row in rows:
        row["token_type_ids"][0] = 2
    return rows


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["BaseModel", "Model"])
def test_every_length_in_one_batch_is_the_reference_s_alone(way, kind, oracle):
    """From one token on. The reference's two ways to attend are one in numbers; only the slower takes short texts."""
    case = zoo.first(FAMILY, kind).but(**WAYS[way])
    alike = case.but(attention_type="factorized")
    weights = oracle.init(case.cls, reference_config(case), seed=3)
    model, rows = ours_with(case, weights, torch.float64), texts(case, range(1, 15))
    wanted = []
    for row in rows:
        want = oracle.run(case.cls, reference_config(alike), weights, zoo.batch([row], mask=False) | EVERY)
        wanted.append({name: value[0] for name, value in want.items()})
        with torch.no_grad():
            alone = {name: value[0] for name, value in flat(model(**zoo.batch([row], mask=False), **EVERY)).items()}
        zoo.assert_same(alone, wanted[-1], 1e-9)
    for how in PADDINGS.values():
        with torch.no_grad():
            outputs = model(**zoo.batch(rows, **how), **EVERY)
        for i, want in enumerate(wanted):
            if i < 2 and how["side"] == "left":  # too short to tell merged tokens from all by their number
                continue
            got = zoo.outputs_of_row(case, outputs, i, len(rows[i]["input_ids"]), side=how["side"])
            zoo.assert_same(got, want, 1e-9)


def test_short_texts_on_the_left_of_long_ones():
    """One and two tokens, which the test above leaves out."""
    case = zoo.first(FAMILY)
    model, rows = zoo.make(case), texts(case, (1, 2, 9))
    with torch.no_grad():
        states = model(**zoo.batch(rows, side="left")).last_hidden_state
        for i in range(2):
            alone = model(**zoo.batch([rows[i]], mask=False)).last_hidden_state[0]
            torch.testing.assert_close(states[i, -1 - i :], alone, rtol=1e-9, atol=1e-9)


# ---- merging ---------------------------------------------------------------------------------------------------------


def merged_by_hand(x, real, kind, apart, short):
    """One row, pair after pair: what they become, and which of these are of anything."""
    ends = [i for i, seen in enumerate(real) if seen]
    end = ends[-1] + 1 if ends else 0
    if apart and short and end > 2:
        end -= 1
    out, some = ([x[0]], [real[0]]) if apart else ([], [])
    for begin in range(int(apart), len(real), 2):
        pair = [x[i] for i in (begin, begin + 1) if i < end and real[i]]
        some.append(bool(pair))
        if pair:
            out.append(sum(pair) / len(pair) if kind == "mean" else torch.stack(pair).amax(0))
        else:
            out.append(torch.zeros_like(x[0]))
    return torch.stack(out), some


@pytest.mark.parametrize("kind", MERGES)
@pytest.mark.parametrize(("apart", "short"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("length", range(1, 9))
def test_merging(kind, apart, short, length):
    """Rows of every length, and one with holes, each as if it were alone."""
    x = torch.randn(length + 1, length, 3, dtype=torch.float64)
    real = torch.arange(length) < torch.arange(1, length + 2)[:, None]
    real[-1] = torch.arange(length) % 3 != 1
    types = torch.randint(0, 3, real.shape)
    y, level = Halving(MERGES[kind], apart, short).merged(x, Level(length, 1, real, types))
    assert y.shape[1] == level.length == halved(length, separate_cls=apart, truncate_seq=short)
    assert level.stride == 2
    for i in range(length + 1):
        want, some = merged_by_hand(x[i], real[i].tolist(), kind, apart, short)
        assert level.real[i].tolist() == some[: level.length]
        assert not any(some[level.length :])
        keep = level.real[i] if apart else slice(None)
        torch.testing.assert_close(y[i][keep], want[: level.length][keep])
    first = [0, *range(1, length, 2)] if apart else range(0, length, 2)
    assert torch.equal(level.types, types[:, list(first)[: level.length]])
    whole, _ = Halving(MERGES[kind], apart, short).merged(x, Level(length, 1, None, None))
    torch.testing.assert_close(whole[-2], y[-2])  # the last row but one is a whole one


def test_a_hole_is_in_no_pair_and_keeps_its_place():
    """Whatever id it has; and a pair of which one token is hidden stands where it did."""
    for kind in ("BaseModel", "Model"):
        model = zoo.make(zoo.first(FAMILY, kind))
        ids, mask = torch.randint(6, 47, (1, 9)), torch.ones(1, 9, dtype=torch.long)
        mask[0, 3:5] = 0
        with torch.no_grad():
            want = model(ids, mask).last_hidden_state
            got = model(ids.where(mask.bool(), 5), mask).last_hidden_state
            moved = model(torch.cat([ids[:, 3:5], ids], 1), torch.cat([mask[:, 3:5], mask], 1)).last_hidden_state
            closed = model(ids[mask.bool()][None]).last_hidden_state
        keep = mask.bool() if kind == "Model" else torch.ones(want.shape[:2], dtype=torch.bool)
        torch.testing.assert_close(got[keep], want[keep], rtol=1e-12, atol=1e-12)
        moved = moved[:, -9:][keep] if kind == "Model" else moved[:, : want.shape[1]][keep]
        torch.testing.assert_close(moved, want[keep], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(closed[0, 0], want[0, 0])


def test_a_mask_of_edges_is_refused():
    model = zoo.make(zoo.first(FAMILY))
    with pytest.raises(ValueError, match=r"shape \(1, 4, 4\), but Funnel merges tokens.*give \(rows, length\)"):
        model(torch.tensor([[1, 2, 3, 4]]), attention_mask=torch.ones(1, 4, 4))


# ---- graphs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["plain", "untruncated", "no_cls"])
@pytest.mark.parametrize("kind", ["BaseModel", "Model"])
def test_a_trace_takes_every_length(way, kind):
    case = zoo.first(FAMILY, kind).but(**WAYS[way])
    model = zoo.make(case, torchscript=True)
    with torch.no_grad():
        traced = torch.jit.trace(model, example_kwarg_inputs=zoo.batch(texts(case, (8, 5))), check_trace=False)
        for length in range(1, 15):
            inputs = zoo.batch(texts(case, (length, (length + 1) // 2)), side="left")
            torch.testing.assert_close(traced(**inputs)[0], model(**inputs)[0], rtol=1e-9, atol=1e-9)


EXPORTED = [("no_cls", 5), *([("plain", 2), ("untruncated", 2)] if zoo.THOROUGH else [])]  # half a minute each


@pytest.mark.parametrize(("way", "shortest"), EXPORTED)
def test_an_export_takes_every_length_that_leaves_two(way, shortest):
    """A single token, or state, torch.export takes for a constant: it refuses such a text, in words."""
    case = zoo.first(FAMILY).but(**WAYS[way])
    model = zoo.make(case)
    made = zoo.batch(texts(case, (8, 5)))
    shapes = {name: dict.fromkeys(range(2), torch.export.Dim.AUTO) for name in made}
    program = torch.export.export(model, (), made, dynamic_shapes=shapes, strict=False).module()
    with torch.no_grad():
        with pytest.raises(AssertionError, match="Guard failed"):
            program(**zoo.batch(texts(case, (shortest - 1, 1))))
        for length in range(shortest, 15):
            inputs = zoo.batch(texts(case, (length, 2, 1)), side="left")
            got, want = program(**inputs).last_hidden_state, model(**inputs).last_hidden_state
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


# ---- heads of attention ----------------------------------------------------------------------------------------------


def test_a_head_mask_is_obeyed_and_pruning_is_a_mask_of_zeros(tmp_path):
    """Repeated layers have one row of it; the reference takes it and forgets it."""
    case = zoo.first(FAMILY, "BaseModel")
    model, inputs = zoo.make(case), zoo.batch(zoo.sentences(case, (9, 6)))
    mask = torch.ones(3, 3, dtype=torch.float64)
    mask[0, 1] = mask[1, 0] = mask[1, 2] = 0
    with torch.no_grad():
        whole, want = model(**inputs).last_hidden_state, model(**inputs, head_mask=mask).last_hidden_state
        ones = model(**inputs, head_mask=torch.ones(3)).last_hidden_state
    torch.testing.assert_close(ones, whole, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(whole, want)
    model.prune_heads({0: [1], 1: [0]})
    model.prune_heads({1: [2]})  # numbers are those of the unpruned model
    model.save_pretrained(tmp_path)
    again = case.model_class.from_pretrained(tmp_path, torch_dtype=torch.float64)
    with torch.no_grad():
        for pruned in (model, again):
            torch.testing.assert_close(pruned(**inputs).last_hidden_state, want, rtol=1e-12, atol=1e-12)
    assert again.config.pruned_heads == {0: [1], 1: [0, 2]}


# ---- checkpoints and configurations ----------------------------------------------------------------------------------


def test_a_file_without_a_decoder_serves_the_base_model_only(tmp_path):
    zoo.make(zoo.first(FAMILY, "BaseModel")).save_pretrained(tmp_path)
    assert polyformer.FunnelForSequenceClassification.from_pretrained(tmp_path).funnel.load_report is None
    with pytest.raises(CheckpointError, match=r"decoder\.layers\.0\.attention"):
        polyformer.FunnelForTokenClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("deviation", [None, 0.3])
def test_a_new_model_starts_as_the_documents_say(deviation):
    """Embeddings normal with deviation 1, linear maps with Glorot's, attention's own weights even from 0 to 0.1."""
    torch.manual_seed(0)
    model = zoo.first(FAMILY, "ForSequenceClassification").but(initializer_std=deviation, pad_token_id=4)
    model = model.model_class(model.configure())
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if name == "bias":
                assert (p == 0).all()
            elif isinstance(module, nn.LayerNorm):
                assert (p == 1).all()
            elif isinstance(module, nn.Linear | nn.Embedding):
                std = 1 if isinstance(module, nn.Embedding) else sum(p.shape) ** -0.5
                std = deviation or std
                n = p.numel()  # within five standard errors
                assert abs(p.mean()) < 5 * std / n**0.5
                assert abs(p.std() / std - 1) < 5 / (2 * n) ** 0.5 + 0.03  # the padding row is zero
            else:
                assert 0 <= p.min() < p.max() <= 0.1
                assert abs(p.mean() - 0.05) < 5 * 0.1 / (12 * p.numel()) ** 0.5
    assert (model.get_input_embeddings().weight[4] == 0).all()


def test_configurations():
    config = polyformer.FunnelConfig(hidden_size=12, block_sizes=[2, 1])
    assert (config.d_model, config.num_hidden_layers, config.block_repeats) == (12, 3, [1, 1])
    with pytest.raises(ConfigError, match=r"block_repeats \[1\] must have one number for each of block_sizes \[2, 1\]"):
        polyformer.FunnelConfig(block_sizes=[2, 1], block_repeats=[1])
    with pytest.raises(ConfigError, match="it must be even"):
        polyformer.FunnelConfig(d_model=7)
    with pytest.raises(ConfigError, match="pooling_type is 'sum'; there are mean, max"):
        polyformer.FunnelConfig(pooling_type="sum")


def test_dropout_is_where_the_reference_has_it():
    """After the embeddings, in the distances, after attention and feed-forward, inside of both, and in the head."""
    rates = {"hidden_dropout": 0.3, "attention_dropout": 0.4, "activation_dropout": 0.5}
    case = zoo.first(FAMILY, "ForSequenceClassification")
    assert not [m for m in zoo.make(case).modules() if isinstance(m, nn.Dropout) and m.p]
    for name in rates:
        model = zoo.make(case, **{name: rates[name]})
        inputs = zoo.without_labels(zoo.batch(zoo.sentences(case, (7,))))
        first, *others = (_seeded(model, inputs, seed) for seed in (1, 1, 2))
        assert torch.equal(first, others[0])
        assert torch.equal(first, others[1])
        model.train()
        assert torch.equal(_seeded(model, inputs, 1), _seeded(model, inputs, 1))
        assert not torch.allclose(_seeded(model, inputs, 1), _seeded(model, inputs, 2))


def _seeded(model, inputs, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        return model(**inputs).logits
