import pytest
from pydantic import TypeAdapter, ValidationError

from services.core import images, wire


def test_the_base64_of_the_largest_accepted_image_fits() -> None:
    assert wire.MAX_IMAGE_BASE64_CHARS >= 4 * images.MAX_IMAGE_BYTES / 3
    assert wire.MAX_IMAGE_BASE64_CHARS < 4 * images.MAX_IMAGE_BYTES / 3 + 4


@pytest.mark.parametrize("good", ["a", "A b/c?é", "x" * 256, "日本", "\U0001f600"])
def test_an_id_is_the_callers_own_string(good: str) -> None:
    assert wire.RecommendRequest(user_id=good).user_id == good


@pytest.mark.parametrize(
    "bad", ["", "x" * 257, "a\x00", "a\nb", "\x7f", "a\u2028b", "\ud800", "a\n"]
)
def test_an_id_is_never_empty_long_or_unprintable(bad: str) -> None:
    with pytest.raises(ValidationError):
        wire.RecommendRequest(user_id=bad)


def test_a_whole_number_may_be_written_as_a_fraction_but_not_as_a_text() -> None:
    read = wire.RecommendRequest.model_validate
    assert read({"user_id": "u1", "k": 7.0}).k == 7
    for bad in (7.5, "7", True):
        with pytest.raises(ValidationError):
            read({"user_id": "u1", "k": bad})


def test_one_interaction_and_many_are_distinguished() -> None:
    one = {"user_id": "u1", "item_id": "i1"}
    read = TypeAdapter(wire.Interactions).validate_python
    assert isinstance(read(one), wire.InteractionIn)
    assert isinstance(read({"interactions": [one]}), wire.InteractionBatch)


def test_a_request_refuses_what_it_does_not_know_and_an_answer_does_not() -> None:
    with pytest.raises(ValidationError, match="extra"):
        wire.RecommendRequest.model_validate({"user_id": "u1", "temperature": 1})
    view = {"status": "ok", "new_in_the_next_version": 1}
    assert wire.Liveness.model_validate(view).status == "ok"


def test_every_example_is_valid_for_its_model() -> None:
    for name in vars(wire):
        model = getattr(wire, name)
        schema = getattr(model, "model_config", {}).get("json_schema_extra", {})
        for example in schema.get("examples", []):
            model.model_validate(example)
