"""Before a server starts: whether its model wrote the texts that it is about to serve.

They are those of the data folder, or what a worker has made of them since: texts that were written
anew are the new model's. Texts of another model refuse the start, unless they are accepted.
"""

import structlog

from services.batch import publish
from services.core.data_folder.text_writers import TextWriters
from services.state.user_store import Store

log = structlog.get_logger(__name__)


async def texts_to_keep(data: str, store: Store, own: TextWriters, *, accept: bool) -> bool:
    """Whether texts that Redis holds are kept where a worker has written them anew (else those of
    the data folder are put back).

    Raises ArtifactMismatch if another model wrote the texts, unless they are accepted.
    """
    made = publish.writers_in(data)
    if not own.differing(made):
        return False
    note = await publish.note_on(data, store)
    if note is not None and note.rewriting is None and not own.differing(note.writers):
        return True
    if not accept:
        own.require(made)
    log.warning("texts_of_another_model", reason=own.difference(made), data=data)
    return True
