"""Indexes of passages: against brute force, killed and gone on with, damaged, and under several processes."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyformer import CheckpointError
from polyformer.retrieval import (
    HNSW,
    IVF,
    Document,
    Int8,
    Passage,
    PassageIndex,
    Retriever,
    accelerate,
    add,
    build,
    delete,
    faiss_kinds,
    files,
    flat,
    passages_of,
    read_documents,
)
from polyformer.retrieval.write import kept
from retrieval_worker import WIDTH, encode, some, vector

GROWING = (files.VECTORS, files.PASSAGES, files.ENDS)
WORKER = Path(__file__).parent / "retrieval_worker.py"


def made(folder: Path, count: int = 100, **options: object) -> PassageIndex:
    return build(folder, some(count), encode, encoder="random", **{"block": 16, **options})  # type: ignore[arg-type]


def brute_force(table: np.ndarray, queries: np.ndarray, metric: str, dead: Sequence[int] = ()) -> np.ndarray:
    """All ids for each query, best first; scores in float64, one by one."""
    scores = np.zeros((len(queries), len(table)))
    for q, query in enumerate(queries.astype(np.float64)):
        for i, row in enumerate(table.astype(np.float64)):
            norm = np.linalg.norm(query) * np.linalg.norm(row) if metric == "cosine" else 1.0
            scores[q, i] = -np.inf if i in dead else query @ row / norm
    return np.argsort(-scores, axis=1, kind="stable")[:, : len(table) - len(dead)]


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (*GROWING, files.META)}


# ---- documents and passages ------------------------------------------------------------------------------------------


@given(st.text(alphabet="ab .\n\t\u00e9\u4e2d\u3042", max_size=200), st.integers(1, 7))
def test_passages_point_into_their_document_and_leave_no_word_out(text: str, words: int) -> None:
    found = list(passages_of([Document("d", text, "t", {"a": 1})], words))
    kept = "".join("".join(p.text.split()) for p in found)
    assert kept == "".join(text.split())
    for p in found:
        assert text[p.start : p.end] == p.text == p.text.strip() != ""
        assert (p.document, p.title, p.meta) == ("d", "t", {"a": 1})
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))
    spaced = [p for p in found if not any(c > "\u2e80" for c in p.text)]
    assert all(len(p.text.split()) <= words for p in spaced)


def test_a_hundred_words_as_in_dpr() -> None:
    text = " ".join(f"w{i}" for i in range(250))
    found = list(passages_of([Document("d", text)]))
    assert [len(p.text.split()) for p in found] == [100, 100, 50]
    assert found[1].text.startswith("w100 ")


@given(st.text(), st.text(), st.integers(0, 10**9))
def test_a_line_gives_its_passage_back(text: str, title: str, number: int) -> None:
    passage = Passage(text + "\ud800\n\u2028", "d\n", title, 5, {"x": [1, None]})
    line = passage.line(number)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    again = Passage.from_line(line)
    assert again == Passage(passage.text, "d\n", title, 5, {"x": [1, None]}, number)


def test_folders_jsonl_and_dpr_s_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.txt").write_text("no")
    (tmp_path / "a.md").write_text("# The title #\n\nText of a.\n", encoding="utf-8-sig")
    (tmp_path / "b" / "plain.txt").write_text("na\u00efve", encoding="utf-8")
    (tmp_path / "b" / "latin.txt").write_bytes(b"\xe9t\xe9")
    (tmp_path / "c.jsonl").write_text('{"text": "one", "id": 7, "title": "T", "year": 1999}\n\n{"text": "two"}\n')
    (tmp_path / "d.tsv").write_text('id\ttext\ttitle\n11\t"He said ""yes"""\tA "B"\n12\tplain\tC\n')
    (tmp_path / "e.bin").write_bytes(b"\0")
    (tmp_path / "f.tsv").write_text("what\tever\n")
    a, one, two, first, second, plain = read_documents([tmp_path, tmp_path / "a.md"])
    root = tmp_path.as_posix()
    assert a == Document(f"{root}/a.md", "# The title #\n\nText of a.\n", "The title")
    assert one == Document("7", "one", "T", {"year": 1999})
    assert two == Document(f"{root}/c.jsonl:3", "two")
    assert first == Passage('He said "yes"', "11", 'A "B"') and second == Passage("plain", "12", "C")
    assert plain == Document(f"{root}/b/plain.txt", "na\u00efve", "plain")
    assert "latin.txt is no text in UTF-8" in caplog.text and "skipped" in caplog.text and "f.tsv" in caplog.text


def test_documents_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\nnot json\n')
    stream = read_documents([tmp_path / "a.jsonl"])
    assert next(stream).text == "one"
    with pytest.raises(ValueError, match="line 2 of .*a.jsonl is not JSON"):
        next(stream)


@pytest.mark.parametrize(
    "name,text,said",
    [
        ("a.jsonl", b'["x"]\n', 'line 1 of .*a.jsonl is no object with a "text"'),
        ("a.jsonl", b'{"txt": "x", "id": 1}\n', 'line 1 of .*a.jsonl has no "text"; its fields are "txt", "id"'),
        ("a.jsonl", b'{"text": 7}\n', 'line 1 of .*a.jsonl has no text in "text", which is 7'),
        ("a.tsv", b"id\ttext\ttitle\n1\tonly\n", "row 2 of .*a.tsv cannot be read: it has 2 columns"),
        ("a.tsv", b"1\t\xff\tx\n", "a.tsv cannot be read"),
        ("a.txt", b"\xff", "a.txt is no text in UTF-8"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, text: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(ValueError, match=said):
        list(read_documents([tmp_path / name]))
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        list(read_documents([tmp_path / "nothing"]))


# ---- search ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", files.METRICS)
@pytest.mark.parametrize("rows,scores", [(1 << 16, 1 << 22), (7, 1 << 22), (1 << 16, 40)])
def test_exact_search_is_brute_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, rows: int, scores: int
) -> None:
    monkeypatch.setattr(flat, "ROWS", rows)
    monkeypatch.setattr(flat, "SCORES", scores)
    monkeypatch.setattr(flat, "QUERIES", 3)
    index = made(tmp_path / "x", 60, metric=metric)
    table = encode(some(60))
    queries = np.concatenate([np.random.default_rng(1).standard_normal((7, WIDTH)), table[:1] * 2])
    for k in (1, 5, 60):
        found = index.search(queries, k)
        assert (found.ids == brute_force(table, queries, metric)[:, :k]).all()
        np.testing.assert_allclose(found.vectors, index.vectors[found.ids], rtol=0)
        lengths = np.linalg.norm(queries, axis=1)[:, None, None] if metric == "cosine" else 1.0
        wanted = (queries[:, None] / lengths * found.vectors).sum(-1)
        np.testing.assert_allclose(found.scores, wanted, atol=1e-6)
    assert isinstance(index, Retriever)
    assert (index.search(torch.from_numpy(queries).requires_grad_(), 5).ids == index.search(queries, 5).ids).all()


def test_one_query_is_as_many(tmp_path: Path) -> None:
    index = made(tmp_path / "x")
    queries = np.random.default_rng(1).standard_normal((50, WIDTH))
    together = index.search(queries, 9)
    for i, query in enumerate(queries):
        alone = index.search(query[None], 9)
        assert all((a[0] == b[i]).all() for a, b in zip(alone, together, strict=True))
    assert [len(x) for x in index.search(queries[:0], 3)] == [0, 0, 0]


@pytest.mark.parametrize("rows", [1 << 16, 4])
def test_of_equals_the_lower_id_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(flat, "ROWS", rows)
    index = build(tmp_path / "x", some(50), lambda passages: np.ones((len(passages), WIDTH)), encoder="same")
    assert index.search(np.ones((2, WIDTH)), 6).ids.tolist() == [[0, 1, 2, 3, 4, 5]] * 2


def test_fewer_passages_than_asked_for(tmp_path: Path) -> None:
    index = made(tmp_path / "x", 3)
    delete(tmp_path / "x", [1])
    index.refresh()
    found = index.search(np.ones((2, WIDTH)), 5)
    assert sorted(found.ids[0].tolist()) == [-1, -1, -1, 0, 2] and found.ids[0, 2:].tolist() == [-1, -1, -1]
    assert np.isneginf(found.scores[:, 2:]).all() and not found.vectors[:, 2:].any()


def test_queries_and_ids_that_make_no_sense(tmp_path: Path) -> None:
    index = made(tmp_path / "x", 3)
    with pytest.raises(ValueError, match=r"queries have shape \(1, 4\), but \(queries, 8\) was expected.*random"):
        index.search(np.ones((1, 4)), 1)
    with pytest.raises(ValueError, match="numbers that are not finite"):
        index.search(np.full((1, WIDTH), np.nan), 1)
    with pytest.raises(ValueError, match="k is 0"):
        index.search(np.ones((1, WIDTH)), 0)
    with pytest.raises(ValueError, match="no passage has the id -1"):
        index.passages([-1])
    with pytest.raises(ValueError, match="the vector of passage 1 is not finite"):
        build(tmp_path / "y", some(2), lambda p: np.array([[1.0], [np.inf]]), encoder="x")
    with pytest.raises(ValueError, match="metric is 'l2'"):
        made(tmp_path / "z", metric="l2")
    with pytest.raises(ValueError, match="there is no passage"):
        made(tmp_path / "z", 0)


@pytest.mark.parametrize("metric", files.METRICS)
@pytest.mark.parametrize(
    "kind", [IVF(lists=7, probes=7), HNSW(width_search=400), Int8()], ids=lambda kind: type(kind).__name__
)
def test_faiss_and_exact_agree(tmp_path: Path, kind: faiss_kinds.Kind, metric: str) -> None:
    """Where FAISS may look at everything: before and after additions, deletions, and with a tail it does not know."""
    pytest.importorskip("faiss")
    queries = np.random.default_rng(1).standard_normal((40, WIDTH))
    folder = tmp_path / "x"
    made(folder, 300, metric=metric)

    def check() -> None:
        exact, fast = PassageIndex(folder, exact=True).search(queries, 10), PassageIndex(folder).search(queries, 10)
        assert all((a == b).all() for a, b in zip(exact, fast, strict=True))

    accelerate(folder, kind)
    assert PassageIndex(folder).meta.faiss == kind.description()
    check()
    delete(folder, range(0, 150, 2))
    check()
    before = (folder / f"faiss-{kind.name}.index").read_bytes()
    add(folder, some(50, 300), encode)
    assert PassageIndex(folder)._faiss.ntotal == 350
    check()
    (folder / f"faiss-{kind.name}.index").write_bytes(before)  # as after a kill between the two
    check()
    accelerate(folder, None)
    assert not list(folder.glob("faiss*")) and PassageIndex(folder).meta.faiss is None
    check()


def test_a_reader_of_before_ignores_what_faiss_learnt_since(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    folder = tmp_path / "x"
    made(folder, 50)
    old = accelerate(folder, HNSW())
    new = add(folder, [Passage("new")], encode)
    query = vector("new")[None]
    assert old.search(query, 50).ids.max() == 49 and new.search(query, 1).ids.item() == 50


def test_without_faiss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "x"
    index = made(folder)
    meta = files.read_meta(folder)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(CheckpointError, match=r"run pip install 'polyformer\[retrieval\]', or search exactly"):
        accelerate(folder, HNSW())
    assert files.read_meta(folder) == meta and len(index.search(np.ones((1, WIDTH)), 3).ids) == 1


def test_a_damaged_index_of_faiss_leaves_the_rest(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    folder = tmp_path / "x"
    made(folder)
    accelerate(folder, HNSW())
    file = folder / "faiss-hnsw.index"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="faiss-hnsw.index is damaged.*the vectors are whole"):
        PassageIndex(folder).search(np.ones((1, WIDTH)), 3)
    file.unlink()
    with pytest.raises(CheckpointError, match="faiss-hnsw.index is missing"):
        PassageIndex(folder).search(np.ones((1, WIDTH)), 3)
    assert PassageIndex(folder, exact=True).search(np.ones((1, WIDTH)), 3).ids.shape == (1, 3)
    accelerate(folder, HNSW())
    assert PassageIndex(folder).search(np.ones((1, WIDTH)), 3).ids.shape == (1, 3)


# ---- adding and deleting ---------------------------------------------------------------------------------------------


def test_ids_stay(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    old = made(folder, 20)
    assert delete(folder, [3, 3], ["doc 2"]) == 6
    assert delete(folder, [3]) == 0
    new = add(folder, some(5, 20), encode, block=2)
    assert [p.id for p in new] == [i for i in range(25) if i != 3 and not 10 <= i < 15]
    assert all(p.text == f"text {p.id}" for p in new) and len(new) == 19
    assert new.passages([24, 0])[0] == Passage("text 24", "doc 4", "title 4", 28, {}, 24)
    with pytest.raises(ValueError, match="passage 3 has been deleted"):
        new.passages([3])
    assert len(old) == 20 and old.passages([3])[0].text == "text 3"  # a reader sees what it opened
    old.refresh()
    assert list(old) == list(new)
    queries = np.random.default_rng(0).standard_normal((5, WIDTH))
    dead = [3, *range(10, 15)]
    assert (new.search(queries, 19).ids == brute_force(encode(some(25)), queries, "cosine", dead)).all()
    with pytest.raises(ValueError, match="no passage has the id 25: there are ids from 0 to 24"):
        delete(folder, [0, 25])
    with pytest.raises(ValueError, match="no passage of a document 'doc 9'"):
        delete(folder, [0], ["doc 0", "doc 9"])
    assert PassageIndex(folder).passages([0])
    new.verify()


@given(st.lists(st.integers(0, 30), max_size=20), st.lists(st.integers(0, 30), max_size=20))
def test_intervals_are_the_numbers(first: list[int], second: list[int]) -> None:
    there = files.merged([(i, i + 1) for i in first])
    there = files.merged([*there, *((i, i + 1) for i in second)])
    assert {i for start, stop in there for i in range(start, stop)} == {*first, *second}
    assert all(a[1] < b[0] for a, b in itertools.pairwise(there))


def test_replacing_documents(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    made(folder, 20)
    new = [Passage(f"new {i}", f"doc {i}") for i in (1, 9)]
    index = add(folder, new, encode, replacing=True)
    assert [p.id for p in index] == [*range(5), *range(10, 22)]
    assert index.passages([20, 21])[1].text == "new 9"


def test_another_model_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    made(folder, 20)
    before = content(folder)
    with pytest.raises(ValueError, match="another vector than the index has of it"):
        add(folder, some(2), lambda passages: -encode(passages))
    with pytest.raises(ValueError, match="another vector than the index has of it"):
        add(folder, some(2), lambda passages: np.ones((len(passages), 3)))
    assert content(folder) == before


# ---- interrupted -----------------------------------------------------------------------------------------------------


class Broken(Exception):
    pass


def breaking(after: int) -> Callable[[Sequence[Passage]], np.ndarray]:
    """`encode` that works so many times."""
    calls = itertools.count()

    def run(passages: Sequence[Passage]) -> np.ndarray:
        if next(calls) >= after:
            raise Broken
        return encode(passages)

    return run


def counting(done: list[str]) -> Callable[[Sequence[Passage]], np.ndarray]:
    def run(passages: Sequence[Passage]) -> np.ndarray:
        done.extend(p.text for p in passages)
        return encode(passages)

    return run


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_build_goes_on_where_it_was(tmp_path: Path, after: int) -> None:
    made(tmp_path / "whole")
    folder = tmp_path / "x"
    with pytest.raises(Broken):
        build(folder, some(100), breaking(after), encoder="random", block=16)
    with pytest.raises(CheckpointError, match=f"half built, {16 * after} passages" if after else "there is no index"):
        PassageIndex(folder)
    assert kept(folder) == 16 * after
    if after:
        with pytest.raises(CheckpointError, match="half built"):
            add(folder, some(1), encode)
    for name in GROWING:  # what was being written when it ended
        with (folder / name).open("ab") as file:
            file.write(b"rubbish")
    (folder / ".meta.json.1-2.tmp").write_text("{")
    done: list[str] = []
    seen: list[int] = []
    index = build(folder, iter(some(100)), counting(done), encoder="random", block=16, advance=seen.append)
    assert done == [f"text {i}" for i in range(16 * after, 100)] and sum(seen) == 100 == len(index)
    assert content(folder) == content(tmp_path / "whole")
    assert sorted(os.listdir(folder)) == sorted([*GROWING, files.META, files.LOCK])


@pytest.mark.parametrize("changed", [0, 20, 47])
def test_documents_that_changed_meanwhile(tmp_path: Path, changed: int) -> None:
    """What is the same is kept, the rest is done again: the files are those of a build of the new documents."""
    now = some(100)
    now[changed] = Passage("another")
    build(tmp_path / "whole", now, encode, encoder="random", block=16)
    folder = tmp_path / "x"
    with pytest.raises(Broken):
        build(folder, some(100), breaking(3), encoder="random", block=16)
    build(folder, now, encode, encoder="random", block=16)
    assert content(folder) == content(tmp_path / "whole")
    PassageIndex(folder).verify()


def test_documents_that_changed_and_another_kill(tmp_path: Path) -> None:
    """What is dropped is not missed, wherever the second attempt ends."""
    folder = tmp_path / "x"
    made(tmp_path / "whole", 100)
    with pytest.raises(Broken):
        build(folder, some(100, 5), breaking(3), encoder="random", block=16)
    before = shutil.copytree(folder, tmp_path / "before")
    with pytest.raises(Broken):
        build(folder, some(100), breaking(0), encoder="random", block=16)
    made(folder, 100)
    assert content(folder) == content(tmp_path / "whole")
    made(before, 100)
    assert content(before) == content(tmp_path / "whole")


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """The system lets no file grow beyond 20 kB: one sentence, and with room again the build goes on."""
    resource = pytest.importorskip("resource")
    folder = tmp_path / "x"
    made(tmp_path / "whole", 400)

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        [sys.executable, WORKER, "build", folder], stderr=subprocess.PIPE, text=True, preexec_fn=limited
    )
    assert "The disk is full or a quota is reached" in done.stderr.splitlines()[-1]
    assert 50 < written(folder) < 400
    left: list[str] = []
    build(folder, some(400), counting(left), encoder="random", block=16)
    assert len(left) < 350
    assert content(folder) == content(tmp_path / "whole")


def test_fewer_documents_than_were_done(tmp_path: Path) -> None:
    made(tmp_path / "whole", 20)
    with pytest.raises(Broken):
        build(tmp_path / "x", some(100), breaking(3), encoder="random", block=16)
    made(tmp_path / "x", 20)
    assert content(tmp_path / "x") == content(tmp_path / "whole")


def test_going_on_with_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Broken):
        build(tmp_path / "x", some(100), breaking(3), encoder="random", block=16)
    with pytest.raises(CheckpointError, match="half built with random and cosine: go on with those"):
        build(tmp_path / "x", some(100), encode, encoder="another")
    with pytest.raises(CheckpointError, match="half built with random and cosine"):
        made(tmp_path / "x", metric="inner-product")


def test_an_addition_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    made(folder, 20)
    with pytest.raises(Broken):
        add(folder, some(50, 20), breaking(3), block=16)
    index = PassageIndex(folder)
    assert len(index) == 20 and index.meta.run is not None
    index.verify()
    delete(folder, [4])
    done: list[str] = []
    index = add(folder, some(50, 20), counting(done), block=16)
    assert done[1:] == [f"text {i}" for i in range(20 + 32, 70)]  # the first looks whether the model is the same
    assert len(index) == 69 and index.meta.run is None
    assert [p.text for p in index][-1] == "text 69"
    index.verify()


@pytest.mark.parametrize("what", ["build", "add"])
def test_kill_9(tmp_path: Path, what: str) -> None:
    """A process is killed again and again, wherever it is; in the end the files are those of one that never was."""
    base = 0 if what == "build" else 40
    folder, whole = tmp_path / "x", tmp_path / "whole"
    if base:
        made(folder, base), made(whole, base)
        add(whole, some(400, base), encode, block=4)
    else:
        build(whole, some(400), encode, encoder="random", block=4)
    reached = [base]
    for turn in range(3):
        with subprocess.Popen([sys.executable, WORKER, what, folder]) as running:
            target = reached[-1] + 20
            deadline = time.monotonic() + 60
            while written(folder) < target and running.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.003 * turn)
            running.send_signal(signal.SIGKILL)
        reached.append(written(folder))
        if base:
            assert len(PassageIndex(folder)) == base
            PassageIndex(folder).verify()
        else:
            with pytest.raises(CheckpointError, match="half built"):
                PassageIndex(folder)
    assert all(b >= a + 20 for a, b in itertools.pairwise(reached)) and reached[-1] < base + 400
    done: list[str] = []
    if base:
        add(folder, some(400, base), counting(done), block=4)
        done = done[1:]
    else:
        build(folder, some(400), counting(done), encoder="random", block=4)
    assert len(done) == base + 400 - reached[-1]
    assert content(folder) == content(whole)


def written(folder: Path) -> int:
    """Rows that count or will."""
    try:
        meta = files.read_meta(folder)
    except CheckpointError:
        return 0
    return (meta.run or meta.whole).rows


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GROWING)
def test_cut_off_and_missing_files(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "x"
    made(folder)
    file = folder / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=f"{name} is cut off.*restore it from a backup"):
        PassageIndex(folder)
    with pytest.raises(CheckpointError, match=f"{name} is cut off"):
        add(folder, some(2), encode)
    assert file.read_bytes() == whole[:-1]  # nothing was made worse
    file.unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}"):
        PassageIndex(folder)


@settings(max_examples=40)
@given(st.data())
def test_any_byte_that_changed_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damage") / "x"
    made(folder, 6)
    name = data.draw(st.sampled_from([*GROWING, files.META]))
    bits = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(bits) - 1))
    bits[place] ^= 1 << data.draw(st.integers(0, 7))
    same = json_or_none(bytes(bits)) == json_or_none((folder / name).read_bytes()) is not None
    (folder / name).write_bytes(bits)
    try:
        index = PassageIndex(folder)
        index.verify()
    except CheckpointError as error:
        assert "\n" not in str(error)
    else:
        assert same, (name, place)  # white space of meta.json alone
    shutil.rmtree(folder)


def json_or_none(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return None


def test_a_passage_that_is_damaged_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    made(folder, 6)
    file = folder / files.PASSAGES
    file.write_bytes(file.read_bytes().replace(b'{"id": 2', b'{"id"; 2'))
    index = PassageIndex(folder)
    assert index.passages([1])
    with pytest.raises(CheckpointError, match="passages.jsonl is damaged, passage 2 cannot be read"):
        index.passages([2])


def test_folders_that_are_no_index(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no index in"):
        PassageIndex(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="there is no index in"):
        PassageIndex(tmp_path / "file")
    with pytest.raises(CheckpointError, match="is a file, or lies under one"):
        made(tmp_path / "file")
    with pytest.raises(CheckpointError, match="has other files, file for one: build in a new or an empty folder"):
        made(tmp_path)
    made(tmp_path / "x")
    with pytest.raises(CheckpointError, match="already has an index: add to it"):
        made(tmp_path / "x")
    meta = json.loads((tmp_path / "x" / files.META).read_text())
    (tmp_path / "x" / files.META).write_text(json.dumps(meta | {"format": 99}))
    with pytest.raises(CheckpointError, match="is an index of format 99, and this version of polyformer reads up to 1"):
        PassageIndex(tmp_path / "x")


def test_metadata_is_kept(tmp_path: Path) -> None:
    index = made(tmp_path / "x", 3, metadata={"corpus": "mine", "date": [2026, 11]}, question_encoder="other")
    assert index.meta.metadata == {"corpus": "mine", "date": [2026, 11]}
    assert (index.meta.encoder, index.meta.question_encoder) == ("random", "other")


# ---- at the same time ------------------------------------------------------------------------------------------------


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    made(folder, 20)

    def meanwhile(passages: Sequence[Passage]) -> np.ndarray:
        for other in (
            lambda: add(folder, some(1), encode),
            lambda: delete(folder, [0]),
            lambda: build(folder, some(1), encode, encoder="x"),
        ):
            with pytest.raises(CheckpointError, match="another process is writing to .*: wait until it is done"):
                other()
        return encode(passages)

    add(folder, some(3, 20), meanwhile)
    assert len(PassageIndex(folder)) == 23
    with files.writing(folder):
        script = f"from polyformer.retrieval import delete; delete({str(folder)!r}, [0])"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "another process is writing to" in done.stderr
    delete(folder, [0])


def test_readers_while_a_writer_appends(tmp_path: Path) -> None:
    """Another process adds all the time; every reader sees whole additions and right passages."""
    folder = tmp_path / "x"
    made(folder, 40)
    sizes = set()
    with subprocess.Popen([sys.executable, WORKER, "change", folder], stderr=subprocess.PIPE, text=True) as running:
        old = PassageIndex(folder)
        while running.poll() is None:
            index = PassageIndex(folder)
            rows = index.meta.whole.rows
            assert (rows - 40) % 20 == 0
            sizes.add(rows)
            found = index.search(vector(f"text {rows - 1}")[None], 1)
            assert found.ids.item() == rows - 1
            assert index.passages(found.ids[0])[0].text == f"text {rows - 1}"
            assert old.search(vector("text 39")[None], 1).ids.item() == 39
        assert running.stderr is not None and running.stderr.read() == ""
    assert len(sizes) > 3
    index = PassageIndex(folder)
    assert len(index) == 40 + 400 - 20
    index.verify()


def test_opening_reads_next_to_nothing(tmp_path: Path) -> None:
    """Vectors of 40 MB and passages of 20 MB stay on the disk."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("this system does not say how much memory a process has")
    rows = 20000
    passages = [Passage("x" * 1000, "d", start=i) for i in range(rows)]
    table = np.random.default_rng(0).standard_normal((rows, 512), np.float32)
    build(tmp_path / "x", passages, lambda some: table[[p.start for p in some]], encoder="r", block=5000)
    script = textwrap.dedent(f"""
        import numpy as np
        from polyformer.retrieval import PassageIndex, files, flat, index
        def memory():
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
        before = memory()
        found = PassageIndex({str(tmp_path / "x")!r})
        found.passages([0, 10000, 19999])
        print(memory() - before)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 3000  # kB
