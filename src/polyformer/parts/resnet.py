"""ResNet, a convolutional network whose layers learn what to add to their input, and an image as a few tokens of it.

He, Zhang, Ren and Sun 2015, arXiv 1512.03385, the 50, 101 and 152 layer networks of table 1. A block halves the image
in its 3x3 convolution instead of the first 1x1 (Goyal et al. 2017, arXiv 1706.02677, section 5.1), as the weights in
circulation do; modules have torchvision's names, so that its files load as they are.
"""

from typing import Any

from torch import Tensor, nn

from polyformer.parts.layout import tracing

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # table 1
WIDTH = 2048  # features of the last stage
# Tokens of an image, and the grid (rows, columns) they are cut in; facebookresearch/mmbt.
GRIDS = {1: (1, 1), 2: (2, 1), 3: (3, 1), 4: (2, 2), 5: (5, 1), 6: (3, 2), 7: (7, 1), 8: (4, 2), 9: (3, 3)}


class Convolution(nn.Conv2d):
    """A convolution without bias; starts as He et al. 2015, arXiv 1502.01852, section 2.2, seen from the output."""

    def __init__(self, width: int, out: int, size: int, stride: int = 1) -> None:
        super().__init__(width, out, size, stride, padding=size // 2, bias=False)

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")


class Bottleneck(nn.Module):
    """1x1 to fewer features, 3x3 on those, 1x1 to four times as many, added to the input (figure 5, right)."""

    def __init__(self, width: int, inner: int, stride: int) -> None:
        super().__init__()
        out = 4 * inner
        self.conv1, self.bn1 = Convolution(width, inner, 1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = Convolution(inner, inner, 3, stride), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = Convolution(inner, out, 1), nn.BatchNorm2d(out)
        changes = stride > 1 or width != out
        self.downsample = nn.Sequential(Convolution(width, out, 1, stride), nn.BatchNorm2d(out)) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(rows, width, h, w) -> (rows, 4 * inner, h / stride, w / stride)."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


def stage(width: int, inner: int, blocks: int, stride: int) -> nn.Sequential:
    """Blocks of a size; the first changes width and size of the image."""
    first = Bottleneck(width, inner, stride)
    return nn.Sequential(first, *(Bottleneck(4 * inner, inner, 1) for _ in range(blocks - 1)))


class ResNet(nn.Module):
    """Images to features on a grid, 2048 for each 32x32 pixels; with `classes`, to scores of those.

    Args:
        layers: 50, 101 or 152.
        classes: how many; None = no classifier (`fc`), whose weights in a file are then left out.
    """

    def __init__(self, layers: int, classes: int | None = None) -> None:
        super().__init__()
        if layers not in BLOCKS:
            raise ValueError(f"there is no ResNet of {layers} layers here; there are {', '.join(map(str, BLOCKS))}.")
        self.conv1, self.bn1 = Convolution(3, 64, 7, stride=2), nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        a, b, c, d = BLOCKS[layers]
        self.layer1 = stage(64, 64, a, stride=1)
        self.layer2 = stage(256, 128, b, stride=2)
        self.layer3 = stage(512, 256, c, stride=2)
        self.layer4 = stage(1024, 512, d, stride=2)
        self.fc = None if classes is None else nn.Linear(WIDTH, classes)

    def features(self, x: Tensor) -> Tensor:
        """(rows, 3, h, w) -> (rows, 2048, h / 32, w / 32), rounded up."""
        x = self.pool(self.bn1(self.conv1(x)).relu())
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, 3, h, w) -> (rows, 2048), the mean of the features; or (rows, classes) scores."""
        x = self.features(x).mean((2, 3))
        return x if self.fc is None else self.fc(x)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if self.fc is None:
            state_dict.pop(f"{prefix}fc.weight", None)
            state_dict.pop(f"{prefix}fc.bias", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


class ImageEncoder(nn.Module):
    """An image to a few tokens: the mean of a ResNet's features in each cell of a coarse grid.

    Kiela et al. 2019, arXiv 1909.02950, section 3.1. To start from weights of torchvision:
    `encoder.resnet.load_state_dict(torch.load("resnet152.pth"))`.

    Args:
        layers: of the ResNet.
        tokens: 1 to 9, row by row over the grid of GRIDS.
    """

    def __init__(self, layers: int = 152, tokens: int = 1) -> None:
        super().__init__()
        if tokens not in GRIDS:
            raise ValueError(f"an image becomes 1 to {max(GRIDS)} tokens, not {tokens}.")
        self.layers, self.tokens = layers, tokens
        self.resnet = ResNet(layers)
        self.pool = nn.AdaptiveAvgPool2d(GRIDS[tokens])

    def forward(self, images: Tensor) -> Tensor:
        """(rows, 3, h, w) -> (rows, tokens, 2048)."""
        if not tracing() and (images.dim() != 4 or images.shape[1] != 3):
            raise ValueError(f"images have shape {tuple(images.shape)}, but (rows, 3, height, width) was expected.")
        # (rows, 2048, grid rows, grid columns) -> (rows, tokens, 2048)
        return self.pool(self.resnet.features(images)).flatten(2).transpose(1, 2)
