"""Labels of pictures with their texts: posts, film posters with plots, products."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from polyformer.pipelines.images import as_input, read_image
from polyformer.pipelines.rows import Row, called, policy
from polyformer.pipelines.text_classification import TextClassificationPipeline


@dataclass
class Pair(Row):
    """A text's row and the picture it goes with.

    image: as the caller gave it; it is read when its batch is computed. name: what messages call it.
    """

    image: Any = field(default=None, repr=False)
    name: str = "the image"


class ImageTextClassificationPipeline(TextClassificationPipeline):
    """A picture and a text to their label, by MMBT.

    A pair gives [{"label", "score"}], its likeliest label; a list of pairs a dictionary each. With top_k a pair gives
    the k likeliest labels, with top_k=None all of them, the likeliest first.
    """

    task: ClassVar[str] = "image-text-classification"
    model_task: ClassVar[str] = "image-text-classification"

    def __call__(
        self,
        inputs: Any,
        text: str | Sequence[str] | None = None,
        *,
        top_k: int | None = 1,
        function_to_apply: str | None = None,
        return_all_scores: bool = False,
        truncation: bool = False,
        on_long: str | None = None,
        show_progress: bool | None = None,
    ) -> Any:
        """Label a pair, a list of pairs or an iterable of them.

        Args:
            inputs: a picture, `text` beside it; or a list of pictures beside one of texts; or pairs, each
                {"image": ..., "text": ...} or (image, text). A picture is one of Pillow's, the path of a file, or an
                array, (height, width, 3) uint8.
            top_k, function_to_apply, return_all_scores: as for texts alone; with
                config.problem_type="multi_label_classification" every label has a probability of its own.
            on_long: a text longer than the model takes beside the picture is an "error", or "truncate" it.

        Raises:
            TypeError: not a pair. ValueError: an empty or too long a text, a file that is no picture.
            ImportError: Pillow is not installed.
        """
        on_long = policy(on_long, truncation, "error", ("error", "truncate"))
        return super().__call__(
            inputs if text is None else beside(inputs, text), top_k=top_k, function_to_apply=function_to_apply,
            return_all_scores=return_all_scores, on_long=on_long, show_progress=show_progress,
        )  # fmt: skip

    @property
    def limit(self) -> int | None:
        """How many tokens a text may have beside the picture and its two marks."""
        whole = super().limit
        return None if whole is None else whole - self.model.config.num_image_embeds - 2

    def prepare(self, texts: Sequence[Any], first: int, options: Mapping[str, Any]) -> list[list[Any]]:
        pairs = [pair_of(pair, number) for number, pair in enumerate(texts, first)]
        # special tokens stand around the picture, none around the text (facebookresearch/mmbt)
        made = self.tokenizer(
            [text for _, text in pairs], add_special_tokens=False, return_attention_mask=False,
            return_token_type_ids=False, verbose=False,
        )  # fmt: skip
        found = []
        for number, ((image, _), ids) in enumerate(zip(pairs, made["input_ids"], strict=True), first):
            if not ids:
                raise ValueError(f"{called(number)} has no words: give a text that goes with the image.")
            if self.limit is not None and len(ids) > self.limit:
                if options["on_long"] == "error":
                    raise ValueError(
                        f"{called(number)} has {len(ids)} tokens, and this model takes {self.limit} beside an image: "
                        "pass on_long='truncate' to leave out the rest."
                    )
                ids = ids[: self.limit]
            found.append([Pair(ids, image=image, name="the image" if number < 0 else f"the image of {called(number)}")])
        return found

    def compute(self, inputs: dict[str, Tensor], rows: Sequence[Row], options: Mapping[str, Any]) -> list[Tensor]:
        config, tokenizer = self.model.config, self.tokenizer
        images = [
            as_input(read_image(row.image, row.name), config.image_mean, config.image_std)
            for row in rows
            if isinstance(row, Pair)
        ]
        marks = {"modal_start_tokens": tokenizer.cls_token_id, "modal_end_tokens": tokenizer.sep_token_id}
        for name, number in marks.items():
            if number is not None:
                inputs[name] = torch.full((len(rows),), number, device=self.device)
        inputs["input_modal"] = torch.stack(images).to(self.device, self.model.dtype)
        return list(self.model(**inputs, return_dict=True).logits.float().cpu())


def beside(images: Any, texts: str | Sequence[str]) -> Any:
    """A picture and a text, or a list of each, as pairs."""
    if isinstance(texts, str):
        return {"image": images, "text": texts}
    if not isinstance(images, (list, tuple)) or not isinstance(texts, (list, tuple)):
        raise TypeError("text= goes with an image, or a list of texts with a list of images.")
    if len(images) != len(texts):
        raise ValueError(f"there are {len(images)} images and {len(texts)} texts: give one text for each image.")
    return [{"image": image, "text": text} for image, text in zip(images, texts, strict=True)]


def pair_of(pair: Any, number: int) -> tuple[Any, str]:
    """An image and its text, in either form.

    Raises:
        TypeError: it is no such pair.
    """
    if isinstance(pair, Mapping):
        image, text = pair.get("image"), pair.get("text")
    else:
        image, text = pair if isinstance(pair, (tuple, list)) and len(pair) == 2 else (None, None)
    if image is None or not isinstance(text, str):
        raise TypeError(f'{called(number)} is no image with a text: give {{"image": ..., "text": ...}} or a pair.')
    return image, text
