"""Real checkpoints: the figures their NOTES.json gives, and the reference's numbers within 1e-4 in float32."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

import polyformer

NAMES = (
    "rampart-bert-ner",
    "rxnfp-bert-pretraining",
    "rxnfp-bert-base",
    "rxnfp-bert-classifier",
    "antiberty-bert",
    "bert-tiny-splade",
)


class Real:
    """A checkpoint: its folder, its notes, our model, and the ids of its example text."""

    def __init__(self, folder):
        self.folder = folder
        self.notes = json.loads((folder / "NOTES.json").read_text(encoding="utf-8"))
        self.expect, self.cls = self.notes["expect"], self.notes["loads_as"]
        self.model = getattr(polyformer, self.cls).from_pretrained(folder)

    @property
    def ids(self):
        pattern = self.expect.get("its tokens between [CLS] and [SEP], as a pattern")
        if pattern:  # SMILES have a tokenizer of their own
            words = (self.folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
            tokens = ["[CLS]", *re.findall(pattern, self.expect["text"]), "[SEP]"]
            return torch.tensor([[words.index(token) for token in tokens]])
        return polyformer.BertTokenizer.from_pretrained(self.folder)(self.expect["text"], return_tensors="pt").input_ids

    def answer(self, ids, **inputs):
        with torch.no_grad():
            return self.model(ids, **inputs)

    def guesses(self):
        """How many tokens are guessed right, each masked in turn, special ones left out; and how many there are."""
        words = (self.folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
        ids = self.ids[0]
        inner = torch.arange(1, len(ids) - 1)
        rows = ids.repeat(len(inner), 1)
        rows[torch.arange(len(inner)), inner] = words.index("[MASK]")
        logits = self.answer(rows)
        logits = logits.prediction_logits if "prediction_logits" in logits else logits.logits
        best = logits[torch.arange(len(inner)), inner].argmax(-1)
        return f"{int((best == ids[inner]).sum())} of {len(inner)}"


@pytest.fixture(scope="module")
def real(real_weights):
    made = {}

    def get(name):
        if name not in made:
            made[name] = Real(real_weights(name))
        return made[name]

    return get


def near(got, want):
    torch.testing.assert_close(got, torch.tensor(want), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_the_reference(name, real, oracle):
    """Alone, and in a batch padded on the right; every output, float32 against float32."""
    it = real(name)
    config = json.loads((it.folder / "config.json").read_text(encoding="utf-8"))
    weights = {
        n.replace("gamma", "weight").replace("beta", "bias"): t
        for n, t in load_file(it.folder / "model.safetensors").items()
    }
    ids = it.ids
    padded = torch.cat([ids, ids])
    padded[1, 5:] = 0
    mask = torch.ones_like(padded)
    mask[1, 5:] = 0
    for inputs in ({"input_ids": ids}, {"input_ids": padded, "attention_mask": mask}):
        want = oracle.run(it.cls, config, weights, inputs, dtype=torch.float32, strict=False)
        got = it.answer(inputs["input_ids"], attention_mask=inputs.get("attention_mask"))
        assert {k for k in got if isinstance(got[k], torch.Tensor)} == {k for k in want if "." not in k}
        for key, value in got.items():
            keep = mask.bool() if value.shape[:2] == mask.shape and len(value) == 2 else slice(None)
            torch.testing.assert_close(value[keep], want[key][keep], rtol=1e-4, atol=1e-4)


def test_rampart(real):
    it = real("rampart-bert-ner")
    logits = it.answer(it.ids).logits
    assert logits[0].argmax(-1).tolist() == it.expect["argmax"]
    near(logits[0, 0, :4], it.expect["logits[0,0,:4]"])
    assert it.model.config.id2label[5] == "B-EMAIL"


def test_rxnfp_pretraining(real):
    it = real("rxnfp-bert-pretraining")
    near(it.answer(it.ids).seq_relationship_logits[0], it.expect["seq_relationship_logits"])
    assert it.guesses() == it.expect["masked top-1, one position masked at a time, special tokens excepted"]


def test_rxnfp_fingerprint(real):
    it = real("rxnfp-bert-base")
    near(it.answer(it.ids).last_hidden_state[0, 0, :4], it.expect["last_hidden_state[0,0,:4]"])


def test_rxnfp_classifier(real):
    it = real("rxnfp-bert-classifier")
    logits = it.answer(it.ids).logits[0]
    assert logits.argmax() == it.expect["argmax"]
    near(logits.max(), it.expect["its logit"])
    near(logits.softmax(-1).max(), it.expect["its probability"])


def test_antiberty(real):
    it = real("antiberty-bert")
    near(it.answer(it.ids).logits[0, 1, :4], it.expect["logits[0,1,:4]"])
    assert it.guesses() == it.expect["masked top-1, one position masked at a time, special tokens excepted"]
    assert len(it.model.load_report.unexpected) == 8  # pooler, cls.species, cls.chain, cls.graft


def test_splade(real):
    """Old names of norms, no decoder in the file, a tokenizer.json with truncation and padding switched on."""
    it = real("bert-tiny-splade")
    logits = it.answer(it.ids).logits
    near(logits[0, 0, :4], it.expect["logits[0,0,:4]"])
    terms = torch.log1p(logits.relu()).amax(1)[0]
    assert int((terms > 0).sum()) == it.expect["terms above 0"]
    tokenizer = polyformer.BertTokenizer.from_pretrained(it.folder)
    for word, weight in it.expect["terms"].items():
        assert abs(float(terms[tokenizer.convert_tokens_to_ids(word)]) - weight) < 1e-3
    assert len(tokenizer("a " * 700, verbose=False)["input_ids"]) == 702


def test_minilm(minilm):
    """The checkpoint without prefix, with position_ids in it; figures of all-MiniLM-L6-v2."""
    tokenizer = polyformer.AutoTokenizer.from_pretrained(minilm)
    model = polyformer.AutoModel.from_pretrained(minilm)
    assert model.load_report.clean
    assert model.load_report.dropped == ["embeddings.position_ids"]
    outputs = model(**tokenizer("A man is eating food.", return_tensors="pt"))
    near(outputs.last_hidden_state[0, 0, :4], [-0.00255, 0.1177, 0.00374, 0.24471])
    near(outputs.pooler_output[0, :4], [-0.04364, -0.0375, 0.05544, 0.01973])
    mean = polyformer.AutoModel.from_pretrained(minilm, pooling="mean")
    vector = mean(**tokenizer("A man is eating food.", return_tensors="pt")).pooler_output[0]
    near((vector / vector.norm())[:4], [0.033242, 0.004406, -0.006277, 0.048379])
