from typing import Any, ClassVar

from sqlalchemy import Text
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """Relationships are loaded by the query that needs them; one that was forgotten raises at once."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {str: Text}
