"""How much the texts of an artifact vary: distinct ones, the most frequent one, empty and cut ones.

A model that does not know what it is shown writes the same few sentences about everything. Each
sentence is well formed, so only all of them together show it. Steps 2 and 3 count their texts; the
counts are in the manifest, and `msr doctor`, the API and the console warn by the same rule.

One text counts once for each different input. Items of one title and image, and users of one
history, have the same text by design. Upper and lower case, white space and punctuation around a
text do not make another text of it.
"""

import hashlib
import string
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import pyarrow as pa

Kind = Literal["summaries", "preferences"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# From so many texts on, one that makes up more than this share of them is a fault.
FEWEST_TEXTS = 50
MAX_SHARE = 0.2
# A larger share of empty texts, or of texts that the token limit ended, is worth a note.
MAX_EMPTY_SHARE = 0.2
MAX_CUT_SHARE = 0.5

# A text is quoted to be recognized, not to be read.
_MAX_KEPT_CHARS = 200
_MAX_QUOTED_CHARS = 80

_CAUSES: Mapping[Kind, str] = {
    "summaries": "this model does not know these images",
    "preferences": "this model does not tell these users apart",
}
_REMEDIES: Mapping[Kind, str] = {
    "summaries": "summarize them with a published model (docs/gpu.md), or serve without texts by "
    "mode: cheap",
    "preferences": "write summaries and preferences with a published model (docs/gpu.md), or serve "
    "without texts by mode: cheap",
}


@dataclass(frozen=True, slots=True)
class TextStatistics:
    """Counts of an artifact's texts; the shares follow from them.

    `num_texts`: texts of different inputs, and `num_distinct`: different ones among them.
    `most_frequent` is one of them, as it was written and shortened, and stands for
    `num_most_frequent` texts; "" of preferences, since what is written about a user belongs in no
    log. `num_empty` counts inputs besides, for which the model wrote nothing or which it refused.
    `num_cut` counts texts that ended at the token limit, as far as known.
    """

    kind: Kind
    num_texts: int = 0
    num_distinct: int = 0
    most_frequent: str = ""
    num_most_frequent: int = 0
    num_empty: int = 0
    num_cut: int = 0

    @property
    def most_frequent_share(self) -> float:
        """Of the texts; 0 without any."""
        return self.num_most_frequent / max(1, self.num_texts)

    @property
    def empty_share(self) -> float:
        """Of the inputs."""
        return self.num_empty / max(1, self.num_texts + self.num_empty)

    @property
    def cut_share(self) -> float:
        """Of the texts."""
        return self.num_cut / max(1, self.num_texts)

    @property
    def can_be_judged(self) -> bool:
        """Whether there are enough texts for a judgement."""
        return self.num_texts >= FEWEST_TEXTS

    def warning(self) -> str:
        """What is wrong with the texts and, after the last `; `, what to do; "" if they vary."""
        if not self.can_be_judged or self.most_frequent_share <= MAX_SHARE:
            return ""
        quoted = ""
        if self.kind == "summaries":
            text = _shortened(self.most_frequent, _MAX_QUOTED_CHARS).replace("; ", ", ")
            quoted = f' ("{text}")'
        return (
            f"{self.num_most_frequent:,} of {self.num_texts:,} {self.kind} are the same text"
            f"{quoted}: {_CAUSES[self.kind]}; {_REMEDIES[self.kind]}"
        )

    def notes(self) -> list[str]:
        """What else is worth knowing, each in the form of a warning."""
        found = []
        num_inputs = self.num_texts + self.num_empty
        if num_inputs >= FEWEST_TEXTS and self.empty_share > MAX_EMPTY_SHARE:
            found.append(
                f"{self.num_empty:,} of {num_inputs:,} {self.kind} are missing, because the model "
                "refused or wrote nothing; read the reasons in the manifest, and run the step with "
                "--retry-quarantined"
            )
        if self.can_be_judged and self.cut_share > MAX_CUT_SHARE:
            found.append(
                f"{self.num_cut:,} of {self.num_texts:,} {self.kind} end at the token limit, most "
                "likely within a sentence; use a model that follows instructions, so that it "
                "writes the one sentence that the prompt asks for"
            )
        return found

    def describe(self) -> str:
        """The counts in words."""
        parts = [f"{self.num_texts:,} {self.kind}", f"{self.num_distinct:,} distinct"]
        parts += [f"{self.num_empty:,} empty"] * bool(self.num_empty)
        parts += [f"{self.num_cut:,} cut at the token limit"] * bool(self.num_cut)
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """As plain values; the shares are for readers."""
        return {
            **asdict(self),
            "most_frequent_share": round(self.most_frequent_share, 4),
            "empty_share": round(self.empty_share, 4),
            "cut_share": round(self.cut_share, 4),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "TextStatistics":
        """What `to_json` gave, of this or a later version; ValueError for anything else."""
        try:
            kind, most_frequent = found["kind"], str(found["most_frequent"])
            numbers = {name: int(found[name]) for name in _NUMBERS}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not statistics of texts ({error!r})") from error
        if kind not in KINDS:
            raise ValueError(f"statistics of an unknown kind of texts, {kind!r}")
        return cls(kind=kind, most_frequent=most_frequent, **numbers)


_NUMBERS = ("num_texts", "num_distinct", "num_most_frequent", "num_empty", "num_cut")


class TextCounter:
    """Counts texts one by one.

    Keeps a digest of each input and each distinct text, and the words of repeated texts only.
    """

    def __init__(self, kind: Kind) -> None:
        """Starts without texts."""
        self._kind: Kind = kind
        self._inputs: set[bytes] = set()
        self._counts: Counter[bytes] = Counter()
        self._repeated: dict[bytes, str] = {}
        self._first = ""
        self._num_cut = 0

    def add(self, text: str, source: str, *, cut: bool = False) -> None:
        """Count a text, unless one was counted that was written from the same `source`."""
        of_source = _digest(source)
        if of_source in self._inputs:
            return
        self._inputs.add(of_source)
        key = _digest(as_counted(text))
        self._counts[key] += 1
        self._num_cut += cut
        if self._counts[key] == 2:
            self._repeated[key] = text
        self._first = self._first or text

    def statistics(self, num_empty: int = 0) -> TextStatistics:
        """Of what was counted. Of texts that are equally frequent, the first one is named."""
        ((key, number),) = self._counts.most_common(1) or [(b"", 0)]
        named = self._repeated.get(key, self._first) if self._kind == "summaries" else ""
        return TextStatistics(
            kind=self._kind,
            num_texts=self._counts.total(),
            num_distinct=len(self._counts),
            most_frequent=_shortened(named, _MAX_KEPT_CHARS),
            num_most_frequent=number,
            num_empty=num_empty,
            num_cut=self._num_cut,
        )


# --- what an artifact holds ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextColumns:
    """Where an artifact has its texts, what they were written from, and whether the limit ended
    them; the last column is missing in artifacts of older versions.
    """

    kind: Kind
    text: str
    source: str
    hit_limit: str

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that every version writes."""
        return self.text, self.source

    def count(self, tables: Iterable[pa.Table], num_empty: int) -> TextStatistics:
        """The statistics of an artifact's rows, shard by shard."""
        counter = TextCounter(self.kind)
        for table in tables:
            cuts = [None] * table.num_rows
            if self.hit_limit in table.column_names:
                cuts = table[self.hit_limit].to_pylist()
            columns = (table[self.text].to_pylist(), table[self.source].to_pylist(), cuts)
            for text, source, cut in zip(*columns, strict=True):
                counter.add(text, _last(source) or "", cut=bool(_last(cut)))
        return counter.statistics(num_empty)


# By the step that writes them.
TEXT_COLUMNS: Mapping[str, TextColumns] = {
    "summarize-images": TextColumns("summaries", "summary", "version", "hit_limit"),
    # A digest covers all that the text was written from; the last one is of the current text.
    "build-preferences": TextColumns("preferences", "preference", "block_digests", "hit_limits"),
}


def as_counted(text: str) -> str:
    """What two texts have in common that count as one."""
    plain = " ".join(text.split()).casefold()
    return plain.strip(string.punctuation + string.whitespace) or plain


def _last(value: Any) -> Any:
    """A value, or the last one of a list."""
    return (value[-1] if value else None) if isinstance(value, list) else value


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _shortened(text: str, max_chars: int) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= max_chars else f"{plain[: max_chars - 1]}…"
