"""Which models an evaluation compares, and why it leaves others out."""

from collections.abc import Sequence

from model_training.data.protocols import Protocol, find_protocol
from model_training.evaluation.results import MODELS, NEED_ENGINE
from model_training.scoring.score_tasks import ABLATIONS
from services.core.artifacts import Artifact
from services.core.data_folder.steps import command_for, preferences_name
from services.core.errors import ArtifactMissing, InputError


def choose_models(
    data: str,
    protocol: str,
    models: Sequence[str] | None = None,
    *,
    ablate: str | None = None,
    has_engine: bool = True,
) -> tuple[list[str], dict[str, str]]:
    """The models to evaluate, in the order of tables, and for the others the reason why not.

    `models` None means all that are possible. An engine is needed if any of NEED_ENGINE is chosen.
    Raises InputError for arguments that do not fit together.
    """
    rules = find_protocol(protocol)
    if ablate is not None and ablate not in ABLATIONS:
        raise InputError(f"there is no ablation {ablate!r}; choose from {', '.join(ABLATIONS)}")
    if models is not None:
        if unknown := [name for name in models if name not in MODELS]:
            raise InputError(f"there is no model {unknown[0]!r}; choose from {', '.join(MODELS)}")
        if not models:
            raise InputError(f"there is no model to evaluate; choose from {', '.join(MODELS)}")
    refusal = _why_no_engine_models(data, rules, ablate, has_engine=has_engine)
    chosen = [name for name in MODELS if models is None or name in models]
    needing = [name for name in chosen if name in NEED_ENGINE]
    if ablate is not None and not needing:
        raise InputError(
            f"the ablation {ablate!r} takes something from the multimodal model, which is not "
            "among the models: add `mllm` to --models"
        )
    if refusal is None:
        return chosen, {}
    if needing and (models is not None or ablate is not None):
        raise refusal
    return [name for name in chosen if name not in needing], dict.fromkeys(needing, str(refusal))


def _why_no_engine_models(
    data: str, protocol: Protocol, ablate: str | None, *, has_engine: bool
) -> Exception | None:
    if protocol.whole_catalogue:
        return InputError(
            f"protocol {protocol.name} ranks every item of the catalogue for every user, more than "
            "a multimodal model can score; choose a protocol with frozen negatives for it"
        )
    preferences = preferences_name(protocol.cut, direct=ablate == "direct")
    if not Artifact(data, preferences).exists():
        return ArtifactMissing(
            f"there are no preferences that were written before the targets of protocol "
            f"{protocol.name} ({preferences}); run `msr {command_for(preferences)}`"
        )
    if not has_engine:
        return InputError("scoring by the multimodal model needs an engine; name one")
    return None
