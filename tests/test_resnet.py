"""ResNet against the live peer, and an image's tokens against means written with loops."""

import math
import re

import pytest
import torch
from torch import nn

from polyformer.parts.resnet import BLOCKS, GRIDS, ImageEncoder, ResNet

COUNTS = {50: 25_557_032, 101: 44_549_160, 152: 60_192_808}  # parameters, as torchvision's pages give them


def network(layers, classes=None, seed=0, dtype=torch.float64):
    """In eval mode, with running means that are not those of a new one, and outputs of order one."""
    torch.manual_seed(seed)
    net = ResNet(layers, classes)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.7, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    return net.to(dtype).eval()


def peer_name(name):
    """A name of torchvision's as transformers 5 has it."""
    if name.startswith("fc."):
        return name.replace("fc.", "classifier.1.")
    norm = {"conv": "convolution", "bn": "normalization"}
    if hit := re.fullmatch(r"(conv|bn)1\.(\w+)", name):
        return f"resnet.embedder.embedder.{norm[hit[1]]}.{hit[2]}"
    stage, block, inner = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", name).groups()
    place = f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}"
    if hit := re.fullmatch(r"downsample\.([01])\.(\w+)", inner):
        return f"{place}.shortcut.{('convolution', 'normalization')[int(hit[1])]}.{hit[2]}"
    kind, number, leaf = re.fullmatch(r"(conv|bn)(\d)\.(\w+)", inner).groups()
    return f"{place}.layer.{int(number) - 1}.{norm[kind]}.{leaf}"


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="transformers 5 is not installed (extra [test])")


def peer(transformers, net, layers):
    config = transformers.ResNetConfig(depths=list(BLOCKS[layers]), layer_type="bottleneck", num_labels=5)
    theirs = transformers.ResNetForImageClassification(config).double().eval()
    theirs.load_state_dict({peer_name(name): value for name, value in net.state_dict().items()})
    return theirs


@pytest.mark.parametrize("layers", BLOCKS)
def test_the_peer_s_answers(layers, transformers):
    """Features, their mean and scores in float64, of an image whose sides 32 does not divide."""
    net = network(layers, 5)
    theirs = peer(transformers, net, layers)
    images = torch.randn(2, 3, 75, 50, dtype=torch.float64)
    with torch.no_grad():
        want = theirs.resnet(images)
        features = net.features(images)
        assert features.shape == (2, 2048, 3, 2)
        torch.testing.assert_close(features, want.last_hidden_state, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(net(images), theirs(images).logits, rtol=1e-9, atol=1e-9)
        net.fc = None
        torch.testing.assert_close(net(images), want.pooler_output.flatten(1), rtol=1e-9, atol=1e-9)


def test_the_peer_s_gradients_and_running_means_in_training(transformers):
    net = network(50, 5).train()
    theirs = peer(transformers, net, 50).train()
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    net(images).square().sum().backward()
    theirs(images).logits.square().sum().backward()
    wanted = {name: p.grad for name, p in theirs.named_parameters()}
    for name, p in net.named_parameters():
        want = wanted[peer_name(name)]
        torch.testing.assert_close(p.grad, want, rtol=1e-7, atol=1e-9 * float(want.abs().max()), msg=name)
    after = theirs.state_dict()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, after[peer_name(name)], rtol=1e-9, atol=1e-9, msg=name)


def norm_names(place):
    return [f"{place}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


@pytest.mark.parametrize("layers", BLOCKS)
def test_names_and_sizes_are_torchvision_s(layers):
    with torch.device("meta"):
        net = ResNet(layers, 1000)
    names = ["conv1.weight", *norm_names("bn1"), "fc.weight", "fc.bias"]
    for stage, blocks in enumerate(BLOCKS[layers], 1):
        for block in range(blocks):
            place = f"layer{stage}.{block}"
            for n in (1, 2, 3):
                names += [f"{place}.conv{n}.weight", *norm_names(f"{place}.bn{n}")]
            if not block:
                names += [f"{place}.downsample.0.weight", *norm_names(f"{place}.downsample.1")]
    assert net.state_dict().keys() == set(names)
    assert sum(p.numel() for p in net.parameters()) == COUNTS[layers]
    assert layers == 1 + 3 * sum(BLOCKS[layers]) + 1  # convolutions of a path, and the classifier


def test_a_file_with_a_classifier_serves_a_network_without():
    """Also inside of another module; the other way round torch says what is missing."""
    file = network(50, 1000, dtype=torch.float32).state_dict()
    before = dict(file)
    bare, encoder = ResNet(50), ImageEncoder(50)
    for module in (bare, encoder.resnet):
        module.load_state_dict(file)
        assert all(torch.equal(value, file[name]) for name, value in module.state_dict().items())
    encoder.load_state_dict({f"resnet.{name}": value for name, value in file.items()})
    assert file.keys() == before.keys()
    with pytest.raises(RuntimeError, match="Missing key.*fc.weight"):
        ResNet(50, 1000).load_state_dict(bare.state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key.*nobody"):
        bare.load_state_dict(file | {"nobody": torch.zeros(1)})


def test_a_new_network_keeps_the_size_of_what_flows_back():
    """He et al. 2015, section 2.2: variance 2 over the number of weights that an input feeds; norms do nothing yet."""
    net = ResNet(50)
    for name, p in net.named_parameters():
        if p.dim() == 4:
            fed = p.shape[0] * p[0, 0].numel()
            assert abs(p.std() / math.sqrt(2 / fed) - 1) < 0.03, name
        else:
            assert (p == (1 if name.endswith("weight") else 0)).all(), name


class Drawn(nn.Module):
    """In place of a network: features of 5 x 8 cells."""

    def __init__(self):
        super().__init__()
        self.drawn = torch.randn(2, 2048, 5, 8, dtype=torch.float64)

    def features(self, images):
        return self.drawn


@pytest.mark.parametrize("tokens", GRIDS)
def test_tokens_are_means_of_cells(tokens):
    """Cell i of n along a side of length s is [floor(i s / n), ceil((i + 1) s / n)); rows of the grid one by one."""
    with torch.device("meta"):
        encoder = ImageEncoder(50, tokens)
    encoder.resnet = Drawn()
    with torch.no_grad():
        got = encoder(torch.zeros(2, 3, 160, 230, dtype=torch.float64))
        features = encoder.resnet.drawn
    rows, columns = GRIDS[tokens]
    high, wide = features.shape[2:]
    assert (high, wide) == (5, 8)
    assert rows * columns == tokens
    want = []
    for i in range(rows):
        for j in range(columns):
            top, bottom = i * high // rows, -(-(i + 1) * high // rows)
            left, right = j * wide // columns, -(-(j + 1) * wide // columns)
            want.append(features[:, :, top:bottom, left:right].sum((2, 3)) / ((bottom - top) * (right - left)))
    torch.testing.assert_close(got, torch.stack(want, 1), rtol=1e-12, atol=1e-12)


def test_images_do_not_see_each_other():
    encoder = ImageEncoder(50, 3).double().eval()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        whole, one = encoder(images), encoder(images[1:2])
    torch.testing.assert_close(whole[1:2], one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("way", ["export", "compile", "trace"])
def test_graphs_at_a_second_shape(way):
    encoder = ImageEncoder(50, 3).double().eval()
    made, run = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 3, 64, 64), (2, 3, 96, 128)))
    with torch.no_grad():
        if way == "export":
            auto = torch.export.Dim.AUTO
            shapes = ({0: auto, 2: auto, 3: auto},)
            program = torch.export.export(encoder, (made,), dynamic_shapes=shapes, strict=False)
            got = program.module()(run)
        elif way == "compile":
            torch._dynamo.reset()
            compiled = torch.compile(encoder, fullgraph=True, dynamic=True, backend="eager")
            compiled(made)
            got = compiled(run)
        else:
            got = torch.jit.trace(encoder, (made,), check_trace=False)(run)
        torch.testing.assert_close(got, encoder(run), rtol=1e-9, atol=1e-9)


def test_what_there_is_not():
    with pytest.raises(ValueError, match="no ResNet of 18 layers here; there are 50, 101, 152"):
        ResNet(18)
    with pytest.raises(ValueError, match="1 to 9 tokens, not 10"):
        ImageEncoder(50, 10)
    with pytest.raises(ValueError, match=r"images have shape \(3, 8, 8\), but \(rows, 3, height, width\)"):
        ImageEncoder(50)(torch.randn(3, 8, 8))
