"""Labels of pictures with texts: the pipeline against the model by hand, pictures against Pillow and the live peer."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

import polyformer
from polyformer import pipeline
from polyformer.cli import main
from polyformer.pipelines.images import as_input, read_image

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed (extra [image])")

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"two cats on a red sofa the dog sleeps .".split()]
MEAN, STD = [0.46777044, 0.44531429, 0.40661017], [0.12221994, 0.12145835, 0.14380469]
SMALL = dict(
    vocab_size=len(VOCAB),
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=40,
    initializer_range=0.5,
)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    tokenizer = polyformer.BertTokenizer(folder / "vocab.txt", model_max_length=40)
    torch.manual_seed(0)
    config = polyformer.MMBTConfig(
        polyformer.BertConfig(**SMALL), image_layers=50, num_image_embeds=3,
        id2label={0: "art", 1: "pets", 2: "news"},
    )  # fmt: skip
    model = polyformer.MMBTForClassification(config)
    for module in model.modules():  # so that features are of order one, whatever the image
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    model.train()(torch.randn(4, 3, 64, 64), torch.full((4, 3), 5))
    return pipeline("image-text-classification", model.eval(), tokenizer=tokenizer)


def picture(seed=0, size=(300, 260)):
    """Smooth colours, as a picture of Pillow."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (7, 9, 3), generator=draw, dtype=torch.uint8)
    return Image.fromarray(coarse.numpy()).resize(size, Image.Resampling.BICUBIC)


def by_hand(pipe, image, words):
    """Softmax of what the model says of this pair alone."""

    ids = torch.tensor([[VOCAB.index(word) for word in words.split()]])
    mark = {"modal_start_tokens": torch.tensor([2]), "modal_end_tokens": torch.tensor([3])}
    with torch.no_grad():
        logits = pipe.model(as_input(image, MEAN, STD)[None], ids, **mark).logits[0]
    return dict(zip(("art", "pets", "news"), logits.softmax(-1).tolist(), strict=True))


def near(found, want):
    assert {one["label"]: one["score"] for one in found} == pytest.approx(want, abs=1e-5)
    assert found == sorted(found, key=lambda one: -one["score"])


TEXT = ("two cats on a red sofa", "the dog sleeps .", "a cats", "red")


def test_every_form_of_a_pair(pipe, tmp_path):
    images = [picture(seed, (300 - 20 * seed, 260)) for seed in range(4)]
    want = [by_hand(pipe, image, words) for image, words in zip(images, TEXT, strict=True)]
    assert max(want[0].values()) - min(want[0].values()) > 0.05
    images[0].save(tmp_path / "a.png")
    for image in (images[0], tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(images[0])):
        near(pipe(image, TEXT[0], top_k=None), want[0])
        near(pipe({"image": image, "text": TEXT[0]}, top_k=None), want[0])
    pairs = list(zip(images, TEXT, strict=True))
    as_dicts = [{"image": image, "text": words} for image, words in pairs]
    lists = (pipe(images, list(TEXT), top_k=None), pipe(pairs, top_k=None), pipe(as_dicts, top_k=None))
    for found in (*lists, list(pipe((pair for pair in pairs), top_k=None))):
        assert len(found) == 4
        for one, scores in zip(found, want, strict=True):
            near(one, scores)
    best = max(want[0], key=want[0].get)
    (only,) = pipe(images[0], TEXT[0])
    assert only == {"label": best, "score": pytest.approx(want[0][best], abs=1e-5)}
    assert [one["label"] for one in pipe(pairs)] == [max(scores, key=scores.get) for scores in want]
    assert [len(one) for one in pipe(pairs, top_k=2)] == [2] * 4


def test_labels_that_do_not_exclude_each_other(pipe):
    pipe.model.config.problem_type = "multi_label_classification"
    try:
        found = pipe(picture(), TEXT[0], top_k=None)
    finally:
        pipe.model.config.problem_type = None
    logits = {one["label"]: one["score"] for one in pipe(picture(), TEXT[0], top_k=None, function_to_apply="none")}
    near(found, {label: 1 / (1 + math.exp(-value)) for label, value in logits.items()})


def test_a_saved_pipeline_comes_back(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert isinstance(polyformer.AutoTokenizer.from_pretrained(tmp_path), polyformer.BertTokenizer)
    (tmp_path / "tokenizer_config.json").unlink()  # then the text encoder's model_type says which
    assert isinstance(polyformer.AutoTokenizer.from_pretrained(tmp_path), polyformer.BertTokenizer)
    again = pipeline("image-text-classification", tmp_path)
    assert again(picture(), TEXT[0], top_k=None) == pipe(picture(), TEXT[0], top_k=None)


def test_the_command(pipe, tmp_path, capsys):
    pipe.save_pretrained(tmp_path / "model")
    picture().save(tmp_path / "a.png")
    line = {"image": str(tmp_path / "a.png"), "text": TEXT[0]}
    (tmp_path / "in.jsonl").write_text(json.dumps(line) + "\n")
    task = ["run", "image-text-classification", "--model", str(tmp_path / "model"), "--device", "cpu"]
    main([*task, "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")])
    capsys.readouterr()
    written = json.loads((tmp_path / "out.jsonl").read_text())
    assert written == line | {"result": written["result"]}
    assert written["result"]["label"] == pipe(picture(), TEXT[0])[0]["label"]


def test_pairs_that_are_none(pipe, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    (tmp_path / "text.png").write_text("no picture")
    picture().save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    calls = [
        ((3, "red"), TypeError, "the image is a int: give a picture"),
        ((tmp_path / "none.png", "red"), ValueError, r"the image, .*none.png, cannot be read: No such file"),
        ((tmp_path / "bad.png", "red"), ValueError, "bad.png, cannot be read"),
        ((tmp_path / "text.png", "red"), ValueError, "text.png, cannot be read"),
        ((tmp_path / "cut.png", "red"), ValueError, "cut.png, cannot be read"),
        ((torch.zeros(3, 4, 4).numpy(), "red"), ValueError, r"an array \(3, 4, 4\) of float32"),
        ((picture(), ""), ValueError, "the text has no words"),
        ((picture(), "red " * 36), ValueError, "the text has 36 tokens, and this model takes 35 beside an image"),
        (([picture()], ["red", "a"]), ValueError, "there are 1 images and 2 texts"),
        ((picture(), ["red"]), TypeError, "a list of texts with a list of images"),
        (([picture(), "red"],), TypeError, "text 0 is no image with a text"),
        (({"image": picture()},), TypeError, "the text is no image with a text"),
        (([(picture(), "red"), (3, "red")],), TypeError, "the image of text 1 is a int"),
        ((picture(), "red", None), TypeError, "positional"),
    ]
    for arguments, error, message in calls:
        with pytest.raises(error, match=message):
            pipe(*arguments)
    with pytest.raises(ValueError, match="here there are 'error', 'truncate'"):
        pipe(picture(), "red", on_long="window")
    cut, whole = (pipe(picture(), "red " * n, on_long="truncate", top_k=None) for n in (50, 35))
    assert cut == whole


def test_without_pillow(pipe, monkeypatch):
    image = picture()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install polyformer\[image\]"):
        pipe(image, "red")


@pytest.mark.parametrize("size", [(300, 260), (260, 300), (224, 224), (640, 480), (100, 90), (257, 256), (500, 31)])
def test_a_picture_as_the_model_takes_it(size):
    """Pillow's own resizing to a shorter side of 256, the middle 224 by 224, colours normalised; against numbers by
    hand and, where no pixel is halved in the crop, against the peer's processor."""

    image = picture(3, size)
    got = as_input(image, MEAN, STD)
    assert got.shape == (3, 224, 224)
    assert got.dtype == torch.float32
    short = min(size)
    wide, high = (int(256 * side / short) for side in size)
    assert min(wide, high) == 256
    pixels = np.asarray(image.resize((wide, high), 2), np.float64)  # 2: bilinear
    left, top = (int(np.round((side - 224) / 2)) for side in (wide, high))
    for row, column in ((0, 0), (223, 223), (100, 17)):
        for colour in range(3):
            want = (pixels[top + row, left + column, colour] / 255 - MEAN[colour]) / STD[colour]
            assert float(got[colour, row, column]) == pytest.approx(want, abs=1e-5)
    if wide % 2 == high % 2 == 0:
        transformers = pytest.importorskip("transformers", reason="transformers 5 is not installed (extra [test])")
        slow = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
        processor = slow(
            size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, resample=2, image_mean=MEAN,
            image_std=STD,
        )  # fmt: skip
        want = torch.as_tensor(np.asarray(processor(image)["pixel_values"][0]))
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_pictures_of_every_kind(tmp_path):
    """Grey, transparent, with a palette, in 16 bits, or lying on their side by their own account."""

    image = picture()
    for mode in ("L", "RGBA", "P", "CMYK", "1"):
        converted = image.convert(mode)
        assert read_image(converted, "it").mode == "RGB"
        if mode != "CMYK":
            converted.save(tmp_path / f"{mode}.png")
            assert read_image(tmp_path / f"{mode}.png", "it").size == image.size
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: to be turned a quarter to the right
    image.save(tmp_path / "turned.png", exif=exif)
    upright = read_image(tmp_path / "turned.png", "it")
    assert upright.size == (image.height, image.width)
    assert upright.getpixel((0, 0)) == image.getpixel((0, image.height - 1))


def test_a_photo(pipe, shared):
    """A real one, of 640 by 480: from its path and from its pixels the same answer, to which the picture matters."""

    path = shared / "data" / "samples" / "COCO" / "000000039769.png"
    found = pipe(path, TEXT[0], top_k=None)
    near(found, by_hand(pipe, Image.open(path).convert("RGB"), TEXT[0]))
    other = {one["label"]: one["score"] for one in pipe(picture(), TEXT[0], top_k=None)}
    assert max(abs(one["score"] - other[one["label"]]) for one in found) > 1e-4
