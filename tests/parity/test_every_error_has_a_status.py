from collections.abc import Iterator

from services.api.http import problems
from services.core import errors


def _tree(root: type[errors.MsrError]) -> Iterator[type[errors.MsrError]]:
    if root.__module__ == errors.__name__:
        yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def test_every_class_of_the_error_tree_has_a_status_of_its_own() -> None:
    assert set(_tree(errors.MsrError)) == set(problems.KINDS)


def test_no_two_errors_share_a_type() -> None:
    types = [kind.type for kind in problems.KINDS.values()]
    assert len(types) == len(set(types))


def test_an_error_of_this_side_is_never_reported_in_its_own_words() -> None:
    for error, kind in problems.KINDS.items():
        assert kind.status < 500 or kind.public_detail is not None, error
