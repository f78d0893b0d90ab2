"""Files of a model: a folder and the cache never touch the network, and every failure says what to do."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import huggingface_hub
import pytest
from huggingface_hub import constants

from polyformer.core import hub
from polyformer.core.errors import CheckpointError
from polyformer.core.hub import cached_file, find_weights

COMMIT = "a" * 40
WEIGHTS = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any connection is a failure, not a wait; and the library itself is told nothing about being offline."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(hub, "_unreachable", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def cache_of(root: Path, repository: str, *names: str, absent: tuple[str, ...] = (), commit: str = COMMIT) -> Path:
    """The hub's cache as the library lays it out: links of a commit's files to blobs, and what is known not to be."""
    folder = root / ("models--" + repository.replace("/", "--"))
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        blob = write(folder / "blobs", str(number)) / str(number)
        link = folder / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    write(folder / ".no_exist" / commit, *absent)
    return root


def message(call, *args, **keywords) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*args, **keywords)
    told = str(caught.value)
    assert "\n" not in told and told.endswith(".")
    return told


# ---------------------------------------------------------------------------------------------------- a local folder


def test_a_folder_is_used_as_it_is(tmp_path):
    write(tmp_path, "config.json", "onnx/model.onnx")
    assert cached_file(tmp_path, "config.json") == tmp_path / "config.json"
    assert cached_file(str(tmp_path), "model.onnx", subfolder="onnx") == tmp_path / "onnx" / "model.onnx"
    assert cached_file(str(tmp_path) + "/", "config.json", force_download=True) == tmp_path / "config.json"
    assert cached_file(tmp_path, "vocab.txt", required=False) is None


def test_a_file_is_itself_and_knows_its_neighbours(tmp_path):
    write(tmp_path, "weights.bin", "config.json")
    assert cached_file(tmp_path / "weights.bin", "weights.bin") == tmp_path / "weights.bin"
    assert cached_file(tmp_path / "weights.bin", "config.json") == tmp_path / "config.json"
    assert find_weights(tmp_path / "weights.bin") == tmp_path / "weights.bin"


def test_a_folder_without_the_file_says_what_it_has(tmp_path):
    assert "is empty" in message(cached_file, tmp_path, "config.json")
    write(tmp_path, *(f"file{number}" for number in range(10)))
    told = message(cached_file, tmp_path, "config.json")
    assert "has no file 'config.json'; it has file0, file1" in told and "and 2 more" in told
    assert "no folder 'onnx'" in message(cached_file, tmp_path, "model.onnx", subfolder="onnx")


def test_a_folder_that_hides_a_repository_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "bert-base-uncased", "notes.txt")
    assert "comes before a hub repository" in message(cached_file, "bert-base-uncased", "config.json")


@pytest.mark.parametrize(
    "filename", ["../secret", "/etc/passwd", "a/../../b", "..", "..\\b", "C:\\b", "\\\\host\\b", "", "a\0b"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path, filename):
    write(tmp_path, "secret", "inner/config.json")
    for where in (tmp_path / "inner", "org/name"):
        assert "points outside its folder" in message(cached_file, where, filename, required=False)
        if filename:
            assert "points outside its folder" in message(cached_file, where, "x", subfolder=filename)
    assert "revision" in message(cached_file, "org/name", "config.json", revision="../../x")


@pytest.mark.parametrize("name", ["/no/such/folder", "./missing", "a/b/c", "", "with space", "../up", "a--b", "org/"])
def test_neither_a_folder_nor_a_repository(name):
    assert "neither a folder or file here nor a repository" in message(cached_file, name, "config.json", required=False)
    assert "neither a folder or file here nor a repository" in message(find_weights, name)


# ------------------------------------------------------------------------------------------------------------ the cache


@pytest.mark.parametrize("repository", ["org/name", "bert-base-uncased"])
def test_what_the_cache_has_needs_no_network(tmp_path, repository):
    cache_of(tmp_path, repository, "config.json", "sub/config.json", absent=("vocab.txt",))
    snapshot = tmp_path / ("models--" + repository.replace("/", "--")) / "snapshots" / COMMIT
    for keywords in ({}, {"revision": "main"}, {"revision": COMMIT}):
        assert cached_file(repository, "config.json", cache_dir=tmp_path, **keywords) == snapshot / "config.json"
    assert cached_file(repository, "config.json", subfolder="sub", cache_dir=tmp_path) == snapshot / "sub/config.json"
    assert cached_file(repository, "vocab.txt", cache_dir=tmp_path, required=False) is None


def test_the_default_cache_is_the_librarys(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache_of(tmp_path, "org/name", "config.json")))
    assert cached_file("org/name", "config.json") is not None


@pytest.mark.parametrize("how", ["environment", "argument"])
def test_offline(tmp_path, monkeypatch, how):
    keywords = {"cache_dir": cache_of(tmp_path, "org/name", "config.json", absent=("no.txt",))}
    if how == "argument":
        keywords["local_files_only"] = True
    else:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert cached_file("org/name", "vocab.txt", required=False, **keywords) is None
    told = message(cached_file, "org/name", "vocab.txt", **keywords)
    assert "'vocab.txt' of 'org/name' is not in the cache" in told
    assert ("HF_HUB_OFFLINE" if how == "environment" else "local_files_only=True") in told
    assert "has no file 'no.txt'; it has config.json" in message(cached_file, "org/name", "no.txt", **keywords)
    for required in (True, False):  # nothing is known of this one: None would be a guess
        told = message(cached_file, "org/other", "vocab.txt", required=required, **keywords)
        assert "'org/other' is not in the cache" in told
        told = message(cached_file, "org/name", "config.json", revision="v2", required=required, **keywords)
        assert "at revision 'v2'" in told
    assert "needs the network" in message(cached_file, "org/name", "config.json", force_download=True, **keywords)


# -------------------------------------------------------------------------------------------------------------- weights


def test_weights_are_found_in_the_order_of_preference(tmp_path):
    write(tmp_path, "pytorch_model-00001-of-00001.bin", "model-00001-of-00001.safetensors")
    for name, shard in zip(
        reversed(WEIGHTS), ["pytorch_model-00001-of-00001.bin", "", "model-00001-of-00001.safetensors", ""], strict=True
    ):
        (tmp_path / name).write_text(json.dumps({"weight_map": {"a": shard}}) if shard else "x")
        assert find_weights(tmp_path) == tmp_path / name


def test_missing_shards_of_a_folder_are_named(tmp_path):
    shards = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    write(tmp_path, shards[1])
    (tmp_path / WEIGHTS[1]).write_text(json.dumps({"weight_map": dict(zip("abc", shards, strict=True))}))
    told = message(find_weights, tmp_path)
    assert shards[0] in told and shards[2] in told and shards[1] not in told


def test_a_folder_without_weights(tmp_path):
    write(tmp_path, "config.json")
    told = message(find_weights, tmp_path)
    assert all(name in told for name in WEIGHTS) and "it has config.json" in told
    write(tmp_path, "flax_model.msgpack", "sub/tf_model.h5")
    assert "only Flax weights (flax_model.msgpack)" in message(find_weights, tmp_path)
    assert "only TensorFlow weights (tf_model.h5)" in message(find_weights, tmp_path, subfolder="sub")


def test_cached_weights_need_no_network_even_if_the_hub_might_have_better(tmp_path):
    cache_of(tmp_path, "org/old", "config.json", "pytorch_model.bin")
    assert find_weights("org/old", cache_dir=tmp_path).name == "pytorch_model.bin"


def test_cached_shards_and_one_that_is_missing(tmp_path, offline):
    cache_of(tmp_path, "org/big", WEIGHTS[1], "model-1.safetensors", "model-2.safetensors")
    index = tmp_path / "models--org--big" / "snapshots" / COMMIT / WEIGHTS[1]
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    assert find_weights("org/big", cache_dir=tmp_path) == index
    (index.parent / "model-2.safetensors").unlink()
    assert "'model-2.safetensors' of 'org/big'" in message(find_weights, "org/big", cache_dir=tmp_path)


def test_cached_repository_of_another_framework(tmp_path, offline):
    cache_of(tmp_path, "org/tf", "config.json", "tf_model.h5")
    assert "only TensorFlow weights" in message(find_weights, "org/tf", cache_dir=tmp_path)


# ---------------------------------------------------------------------------------------------- the hub, by its library


def test_files_of_a_known_branch_come_from_its_known_commit(tmp_path, monkeypatch):
    """Else a configuration of last year would meet the weights of today."""
    asked = []

    def download(repository, filename, *, revision, force_download, **keywords):
        asked.append((revision, force_download))
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    cache_of(tmp_path, "org/name", "config.json")
    assert cached_file("org/name", "vocab.txt", cache_dir=tmp_path) == tmp_path / "vocab.txt"
    cached_file("org/name", "vocab.txt", cache_dir=tmp_path, revision="v2")
    cached_file("org/name", "config.json", cache_dir=tmp_path, force_download=True)
    assert asked == [(COMMIT, False), ("v2", False), (None, True)]


def test_a_commit_that_is_gone_from_the_hub_is_not_the_end(tmp_path, monkeypatch):
    def download(repository, filename, *, revision, **keywords):
        if revision == COMMIT:
            raise FAILURES["revision"][0]()
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    cache_of(tmp_path, "org/name", "config.json")
    assert cached_file("org/name", "vocab.txt", cache_dir=tmp_path) == tmp_path / "vocab.txt"


def failing(kind: str, status: int = 404):
    """An error of the library, built without its constructor, whose arguments change from version to version."""

    def build() -> Exception:
        error = getattr(huggingface_hub.errors, kind).__new__(getattr(huggingface_hub.errors, kind))
        error.args = ("a long\nstory",)
        if kind not in ("LocalEntryNotFoundError", "LocalTokenNotFoundError"):
            error.response = type("Response", (), {"status_code": status})()
        return error

    return build


FAILURES = {
    "gated": (failing("GatedRepoError", 403), "is gated: accept its terms"),
    "repository": (failing("RepositoryNotFoundError", 401), "is no folder here and no repository"),
    "revision": (failing("RevisionNotFoundError"), "has no branch, tag or commit 'v9'"),
    "unreachable": (failing("LocalEntryNotFoundError"), "check the connection"),
    "token": (failing("LocalTokenNotFoundError"), "no token is stored"),
    "401": (failing("HfHubHTTPError", 401), "no repository that"),
    "403": (failing("HfHubHTTPError", 403), "answered 403 when asked for 'config.json' of 'org/name': access"),
    "429": (failing("HfHubHTTPError", 429), "too many requests"),
    "503": (failing("HfHubHTTPError", 503), "the hub is in trouble"),
    "other": (lambda: RuntimeError("proxy\n  said no"), "(proxy said no)"),
    "disk": (lambda: OSError(28, "No space left on device"), "No space left"),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("required", [True, False])
def test_trouble_with_the_hub_is_told_even_for_an_optional_file(tmp_path, monkeypatch, name, required):
    error, told = FAILURES[name]

    def download(*args, **keywords):
        raise error()

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    cache_of(tmp_path, "org/name", "vocab.txt")  # that others of its files are cached does not hide the trouble
    found = message(cached_file, "org/name", "config.json", cache_dir=tmp_path, revision="v9", required=required)
    assert told in found and ("'org/name'" in found or name == "token")


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs: HEAD and GET of files, and its ways of saying no."""

    files: ClassVar = {"config.json": b"{}", "pytorch_model.bin": b"weights"}
    asked: ClassVar[list[str]] = []

    def do_HEAD(self, body: bool = False) -> None:
        self.asked.append(f"{self.command} {self.path}")
        found = re.fullmatch(r"/(org/name|old-name)/resolve/([^/]+)/(.+)", self.path)
        content = self.files.get(found[3]) if found and found[2] in ("main", COMMIT) else None
        if content is None:
            gated = self.path.startswith("/org/gated/")
            code = "EntryNotFound" if found else "GatedRepo" if gated else "RepoNotFound"
            if found and found[2] not in ("main", COMMIT):
                code = "RevisionNotFound"
            self.send_response(403 if gated else 404)
            self.send_header("X-Error-Code", code)
            content = b""
        else:
            self.send_response(200)
            self.send_header("ETag", f'"{found[3]}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def do_GET(self) -> None:
        self.do_HEAD(body=True)

    def log_message(self, *args) -> None:
        pass


CLIENT = """
import json, sys
from polyformer.core import hub
from polyformer.core.errors import CheckpointError
from polyformer.core.hub import cached_file, find_weights
assert "torch" not in sys.modules and "huggingface_hub" not in sys.modules
def attempt(call, *args, **keywords):
    try:
        path = call(*args, **keywords)
        return path if path is None else path.read_text()
    except CheckpointError as error:
        return str(error)
print(json.dumps([
    attempt(cached_file, "org/name", "config.json"),
    attempt(cached_file, "org/name", "absent.json", required=False),
    attempt(find_weights, "old-name"),
    attempt(cached_file, "org/name", "config.json", revision="v9"),
    attempt(cached_file, "org/gated", "config.json"),
    attempt(cached_file, "org/none", "config.json", required=False),
    attempt(cached_file, "org/name", "absent.json"),
]))
"""


def client(tmp_path: Path, endpoint: str) -> list[str | None]:
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", CLIENT], env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_hub_of_ones_own_through_the_real_library(tmp_path):
    """HF_ENDPOINT and HF_HOME are honoured; a second run finds all that exists in the cache."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        for again in (False, True):
            Hub.asked.clear()
            config, absent, weights, revision, gated, none, required = client(tmp_path, endpoint)
            assert (config, absent, weights) == ("{}", None, "weights")
            assert "has no branch, tag or commit 'v9'" in revision
            assert "'org/gated' is gated" in gated and endpoint in gated
            assert "'org/none' is no folder here and no repository" in none
            assert "has no file 'absent.json'" in required and "config.json" in required
            touched = any("/resolve/main/" in asked and "name/" in asked for asked in Hub.asked)
            assert touched is not again
    finally:
        server.shutdown()
        server.server_close()


def test_the_module_is_light():
    code = "import sys, polyformer.core.hub; print({'torch', 'huggingface_hub', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_no_network_is_known_at_once(monkeypatch, tmp_path):
    """A host without an address is not asked five times; the message is the same."""

    def nowhere(*args):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.undo()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: pytest.fail("the library was asked"))
    with pytest.raises(CheckpointError, match=r"could not be downloaded from .*Name or service not known.*local copy"):
        hub.cached_file("org/name", "config.json", cache_dir=tmp_path)
