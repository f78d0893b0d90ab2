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
    from polyformer.pipelines.sentence import SentenceEncoder

_HOME = {
    "FeatureExtractionPipeline": "feature_extraction",
    "FillMaskPipeline": "fill_mask",
    "Pipeline": "base",
    "SentenceEncoder": "sentence",
    "pipeline": "factory",
}

__all__ = ["FeatureExtractionPipeline", "FillMaskPipeline", "Pipeline", "SentenceEncoder", "pipeline"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'polyformer.pipelines' has no attribute {name!r}")
    value = getattr(import_module(f"polyformer.pipelines.{_HOME[name]}"), name)
    globals()[name] = value
    return value
