"""Text in, answers out: `pipeline("fill-mask", model)`, `SentenceEncoder.from_pretrained(model)`.

Importing this package loads neither torch nor a model; a name does when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyformer.pipelines.base import Pipeline
    from polyformer.pipelines.factory import pipeline
    from polyformer.pipelines.feature_extraction import FeatureExtractionPipeline
    from polyformer.pipelines.fill_mask import FillMaskPipeline
    from polyformer.pipelines.multiple_choice import MultipleChoicePipeline
    from polyformer.pipelines.question_answering import QuestionAnsweringPipeline
    from polyformer.pipelines.sentence import SentenceEncoder
    from polyformer.pipelines.sentence_similarity import SentenceSimilarityPipeline
    from polyformer.pipelines.text_classification import TextClassificationPipeline
    from polyformer.pipelines.token_classification import TokenClassificationPipeline
    from polyformer.pipelines.zero_shot import ZeroShotClassificationPipeline

_HOME = {
    "FeatureExtractionPipeline": "feature_extraction",
    "FillMaskPipeline": "fill_mask",
    "MultipleChoicePipeline": "multiple_choice",
    "Pipeline": "base",
    "QuestionAnsweringPipeline": "question_answering",
    "SentenceEncoder": "sentence",
    "SentenceSimilarityPipeline": "sentence_similarity",
    "TextClassificationPipeline": "text_classification",
    "TokenClassificationPipeline": "token_classification",
    "ZeroShotClassificationPipeline": "zero_shot",
    "pipeline": "factory",
}

__all__ = [
    "FeatureExtractionPipeline", "FillMaskPipeline", "MultipleChoicePipeline", "Pipeline", "QuestionAnsweringPipeline",
    "SentenceEncoder", "SentenceSimilarityPipeline", "TextClassificationPipeline", "TokenClassificationPipeline",
    "ZeroShotClassificationPipeline", "pipeline",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'polyformer.pipelines' has no attribute {name!r}")
    value = getattr(import_module(f"polyformer.pipelines.{_HOME[name]}"), name)
    globals()[name] = value
    return value
