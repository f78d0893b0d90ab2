"""Programs of documents that users come with run as they stand, but for the import and the names of checkpoints.

They are taken from the documents when the tests run. Parts on TensorFlow and optimisers are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import polyformer
from tokenizer_zoo import BY_NAME

LONG = 64
LAYERS = 4  # of BERT, as one snippet reads so many
BERT_LIKE = dict(
    hidden_size=12, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=16, max_position_embeddings=LONG
)
GPT_LIKE = dict(n_embd=12, n_layer=1, n_head=2, n_positions=LONG, n_ctx=LONG)
# a checkpoint's name in the documents: class, tokenizer, tiny configuration
CHECKPOINTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert-base-uncased": ("BertModel", "bert", BERT_LIKE),
    "openai-gpt": ("OpenAIGPTModel", "openai-gpt", GPT_LIKE),
    "gpt2": ("GPT2Model", "gpt2", GPT_LIKE),
    "ctrl": ("CTRLModel", "ctrl", GPT_LIKE | {"dff": 16}),
    "transfo-xl-wt103": (
        "TransfoXLModel",
        "transfo-xl",
        dict(d_model=12, d_embed=12, n_layer=1, n_head=2, d_head=6, d_inner=16, mem_len=8, cutoffs=[20], div_val=1),
    ),
    "xlnet-base-cased": ("XLNetModel", "xlnet", dict(d_model=12, n_layer=1, n_head=2, d_inner=16)),
    "xlm-mlm-enfr-1024": (
        "XLMModel",
        "xlm",
        dict(emb_dim=12, n_layers=1, n_heads=2, max_position_embeddings=LONG, n_langs=1),
    ),
    "distilbert-base-uncased": (
        "DistilBertModel",
        "distilbert",
        dict(dim=12, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=LONG),
    ),
    "roberta-base": ("RobertaModel", "roberta", BERT_LIKE | {"max_position_embeddings": LONG + 2}),
}


@pytest.fixture(scope="module")
def checkpoints(toks: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny checkpoint in the place of one that a document names, made when it is first asked for."""
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(name: str) -> Path:
        cls, family, tiny = CHECKPOINTS[name]
        place = root / name
        if not place.exists():
            torch.manual_seed(0)
            tokenizer = toks.fresh(BY_NAME[family])
            model_class = getattr(polyformer, cls)
            config = model_class.config_class(vocab_size=len(tokenizer), **tiny)
            model_class(config).save_pretrained(place)
            tokenizer.save_pretrained(place)
        return place

    return folder


def blocks(document: Path) -> list[str]:
    """The code in a document, from fence to fence."""
    text = document.read_text(encoding="utf-8")
    return re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def program(shared: Path, document: str, sign: str, checkpoints: Callable[[str], Path]) -> str:
    """The one program of a document that has this sign, with our import and our checkpoints."""
    (path,) = (shared / "sources").glob(f"{document}_*")
    (code,) = (block for block in blocks(path) if sign in block)
    code = code.replace("from transformers import", "from polyformer import")
    code = re.sub(r"^>>> ", "", code, flags=re.MULTILINE)
    names = set(re.findall(r"""(['"])([\w-]+)\1""", code))
    for quote, name in names:
        if name in CHECKPOINTS:
            code = code.replace(f"{quote}{name}{quote}", repr(str(checkpoints(name))))
    return code


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory: the documents save to paths below it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


TOUR = "MODELS = [(BertModel"


def test_the_quick_tour_of_models_and_of_task_classes(shared: Path, here: Path, checkpoints: Any) -> None:
    code = program(shared, "001", TOUR, checkpoints)
    found: dict[str, Any] = {}
    exec(compile(code, "quick tour", "exec"), found)
    assert [model for model, _, _ in found["MODELS"]] == [getattr(polyformer, c) for c, _, _ in CHECKPOINTS.values()]
    assert found["last_hidden_states"].shape[-1] == 12
    # of the last class of the second loop
    assert type(found["model"]) is polyformer.BertForQuestionAnswering is found["BERT_MODEL_CLASSES"][-1]
    ids, layers = found["input_ids"], LAYERS
    assert len(found["all_hidden_states"]) == layers + 1 and len(found["all_attentions"]) == layers
    torch.testing.assert_close(found["traced_model"](ids), found["model"](ids, return_dict=False))
    assert (here / "directory" / "to" / "save" / "model.safetensors").is_file()


@pytest.mark.parametrize("number", range(len(CHECKPOINTS)))
def test_the_tour_s_states_are_the_model_s(number: int, shared: Path, here: Path, checkpoints: Any) -> None:
    """Every turn of the first loop, against the model asked by name."""
    code = program(shared, "001", TOUR, checkpoints).split("# Each architecture is provided")[0]
    code = code.replace("in MODELS:", "in MODELS[TURN : TURN + 1]:")
    found: dict[str, Any] = {"TURN": number}
    exec(compile(code, "quick tour", "exec"), found)
    name = list(CHECKPOINTS)[number]
    assert Path(found["pretrained_weights"]).name == name
    model = polyformer.AutoModel.from_pretrained(checkpoints(name))
    assert type(model) is found["model_class"] and not found["model"].training
    with torch.no_grad():
        want = model(input_ids=found["input_ids"], return_dict=True).last_hidden_state
    torch.testing.assert_close(found["last_hidden_states"], want)
    assert found["tokenizer"].decode(found["input_ids"][0], skip_special_tokens=True).strip()


@pytest.mark.parametrize("tuples", [False, True])
def test_migration_to_outputs(tuples: bool, shared: Path, checkpoints: Any, tmp_path: Path) -> None:
    """Taken apart whole, outputs are tensors where the checkpoint's answers are tuples, as they were in the document's
    time, and names otherwise; by position they are tensors either way."""
    polyformer.BertForSequenceClassification.from_pretrained(
        checkpoints("bert-base-uncased"), return_dict=not tuples
    ).save_pretrained(tmp_path / "model")
    code = program(shared, "001", "# Let's load our model\n", lambda name: tmp_path / "model")
    found: dict[str, Any] = {
        "BertForSequenceClassification": polyformer.BertForSequenceClassification,
        "input_ids": torch.tensor([[2, 7, 8, 9, 3]]),
        "labels": torch.tensor([1]),
    }
    whole = "loss, logits, attentions = outputs"
    assert whole in code
    before, after = code.split(whole)
    exec(compile(before.rsplit("# And even", 1)[0], "migration", "exec"), found)
    assert found["loss"].dim() == 0 and found["logits"].shape == (1, 2) and found["loss"].requires_grad
    exec(compile(code, "migration", "exec"), found)
    assert not after.strip()
    if tuples:
        want = found["model"](found["input_ids"], labels=found["labels"], return_dict=True)
        assert torch.equal(found["loss"], want.loss) and torch.equal(found["logits"], want.logits)
        assert len(found["attentions"]) == LAYERS
    else:
        assert [found["loss"], found["logits"], found["attentions"]] == ["loss", "logits", "attentions"]


def test_migration_of_files(shared: Path, here: Path, checkpoints: Any) -> None:
    """A model and its tokenizer grow by a token, are trained, saved and loaded."""
    code = program(shared, "001", "### Let's load a model and tokenizer", checkpoints)
    trained: list[Any] = []

    def train(model: Any) -> None:
        assert not model.training
        model.train()(torch.tensor([[2, 7, 3]]), labels=torch.tensor([0])).loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.01 * (0 if p.grad is None else p.grad)
        trained.append(model.eval())

    found: dict[str, Any] = {"train": train}
    found |= {name: getattr(polyformer, name) for name in ("BertForSequenceClassification", "BertTokenizer")}
    exec(compile(code, "migration", "exec"), found)
    tokenizer, model = found["tokenizer"], found["model"]
    text = "some [SPECIAL_TOKEN_1] text [SPECIAL_TOKEN_2]"
    ids = torch.tensor([tokenizer.encode(text)])
    old = polyformer.BertTokenizer.from_pretrained(checkpoints("bert-base-uncased"))
    assert len(tokenizer) == len(old) + 2 == model.config.vocab_size
    assert {len(old), len(old) + 1} <= set(ids[0].tolist())
    assert model is not trained[0] and torch.equal(model(ids).logits, trained[0](ids).logits)
    assert {"model.safetensors", "config.json", "vocab.txt"} <= {
        path.name for path in (here / "my_saved_model_directory").iterdir()
    }


def test_pooling_the_last_four_layers(shared: Path, checkpoints: Any) -> None:
    """The snippet in a head that a user wrote, and pooling="last4_cls": the same scores."""
    code = program(shared, "002", "outputs = self.bert(input_ids,", checkpoints)
    ours = polyformer.BertForSequenceClassification.from_pretrained(
        checkpoints("bert-base-uncased"), pooling="last4_cls"
    )
    bert = polyformer.BertModel.from_pretrained(
        checkpoints("bert-base-uncased"), add_pooling_layer=False, output_hidden_states=True
    )
    linear = torch.nn.Linear(4 * 12, 2)
    linear.weight, linear.bias = ours.classifier.out.weight, ours.classifier.out.bias
    ids = torch.tensor([[2, 7, 8, 9, 3], [2, 5, 3, 0, 0]])
    mask = (ids != 0).long()
    found: dict[str, Any] = {
        "torch": torch, "input_ids": ids, "attention_mask": mask, "token_type_ids": None, "position_ids": None,
        "head_mask": None, "self": SimpleNamespace(bert=bert, dropout=torch.nn.Dropout(0.0), classifier=linear),
    }  # fmt: skip
    exec(compile(code, "pooling", "exec"), found)
    assert found["pooled_output"].shape == (2, 48)
    torch.testing.assert_close(found["logits"], ours(ids, attention_mask=mask).logits)


def test_pooling_loads_by_auto_classes(shared: Path, checkpoints: Any) -> None:
    code = program(shared, "002", "from transformers import AutoTokenizer, AutoModel\n", checkpoints)
    found: dict[str, Any] = {}
    exec(compile(code, "auto classes", "exec"), found)
    assert type(found["model"]) is polyformer.BertModel and type(found["tokenizer"]) is polyformer.BertTokenizer
    rows, length = found["inputs"]["input_ids"].shape
    assert found["outputs"].last_hidden_state.shape == (rows, length, 12)
    assert found["outputs"].pooler_output.shape == (rows, 12)
