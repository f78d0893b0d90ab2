"""RAG's tokenizer (Lewis et al. 2020): one for what is asked, one for what is written."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any, Self

from polyformer.tokenizers.base import BatchEncoding, PreTrainedTokenizer
from polyformer.tokenizers.explain import Explanation
from polyformer.tokenizers.targets import TargetMode


class RagTokenizer(TargetMode):
    """A pair: a call encodes with the question encoder's tokenizer, `decode` reads with the generator's.

    On disk each has a folder of its own, question_encoder_tokenizer and generator_tokenizer.
    """

    PARTS = ("question_encoder", "generator")

    def __init__(self, question_encoder: PreTrainedTokenizer, generator: PreTrainedTokenizer) -> None:
        self.question_encoder, self.generator = question_encoder, generator

    def __repr__(self) -> str:
        return f"RagTokenizer(question_encoder={self.question_encoder!r}, generator={self.generator!r})"

    @property
    def current_tokenizer(self) -> PreTrainedTokenizer:
        """The one a call uses: the generator's within `as_target_tokenizer`, else the question encoder's."""
        return self.generator if self._writing else self.question_encoder

    def __call__(self, *texts: Any, **options: Any) -> BatchEncoding:
        """Encode questions (targets within `as_target_tokenizer`); arguments as of any tokenizer's call."""
        return self.current_tokenizer(*texts, **options)

    def decode(self, *ids: Any, **options: Any) -> str:
        """The text that the generator wrote."""
        return self.generator.decode(*ids, **options)

    def batch_decode(self, *rows: Any, **options: Any) -> list[str]:
        """The texts that the generator wrote."""
        return self.generator.batch_decode(*rows, **options)

    def explain(self, text: str, pair: str | None = None) -> Explanation:
        """Why a question becomes these tokens; see PreTrainedTokenizer.explain."""
        return self.current_tokenizer.explain(text, pair)

    def prepare_seq2seq_batch(
        self,
        src_texts: Sequence[str],
        tgt_texts: Sequence[str] | None = None,
        max_length: int | None = None,
        max_target_length: int | None = None,
        padding: bool | str = "longest",
        return_tensors: str | None = None,
        truncation: bool | str = True,
        **more: Any,
    ) -> BatchEncoding:
        """Questions as by a call, and the ids of the targets as `labels`; each cut to its own model's length."""
        shared = {"padding": padding, "return_tensors": return_tensors, "truncation": truncation, "verbose": False}
        batch = self.question_encoder(src_texts, max_length=max_length, **(shared | more))
        if tgt_texts is not None:
            batch["labels"] = self.generator(tgt_texts, max_length=max_target_length, **(shared | more))["input_ids"]
        return batch

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        *,
        config: Any = None,
        subfolder: str = "",
        **options: Any,
    ) -> Self:
        """Both tokenizers of a folder or of the hub; config.json, or `config`, tells their kinds where they don't.

        options: as of PreTrainedTokenizer.from_pretrained, for both.
        """
        from polyformer.core.auto_tokenizer import AutoTokenizer, read_model_config

        place = pretrained_model_name_or_path
        model = read_model_config(place, {**options, "subfolder": subfolder}) if config is None else config
        made = []
        for part in cls.PARTS:
            inner = model.get(part) if isinstance(model, Mapping) else getattr(model, part, None)
            folder = str(PurePosixPath(subfolder, f"{part}_tokenizer"))
            made.append(AutoTokenizer.from_pretrained(place, config=inner, subfolder=folder, **options))
        return cls(*made)

    def save_pretrained(self, save_directory: str | PathLike[str], **options: Any) -> tuple[str, ...]:
        """Write both to folders of their own inside this one; returns the paths."""
        return tuple(
            path
            for part in self.PARTS
            for path in getattr(self, part).save_pretrained(Path(save_directory, f"{part}_tokenizer"), **options)
        )
