"""JSON on its way into PostgreSQL and back."""

import json
from typing import cast

from domain.json_values import Json


def dumps(value: Json) -> str:
    """Encode compactly. Raises ValueError for what JSON cannot hold (NaN, infinities)."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def loads(encoded: str | bytes) -> Json:
    """Decode; integers keep every digit."""
    return cast("Json", json.loads(encoded))
