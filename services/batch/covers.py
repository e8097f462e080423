"""Reads or downloads covers and prepares them as images, many at a time.

An item without a usable cover stays and is described from its title; the cover is quarantined under
COVER_ROW with the reason. Downloads are kept (`services/fetch/cache.py`). Decoding runs in threads
while other covers download. After UNREACHABLE_AFTER failures in a row a host is skipped for the
rest of the run, so that a run without a network does not wait for hours.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from services.batch.readers.source import SourceItem, is_regular_file
from services.core.errors import ImageRefused, UrlRefused
from services.core.images import MAX_IMAGE_BYTES, ImageForm, PreparedCover, prepare_cover
from services.fetch.cache import DownloadCache
from services.fetch.download import CheckedClient, HostUnreachable, fetch_image
from services.fetch.rules import FetchRules, check_url

T = TypeVar("T")

COVER_ROW = "cover of "
UNREACHABLE_AFTER = 20
MAX_IN_FLIGHT = 32  # raw images in memory at once


@dataclass(frozen=True, slots=True)
class Cover:
    """A prepared cover; None if the item has none, or one with a fault."""

    prepared: PreparedCover | None = None
    fault: str = ""

    @property
    def image(self) -> bytes | None:
        """What the model sees."""
        return None if self.prepared is None else self.prepared.image

    @property
    def shown(self) -> bytes | None:
        """What people see."""
        return None if self.prepared is None else self.prepared.shown


class CoverLoader:
    """Loads covers in batches; `aclose` it after.

    With `refetch_broken` a kept download that is not an image is downloaded again.
    """

    def __init__(
        self, *, data: str, form: ImageForm, rules: FetchRules, refetch_broken: bool = False
    ) -> None:
        """`data` is the data folder, where downloads are kept."""
        self._form = form
        self._rules = rules
        self._refetch_broken = refetch_broken
        self._cache = DownloadCache(data)
        self._client = CheckedClient(rules)
        self._threads: Executor = ThreadPoolExecutor(os.cpu_count() or 1)
        self._failures: Counter[str] = Counter()
        self._in_flight = asyncio.Semaphore(MAX_IN_FLIGHT)

    async def aclose(self) -> None:
        """Close the connections and the threads."""
        await self._client.aclose()
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def load_all(
        self, items: Sequence[SourceItem], on_done: Callable[[], object] = lambda: None
    ) -> list[Cover]:
        """The cover of each item, in order; `on_done` is called after each.

        A fault affects its own item only.
        """
        return list(await asyncio.gather(*(self._load_one(item, on_done) for item in items)))

    async def _load_one(self, item: SourceItem, on_done: Callable[[], object]) -> Cover:
        cover = Cover()
        if item.cover_file is not None or item.cover_url is not None:
            async with self._in_flight:
                try:
                    cover = Cover(await self._load(item))
                except HostUnreachable as error:
                    cover = Cover(fault=f"{error} with --retry-quarantined")
                except (ImageRefused, UrlRefused) as error:
                    cover = Cover(fault=str(error))
        on_done()
        return cover

    async def _load(self, item: SourceItem) -> PreparedCover:
        if item.cover_file is not None:
            return await self._in_thread(_prepare_file, item.cover_file)
        assert item.cover_url is not None
        kept = await asyncio.to_thread(self._cache.load, item.cover_url)
        if kept is not None:
            try:
                return await self._in_thread(prepare_cover, kept)
            except ImageRefused:
                if not self._refetch_broken:
                    raise
        fetched = await self._fetch(item.cover_url)
        await asyncio.to_thread(self._cache.save, item.cover_url, fetched)
        return await self._in_thread(prepare_cover, fetched)

    async def _fetch(self, url: str) -> bytes:
        host = check_url(url, self._rules).host
        if self._failures[host] >= UNREACHABLE_AFTER:
            raise HostUnreachable(
                f"host {host} was given up after {UNREACHABLE_AFTER} failed covers in a row; check "
                "the network and try again"
            )
        try:
            fetched = await fetch_image(self._client, url, self._rules)
        except HostUnreachable:
            self._failures[host] += 1
            raise
        self._failures[host] = 0
        return fetched

    async def _in_thread(
        self, work: Callable[[T, ImageForm], PreparedCover], cover: T
    ) -> PreparedCover:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, work, cover, self._form)


def _prepare_file(path: Path, form: ImageForm) -> PreparedCover:
    if not is_regular_file(path):
        raise ImageRefused(f"there is no file {path.name}; add it, or leave the cover out")
    try:
        num_bytes = path.stat().st_size
        if num_bytes > MAX_IMAGE_BYTES:  # before reading it into memory
            raise ImageRefused(
                f"{path.name} has {num_bytes:,} bytes, more than {MAX_IMAGE_BYTES:,}; shrink it"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ImageRefused(f"{path.name} cannot be read ({error.strerror}); check it") from error
    return prepare_cover(data, form)
