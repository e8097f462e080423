"""Every setting is told of."""

from pydantic import AliasChoices

from services.deployment.settings import Settings
from tests.docs.documents import ROOT


def test_every_setting_stands_in_the_table_of_the_serving_page():
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    names = {
        str(field.validation_alias.choices[0])
        if isinstance(field.validation_alias, AliasChoices)
        else f"MSR_{name.upper()}"
        for name, field in Settings.model_fields.items()
    }

    assert not [name for name in sorted(names) if f"`{name}`" not in page]
