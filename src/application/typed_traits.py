"""Traits as a type of the application's own, which `kratos-sync traits` writes."""

import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import (
    Any,
    Final,
    Literal,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from kratos_sync.domain.json_values import Json, plain

Traits = TypeVar("Traits", bound=Mapping[str, object])

_JSON: Final[Mapping[object, tuple[str, frozenset[type]]]] = {
    str: ("text", frozenset({str})),
    int: ("integer", frozenset({int})),
    float: ("number", frozenset({int, float})),
    bool: ("boolean", frozenset({bool})),
    types.NoneType: ("null", frozenset({types.NoneType})),
    list: ("list", frozenset({list})),
    dict: ("object", frozenset({dict})),
}
"""What each type is called in JSON, and the types of the values that fit it."""


class HasTraits(Protocol):
    """An identity, our copy of one, or an event with all of its traits."""

    @property
    def traits(self) -> object:
        """The traits by name."""


class TraitsDoNotFit(Exception):
    """Traits are not of the type that was asked for; says which one, and never its value."""


def traits_of(whose: HasTraits, kind: type[Traits]) -> Traits:
    """The traits as a TypedDict that they fit; traits that it does not name are kept.

    Raises TraitsDoNotFit.
    """
    if not is_typeddict(kind):
        raise TypeError(f"{kind.__name__} is no TypedDict")
    if not isinstance(whose.traits, Mapping):
        raise TraitsDoNotFit("there are no traits")
    # As Kratos sees it, 5.0 is an integer too.
    traits = plain(dict(whose.traits))
    for problem in _problems(traits, kind, ""):
        raise TraitsDoNotFit(f"the traits are no {kind.__name__}: {problem}")
    return cast("Traits", traits)


def _problems(value: Json, kind: Any, where: str) -> Iterator[str]:
    """Why a value does not fit a type, if so. Keys of mappings are as personal as values."""
    origin = get_origin(kind)
    if origin is Literal:
        if not any(type(each) is type(value) and each == value for each in get_args(kind)):
            yield f"{where} is none of the values that are allowed"
    elif origin in {Union, types.UnionType}:
        yield from _problems_of_either(value, get_args(kind), where)
    elif is_typeddict(kind):
        yield from _problems_of_object(value, kind, where)
    elif (known := _JSON.get(origin or kind)) is not None:
        name, fitting = known
        if type(value) not in fitting:
            yield f"{where} is no {name}"
        elif isinstance(value, list) and origin:
            for index, each in enumerate(value):
                yield from _problems(each, get_args(kind)[0], f"{where}[{index}]")
        elif isinstance(value, dict) and origin:
            for each in value.values():
                yield from _problems(each, get_args(kind)[1], f"{where}[…]")


def _problems_of_object(value: Json, kind: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is no object"
        return
    prefix = f"{where}." if where else ""
    for name, each in _hints(kind).items():
        if name in value:
            yield from _problems(value[name], each, f"{prefix}{name}")
        elif name in kind.__required_keys__:
            yield f"{prefix}{name} is missing"


def _problems_of_either(value: Json, kinds: tuple[Any, ...], where: str) -> Iterator[str]:
    problems = {kind: next(_problems(value, kind, where), None) for kind in kinds}
    if all(problems.values()):
        shown = [problem for each, problem in problems.items() if each is not types.NoneType]
        yield str(shown[0]) if len(shown) == 1 else f"{where} fits none of its types"


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)
