"""Whether a reader has an answer already."""


def is_held(if_none_match: str | None, tag: str) -> bool:
    """Whether the header `If-None-Match` names this entity tag. Proxies that compress make a tag
    weak, and readers may name several.
    """
    named = (if_none_match or "").split(",")
    return any(each.strip().removeprefix("W/") == tag for each in named)
