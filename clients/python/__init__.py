"""The Python clients of the HTTP API. Installed from `msr-client`, this package is `msr_client`."""

from clients.python.client import AsyncMsrClient as AsyncMsrClient
from clients.python.client import MsrClient as MsrClient
from clients.python.errors import *
from clients.python.retries import Retries as Retries
