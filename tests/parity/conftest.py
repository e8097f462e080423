"""The tiny model on which renderings are compared."""

from tests.engines.conftest import adapter as adapter
from tests.engines.conftest import checkpoint as checkpoint
