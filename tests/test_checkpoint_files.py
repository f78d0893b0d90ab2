"""Weight files: read exactly, refused clearly when damaged or hostile, and saved all or nothing."""

import errno
import io
import json
import os
import pickle
import re
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from polyformer.core import atomic, checkpoint, torch_file
from polyformer.core.checkpoint import ResidentTorchFile, TorchFile, open_checkpoint, save_checkpoint
from polyformer.core.errors import CheckpointError
from polyformer.core.safetensors_file import DTYPES

DTYPE_LIST = sorted(set(DTYPES.values()), key=str)
CLASSIC = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def random_tensor(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    if dtype is torch.bool:
        return torch.rand(shape) > 0.5
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape).to(dtype)
    return torch.randint(0, 100, shape).to(dtype)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal in dtype, shape and every bit."""
    a, b = a.contiguous(), b.contiguous()
    equal_bits = torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
    return a.dtype == b.dtype and a.shape == b.shape and equal_bits


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "embeddings.weight": torch.randn(40, 8),
        "layer.0.weight": torch.randn(8, 8),
        "layer.0.bias": torch.randn(8).half(),
        "step": torch.tensor(7),
        "nothing": torch.empty(0, 4),
    }


def load(path: Path) -> dict[str, torch.Tensor]:
    with open_checkpoint(path) as file:
        return {key: file.tensor(key) for key in file}


def load_folder(folder: Path) -> dict[str, torch.Tensor]:
    names = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"]
    return load(next(folder / name for name in names if (folder / name).exists()))


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(wanted)
    for key in wanted:
        assert same(found[key], wanted[key]), key


def refusal(path: Path) -> str:
    """The message with which a file is refused: one sentence that names the file."""
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert path.name in message and "\n" not in message and message.endswith(".")
    return message


# ------------------------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("dtype", DTYPE_LIST, ids=str)
def test_every_dtype_comes_back_bit_for_bit(tmp_path, dtype, safe):
    tensors = {
        "matrix": random_tensor(dtype, 5, 3),
        "scalar": random_tensor(dtype),
        "empty": torch.empty(0, 3, dtype=dtype),
        "one": random_tensor(dtype, 1),
    }
    save_checkpoint(tmp_path, tensors, safe=safe)
    assert_same(load_folder(tmp_path), tensors)


def test_mixed_dtypes_are_aligned_and_the_library_agrees(tmp_path):
    tensors = {f"{dtype}": random_tensor(dtype, 3) for dtype in CLASSIC}
    [path] = save_checkpoint(tmp_path, tensors)
    assert_same(safetensors.torch.load_file(path), tensors)
    with open_checkpoint(path) as file:
        places = [file._places[key] for key in file]
        assert all(place.begin % place.dtype.itemsize == 0 for place in places)
        assert file.metadata == {"format": "pt"}
        assert file.shape("torch.bool") == (3,) and file.dtype("torch.bool") is torch.bool
        assert "torch.bool" in file and "other" not in file


def test_files_of_the_safetensors_library_are_read(tmp_path):
    safetensors.torch.save_file(weights(), tmp_path / "model.safetensors", metadata={"made": "there"})
    assert_same(load(tmp_path / "model.safetensors"), weights())


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_save_are_read_in_both_layouts(tmp_path, zipped):
    wide = torch.arange(24.0).reshape(4, 6)
    tensors = {**weights(), "transposed": wide.t(), "slice": wide[1:3, 2:], "whole": wide}
    path = tmp_path / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    with open_checkpoint(path) as file:
        assert type(file) is TorchFile
    assert_same(load(path), tensors)


def test_a_module_state_dict_with_parameters_is_read(tmp_path):
    module = torch.nn.Linear(3, 2)
    torch.save(dict(module.named_parameters()), tmp_path / "a.pt")
    assert_same(load(tmp_path / "a.pt"), module.state_dict())


@pytest.mark.parametrize("name", ["state_dict", "model"])
def test_weights_nested_as_training_scripts_do_are_found(tmp_path, name):
    torch.save({"epoch": 3, name: weights(), "optimizer": {"lr": 0.1}}, tmp_path / "a.ckpt")
    assert_same(load(tmp_path / "a.ckpt"), weights())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_that_does_not_tell_places_still_reads(tmp_path, monkeypatch, zipped):
    tensors = {**weights(), "conjugate": torch.randn(3, dtype=torch.complex64).conj()}  # has no place either
    path = tmp_path / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    for place in (torch_file._place, lambda tensor, storages: None):
        monkeypatch.setattr(torch_file, "_place", place)
        with open_checkpoint(path) as file:
            assert type(file) is ResidentTorchFile
        found = {key: tensor.resolve_conj() for key, tensor in load(path).items()}
        assert_same(found, {key: tensor.resolve_conj() for key, tensor in tensors.items()})


@pytest.mark.parametrize("damage", ["order", "elements", "tail", "magic"])
def test_an_old_file_that_does_not_add_up_is_left_to_torch(tmp_path, damage):
    path = tmp_path / "old.bin"
    torch.save({"a": torch.arange(3.0), "b": torch.arange(4.0)}, path, _use_new_zipfile_serialization=False)
    content = bytearray(path.read_bytes())
    if damage == "elements":
        content[content.index(struct.pack("<q3f", 3, 0, 1, 2))] = 4
    elif damage == "tail":
        content += b"more"
    elif damage == "magic":
        content[8] ^= 1
    else:
        keys = re.search(rb"X(....)(\d+)", content[content.rindex(b"\x80\x02]") :], re.DOTALL)
        content = content.replace(keys[2], keys[2][:-1] + (b"x"))
        content[content.rindex(keys[2][:-1] + b"x") + len(keys[2]) - 1] = ord("y")
    path.write_bytes(content)
    assert torch_file._open_stream(path) is None
    if damage == "tail":
        assert_same(load(path), {"a": torch.arange(3.0), "b": torch.arange(4.0)})
    else:
        refusal(path)


def test_a_resident_file_gives_each_tensor_away_and_can_read_it_again(tmp_path, monkeypatch):
    path = tmp_path / "old.bin"
    torch.save(weights(), path, _use_new_zipfile_serialization=False)
    monkeypatch.setattr(torch_file, "_place", lambda tensor, storages: None)
    with open_checkpoint(path) as file:
        first = file.tensor("layer.0.weight")
        assert "layer.0.weight" not in file._tensors and "layer.0.weight" in file
        assert same(file.tensor("layer.0.weight"), first)


@pytest.mark.parametrize("safe", [True, False])
def test_shards_have_hugging_face_names_and_an_index(tmp_path, safe):
    paths = save_checkpoint(tmp_path, weights(), safe=safe, max_shard_size=600, extra_files={"config.json": "{}"})
    stem, suffix = ("model", "safetensors") if safe else ("pytorch_model", "bin")
    count = len(paths) - 2
    assert count > 1
    shards = [f"{stem}-{i:05d}-of-{count:05d}.{suffix}" for i in range(1, count + 1)]
    whole = f"{stem}.{suffix}"
    assert [path.name for path in paths] == [*shards, f"{whole}.index.json", "config.json"]
    index = json.loads((tmp_path / f"{whole}.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in weights().values())
    assert set(index["weight_map"]) == set(weights()) and set(index["weight_map"].values()) == set(shards)
    assert_same(load_folder(tmp_path), weights())


@pytest.mark.parametrize("text, size", [("5GB", 5e9), ("1.5 MB", 1.5e6), ("2GiB", 2**31), ("10kb", 1e4), (77, 77)])
def test_shard_sizes(text, size):
    assert checkpoint._size(text) == size


@pytest.mark.parametrize("text", ["5", "GB", "-1MB", "5 apples", 0, -3, None])
def test_wrong_shard_sizes_are_refused(tmp_path, text):
    with pytest.raises(ValueError, match="is not a size"):
        save_checkpoint(tmp_path, weights(), max_shard_size=text)


# --------------------------------------------------------------------------------------------- reading into tensors


@pytest.fixture(params=["safetensors", "zip", "old"])
def matrix_file(request, tmp_path):
    """A file with a 4 x 6 float matrix 'm', a transposed one 't' and a bool vector 'b', in each format."""
    tensors = {"m": torch.arange(24.0).reshape(4, 6), "t": torch.arange(24.0).reshape(6, 4).t(), "b": torch.ones(4) > 0}
    if request.param == "safetensors":
        return save_checkpoint(tmp_path, tensors)[0], tensors
    torch.save(tensors, tmp_path / "w.bin", _use_new_zipfile_serialization=request.param == "zip")
    return tmp_path / "w.bin", tensors


@pytest.mark.parametrize("key", ["m", "t"])
def test_reads_into_any_kind_of_tensor(matrix_file, key):
    path, tensors = matrix_file
    fused = torch.full((12, 6), -1.0)
    with torch.inference_mode():
        frozen = torch.zeros(4, 6)
        frozen_half = torch.zeros(4, 6, dtype=torch.float16)
    parameter = torch.nn.Parameter(torch.zeros(8, 6))
    outs = [
        fused[4:8],
        torch.zeros(6, 4).t(),
        torch.zeros(4, 12)[:, ::2],
        torch.zeros(4, 6, dtype=torch.float64),
        torch.zeros(4, 6, dtype=torch.bfloat16),
        torch.nn.Parameter(torch.zeros(4, 6)),
        parameter[4:],
        frozen,
        frozen_half,
    ]
    with open_checkpoint(path) as file:
        for out in outs:
            file.read(key, out)
        for out in outs:
            assert torch.equal(out.double(), tensors[key].double())
            out.detach().zero_() if not out.is_inference() else None
        file.read_many([(key, out) for out in outs])
    for out in outs:
        assert torch.equal(out.double(), tensors[key].double())
    assert (fused[:4] == -1).all() and (fused[8:] == -1).all() and (parameter[:4] == 0).all()


def test_bytes_go_straight_into_the_tensor(tmp_path, monkeypatch):
    [path] = save_checkpoint(tmp_path, weights())
    fused = torch.zeros(24, 8)
    with open_checkpoint(path) as file, monkeypatch.context() as patch:
        patch.setattr(torch, "empty", lambda *a, **k: pytest.fail("a temporary was made"))
        file.read("layer.0.weight", fused[8:16])
    assert same(fused[8:16], weights()["layer.0.weight"])


def test_misuse_is_named(matrix_file):
    path, _ = matrix_file
    with open_checkpoint(path) as file:
        for use in (file.tensor, file.shape, file.dtype, lambda key: file.read_many([(key, torch.zeros(1))])):
            with pytest.raises(CheckpointError, match="no tensor called 'absent'"):
                use("absent")
        with pytest.raises(CheckpointError, match=r"'m' is \(4, 6\) and cannot fill \(6, 4\)"):
            file.read("m", torch.zeros(6, 4))
        with pytest.raises(CheckpointError, match="meta device"):
            file.read("m", torch.zeros(4, 6, device="meta"))
    with pytest.raises(CheckpointError):
        file.tensor("m")
    file.close()


def test_read_many_over_shards(tmp_path):
    save_checkpoint(tmp_path, weights(), max_shard_size=300)
    outs = {key: torch.zeros_like(tensor) for key, tensor in weights().items()}
    with open_checkpoint(tmp_path / "model.safetensors.index.json") as file:
        file.read_many(outs.items())
        assert file.metadata == {"format": "pt"}
        with pytest.raises(CheckpointError, match="no tensor called 'absent'"):
            file.read_many([("absent", torch.zeros(1))])
    assert_same(outs, weights())


PEAK = """
import re, sys, torch
from pathlib import Path
from polyformer.core.checkpoint import open_checkpoint
def status(field):
    return int(re.search(field + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
def load(path):
    with open_checkpoint(Path(path)) as file:
        outs = {key: torch.empty(file.shape(key), dtype=file.dtype(key)) for key in file}
        file.read_many(outs.items())
    return outs
load(sys.argv[1])  # whatever is imported or allocated once
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
outs = load(sys.argv[2])
print((status("VmHWM") - before) / sum(t.numel() * t.element_size() for t in outs.values()))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak from Linux's /proc")
@pytest.mark.parametrize("name", ["model.safetensors", "zip.bin", "old.bin"])
def test_loading_peaks_at_one_copy_of_the_weights(tmp_path, name):
    def write(path, tensors):
        if name.endswith("bin"):
            torch.save(tensors, path, _use_new_zipfile_serialization=name == "zip.bin")
        else:
            safetensors.torch.save_file(tensors, path)

    small, large = tmp_path / f"small_{name}", tmp_path / name
    write(small, {"a": torch.ones(8)})
    write(large, {f"layer.{i}": torch.full((2_500_000,), float(i)) for i in range(20)})  # 200 MB
    done = subprocess.run(
        [sys.executable, "-c", PEAK, small, large], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= 1.15
    large.unlink()


# --------------------------------------------------------------------------------------------- damage, safetensors


def safetensors_bytes(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


DAMAGED = {
    "empty": (b"", "is empty"),
    "short": (b"\x01\x02", "too few"),
    "huge header": (safetensors_bytes(b"{}", length=1 << 62), "truncated or damaged"),
    "header beyond the end": (safetensors_bytes(b"{}", length=500), "truncated or damaged"),
    "not json": (safetensors_bytes(b'{"a": nonsense'), "damaged header"),
    "not utf-8": (safetensors_bytes(b'{"a\xff": 1}'), "damaged header"),
    "deep json": (safetensors_bytes(b"[" * 200_000), "damaged header"),
    "not a table": (safetensors_bytes([1, 2]), "not a JSON object"),
    "name twice": (safetensors_bytes(b'{"a": {}, "a": {}}'), "occurs twice"),
    "metadata": (safetensors_bytes({"__metadata__": {"a": 1}}), "not a table of texts"),
    "entry": (safetensors_bytes({"a": 3}), "lacks dtype"),
    "no shape": (safetensors_bytes({"a": {"dtype": "F32", "data_offsets": [0, 0]}}), "lacks dtype, shape"),
    "unknown dtype": (safetensors_bytes({"a": entry("Q7")}, bytes(8)), "dtype 'Q7'"),
    "dtype no text": (safetensors_bytes({"a": entry(["F32"])}, bytes(8)), "dtype"),
    "negative": (safetensors_bytes({"a": entry(offsets=(-8, 0))}, bytes(8)), "offsets"),
    "true as a size": (safetensors_bytes({"a": entry(shape=(True, 2))}, bytes(8)), "shape"),
    "backwards": (safetensors_bytes({"a": entry(offsets=(8, 0))}, bytes(8)), "does not fit"),
    "size": (safetensors_bytes({"a": entry(shape=(3,))}, bytes(8)), "does not fit"),
    "huge shape": (safetensors_bytes({"a": entry(shape=(0, 1 << 62), offsets=(0, 0))}), "does not fit"),
    "overlap": (safetensors_bytes({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)), "overlaps"),
    "same place": (safetensors_bytes({"a": entry(), "b": entry()}, bytes(8)), "overlaps"),
    "gap": (safetensors_bytes({"a": entry(offsets=(4, 12))}, bytes(12)), "gap"),
    "truncated": (safetensors_bytes({"a": entry()}, bytes(5)), "truncated"),
    "tail": (safetensors_bytes({"a": entry()}, bytes(9)), "1 bytes follow"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 440\n", "git lfs pull"),
    "html": (b"\n<!DOCTYPE html><html>404</html>", "web page"),
    "json": (b'{"error": "Repository not found"}', "JSON text"),
    "torch": (b"PK\x03\x04" + bytes(30), "is a PyTorch file"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(30), "HDF5"),
    "gguf": (b"GGUF\x03\0\0\0" + b"\xff" * 30, "GGUF"),
    "zeros": (bytes(100), "filled with zeros"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_safetensors_are_refused_in_one_sentence(tmp_path, name):
    content, told = DAMAGED[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert told in refusal(path)


def test_every_flipped_header_bit_is_refused_or_harmless(tmp_path):
    """Each bit of a real file's header: the file is refused, or differs in names and metadata only."""
    [path] = save_checkpoint(tmp_path, {"a": torch.arange(4.0), "b": torch.arange(3).short()}, metadata={})
    whole = path.read_bytes()
    length = 8 + struct.unpack("<Q", whole[:8])[0]
    refused = 0
    for bit in range(8 * length):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            load(path)
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 4 * length


def test_every_truncation_is_refused(tmp_path):
    [path] = save_checkpoint(tmp_path, {"a": torch.arange(4.0), "b": torch.arange(3).short()})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        refusal(path)


def test_a_bool_that_is_neither_true_nor_false_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(safetensors_bytes({"a": entry("BOOL", (2,), (0, 2))}, b"\x01\x02"))
    assert "true or false" in refusal(tmp_path / "a.safetensors")


def test_a_file_that_shrinks_after_opening(tmp_path):
    [path] = save_checkpoint(tmp_path, weights())
    with open_checkpoint(path) as file:
        os.truncate(path, 700)
        with pytest.raises(CheckpointError, match="ends in the middle"):
            file.read_many([(key, torch.empty_like(tensor)) for key, tensor in weights().items()])


def test_paths_that_are_no_files(tmp_path):
    assert "There is no file" in refusal(tmp_path / "absent.safetensors")
    (tmp_path / "folder.bin").mkdir()
    assert "is not a file" in refusal(tmp_path / "folder.bin")
    (tmp_path / "weights.h5").write_bytes(b"123")
    assert "no known ending" in refusal(tmp_path / "weights.h5")


# ------------------------------------------------------------------------------------------- hostile and damaged .bin


class Attack:
    """A pickle that calls a function of its choice when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("layout", ["zip", "old", "plain 2", "plain 4", "plain 0"])
@pytest.mark.parametrize("function", [os.mkdir, os.system, open, eval, exec], ids=lambda f: f.__name__)
def test_a_pickle_that_runs_code_is_not_executed(tmp_path, layout, function):
    made = tmp_path / "made"
    argument = {
        os.mkdir: (str(made),),
        os.system: (f"touch {made}",),
        open: (str(made), "w"),
        eval: (f"open({str(made)!r}, 'w')",),
        exec: (f"open({str(made)!r}, 'w')",),
    }[function]
    content = {"a": torch.ones(2), "b": Attack(function, *argument)}
    path = tmp_path / "pytorch_model.bin"
    if layout.startswith("plain"):
        path.write_bytes(pickle.dumps(Attack(function, *argument), protocol=int(layout[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=layout == "zip")
    message = refusal(path)
    assert not made.exists()
    if layout in ("zip", "old", "plain 2"):
        assert "was not executed" in message and "safetensors" in message
        assert function.__name__ in message  # os.mkdir is posix.mkdir to pickle


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_compressed_archive_is_refused_unread(tmp_path, method, monkeypatch):
    plain, path = tmp_path / "plain.bin", tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(1000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", method) as target:
        for item in source.infolist():
            target.writestr(item.filename, source.read(item))
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("it was read"))
    assert "zip bomb" in refusal(path)


def test_a_zip_that_claims_more_than_it_has_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(10)}, path)
    content = bytearray(path.read_bytes())
    last = content.rindex(b"PK\x01\x02")  # an entry of the directory: both of its sizes become 1 GiB
    content[last + 20 : last + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    path.write_bytes(content)
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("it was read"))
    assert "zip bomb" in refusal(path)


def test_an_expanded_tensor_is_not_made_real(tmp_path):
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "a.bin")
    with open_checkpoint(tmp_path / "a.bin") as file, pytest.raises(CheckpointError, match="smaller than its tensor"):
        file.tensor("a")


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_torch_files_are_refused(tmp_path, zipped):
    path = tmp_path / "pytorch_model.bin"
    tensors = {key: tensor for key, tensor in weights().items() if tensor.numel()}  # an empty one loses nothing
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for size in [0, 1, 3, 4, 10, *range(20, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        refusal(path)


def test_other_things_in_torch_files(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    contents = {
        "holds a list": [torch.ones(2)],
        "holds a Tensor": torch.ones(2),
        "'epoch' is a int": {"a": torch.ones(2), "epoch": 3},
        "'optimizer' is a dict": {"a": torch.ones(2), "optimizer": {"b": torch.ones(2)}},
        "more than plain tensors": {3: torch.ones(2)},
        "'a' is a Tensor": {"a": torch.eye(3).to_sparse()},
    }
    for told, content in contents.items():
        torch.save(content, path)
        assert told in refusal(path)
    for name in ("lfs", "html", "json", "hdf5", "zeros"):
        path.write_bytes(DAMAGED[name][0])
        assert DAMAGED[name][1] in refusal(path)
    path.write_bytes(safetensors_bytes({"a": entry()}, bytes(8)))
    assert "ends in .safetensors" in refusal(path)
    path.write_bytes(b"hello there")
    assert "not a file that torch.save wrote" in refusal(path)


def test_a_torchscript_program_is_named(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("version", "constants.pkl", "data.pkl", "code/__torch__.py"):
            archive.writestr(f"archive/{name}", b"3\n")
    (tmp_path / "a.pt").write_bytes(buffer.getvalue())
    with pytest.warns(UserWarning, match="TorchScript"):
        assert "TorchScript" in refusal(tmp_path / "a.pt")


# --------------------------------------------------------------------------------------------------------- the index


def write_index(folder: Path, content: object) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    "name", ["../b.safetensors", "/etc/b.safetensors", "a/../../b.safetensors", "..\\b.safetensors", "C:\\b.bin", ""]
)
def test_shard_names_that_leave_the_folder_are_refused(tmp_path, name):
    inner = tmp_path / "inner"
    save_checkpoint(tmp_path, weights())
    (tmp_path / "model.safetensors").rename(tmp_path / "b.safetensors")
    inner.mkdir()
    assert "points outside" in refusal(write_index(inner, {"weight_map": {"step": name}}))


def test_shards_that_are_links_out_of_the_folder_are_read(tmp_path):
    """The hub's cache is made so: snapshots/commit/file -> ../../blobs/hash."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    snapshot.mkdir()
    for path in save_checkpoint(blobs, weights(), max_shard_size=600):
        (snapshot / path.name).symlink_to(path)
    assert_same(load_folder(snapshot), weights())


def test_damaged_indexes(tmp_path):
    for content, told in {
        "": "is empty",
        "{nonsense": "not valid JSON",
        "[" * 200_000: "not valid JSON",
        "[]": "no 'weight_map'",
        "{}": "no 'weight_map'",
        '{"weight_map": {"a": 3}}': "which is no file name",
        "version https://git-lfs.github.com/spec/v1": "git lfs pull",
        "<html></html>": "web page",
    }.items():
        assert told in refusal(write_index(tmp_path, content))


def test_missing_shards_and_missing_keys_are_named(tmp_path):
    save_checkpoint(tmp_path, weights(), max_shard_size=600)
    index_path = tmp_path / "model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    first, second = sorted(set(index["weight_map"].values()))[:2]
    index_path.write_text(json.dumps({"weight_map": {**index["weight_map"], "ghost.weight": first}}))
    message = refusal(index_path)
    assert "ghost.weight" in message and first in message and "does not" in message
    (tmp_path / second).unlink()
    assert second in refusal(index_path)


# ------------------------------------------------------------------------------------------------------------ saving


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("safe", [True, False])
def test_saves_any_strides_and_views(tmp_path, safe):
    fused = torch.randn(12, 4)
    tensors = {
        "q": fused[:4],
        "k": fused[4:8],
        "v": fused[8:],
        "transposed": torch.randn(3, 5).t(),
        "strided": torch.randn(10)[::2],
        "expanded": torch.randn(1, 3).expand(4, 3),
        "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
        "grad": torch.nn.Parameter(torch.randn(3)),
        "small part of a large memory": torch.randn(100_000)[:2],
    }
    [path] = save_checkpoint(tmp_path, tensors, safe=safe)
    wanted = {key: tensor.detach().resolve_conj() for key, tensor in tensors.items()}
    assert_same({key: tensor.resolve_conj() for key, tensor in load_folder(tmp_path).items()}, wanted)
    assert path.stat().st_size < 10_000
    assert all(fused is not tensor for tensor in wanted.values())


def test_bin_keeps_shared_memory_and_old_readers_read_it(tmp_path):
    tied = torch.randn(100, 10)
    tensors = {"in": tied, "other": torch.randn(100, 10), "out": tied}
    [path] = save_checkpoint(tmp_path, tensors, safe=False)
    found = torch.load(path, weights_only=True)
    assert found["in"].data_ptr() == found["out"].data_ptr() and path.stat().st_size < 10_000
    with zipfile.ZipFile(path) as archive:  # the layout and the pickle protocol of torch 1.6
        [pickled] = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
    assert pickled.startswith(pickle.PROTO + b"\x02")
    save_checkpoint(tmp_path, tensors, safe=False, max_shard_size=4000)
    index = json.loads((tmp_path / "pytorch_model.bin.index.json").read_text())["weight_map"]
    assert index["in"] == index["out"] != index["other"]
    assert_same(load_folder(tmp_path), tensors)


def test_transformers_loads_what_is_saved(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50
    )
    theirs = transformers.BertModel(config)
    for number, size in enumerate(("5GB", 5000)):
        folder = tmp_path / str(number)
        config.save_pretrained(folder)
        save_checkpoint(folder, theirs.state_dict(), max_shard_size=size)
        found = transformers.BertModel.from_pretrained(folder, local_files_only=True)
        assert_same(found.state_dict(), theirs.state_dict())
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="5KB")
    assert_same(load_folder(tmp_path / "theirs"), theirs.state_dict())


def test_what_cannot_be_saved_is_named_before_anything_is_written(tmp_path):
    for tensors, told, safe in [
        ({"a": torch.empty(2, device="meta")}, "'a' is on the meta device", True),
        ({"a": torch.eye(2).to_sparse()}, "'a' is sparse", False),
        ({"a": torch.zeros(2, dtype=torch.complex128)}, "'a' has the dtype torch.complex128", True),
        ({"__metadata__": torch.zeros(2)}, "cannot be called", True),
    ]:
        with pytest.raises(CheckpointError, match=told):
            save_checkpoint(tmp_path / "new", tensors, safe=safe)
    for name in ("../config.json", "/tmp/config.json", "model.safetensors"):
        with pytest.raises(CheckpointError, match=r"outside its folder|name for weights"):
            save_checkpoint(tmp_path / "new", weights(), extra_files={name: "{}"})
    assert not (tmp_path / "new").exists()


LAYOUTS = {
    "one": {},
    "shards": {"max_shard_size": 600},
    "many shards": {"max_shard_size": 100},
    "bin": {"safe": False},
    "bin shards": {"safe": False, "max_shard_size": 600},
}


@pytest.mark.parametrize("after", LAYOUTS)
@pytest.mark.parametrize("before", LAYOUTS)
def test_a_new_save_replaces_every_earlier_layout(tmp_path, before, after):
    save_checkpoint(tmp_path, weights(0), **LAYOUTS[before], extra_files={"config.json": "old", "vocab.txt": "mine"})
    written = save_checkpoint(tmp_path, weights(1), **LAYOUTS[after], extra_files={"config.json": "new"})
    assert files_in(tmp_path) == {path.name for path in written} | {"vocab.txt"}
    assert_same(load_folder(tmp_path), weights(1))
    assert (tmp_path / "config.json").read_text() == "new"


class Crash(BaseException):
    """Not an Exception: like the KeyboardInterrupt of an impatient user."""


@pytest.mark.parametrize("after", ["one", "shards", "bin"])
@pytest.mark.parametrize("before", ["one", "shards", "bin shards"])
def test_a_crash_at_any_step_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch, before, after):
    """Every call of the file system that saving makes fails once, in turn."""
    save_checkpoint(tmp_path, weights(0), **LAYOUTS[before], extra_files={"config.json": "old"})
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real = {name: getattr(os, name) for name in ("fsync", "link", "replace")}
    crashes = 0
    for step in range(100):
        count = 0

        def failing(name, step=step):
            def call(*args, **kwargs):
                nonlocal count
                count += 1
                if count == step + 1:
                    raise Crash
                return real[name](*args, **kwargs)

            return call

        for name in real:
            monkeypatch.setattr(os, name, failing(name))
        try:
            save_checkpoint(tmp_path, weights(1), **LAYOUTS[after], extra_files={"config.json": "new"})
        except Crash:
            crashes += 1
            assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
        else:
            break
    assert crashes >= 5
    assert_same(load_folder(tmp_path), weights(1))


def test_a_crash_while_tensors_are_written_leaves_no_temporaries(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, weights(0))
    calls = []

    def crash(tensor):
        calls.append(tensor)
        if len(calls) == 3:
            raise Crash
        return real(tensor)

    real = checkpoint.write_safetensors.__globals__["_plain"]
    monkeypatch.setitem(checkpoint.write_safetensors.__globals__, "_plain", crash)
    with pytest.raises(Crash):
        save_checkpoint(tmp_path, weights(1))
    assert files_in(tmp_path) == {"model.safetensors"}
    assert_same(load_folder(tmp_path), weights(0))


def test_between_the_renames_of_shards_old_and_new_are_never_mixed(tmp_path, monkeypatch):
    """What a power cut in that moment would leave: no index, so loading fails instead of mixing two models."""
    save_checkpoint(tmp_path, weights(0), max_shard_size=600)
    seen = []
    real = os.replace

    def watch(source, target):
        real(source, target)
        seen.append((Path(target).name, (tmp_path / "model.safetensors.index.json").exists()))

    monkeypatch.setattr(os, "replace", watch)
    save_checkpoint(tmp_path, weights(1), max_shard_size=600)
    shards = [index for name, index in seen if name.endswith(".safetensors")]
    assert len(shards) > 1 and not any(shards)


def test_the_old_file_never_ceases_to_exist(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, weights(0))
    real = os.replace

    def watch(source, target):
        assert_same(load(tmp_path / "model.safetensors"), weights(0))
        real(source, target)

    monkeypatch.setattr(os, "replace", watch)
    save_checkpoint(tmp_path, weights(1))
    assert_same(load_folder(tmp_path), weights(1))


def test_saving_works_on_file_systems_without_links(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EPERM, "no links here")

    save_checkpoint(tmp_path, weights(0))
    monkeypatch.setattr(os, "link", refuse)
    save_checkpoint(tmp_path, weights(1))
    assert files_in(tmp_path) == {"model.safetensors"}
    assert_same(load_folder(tmp_path), weights(1))


def test_a_linked_file_is_replaced_and_not_written_through(tmp_path):
    blob = save_checkpoint(tmp_path / "cache", weights(0))[0]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").symlink_to(blob)
    save_checkpoint(tmp_path / "model", weights(1))
    assert_same(load_folder(tmp_path / "cache"), weights(0))
    assert_same(load_folder(tmp_path / "model"), weights(1))


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_permissions_of_open(tmp_path, mask, mode):
    former = os.umask(mask)
    try:
        for path in save_checkpoint(tmp_path, weights(), max_shard_size=600, extra_files={"config.json": b"{}"}):
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(former)


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize(
    "number, told",
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written to"), (errno.EIO, "old files are unchanged")],
)
def test_errors_of_the_file_system_are_one_sentence(tmp_path, monkeypatch, number, told, safe):
    save_checkpoint(tmp_path, weights(0), safe=safe)

    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic, "_flush", fail)
    with pytest.raises(CheckpointError, match=told) as caught:
        save_checkpoint(tmp_path, weights(1), safe=safe)
    assert str(tmp_path) in str(caught.value)
    assert len(files_in(tmp_path)) == 1
    assert_same(load_folder(tmp_path), weights(0))


FULL = """
import resource, signal, sys, torch
from pathlib import Path
from polyformer.core.checkpoint import CheckpointError, save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for safe in (True, False):
    try:
        save_checkpoint(Path(sys.argv[1]), {"a": torch.zeros(1_000_000)}, safe=safe)
    except CheckpointError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files the POSIX way")
def test_a_disk_that_is_really_full(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout.count("disk is full") == 2, done.stdout + done.stderr
    assert files_in(tmp_path) == set()


def test_a_file_or_a_folder_in_the_way(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(CheckpointError, match="is a file, or lies under one"):
            save_checkpoint(folder, weights())
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"model.safetensors is a folder"):
        save_checkpoint(tmp_path, weights(), extra_files={"config.json": "{}"})
    assert files_in(tmp_path) == {"file", "model.safetensors"}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="cannot be written to"):
            save_checkpoint(tmp_path, weights())
    finally:
        tmp_path.chmod(0o700)


def test_saving_holds_one_tensor_more_than_the_weights(tmp_path, monkeypatch):
    """Copies of tensors that are not plain CPU memory must not pile up."""
    alive = []
    real = checkpoint.write_safetensors.__globals__["_plain"]

    def counted(tensor):
        import gc
        import weakref

        gc.collect()
        assert sum(reference() is not None for reference in alive) <= 1
        copy = real(tensor)
        alive.append(weakref.ref(copy))
        return copy

    monkeypatch.setitem(checkpoint.write_safetensors.__globals__, "_plain", counted)
    save_checkpoint(tmp_path, {f"w{i}": torch.randn(6, 5).t() for i in range(5)})
    assert len(alive) == 5


def test_extra_files_may_lie_in_subfolders(tmp_path):
    save_checkpoint(tmp_path, weights(), extra_files={"1_Pooling/config.json": "{}", "vocab.txt": "ä".encode()})
    assert (tmp_path / "1_Pooling" / "config.json").read_text() == "{}"
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8") == "ä"
