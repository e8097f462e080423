"""All checks of one deployment; a part comes after the parts that it needs."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from services.core.errors import MsrError
from services.deployment.assemble import EngineChoice
from services.deployment.settings import Settings
from services.doctor.artifacts import check_adapter, check_data
from services.doctor.findings import Check
from services.doctor.machine import (
    check_disk,
    check_gpu,
    check_packages,
    check_port,
    check_python,
)
from services.doctor.service import check_model_servers, check_redis, check_settings


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
    """The checks of everything that `msr serve` with the same options needs.

    `choose` returns the engine, or raises the reason why there is none; `options` and
    `settings_error` are arguments of `check_settings`.
    """
    folders = {"data": data}
    if settings.redis_url is None:
        folders["state"] = settings.state or str(Path(data) / "state")
    return [
        Check("python", check_python),
        Check("packages", check_packages),
        Check("settings", partial(check_settings, os.environ, options, settings_error)),
        Check("gpu", check_gpu),
        Check("disk", partial(check_disk, folders)),
        Check("data", partial(check_data, data)),
        Check("adapter", partial(check_adapter, data, choose, settings.adapters)),
        Check("model server", partial(check_model_servers, data, choose)),
        Check("redis", partial(check_redis, data, settings)),
        Check("port", partial(check_port, host, port)),
    ]
