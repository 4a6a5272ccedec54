"""The specifications of compose files and of GitHub's workflows, as check-jsonschema ships them."""

from __future__ import annotations

from typing import Any


def violation(name: str, data: Any) -> str:
    """The first thing in which data do not follow a specification, and where it is; empty if there is none."""
    from check_jsonschema.builtin_schemas import get_builtin_schema
    from jsonschema.validators import validator_for

    schema = get_builtin_schema(f"vendor.{name}")
    errors = sorted(validator_for(schema)(schema).iter_errors(data), key=lambda error: len(error.path), reverse=True)
    if not errors:
        return ""
    best = next((one for one in _leaves(errors[0])), errors[0])
    return f"{'.'.join(map(str, best.absolute_path)) or 'the file'}: {best.message[:200]}"


def _leaves(error: Any) -> list[Any]:
    """What is wrong in the most specific places, where a schema has several forms."""
    inner = [leaf for one in error.context or [] for leaf in _leaves(one)] or [error]
    return sorted(inner, key=lambda one: len(one.absolute_path), reverse=True)
