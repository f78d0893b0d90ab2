"""MMBT: a text encoder that reads an image as a first segment, and labels both together.

Kiela, Bhooshan, Firooz, Perez and Testuggine 2019, arXiv 1909.02950; facebookresearch/mmbt. A ResNet cuts the image in
a few tokens, which are projected to the width of word vectors and stand before the text as segment 0, with positions of
their own; text encoder and image encoder are any of their kind, each with its own weights from before.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from polyformer.core.composite import Composite, Part, Verbatim
from polyformer.core.config import Config, config
from polyformer.core.errors import ConfigError
from polyformer.core.keymap import Entry, KeyMap
from polyformer.core.outputs import BaseModelOutputWithPoolingAndCrossAttentions, Tensors
from polyformer.core.pretrained import PreTrainedModel
from polyformer.core.registry import config_class, task_class
from polyformer.core.tasks import SequenceClassification
from polyformer.parts.embeddings import UnplacedEmbeddings, batch_shape, check_ids, check_length, check_width
from polyformer.parts.layout import Layout, tracing
from polyformer.parts.pooling import Pooling
from polyformer.parts.positions import numbered_after_pad
from polyformer.parts.resnet import BLOCKS, GRIDS, WIDTH, ImageEncoder

# ---- configuration ---------------------------------------------------------------------------------------------------


@config("mmbt")
class MMBTConfig(Config):
    """A text encoder's configuration, and what goes before it: MMBTConfig(text_config, num_labels, modal_hidden_size).

    What is not here is asked of the text encoder's: `config.hidden_size` is `config.text_config.hidden_size`.

    text_config: of any text encoder; BERT's by default. Its labels are the labels here unless these are given.
    modal_hidden_size: width of what the image encoder gives.
    image_layers: of the ResNet that encodes images, 50, 101 or 152; None = an encoder of the user's own.
    num_image_embeds: tokens of an image, 1 to 9.
    image_mean, image_std: by which pipelines normalise red, green and blue, in [0, 1].
    """

    aliases: ClassVar[Mapping[str, str]] = {"config": "text_config"}
    parts: ClassVar[tuple[str, ...]] = ("text_config",)
    leans_on: ClassVar[str] = "text_config"
    positional: ClassVar[tuple[str, ...]] = ("text_config", "num_labels", "modal_hidden_size")

    text_config: Config = field(default_factory=lambda: config_class("bert")())
    modal_hidden_size: int = WIDTH
    image_layers: int | None = 152
    num_image_embeds: int = 1
    image_mean: list[float] = field(default_factory=lambda: [0.46777044, 0.44531429, 0.40661017])
    image_std: list[float] = field(default_factory=lambda: [0.12221994, 0.12145835, 0.14380469])
    id2label: dict[int, str] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        self.id2label = self.id2label or dict(self.text_config.id2label)
        super().__post_init__()

    @property
    def use_return_dict(self) -> bool:
        return super().use_return_dict and self.text_config.use_return_dict

    def check(self) -> None:
        if self.image_layers not in (None, *BLOCKS):
            known = ", ".join(map(str, BLOCKS))
            raise ConfigError(f"image_layers is {self.image_layers}; there are {known}, or None for another encoder.")
        if self.num_image_embeds not in GRIDS:
            raise ConfigError(
                f"num_image_embeds is {self.num_image_embeds}; an image becomes 1 to {max(GRIDS)} tokens."
            )


# ---- the model -------------------------------------------------------------------------------------------------------


class MMBTPreTrained(PreTrainedModel):
    """What MMBT's classes share: what concerns words and layers is the text encoder's."""

    config_class = MMBTConfig
    base_model_prefix = "mmbt"

    @property
    def text(self) -> PreTrainedModel:
        """The text encoder."""
        return self.base_model.transformer  # type: ignore[return-value]

    @property
    def keys(self) -> KeyMap:  # type: ignore[override]
        """The checkpoint table, which depends on the encoders that this model holds."""
        own = isinstance(self.base_model.encoder, ImageEncoder)
        parts = [
            Part("transformer", "transformer", self.text.keys),
            Part("modal_encoder.encoder", "encoder", IMAGE if own else Verbatim()),
        ]
        return Composite(parts, ROWS, heads=HEADS, drop=SECOND_NAMES, prefix="mmbt")

    @property
    def packable(self) -> bool:
        """Whether padding of the text is left out of the computation, where its encoder can."""
        return self.text.packable

    @packable.setter
    def packable(self, wanted: bool) -> None:
        self.text.packable = wanted

    def get_input_embeddings(self) -> nn.Embedding:
        return self.text.get_input_embeddings()

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        self.text.set_input_embeddings(table)

    def resize_token_embeddings(self, new_num_tokens: int | None = None) -> nn.Embedding:
        return self.text.resize_token_embeddings(new_num_tokens)

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        self.text.prune_heads(heads_to_prune)

    def gradient_checkpointing_enable(self) -> None:
        self.text.gradient_checkpointing_enable()

    def gradient_checkpointing_disable(self) -> None:
        self.text.gradient_checkpointing_disable()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.modules.batchnorm._BatchNorm):
            module.reset_parameters()
        else:
            super()._init_weights(module)


class MMBTModel(MMBTPreTrained):
    """Image and text to the states of all their tokens, and one vector a pair.

    Args:
        transformer: a text encoder; config.text_config becomes its configuration. One from the seed by default.
        encoder: any module from what `input_modal` is to (rows, tokens, config.modal_hidden_size); by default a ResNet
            (parts/resnet.py) from the seed.
    """

    def __init__(
        self, config: MMBTConfig, transformer: PreTrainedModel | None = None, encoder: nn.Module | None = None
    ) -> None:
        super().__init__(config)
        self.transformer = text_encoder(config, transformer)
        self.encoder = image_encoder(config, encoder)
        for module in (*self.transformer.modules(), *self.encoder.modules()):
            module.initialised = True  # type: ignore[assignment]  # from before, or by itself
        self.projection = nn.Linear(config.modal_hidden_size, self.get_input_embeddings().embedding_dim)
        self.takes = frozenset(inspect.signature(self.transformer.forward).parameters)
        self.init_weights()

    @property
    def pooler(self) -> Pooling | None:
        """The text encoder's, which reads image and text."""
        return getattr(self.transformer, "pooler", None)

    def forward(
        self,
        input_modal: Tensor,
        input_ids: Tensor | None = None,
        modal_start_tokens: Tensor | None = None,
        modal_end_tokens: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        modal_token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        modal_position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[object, ...]:
        """Encode a batch of pairs. The image's tokens, so many `places` with their marks, come first in every output.

        Args:
            input_modal: what the image encoder takes, (rows, 3, height, width) for a ResNet.
            input_ids: (rows, length) int64, or inputs_embeds (rows, length, width) in their place: the text.
            modal_start_tokens, modal_end_tokens: (rows,) ids of words before and after the image, [CLS] and [SEP] say.
            attention_mask: (rows, length), 0 = padding of the text, on either side.
            token_type_ids: (rows or 1, length) segments of the text, 1 by default (0 where the encoder has no second).
            modal_token_type_ids: (rows or 1, places) segments of the image, 0 by default.
            position_ids: (rows or 1, length); by default the text encoder's own of a text without an image.
            modal_position_ids: (rows or 1, places), from 0 by default.
            head_mask: (heads,) or (layers, heads), a factor of every head's attention weights.
            encoder_hidden_states: (rows, source length, width) for a decoder with cross-attention, their
                encoder_attention_mask (rows, source length); `places` may be missing at its beginning, which count.

        A text encoder that takes no segments, or no positions, is given none: its positions run through.

        Raises:
            ValueError: together more tokens than the text encoder knows positions, an id outside of the vocabulary,
                both or neither of ids and embeddings, image features of another shape than the configuration says.
        """
        named = self.config.use_return_dict if return_dict is None else return_dict
        self.check_taken(
            token_type_ids=token_type_ids, modal_token_type_ids=modal_token_type_ids, position_ids=position_ids,
            modal_position_ids=modal_position_ids, head_mask=head_mask, encoder_hidden_states=encoder_hidden_states,
        )  # fmt: skip
        text = self.text_part(input_ids, inputs_embeds, attention_mask, token_type_ids, position_ids)
        image = self.image_part(
            input_modal, modal_start_tokens, modal_end_tokens, modal_token_type_ids, modal_position_ids
        )
        (rows, places, _), (texts, length, _) = image["inputs_embeds"].shape, text["inputs_embeds"].shape
        if not tracing() and rows != texts:
            raise ValueError(f"there are {rows} images and {texts} texts: give one text for each image.")
        leading = leading_padding(attention_mask)
        if leading is not None:  # padding after the text, so that nothing lies between it and the image
            text = {name: turned(value, leading, 1, 0) for name, value in text.items()}
        source = encoder_attention_mask
        if source is not None and encoder_hidden_states is not None:
            lacking = encoder_hidden_states.shape[1] - source.shape[1]
            source = torch.cat([source.new_ones(source.shape[0], lacking), source], 1) if lacking == places else source
        takes = self.takes
        if token_type_ids is None and modal_token_type_ids is None and not self.segments:
            takes = takes - {"token_type_ids"}
        options: dict[str, Any] = {
            "head_mask": head_mask,
            "encoder_hidden_states": encoder_hidden_states,
            "encoder_attention_mask": source,
            "use_cache": False,
            "output_attentions": asked(output_attentions, self.config.output_attentions),
            "output_hidden_states": asked(output_hidden_states, self.config.output_hidden_states),
        }
        inputs = {name: torch.cat([image[name], value], 1) for name, value in text.items()} | options
        outputs = self.transformer(**{n: v for n, v in inputs.items() if n in takes}, return_dict=True)

        def back(states: Tensor, *axes: int) -> Tensor:
            for axis in axes:  # that are the tokens; Longformer's keys are distances, Funnel's layers are shorter
                # torch.jit.trace cannot compare shapes: all count as tokens there
                if leading is not None and (torch.jit.is_tracing() or states.shape[axis] == places + length):
                    states = turned(states, -leading, axis, places)
            return states

        result = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=back(outputs.last_hidden_state, 1),
            pooler_output=outputs.pooler_output,
            hidden_states=each(outputs.hidden_states, lambda x: back(x, 1)),
            attentions=each(outputs.attentions, lambda a: back(a, 2, 3)),
            cross_attentions=each(outputs.cross_attentions, lambda a: back(a, 2)),
            global_attentions=outputs.global_attentions,
        )
        return result if named else result.to_tuple()

    def text_part(
        self,
        ids: Tensor | None,
        vectors: Tensor | None,
        mask: Tensor | None,
        types: Tensor | None,
        positions: Tensor | None,
    ) -> dict[str, Tensor]:
        """The text encoder's inputs for the text, each (rows, length, ...)."""
        words = self.get_input_embeddings()
        rows, length = batch_shape(ids, vectors)
        check_ids(ids, words.num_embeddings, "input_ids", (rows, length))
        check_width(vectors, words.embedding_dim)
        if mask is not None and mask.dim() != 2:
            raise ValueError("MMBT's attention_mask is (rows, length), of the text alone: the image is seen by all.")
        layout = Layout.of((rows, length), mask, self.device, packable=False)
        if positions is None:
            table = getattr(getattr(self.text, "embed", None), "positions", None)
            pad = getattr(table, "padding_idx", None)  # RoBERTa and its kin count from it
            if limit := getattr(self.text.config, "max_position_embeddings", None):
                check_length(length, limit if pad is None else limit - pad - 1)
            positions = layout.positions if pad is None else numbered_after_pad(layout, ids, pad)
        part = {
            "inputs_embeds": words(ids) if vectors is None else vectors,
            "position_ids": spread("position_ids", positions, 0, (rows, length)),
            "token_type_ids": spread("token_type_ids", types, int(self.segments > 1), (rows, length), self.device),
        }
        return part if mask is None else part | {"attention_mask": mask}

    def image_part(
        self,
        image: Tensor,
        start: Tensor | None,
        end: Tensor | None,
        types: Tensor | None,
        positions: Tensor | None,
    ) -> dict[str, Tensor]:
        """The text encoder's inputs for the image between its marks, each (rows, places, ...)."""
        words, wanted = self.get_input_embeddings(), self.config.modal_hidden_size
        features = self.encoder(image)
        if not tracing() and (features.dim() != 3 or features.shape[2] != wanted):
            raise ValueError(
                f"the image encoder gave {tuple(features.shape)}, but (rows, tokens, {wanted}) was expected: "
                f"set config.modal_hidden_size to the width of its features."
            )
        vectors, rows = self.projection(features), features.shape[0]
        if start is not None:
            check_ids(start[:, None], words.num_embeddings, "modal_start_tokens", (rows, 1))
            vectors = torch.cat([words(start[:, None]), vectors], 1)
        if end is not None:
            check_ids(end[:, None], words.num_embeddings, "modal_end_tokens", (rows, 1))
            vectors = torch.cat([vectors, words(end[:, None])], 1)
        places, device = vectors.shape[1], vectors.device
        if positions is None:
            positions = torch.arange(places, device=device)
        positions = spread("modal_position_ids", positions, 0, (rows, places))
        embed = getattr(self.text, "embed", None)
        if isinstance(embed, UnplacedEmbeddings):  # the image's positions count even so
            vectors = vectors + embed.positions(positions)
        return {
            "inputs_embeds": vectors,
            "position_ids": positions,
            "token_type_ids": spread("modal_token_type_ids", types, 0, (rows, places), device),
            "attention_mask": torch.ones(rows, places, dtype=torch.long, device=device),
        }

    @property
    def segments(self) -> int:
        """How many the text encoder tells apart; 0 where it has no vectors for them."""
        return getattr(self.text.config, "type_vocab_size", 0)

    def check_taken(self, **given: Any) -> None:
        for name, value in given.items():
            if value is not None and name.removeprefix("modal_") not in self.takes:
                raise ValueError(f"{name} cannot be given: a {type(self.text).__name__} takes none.")


def text_encoder(c: MMBTConfig, given: PreTrainedModel | None) -> PreTrainedModel:
    """The text encoder as given, or one from the seed."""
    if given is None:
        if c.pooling is not None:  # it pools for the whole
            c.text_config.pooling = c.pooling
        given = task_class(c.text_config.model_type, "base")(c.text_config)
    takes = "inputs_embeds" in inspect.signature(given.forward).parameters
    if not (takes and isinstance(given, PreTrainedModel) and given.is_base and not given.config.is_encoder_decoder):
        raise TypeError(
            f"a {type(given).__name__} is no text encoder of this library: give a model without a head, say BertModel."
        )
    c.text_config = given.config
    return given


def image_encoder(c: MMBTConfig, given: nn.Module | None) -> nn.Module:
    """The image encoder as given, which the configuration then says, or a ResNet from the seed."""
    if given is None:
        if c.image_layers is None:
            raise ValueError("this MMBT has an image encoder of its maker's own: give it, encoder=...")
        if c.modal_hidden_size != WIDTH:
            raise ConfigError(f"a ResNet gives {WIDTH} features: set modal_hidden_size so, or give another encoder=...")
        return ImageEncoder(c.image_layers, c.num_image_embeds)
    c.image_layers = None
    if isinstance(given, ImageEncoder):
        c.image_layers, c.num_image_embeds = given.layers, given.tokens
    return given


# ---- the arrangement of a batch --------------------------------------------------------------------------------------


def spread(
    name: str, ids: Tensor | None, default: int, shape: tuple[int, int], device: torch.device | None = None
) -> Tensor:
    """Numbers of tokens as (rows, count): as given, for each row or for all, or the same everywhere."""
    if ids is None:
        return torch.full(shape, default, device=device)
    if not tracing() and tuple(ids.shape) not in (shape, (1, shape[1]), (shape[0], 1), shape[1:]):
        raise ValueError(f"{name} has shape {tuple(ids.shape)}, but {shape} was expected: one a token.")
    return ids.expand(shape)


def leading_padding(mask: Tensor | None) -> Tensor | None:
    """(rows,) how many tokens of each row are padding before the text; None where there are none."""
    if mask is None:
        return None
    leading = mask.bool().int().argmax(1)
    return leading if tracing() or bool(leading.any()) else None


def turned(x: Tensor, by: Tensor, axis: int, start: int) -> Tensor:
    """x with what it has along `axis` from `start` on moved in a ring, in each row so far to the left as `by` says.

    x: (rows, ...). by: (rows,). Returns the shape of x.
    """
    count = x.shape[axis] - start
    places = torch.arange(count, device=x.device)
    ring = start + (places + by[:, None]) % count
    index = torch.cat([torch.arange(start, device=x.device).expand(x.shape[0], start), ring], 1)
    # (rows, start + count) -> (rows, 1, ..., start + count, ..., 1)
    index = index.view(x.shape[0], *[1] * (axis - 1), x.shape[axis], *[1] * (x.dim() - axis - 1))
    return x.gather(axis, index.expand(x.shape))


def each(tensors: Tensors | None, what: Callable[[Tensor], Tensor]) -> Tensors | None:
    return None if tensors is None else tuple(what(tensor) for tensor in tensors)


def asked(given: bool | None, own: bool) -> bool | None:
    """What a call asked for, or else the configuration; None leaves it to the text encoder's."""
    return given if given is not None else own or None


# ---- checkpoint table ------------------------------------------------------------------------------------------------

ROWS: list[Entry] = [("modal_encoder.proj_embeddings.{p}", "projection.{p}")]
HEADS: list[Entry] = [("classifier.{p}", "classifier.out.{p}")]
SECOND_NAMES = [  # of the text encoder's own tables, which image and text share
    "modal_encoder.word_embeddings.weight",
    "modal_encoder.position_embeddings.weight",
    "modal_encoder.token_type_embeddings.weight",
    "modal_encoder.LayerNorm.{p}",
]
# facebookresearch/mmbt keeps a ResNet as the list of its parts, numbered: 0 and 1 its stem, 4 to 7 its stages.
IMAGE = KeyMap(
    [
        ("model.0.weight", "resnet.conv1.weight"),
        ("model.1.{b}", "resnet.bn1.{b}"),
        *(
            (f"model.{n + 3}.{{i}}.{name}", f"resnet.layer{n}.{{i}}.{name}")
            for n in (1, 2, 3, 4)
            for name in ("conv{j}.weight", "bn{j}.{b}", "downsample.0.weight", "downsample.1.{b}")
        ),
    ],
    fresh=["num_batches_tracked"],
    prefix="resnet",
)
MMBTPreTrained.backbone = MMBTModel


# ---- task class ------------------------------------------------------------------------------------------------------


class MMBTForClassification(MMBTPreTrained, SequenceClassification):
    """Labels or grades an image and a text together."""

    order: ClassVar[tuple[str, ...]] = (
        "input_modal", "input_ids", "modal_start_tokens", "modal_end_tokens", "attention_mask", "token_type_ids",
        "modal_token_type_ids", "position_ids", "modal_position_ids", "head_mask", "inputs_embeds", "labels",
        "return_dict",
    )  # fmt: skip

    def __init__(
        self, config: MMBTConfig, transformer: PreTrainedModel | None = None, encoder: nn.Module | None = None
    ) -> None:
        PreTrainedModel.__init__(self, config)
        self.mmbt = MMBTModel(config, transformer, encoder)
        self.classifier = self.head(config.num_labels)
        self.init_weights()

    def read(self, outputs: BaseModelOutputWithPoolingAndCrossAttentions, inputs: dict[str, Any]) -> Tensor:
        """The pooler's vector, or where there is none the first token's, which is the image's."""
        return outputs.last_hidden_state[:, 0] if outputs.pooler_output is None else outputs.pooler_output
