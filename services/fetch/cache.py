"""Downloaded covers as received, kept so that a resumed or repeated step fetches nothing twice.

    data/downloads/3f/3f2a9c...   the bytes of one URL, named by its digest

A file that exists is whole. The folder may be deleted at any time; the next run fetches again what
it needs.
"""

import hashlib

import fsspec

from services.core.data_folder.atomic_write import atomic_write
from services.core.errors import FolderNotWritable

FOLDER = "downloads"


class DownloadCache:
    """The covers fetched for a data folder (a path or an fsspec URL)."""

    def __init__(self, data: str) -> None:
        """Reads and writes nothing yet."""
        self._fs, base = fsspec.core.url_to_fs(str(data))
        self._folder = f"{base.rstrip('/')}/{FOLDER}"

    def __contains__(self, url: str) -> bool:
        return bool(self._fs.exists(self._path(url)))

    def load(self, url: str) -> bytes | None:
        """The bytes of a URL, None if it has not been fetched."""
        try:
            return bytes(self._fs.cat_file(self._path(url)))
        except FileNotFoundError:
            return None

    def save(self, url: str, data: bytes) -> None:
        """Keep the bytes of a URL and replace older ones; FolderNotWritable if that fails."""
        path = self._path(url)
        try:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            atomic_write(path, data, self._fs)
        except OSError as error:
            raise FolderNotWritable(
                f"cannot keep a download in {self._folder} ({error}); free some space or choose "
                "another folder with --data, then run the step again"
            ) from error

    def _path(self, url: str) -> str:
        digest = hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()
        return f"{self._folder}/{digest[:2]}/{digest}"
