"""How every step reads and writes: shards, manifests, fingerprints, quarantine.

    data/
      summaries/
        manifest.json              the finished artifact: what made it, from what, with what counts
        3f2a9c0d1e4b5a67/          one folder a fingerprint
          part-00017.parquet         rows of shard 17
          quarantine-00017.parquet   rows of shard 17 that could not be used, with reasons

The fingerprint hashes the step's definitions, its model and its inputs' fingerprints. Files are
written atomically, the part of a shard last: a part that exists is complete, and a killed step
resumes with the missing parts. No file holds a time or a host name, so the same inputs give the
same bytes, interrupted or not. Paths go through fsspec: a folder or an object store.
"""

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from services.core.data_folder.atomic_write import UNFINISHED_SUFFIX, atomic_write, unfinished_name
from services.core.data_folder.steps import command_for
from services.core.data_folder.text_statistics import TEXT_COLUMNS, TextStatistics
from services.core.data_folder.text_writers import TextWriter, summaries_label
from services.core.errors import ArtifactMismatch, ArtifactMissing, FolderNotWritable
from services.core.fingerprint import fingerprint

MANIFEST = "manifest.json"
# In a definition: how tokens were drawn; missing where decoding was greedy.
SAMPLING = "sampling"
# In that of preferences: the model whose summaries were read; missing where it is the same one.
SUMMARIES_BY = "summaries_by"
LOCK = "writer.lock"
MAX_MANIFEST_QUARANTINE = 1000
QUARANTINE_SCHEMA = pa.schema([("row", pa.string()), ("reason", pa.string())])


def absolute_root(root: str) -> str:
    """A data folder's path or URL in a form that means the same in every working directory."""
    filesystem, path = fsspec.core.url_to_fs(root)
    return str(filesystem.unstrip_protocol(path))


def find_artifacts(root: str, pattern: str) -> list[str]:
    """Names of the finished artifacts in a data folder that match a shell pattern, sorted."""
    filesystem, base = fsspec.core.url_to_fs(str(root))
    found = filesystem.glob(f"{base.rstrip('/')}/{pattern}/{MANIFEST}")
    return sorted(str(path).split("/")[-2] for path in found)


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A row that was left out: its id or line number, and the reason."""

    row: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that determines an artifact's content. Equal recipes give equal bytes."""

    step: str
    definition: Mapping[str, Any]
    model: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The name of the artifact's folder."""
        return fingerprint(asdict(self))


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a finished artifact's `manifest.json`."""

    step: str
    fingerprint: str
    definition: dict[str, Any]
    model: str
    inputs: dict[str, str]
    num_shards: int
    counts: dict[str, int]
    num_quarantined: int
    quarantined: list[dict[str, str]]
    # Of steps that write texts (`text_statistics.py`); older versions noted none.
    texts: dict[str, Any] | None = None
    # The model's name for people; None of steps without a model, and of older versions.
    model_name: str | None = None

    def content(self) -> dict[str, Any]:
        """The fields as plain values, without those that hold nothing."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def writer(self) -> TextWriter:
        """Who wrote the texts of `summaries` or of a `preferences` artifact."""
        if not self.model:
            return TextWriter()
        definition = self.definition
        read = summaries_label(self.model, definition.get(SUMMARIES_BY, ""))
        prompt = f"{definition['prompt']}{definition.get(SAMPLING, '')}"
        return TextWriter(f"{self.model}/{prompt}{read}", self.model_name or "")

    def to_json(self) -> str:
        """Readable JSON; the same content gives the same text."""
        return json.dumps(self.content(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


class Artifact:
    """A named artifact in the data folder, finished or not.

    `root` is the data folder as a path or fsspec URL.
    """

    def __init__(self, root: str, name: str) -> None:
        """Does not touch the file system."""
        self.name = name
        self._fs, base = fsspec.core.url_to_fs(str(root))
        self._folder = f"{base.rstrip('/')}/{name}"

    @property
    def location(self) -> str:
        """Its path, for messages."""
        return str(self._folder)

    def exists(self) -> bool:
        """Whether the artifact is finished."""
        return bool(self._fs.exists(f"{self._folder}/{MANIFEST}"))

    def manifest(self) -> Manifest:
        """The manifest of the finished artifact; ArtifactMissing if its step has not finished."""
        try:
            text = self._fs.cat_file(f"{self._folder}/{MANIFEST}")
        except FileNotFoundError as error:
            raise ArtifactMissing(
                f"{self._folder} holds no finished {self.name}; run "
                f"`msr {command_for(self.name)}` first"
            ) from error
        try:
            return Manifest(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise ArtifactMismatch(
                f"{self._folder}/{MANIFEST} is not a manifest of this version; delete the folder "
                f"and run `msr {command_for(self.name)}` again"
            ) from error

    def is_whole(self) -> bool:
        """Whether the artifact is finished and no part is missing."""
        if not self.exists():
            return False
        manifest = self.manifest()
        parts = (self._part(manifest.fingerprint, "part", k) for k in range(manifest.num_shards))
        return all(self._fs.exists(part) for part in parts)

    def num_unfinished_parts(self) -> int:
        """How many parts an unfinished run has written."""
        finished = self.manifest().fingerprint if self.exists() else ""
        parts = self._fs.glob(f"{self._folder}/*/part-*.parquet")
        return sum(str(part).split("/")[-2] != finished for part in parts)

    def has_column(self, name: str) -> bool:
        """Whether the finished artifact has this column, which earlier versions may not write."""
        manifest = self.manifest()
        return manifest.num_shards > 0 and name in self._column_names(
            self._part(manifest.fingerprint, "part", 0)
        )

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in shard order; a column that only later shards have is null in the others."""
        return pa.concat_tables(self.shards(columns), promote_options="default")

    def shards(
        self, columns: Sequence[str] | None = None, optional: Sequence[str] = ()
    ) -> Iterator[pa.Table]:
        """The shards of the finished artifact, one table each, in order.

        With `columns` only these, and those of `optional` that the shard has.
        """
        manifest = self.manifest()
        for shard in range(manifest.num_shards):
            path = self._part(manifest.fingerprint, "part", shard)
            yield self._read_parquet(path, columns, optional)

    def text_statistics(self) -> TextStatistics | None:
        """Of the texts in the finished artifact, counted now if an older version noted none; None
        if it holds no texts.
        """
        manifest = self.manifest()
        columns = TEXT_COLUMNS.get(manifest.step)
        if columns is None:
            return None
        if manifest.texts is not None:
            try:
                return TextStatistics.from_json(manifest.texts)
            except ValueError as error:
                raise ArtifactMismatch(
                    f"{self._folder}/{MANIFEST}: {error}; delete the folder and run "
                    f"`msr {command_for(self.name)}` again"
                ) from error
        # The quarantine of preferences also holds users that the model was never asked about.
        num_empty = manifest.num_quarantined if columns.kind == "summaries" else 0
        return columns.count(self.shards(columns.required, [columns.hit_limit]), num_empty)

    def read_rows(
        self, start: int, stop: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Rows `start` to `stop`, in order, one table for each shard that holds some of them."""
        fingerprint, ends = self._row_numbers
        for shard, (first, end) in enumerate(pairwise([0, *ends])):
            if start < end and first < stop:
                table = self._read_parquet(self._part(fingerprint, "part", shard), columns)
                yield table.slice(max(start - first, 0), min(stop, end) - max(start, first))

    def write(self, recipe: Recipe, *, model_name: str | None = None) -> "ArtifactWriter":
        """Start or resume making this artifact by a recipe; `model_name` is for people."""
        return ArtifactWriter(self, recipe, model_name)

    @contextmanager
    def locked(self, on_wait: Callable[[], object]) -> Iterator[None]:
        """Lock this artifact for one process; call `on_wait` if another one holds the lock.

        Servers start some steps by themselves, so several may start the same step. The kernel
        releases the lock of a killed process. An object store has no locks, so there nothing is
        locked. The artifact's folder must exist: opening a writer makes it.
        """
        if not isinstance(self._fs, LocalFileSystem):
            yield
            return
        with open(f"{self._folder}/{LOCK}", "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @cached_property
    def _row_numbers(self) -> tuple[str, list[int]]:
        """The finished artifact's fingerprint, and the number of rows up to each shard's end."""
        manifest = self.manifest()
        counts = []
        for shard in range(manifest.num_shards):
            with self._fs.open(self._part(manifest.fingerprint, "part", shard), "rb") as file:
                counts.append(pq.read_metadata(file).num_rows)
        return manifest.fingerprint, list(accumulate(counts))

    # --- what the writer shares ------------------------------------------------------------------

    def _part(self, recipe_fingerprint: str, kind: str, shard: int) -> str:
        return f"{self._folder}/{recipe_fingerprint}/{kind}-{shard:05d}.parquet"

    def _column_names(self, path: str) -> list[str]:
        with self._damage_named(path), self._fs.open(path, "rb") as file:
            names: list[str] = pq.read_schema(file).names
            return names

    def _read_parquet(
        self, path: str, columns: Sequence[str] | None = None, optional: Sequence[str] = ()
    ) -> pa.Table:
        wanted = None if columns is None else [*columns, *optional]
        with self._damage_named(path), self._fs.open(path, "rb") as file:
            # Without threads of pyarrow: they hold the file for a moment after it is read, and a
            # process that ends then aborts ("terminate called"; 9 of 96 on a busy machine).
            table = pq.ParquetFile(file, pre_buffer=False).read(
                columns=wanted or None, use_threads=False
            )
            if columns is None:
                return table
            found = [name for name in optional if name in table.column_names]
            return table.select([*columns, *found])

    @contextmanager
    def _damage_named(self, path: str) -> Iterator[None]:
        """Say which file is gone or damaged, and what to do."""
        try:
            yield
        except FileNotFoundError as error:
            raise ArtifactMissing(
                f"{path} is gone although the manifest names it; delete {self._folder} and run "
                f"`msr {command_for(self.name)}` again"
            ) from error
        except (pa.ArrowException, KeyError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk or the network failed; the file may be good
            raise ArtifactMismatch(
                f"{path} is damaged ({error}); delete {self._folder} and run "
                f"`msr {command_for(self.name)}` again"
            ) from error


class ArtifactWriter:
    """Makes one artifact shard by shard; safe to kill at any moment and to start again."""

    def __init__(self, artifact: Artifact, recipe: Recipe, model_name: str | None = None) -> None:
        """FolderNotWritable, before any work is done, if the data folder cannot be written."""
        self.artifact = artifact
        self.recipe = recipe
        self.model_name = model_name
        self._fs = artifact._fs
        self._folder = f"{artifact._folder}/{recipe.fingerprint}"
        try:
            self._fs.makedirs(self._folder, exist_ok=True)
            probe = unfinished_name(f"{self._folder}/probe")
            self._fs.pipe_file(probe, b"")
            self._fs.rm_file(probe)
        except OSError as error:
            raise FolderNotWritable(
                f"cannot write to {self._folder} ({error}); choose another folder with --data"
            ) from error

    @property
    def finished(self) -> bool:
        """Whether the artifact of exactly this recipe is finished."""
        return (
            self.artifact.exists()
            and self.artifact.manifest().fingerprint == self.recipe.fingerprint
        )

    def has_shard(self, shard: int, *, with_column: str | None = None) -> bool:
        """Whether this shard is written, and has this column: one that earlier versions lack."""
        path = self._part("part", shard)
        if not self._fs.exists(path):
            return False
        return with_column is None or with_column in self.artifact._column_names(path)

    def read_shard(
        self, shard: int, columns: Sequence[str] | None = None, optional: Sequence[str] = ()
    ) -> pa.Table:
        """The rows of a written shard; see `Artifact.shards`."""
        return self.artifact._read_parquet(self._part("part", shard), columns, optional)

    def count_texts(self, num_shards: int, num_empty: int) -> TextStatistics:
        """Statistics of the texts in the shards, and of `num_empty` inputs without one."""
        columns = TEXT_COLUMNS[self.recipe.step]
        shards = (
            self.read_shard(k, columns.required, [columns.hit_limit]) for k in range(num_shards)
        )
        return columns.count(shards, num_empty)

    def read_quarantine(self, shard: int) -> list[QuarantinedRow]:
        """The quarantined rows of a written shard."""
        path = self._part("quarantine", shard)
        if not self._fs.exists(path):
            return []
        return [QuarantinedRow(**row) for row in self.artifact._read_parquet(path).to_pylist()]

    def write_shard(
        self, shard: int, rows: pa.Table, quarantined: Sequence[QuarantinedRow] = ()
    ) -> None:
        """Write or replace one shard, the part last."""
        path = self._part("quarantine", shard)
        if quarantined:
            table = pa.Table.from_pylist([asdict(row) for row in quarantined], QUARANTINE_SCHEMA)
            atomic_write(path, _parquet_bytes(table), self._fs)
        elif self._fs.exists(path):
            self._fs.rm_file(path)
        atomic_write(self._part("part", shard), _parquet_bytes(rows), self._fs)

    def finish(
        self, num_shards: int, counts: Mapping[str, int], texts: TextStatistics | None = None
    ) -> Manifest:
        """Publish the shards 0 to num_shards - 1, then remove the files of older recipes."""
        missing = [shard for shard in range(num_shards) if not self.has_shard(shard)]
        if missing:
            raise ArtifactMissing(f"{self._folder} lacks shards {missing[:10]}; run the step again")
        quarantined = [row for k in range(num_shards) for row in self.read_quarantine(k)]
        manifest = Manifest(
            **asdict(self.recipe),
            fingerprint=self.recipe.fingerprint,
            num_shards=num_shards,
            counts=dict(counts),
            num_quarantined=len(quarantined),
            quarantined=[asdict(row) for row in quarantined[:MAX_MANIFEST_QUARANTINE]],
            texts=None if texts is None else texts.to_json(),
            model_name=self.model_name,
        )
        atomic_write(f"{self.artifact._folder}/{MANIFEST}", manifest.to_json().encode(), self._fs)
        self._remove_leftovers()
        return manifest

    def discard(self) -> None:
        """Remove the whole artifact; for intermediate results."""
        if self._fs.exists(self.artifact._folder):
            self._fs.rm(self.artifact._folder, recursive=True)

    def _part(self, kind: str, shard: int) -> str:
        return self.artifact._part(self.recipe.fingerprint, kind, shard)

    def _remove_leftovers(self) -> None:
        for folder in (self.artifact._folder, self._folder):
            for entry in self._fs.ls(folder, detail=True):
                name = entry["name"]
                is_stale = entry["type"] == "directory" and not name.endswith(
                    f"/{self.recipe.fingerprint}"
                )
                if is_stale or name.endswith(UNFINISHED_SUFFIX):
                    self._fs.rm(name, recursive=True)


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())
