from typing import Any, ClassVar

from sqlalchemy import Text
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """A query names the relationships that it loads. To read another one raises an error."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {str: Text}
