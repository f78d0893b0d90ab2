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
    "rxnmapper-albert",
    "sapiens-roberta-vh",
    "sapiens-roberta-vl",
    "mgm-gpt2",
)
GREEDY = "greedy from [[2]] (<bos>), 12 new tokens"
TOP_1 = "masked top-1, one position masked at a time, special tokens excepted"


class Real:
    """A checkpoint: its folder, its notes, our model, and the ids of its example text."""

    def __init__(self, folder):
        self.folder = folder
        self.notes = json.loads((folder / "NOTES.json").read_text(encoding="utf-8"))
        self.expect, self.cls = self.notes["expect"], self.notes["loads_as"]
        self.model = getattr(polyformer, self.cls).from_pretrained(folder)

    @property
    def words(self):
        """Tokens by id."""
        if (self.folder / "vocab.json").exists():
            found = json.loads((self.folder / "vocab.json").read_text(encoding="utf-8"))
            return sorted(found, key=found.get)
        return (self.folder / "vocab.txt").read_text(encoding="utf-8").split("\n")

    @property
    def ids(self):
        if GREEDY in self.expect:
            return torch.tensor([self.expect[GREEDY]])
        pattern = self.expect.get("its tokens between [CLS] and [SEP], as a pattern")
        if pattern:  # SMILES have a tokenizer of their own
            tokens = ["[CLS]", *re.findall(pattern, self.expect["text"]), "[SEP]"]
            return torch.tensor([[self.words.index(token) for token in tokens]])
        if self.cls.startswith("Roberta"):  # a token a residue
            return torch.tensor([[self.words.index(token) for token in ("<s>", *self.expect["text"], "</s>")]])
        return polyformer.BertTokenizer.from_pretrained(self.folder)(self.expect["text"], return_tensors="pt").input_ids

    def answer(self, ids, **inputs):
        with torch.no_grad():
            return self.model(ids, **inputs)

    def guesses(self):
        """How many tokens are guessed right, each masked in turn, special ones left out; and how many there are."""
        words, ids = self.words, self.ids[0]
        inner = torch.arange(1, len(ids) - 1)
        rows = ids.repeat(len(inner), 1)
        rows[torch.arange(len(inner)), inner] = words.index("[MASK]" if "[MASK]" in words else "<mask>")
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
        got = {name: value for name, value in got.items() if isinstance(value, torch.Tensor)}
        assert got.keys() == {k for k in want if "." not in k}
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
    assert it.guesses() == it.expect[TOP_1]


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
    assert it.guesses() == it.expect[TOP_1]
    assert len(it.model.load_report.unexpected) == 8  # pooler, cls.species, cls.chain, cls.graft


def test_rxnmapper(real):
    """An old config with many odd keys, all kept; the pooler is left over."""
    it = real("rxnmapper-albert")
    near(it.answer(it.ids).logits[0, 1, :4], it.expect["logits[0,1,:4]"])
    assert f"{it.guesses()} (not 26)" == it.expect[TOP_1]
    assert it.model.load_report.unexpected == ["albert.pooler.bias", "albert.pooler.weight"]
    assert it.model.config.num_memory_blocks == 0


@pytest.mark.parametrize("name", ["sapiens-roberta-vh", "sapiens-roberta-vl"])
def test_sapiens(name, real):
    it = real(name)
    near(it.answer(it.ids).logits[0, 1, :4], it.expect["logits[0,1,:4]"])
    assert it.guesses() == it.expect[TOP_1]
    assert it.model.load_report.clean


def test_mgm(real):
    """GPT-2 on lists of microbes: the continuations, alone and beside a prompt that is padded on the left."""
    it = real("mgm-gpt2")
    assert it.model.load_report.clean
    begin = torch.tensor([[2]])
    near(it.answer(begin).logits[0, 0, :4], it.expect["logits[0,0,:4]"])
    assert it.model.generation_config.eos_token_id == 3
    text = it.model.generate(begin, max_new_tokens=12)
    assert text.tolist() == [it.expect[GREEDY]]
    assert " ".join(it.words[i] for i in text[0, 1:6]) == it.expect["its first words"]
    # the notes' beams count eos as a part of a text's length, so all are as long: no penalty ranks them alike
    beams = it.model.generate(begin, max_new_tokens=12, num_beams=4, length_penalty=0.0)
    assert beams[0].tolist() == it.expect["beam 4, same"]
    two = torch.tensor([[0, 0, 0, 2], it.expect[GREEDY][:4]])
    found = it.model.generate(two, max_new_tokens=9).tolist()
    assert found == [[0, 0, 0, *it.expect[GREEDY][:10]], it.expect[GREEDY]]


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}, {"length_penalty": 2.0}])
def test_mgm_s_beams_are_the_reference_s(real, oracle, options):
    it = real("mgm-gpt2")
    asked = {"input_ids": torch.tensor([[2]]), "max_length": 13, "num_beams": 4, "num_return_sequences": 4, **options}
    asked |= {"do_sample": False, "return_dict_in_generate": True, "output_scores": True}
    config, weights = it.folder / "config.json", load_file(it.folder / "model.safetensors")
    want = oracle.run(it.cls, config, weights, asked, dtype=torch.float32, method="generate", strict=False)
    got = it.model.generate(**asked)
    assert torch.equal(got.sequences, want["sequences"])
    torch.testing.assert_close(got.sequences_scores, want["sequences_scores"], rtol=1e-4, atol=1e-4)


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
