"""Whether a client holds a response already."""


def is_held(if_none_match: str | None, tag: str) -> bool:
    """Whether the header `If-None-Match` contains this entity tag. It may contain several, and
    proxies that compress make tags weak (`W/`).
    """
    named = (if_none_match or "").split(",")
    return any(each.strip().removeprefix("W/") == tag for each in named)
