"""Text in, answers out: `pipeline("fill-mask", model)`, `SentenceEncoder.from_pretrained(model)`.

Importing this package loads neither torch nor a model; a name does when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyformer.pipelines.base import Pipeline
    from polyformer.pipelines.conversational import Conversation, ConversationalPipeline
    from polyformer.pipelines.factory import pipeline
    from polyformer.pipelines.feature_extraction import FeatureExtractionPipeline
    from polyformer.pipelines.fill_mask import FillMaskPipeline
    from polyformer.pipelines.multiple_choice import MultipleChoicePipeline
    from polyformer.pipelines.open_qa import OpenQAPipeline
    from polyformer.pipelines.question_answering import QuestionAnsweringPipeline
    from polyformer.pipelines.sentence import SentenceEncoder
    from polyformer.pipelines.sentence_similarity import SentenceSimilarityPipeline
    from polyformer.pipelines.text2text import SummarizationPipeline, Text2TextGenerationPipeline
    from polyformer.pipelines.text_classification import TextClassificationPipeline
    from polyformer.pipelines.text_generation import TextGenerationPipeline
    from polyformer.pipelines.token_classification import TokenClassificationPipeline
    from polyformer.pipelines.translation import TranslationPipeline
    from polyformer.pipelines.zero_shot import ZeroShotClassificationPipeline

_HOME = {
    "Conversation": "conversational",
    "ConversationalPipeline": "conversational",
    "FeatureExtractionPipeline": "feature_extraction",
    "FillMaskPipeline": "fill_mask",
    "MultipleChoicePipeline": "multiple_choice",
    "OpenQAPipeline": "open_qa",
    "Pipeline": "base",
    "QuestionAnsweringPipeline": "question_answering",
    "SentenceEncoder": "sentence",
    "SentenceSimilarityPipeline": "sentence_similarity",
    "SummarizationPipeline": "text2text",
    "Text2TextGenerationPipeline": "text2text",
    "TextClassificationPipeline": "text_classification",
    "TextGenerationPipeline": "text_generation",
    "TokenClassificationPipeline": "token_classification",
    "TranslationPipeline": "translation",
    "ZeroShotClassificationPipeline": "zero_shot",
    "pipeline": "factory",
}

__all__ = [
    "Conversation", "ConversationalPipeline", "FeatureExtractionPipeline", "FillMaskPipeline",
    "MultipleChoicePipeline", "OpenQAPipeline", "Pipeline", "QuestionAnsweringPipeline", "SentenceEncoder",
    "SentenceSimilarityPipeline", "SummarizationPipeline", "Text2TextGenerationPipeline",
    "TextClassificationPipeline", "TextGenerationPipeline", "TokenClassificationPipeline", "TranslationPipeline",
    "ZeroShotClassificationPipeline", "pipeline",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'polyformer.pipelines' has no attribute {name!r}")
    value = getattr(import_module(f"polyformer.pipelines.{_HOME[name]}"), name)
    globals()[name] = value
    return value
