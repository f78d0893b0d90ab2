"""Finding passages: documents cut into passages, a vector each, on disk and memory-mapped, searched by inner product.

    read_documents -> passages_of -> build / add -> a folder <- PassageIndex.search

Everything that finds passages for a model speaks the protocol `Retriever` (retriever.py); `PassageIndex` does. Exact
search is always there; `accelerate` puts an index of FAISS beside the vectors (extra [retrieval]).

Importing this package loads neither numpy nor FAISS; a name does when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyformer.retrieval.faiss_kinds import HNSW, IVF, Int8
    from polyformer.retrieval.index import PassageIndex
    from polyformer.retrieval.passage import Document, Passage
    from polyformer.retrieval.rag import RagRetriever
    from polyformer.retrieval.readers import read_documents
    from polyformer.retrieval.retriever import Found, Retriever
    from polyformer.retrieval.split import passages_of
    from polyformer.retrieval.write import accelerate, add, build, delete

_HOME = {
    "Document": "passage",
    "Found": "retriever",
    "HNSW": "faiss_kinds",
    "IVF": "faiss_kinds",
    "Int8": "faiss_kinds",
    "Passage": "passage",
    "PassageIndex": "index",
    "RagRetriever": "rag",
    "Retriever": "retriever",
    "accelerate": "write",
    "add": "write",
    "build": "write",
    "delete": "write",
    "passages_of": "split",
    "read_documents": "readers",
}

__all__ = [
    "HNSW", "IVF", "Document", "Found", "Int8", "Passage", "PassageIndex", "RagRetriever", "Retriever", "accelerate",
    "add", "build", "delete", "passages_of", "read_documents",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'polyformer.retrieval' has no attribute {name!r}")
    value = getattr(import_module(f"polyformer.retrieval.{_HOME[name]}"), name)
    globals()[name] = value
    return value
