"""Writes the tables of docs/api.md from the OpenAPI document. `make api-reference` runs it.

    msr openapi | python .ci/api_reference.py docs/api.md

It replaces the text between two comments in that file; the rest is written by hand.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

BEGIN = "<!-- Made by `make api-reference`; change the code, not this. -->"
END = "<!-- End of what is made. -->"
_PROBLEM = "application/problem+json"
_BOUNDS = {
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "above {}",
    "exclusiveMaximum": "below {}",
}

_Json = Mapping[str, Any]


def replace_reference(page: str, document: _Json) -> str:
    """The page with the tables of this document; ValueError if it lacks the comments."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{render(document)}\n\n{END}{after}"


def render(document: _Json) -> str:
    """A table of the routes, a section for each, then the models and the problems."""
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    sections = ["## Routes", "| route | scope | does |\n|---|---|---|"]
    sections[-1] += "".join(
        f"\n| [`{name}`](#{_anchor(name)}) | {_scope(operation)} | {operation['summary']} |"
        for name, operation in operations
    )
    for name, operation in operations:
        sections += _section(name, operation)
    sections.append("## Models")
    for name, schema in sorted(document["components"]["schemas"].items()):
        sections += _model(name, schema)
    sections += ["## Problems", _problem_table(_problems(each for _, each in operations))]
    return "\n\n".join(sections)


# --- routes --------------------------------------------------------------------------------------


def _scope(operation: _Json) -> str:
    needs = operation.get("security", ())
    scopes = (f"`{scope}`" for need in needs for asked in need.values() for scope in asked)
    return ", ".join(scopes) or "open"


def _section(name: str, operation: _Json) -> Iterator[str]:
    yield f"### `{name}`"
    yield operation.get("description", operation["summary"]).strip()
    if parameters := operation.get("parameters"):
        yield "| parameter | in | type | what |\n|---|---|---|---|" + "".join(
            f"\n| `{each['name']}`{' (required)' if each.get('required') else ''} | {each['in']} "
            f"| {_type(each['schema'])} | {_cell(_described(each))} |"
            for each in parameters
        )
    if body := operation.get("requestBody"):
        yield f"Body: {_contents(body)}."
    responses = {status: each for status, each in operation["responses"].items() if status < "400"}
    for status, response in responses.items():
        shown = _contents(response)
        yield f"Answer {status}{f': {shown}' if shown else ', without a body'}."
    yield f"Problems: {', '.join(f'`{kind}`' for kind in _problems([operation]))}."


def _contents(body: _Json) -> str:
    shown = []
    for media, content in body.get("content", {}).items():
        schema = content.get("schema", {})
        shown.append(_type(schema) if media == "application/json" else f"`{media}`")
    return " or ".join(shown)


def _described(parameter: _Json) -> str:
    text = parameter.get("description") or parameter["schema"].get("description", "")
    bounds = _bounds(parameter["schema"])
    return f"{text} {bounds[0].upper()}{bounds[1:]}." if bounds else str(text)


def _problems(operations: Iterable[_Json]) -> dict[str, _Json]:
    """An example of each kind of problem that the operations answer with, by status."""
    examples: dict[str, _Json] = {}
    for operation in operations:
        for _, response in sorted(operation["responses"].items()):
            examples |= response.get("content", {}).get(_PROBLEM, {}).get("examples", {})
    return examples


def _problem_table(examples: Mapping[str, _Json]) -> str:
    values = [example["value"] for example in examples.values()]
    return "| type | status | title |\n|---|---|---|" + "".join(
        f"\n| `{value['type']}` | {value['status']} | {value['title']} |"
        for value in sorted(values, key=lambda value: (value["status"], value["type"]))
    )


# --- models --------------------------------------------------------------------------------------


def _model(name: str, schema: _Json) -> Iterator[str]:
    yield f"### {name}"
    if description := schema.get("description"):
        yield str(description).strip()
    if properties := schema.get("properties"):
        required = schema.get("required", ())
        rows = (_field(field, each, field in required) for field, each in properties.items())
        yield "| field | type | what |\n|---|---|---|\n" + "\n".join(rows)


def _field(name: str, schema: _Json, is_required: bool) -> str:
    texts = [str(schema.get("description", ""))]
    if bounds := _bounds(schema):
        texts.append(f"{bounds[0].upper()}{bounds[1:]}.")
    if schema.get("default") is not None:
        texts.append(f"Default: `{json.dumps(schema['default'])}`.")
    mark = " (required)" if is_required else ""
    return f"| `{name}`{mark} | {_type(schema)} | {_cell(' '.join(filter(None, texts)))} |"


def _type(schema: _Json) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{_anchor(name)})"
    if "anyOf" in schema or "oneOf" in schema:
        kinds = [_type(each) for each in schema.get("anyOf", schema.get("oneOf", ()))]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "anything"))


def _bounds(schema: _Json) -> str:
    """The bounds of the value, or of the alternative type that has some."""
    for each in (schema, *schema.get("anyOf", ())):
        if bounds := [
            text.format(_number(each[key])) for key, text in _BOUNDS.items() if key in each
        ]:
            return ", ".join(bounds)
    return ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _anchor(heading: str) -> str:
    """GitHub's anchor: letters, digits, _ and - stay, spaces become -."""
    kept = "".join(char for char in heading.lower() if char.isalnum() or char in " _-")
    return kept.replace(" ", "-")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    page = replace_reference(path.read_text(encoding="utf-8"), json.load(sys.stdin))
    path.write_text(page, encoding="utf-8")
