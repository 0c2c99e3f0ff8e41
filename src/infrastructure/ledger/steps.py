"""Going through many rows step by step, in the order of an index."""

from typing import Final

from sqlalchemy import text

# A plan from when there were few rows, or from no statistics at all, would read and sort all that
# are left for every step; in the order of the index a step reads what it takes.
BY_THE_INDEX: Final = text("""
    SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true)
""")
