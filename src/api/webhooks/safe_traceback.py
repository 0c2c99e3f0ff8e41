"""What may be logged of an unexpected error."""

from traceback import extract_tb

from domain.json_values import Json


def describe(error: BaseException) -> dict[str, Json]:
    """The types of an error and of its causes, and where it was raised, innermost place last.

    The texts are left out: a driver's or a parser's message may quote what a person typed.
    """
    types: list[Json] = []
    cause: BaseException | None = error
    while cause is not None:
        types.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    places: list[Json] = [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in extract_tb(error.__traceback__)
    ]
    return {"error": types[0], "causes": types[1:], "places": places}
