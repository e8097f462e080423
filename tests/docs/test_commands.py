"""Whatever a document tells to type is there: commands, options, targets, files."""

import re
from pathlib import Path

import pytest

from tests.docs.documents import DOCUMENTS, RUNNABLE, SHOWN, read_blocks
from tests.docs.documents import prose as prose_of
from tests.docs.typed_commands import commands, faults

by_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[document.name for document in DOCUMENTS]
)
_TYPED = re.compile(r"`((?:msr|make) [^`\n]+(?:\n[^`\n]+)?)`")


@by_document
def test_every_block_says_what_it_is(document: Path):
    unknown = [block for block in read_blocks(document) if block.language not in RUNNABLE + SHOWN]

    assert not [f"{block}: {block.language!r}" for block in unknown]


@by_document
def test_every_command_in_a_block_exists_with_its_options_and_files(document: Path):
    found = [
        f"{block}: {' '.join(command)}: {fault}"
        for block in read_blocks(document)
        if block.language == "sh"
        for command in commands(block.text)
        for fault in faults(command)
    ]

    assert not found


@by_document
def test_every_command_in_the_text_exists_with_its_options(document: Path):
    found = [
        f"{typed}: {fault}"
        for typed in _TYPED.findall(prose_of(document))
        for command in commands(typed.replace("\n", " "))
        for fault in faults(command)
    ]

    assert not found


@pytest.mark.parametrize(
    ("typed", "fault"),
    [
        ("msr serve --data D --port 8000 # comment", None),
        ("MSR_DATA=d msr serve --prot 8000", "msr serve has no option --prot"),
        ("msr serve-models", "no command msr serve-models"),
        ("msr keys create --name a --scope read", None),
        ("msr serve-model --model M -- --any-option-of-vllm", None),
        ("msr bench no-such-benchmark --gpu", "no benchmark no-such-benchmark"),
        ("make no-such-target X=1", "no target no-such-target"),
        ("accelerate launch -m services.cli train --dat D", "msr train has no option --dat"),
        ("msr train --config docker/no.yaml", "no file docker/no.yaml"),
        ("cat x | msr serve --bad > y", "msr serve has no option --bad"),
    ],
)  # fmt: skip
def test_a_command_that_is_not_there_is_found(typed: str, fault: str | None):
    found = [each for command in commands(typed) for each in faults(command)]

    assert found == ([fault] if fault else [])
