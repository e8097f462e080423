"""Runs checks and collects their findings; a check that fails or hangs is a finding too.

A finding is `ok`, a `note` (works, but know this) or a `problem` (does not work, or not for long).
Texts come from errors of all kinds. Every finding passes through here, so credentials in addresses
are masked here.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from services.core.errors import MsrError

Status = Literal["ok", "note", "problem"]

# In `scheme://user:password@host`, up to the last @, since a password may hold one.
_CREDENTIALS = re.compile(r"(://)[^\s'\"]*@")
_IN_QUERY = re.compile(r"\b(password|token|key|secret)=[^&#\s'\"]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence on what was found, and one on what to do ("" if it is ok).

    `check` names the check that found it; `run_checks` fills it in if it is "".
    """

    check: str
    status: Status
    found: str
    remedy: str = ""


def ok(found: str) -> Finding:
    """It works."""
    return Finding("", "ok", found)


def note(found: str, remedy: str) -> Finding:
    """It works, but know this."""
    return Finding("", "note", found, remedy)


def problem(found: str, remedy: str) -> Finding:
    """It does not work, or not for long."""
    return Finding("", "problem", found, remedy)


# A check looks at one part of a deployment and returns its findings, in order.
Check = Callable[[], Iterable[Finding]]


def run_checks(checks: Mapping[str, Check], *, timeout_seconds: float) -> Iterator[Finding]:
    """The findings of all checks (name -> check), in order; each check has `timeout_seconds`."""
    for name, check in checks.items():
        for finding in _run(name, check, timeout_seconds):
            yield replace(
                finding,
                check=finding.check or name,
                found=without_credentials(finding.found),
                remedy=without_credentials(finding.remedy),
            )


def problem_of(error: MsrError) -> Finding:
    """The finding of an MsrError."""
    return stated(str(error), problem)


def stated(text: str, finding: Callable[[str, str], Finding]) -> Finding:
    """The finding of a sentence that says what is wrong and, after its last `; `, what to do."""
    found, _, remedy = text.rpartition("; ")
    if not found:
        return finding(_ended(remedy), "See docs/operations.md.")
    return finding(_ended(found), _ended(f"{remedy[0].upper()}{remedy[1:]}"))


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith(("?", "!", ".")) else f"{sentence}."


def without_credentials(text: str) -> str:
    """The text with user names and passwords of addresses masked."""
    return _IN_QUERY.sub(r"\1=***", _CREDENTIALS.sub(r"\1***@", text))


def _run(name: str, check: Check, timeout_seconds: float) -> list[Finding]:
    found: list[Finding] = []

    def look() -> None:
        try:
            found.extend(check())
        except MsrError as error:
            found.append(problem_of(error))
        except Exception as error:  # the other checks must run
            text = str(error).strip().partition("\n")[0]
            found.append(
                problem(
                    f"the check itself failed: {type(error).__name__}{text and f': {text}'}.",
                    "This is a fault of `msr doctor`: please report it.",
                )
            )

    # A thread, because a name server or a driver may hang and cannot be interrupted. A daemon, so
    # that the program can end.
    thread = threading.Thread(target=look, name=f"doctor {name}", daemon=True)
    thread.start()
    thread.join(timeout_seconds)
    if not thread.is_alive():
        return found
    return [
        *found,
        problem(
            f"no answer within {timeout_seconds:g} s.",
            "A network address, a disk or a driver does not respond; "
            "--timeout sets a longer limit.",
        ),
    ]
