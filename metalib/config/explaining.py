"""What pydantic finds wrong, as lines that name the key, what was given and what is allowed."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

from metalib.config.fields import Section

_ALLOWED = {
    "tuple_type": "should be a list, such as [1, 2]",
    "too_short": "should be a list of more values",
    "too_long": "should be a list of fewer values",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
}


def explain(model: type[Section], detail: ErrorDetails, scale: str, counts: Mapping[str, Any]) -> str:
    """Return one line: the key, what was given, what is allowed, the nearest known key for a misspelling."""
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    if len(location) > 1 and location[1] in counts.get(location[0], {}):
        key = f"scales.{scale}.{key}"
    section = _section_at(model, location[:-1])
    known = list(section.model_fields) if section else []
    match detail["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key; known: {', '.join(known)}{hint(location[-1], known)}"
        case "missing":
            return f"{key}: is missing; add it to its section, or to scales.{scale} if it is a count"
        case kind:
            message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
            return f"{key}: {detail['input']!r} is not allowed: {_ALLOWED.get(kind, message)}"


def _section_at(model: type[Section], location: list[str]) -> type[Section] | None:
    for part in location:
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            return None
        model = annotation
    return model


def hint(given: Any, known: Any) -> str:
    """Return the known name nearest to a misspelt one, as the end of a line; empty if none is near."""
    nearest = difflib.get_close_matches(str(given), list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
