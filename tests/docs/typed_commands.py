"""What a line of shell asks of this repository, and whether that is there: the options of `msr`,
the targets of `make`, Python modules and files. Words in capitals are the reader's to fill in.
"""

import importlib.util
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import typer.main

from benchmarks.support import runner
from services.cli import app
from tests.docs.documents import ROOT

_ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=.*", re.DOTALL)
_PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*|\.\.\.")
_ENDS_COMMAND = ("|", "&&", "||", ";", "&", ">", ">>", "<", "2>")
_FOLDERS = ("services/", "model_training/", "clients/", "docker/", "benchmarks/", "tests/", "docs/")
_TARGETS = set(
    re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
)
_PROGRAMS = ("accelerate", "torchrun", "python", "python3")


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a script, each as its words, without assignments before it."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if word not in _ENDS_COMMAND:
                if command or not _ASSIGNMENT.fullmatch(word):
                    command.append(word)
            elif command:
                yield command
                command = []


def faults(command: Sequence[str]) -> list[str]:
    """What the command names that is not there."""
    program, *arguments = command
    program = program.rpartition("/")[2]
    found = [
        f"no file {word}"
        for word in arguments
        if word.startswith(_FOLDERS) and "*" not in word and not (ROOT / word).exists()
    ]
    if program == "msr":
        found += _msr_faults(arguments)
    elif program == "make":
        words = (word for word in arguments if not _ASSIGNMENT.fullmatch(word))
        found += [f"no target {word}" for word in words if word not in _TARGETS]
    elif program in _PROGRAMS and "-m" in arguments:
        at = arguments.index("-m")
        module = arguments[at + 1]
        if importlib.util.find_spec(module) is None:
            found.append(f"no module {module}")
        if module == "services.cli":
            found += _msr_faults(arguments[at + 2 :])
    return found


def _msr_faults(arguments: Sequence[str]) -> list[str]:
    if "--" in arguments:  # the rest is vLLM's
        arguments = arguments[: arguments.index("--")]
    command: Any = typer.main.get_command(app)
    name, rest = "msr", list(arguments)
    while rest and hasattr(command, "commands"):
        word = rest.pop(0)
        if word == "--help" or _PLACEHOLDER.fullmatch(word):
            return []
        if word not in command.commands:
            return [f"no command {name} {word}"]
        command, name = command.commands[word], f"{name} {word}"
    options = {"--help"}
    for parameter in command.params:
        options.update(parameter.opts, parameter.secondary_opts)
    if name == "msr bench":
        return _bench_faults(rest)
    asked = [word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"]
    return [f"{name} has no option {word}" for word in asked if word not in options]


def _bench_faults(rest: Sequence[str]) -> list[str]:
    names = [word for word in rest if not word.startswith("-")][:1]
    return [
        f"no benchmark {name}"
        for name in names
        if not _PLACEHOLDER.fullmatch(name) and name not in runner.names()
    ]
