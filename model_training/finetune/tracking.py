"""The trackers that a run reports to (default: TensorBoard) and the upload to a hub at its end.

Neither is part of the run's fingerprint.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import get_args

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError

from model_training.finetune.config import Tracker, TrainConfig
from services.core.errors import EngineUnavailable, InputError
from services.process.step_packages import TENSORBOARD, is_there, to_install

# Uploads a folder under a hub name and returns its address.
Upload = Callable[[Path, str], str]


def reporting(
    config: TrainConfig,
    trackers: Collection[str] | None,
    push_to_hub: str | None,
    *,
    is_installed: Callable[[str], object] = is_there,
) -> TrainConfig:
    """The configuration with these trackers and this hub name, if they are given.

    InputError for a tracker that is unknown or not installed, with how to install it;
    `is_installed` takes a package name.
    """
    chosen = config.trackers if trackers is None else trackers
    known = get_args(Tracker)
    for tracker in chosen:
        if tracker not in known:
            raise InputError(f"there is no tracker {tracker!r}; known are {', '.join(known)}")
        if not is_installed(tracker):
            command = (
                to_install([TENSORBOARD])
                if tracker == TENSORBOARD.module
                else f"pip install {tracker}"
            )
            raise InputError(f"tracker {tracker} is not installed; run `{command}`")
    ordered = tuple(tracker for tracker in known if tracker in chosen)
    hub = config.push_to_hub if push_to_hub is None else push_to_hub
    return replace(config, trackers=ordered, push_to_hub=hub)


def require_token() -> None:
    """InputError without a token for the upload; checked before a long training.

    The token is the environment's HF_TOKEN, or what `hf auth login` left.
    """
    if not get_token():
        raise InputError(
            "push_to_hub needs a token for the hub; set HF_TOKEN, or run `hf auth login`"
        )


def upload_to_hub(folder: Path, name: str) -> str:
    """Upload a published folder to the hub as `name`; a new repository is private.

    Returns its address. Raises EngineUnavailable if the upload fails.
    """
    api = HfApi()
    try:
        address = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="msr train")
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise EngineUnavailable(
            f"the upload of {name} to the hub failed ({error}); {folder} is finished: run the same "
            "`msr train` again to push it without training"
        ) from error
    return str(address)
