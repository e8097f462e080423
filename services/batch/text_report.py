"""How a step reports the statistics of its texts: in its counts, and as warnings in its log."""

from typing import Any

import structlog

from services.core.data_folder.text_statistics import TextStatistics

log = structlog.get_logger(__name__)


def reported(texts: TextStatistics | None) -> dict[str, Any]:
    """`texts` for a step's counts; what is wrong with them is logged, at every run of the step."""
    if texts is None:
        return {}
    if warning := texts.warning():
        log.warning("texts_do_not_vary", artifact=texts.kind, reason=warning)
    for found in texts.notes():
        log.warning("texts_incomplete", artifact=texts.kind, reason=found)
    return {"texts": texts.to_json() | {"warning": warning}}
