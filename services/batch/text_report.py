"""How a step reports on its texts: in its counts, and as warnings in its log.

Before it writes any: whether the model knows this catalogue at all. After: how much they vary.
"""

from typing import Any

import structlog

from services.core.artifacts import Artifact
from services.core.data_folder.text_statistics import TextStatistics
from services.engines.models.model_card import ModelCard

log = structlog.get_logger(__name__)


def warned(data: str, card: ModelCard) -> dict[str, str]:
    """`caveat` for a step's counts if the model does not know the catalogue of `data`; logged too,
    before the work begins.
    """
    caveat = card.caveat(Artifact(data, "items").manifest().inputs.values())
    if not caveat:
        return {}
    log.warning("model_of_another_catalogue", reason=caveat)
    return {"caveat": caveat}


def reported(texts: TextStatistics | None) -> dict[str, Any]:
    """`texts` for a step's counts; what is wrong with them is logged, at every run of the step."""
    if texts is None:
        return {}
    if warning := texts.warning():
        log.warning("texts_do_not_vary", artifact=texts.kind, reason=warning)
    for found in texts.notes():
        log.warning("texts_incomplete", artifact=texts.kind, reason=found)
    return {"texts": texts.to_json() | {"warning": warning}}
