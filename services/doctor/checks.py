"""All checks of one deployment, in the order in which its parts stand on each other."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from services.core.errors import MsrError
from services.deployment.assemble import EngineChoice
from services.deployment.settings import Settings
from services.doctor.artifacts import look_at_adapter, look_at_data
from services.doctor.findings import Check
from services.doctor.machine import (
    look_at_disk,
    look_at_gpu,
    look_at_packages,
    look_at_port,
    look_at_python,
)
from services.doctor.service import look_at_model_servers, look_at_redis, look_at_settings


def all_checks(
    data: str,
    choose: Callable[[], EngineChoice],
    settings: Settings,
    *,
    host: str,
    port: int,
    options: Iterable[str],
    settings_error: ValidationError | MsrError | None = None,
) -> list[Check]:
    """What `msr serve` with the same options stands on.

    `choose` gives the engine, or raises why there is none; `options` and `settings_error` are what
    `look_at_settings` asks for.
    """
    folders = {"data": data}
    if settings.redis_url is None:
        folders["state"] = settings.state or str(Path(data) / "state")
    return [
        Check("python", look_at_python),
        Check("packages", look_at_packages),
        Check("settings", partial(look_at_settings, os.environ, options, settings_error)),
        Check("gpu", look_at_gpu),
        Check("disk", partial(look_at_disk, folders)),
        Check("data", partial(look_at_data, data)),
        Check("adapter", partial(look_at_adapter, data, choose, settings.adapters)),
        Check("model server", partial(look_at_model_servers, data, choose)),
        Check("redis", partial(look_at_redis, data, settings)),
        Check("port", partial(look_at_port, host, port)),
    ]
