"""The picture of the tables, drawn by hand, beside the migrated schema."""

from collections.abc import Mapping
from typing import Final
from xml.etree import ElementTree as ET

import psycopg

from tests.docs.pages import DOCS

PICTURE: Final = DOCS / "architecture" / "tables.svg"
SVG: Final = "{http://www.w3.org/2000/svg}"
MORE: Final = "…"
COLUMNS: Final = """
    SELECT table_name, array_agg(column_name::text) FROM information_schema.columns
    WHERE table_schema = 'kratos_sync' AND table_name <> 'alembic_version' GROUP BY 1
"""


def test_the_picture_of_the_tables_shows_the_columns_of_the_migrated_schema(
    database_url: str,
) -> None:
    with psycopg.connect(database_url) as connection:
        tables = dict(connection.execute(COLUMNS).fetchall())
    shown = tables_shown()

    assert shown.keys() == tables.keys()
    for table, columns in shown.items():
        named = [each for each in columns if each != MORE]
        assert len(named) == len(set(named)), table
        assert set(named) <= set(tables[table]), table
        assert MORE in columns or set(named) == set(tables[table]), table


def tables_shown() -> Mapping[str, list[str]]:
    """The texts of each box: below its name and a description stand the columns."""
    picture = ET.parse(PICTURE).getroot()
    texts = [
        (float(each.get("x", 0)), float(each.get("y", 0)), each)
        for each in picture.iter(f"{SVG}text")
    ]
    tables = {}
    for box in list(picture.iter(f"{SVG}rect"))[1:]:
        left, top, width, height = (
            float(box.get(name, 0)) for name in ("x", "y", "width", "height")
        )
        within = [
            (y, str(text.text))
            for x, y, text in texts
            if left < x < left + width and top < y < top + height
        ]
        name, _, *columns = [text for _, text in sorted(within)]
        tables[name] = columns
    return tables
