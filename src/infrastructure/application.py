"""Loads the application that the service runs for."""

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from inspect import iscoroutinefunction, signature
from typing import Any, Final

from pydantic_settings import BaseSettings

from kratos_sync.application.application import (
    Adapter,
    Application,
    InvalidApplication,
    Subscriptions,
)
from kratos_sync.application.subscriptions import SUBSCRIPTIONS
from kratos_sync.infrastructure.secret_files import read_literally

GROUP: Final = "kratos_sync.applications"
"""The group of entry points, for a package that is found without a setting."""


def application_path(given: str | None) -> str | None:
    """Where the application is, ``module:attribute``: as given, or that of the one entry point.

    Raises InvalidApplication if there are several.
    """
    if given is not None:
        return given
    found = sorted(each.value for each in entry_points(group=GROUP))
    if len(found) > 1:
        names = ", ".join(found)
        raise InvalidApplication(f"several are installed: set KRATOS_SYNC_APP to one of {names}")
    return found[0] if found else None


def load_application(path: str | None) -> Application[Any, Any] | None:
    """The application at ``module:attribute``, if any. Raises InvalidApplication."""
    if path is None:
        return None
    if not re.fullmatch(r"[\w.]+:\w+", path):
        raise InvalidApplication(f"{path!r} is no module:attribute, such as acme_sync:app")
    module_name, _, attribute = path.partition(":")
    try:
        application = getattr(import_module(module_name), attribute)
    except Exception as error:
        raise InvalidApplication(f"{path} cannot be imported: {_described(error)}") from error
    if not isinstance(application, Application):
        raise InvalidApplication(f"{path} is no kratos_sync.Application")
    require_shape(application)
    if application.migrations is not None:
        # Completing a name in a shell would wait for SQLAlchemy.
        from kratos_sync.infrastructure.migrations import History

        History.at(application.migrations)
    return application


def require_shape(application: Application[Any, Any]) -> None:
    """Raise InvalidApplication if a field is nothing that the service can use."""
    table: object = application.subscriptions
    settings: object = application.settings
    migrations: object = application.migrations
    fields = {
        "subscriptions are no mapping of events to lists of consumers": (
            isinstance(table, Mapping) and all(_is_list(each) for each in table.values())
        ),
        "adapters are no list of serve(port).by(make)": _are_adapters(application.adapters),
        "adapters_in_transaction are no list of serve(port).by(make)": _are_adapters(
            application.adapters_in_transaction
        ),
        "settings are no subclass of pydantic_settings.BaseSettings": (
            settings is None or (isinstance(settings, type) and issubclass(settings, BaseSettings))
        ),
        "migrations are no package:folder, such as acme_sync:migrations": (
            migrations is None or isinstance(migrations, str)
        ),
        "parse_handler makes no KratosIdentityParseHandler": (
            application.parse_handler is None or callable(application.parse_handler)
        ),
        "session_scopes is no function of a session": _takes_a_session(application.session_scopes),
    }
    for what_is_wrong, is_right in fields.items():
        if not is_right:
            raise InvalidApplication(f"its {what_is_wrong}")


def subscriptions_with(application: Application[Any, Any] | None) -> Subscriptions:
    """The subscriptions of the service's own consumers and of the application's.

    Raises InvalidApplication.
    """
    return Subscriptions(SUBSCRIPTIONS, {} if application is None else application.subscriptions)


def subscriptions_at(given: str | None) -> Subscriptions:
    """The same, of the application that `application_path` finds."""
    return subscriptions_with(load_application(application_path(given)))


def adapters_in_transaction_of(
    application: Application[Any, Any] | None, own: Mapping[Any, Callable[..., object]]
) -> dict[Any, Callable[..., object]]:
    """What makes the adapters in a transaction, the service's own included, by their ports."""
    given = () if application is None else application.adapters_in_transaction
    return {**own, **{each.port: each.make for each in given}}


def settings_of(application: Application[Any, Any]) -> object:
    """The application's settings, from the environment and `.env`; None if it has none.

    Raises pydantic's ValidationError.
    """
    kind = application.settings
    if kind is None:
        return None
    own = {"env_file": ".env", "extra": "ignore", "hide_input_in_errors": True}

    def sources(settings_cls: type[BaseSettings], **given: Any) -> tuple[Any, ...]:
        read_literally(given["dotenv_settings"])
        chosen: tuple[Any, ...] = kind.settings_customise_sources(settings_cls, **given)
        return chosen

    names = {"__module__": kind.__module__, "settings_customise_sources": staticmethod(sources)}
    return type(kind.__name__, (kind,), names, **own)()


def adapters_of(application: Application[Any, Any] | None) -> dict[Any, object]:
    """The adapters outside of transactions, by their ports.

    Raises InvalidApplication if one cannot be made, and as `settings_of`.
    """
    if application is None or not application.adapters:
        return {}
    settings = settings_of(application)
    made: dict[Any, object] = {}
    for each in application.adapters:
        try:
            made[each.port] = each.make(settings)
        except Exception as error:
            port = getattr(each.port, "__name__", each.port)
            raise InvalidApplication(
                f"its adapter of {port} cannot be made: {_described(error)}"
            ) from error
    return made


def _is_list(given: object) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str)


def _are_adapters(given: Sequence[object]) -> bool:
    return _is_list(given) and all(isinstance(e, Adapter) and callable(e.make) for e in given)


def _takes_a_session(function: Callable[..., object]) -> bool:
    """Whether it can be called with one argument, and returns no coroutine."""
    try:
        signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # written in C, and without a signature
        return True
    return not iscoroutinefunction(function)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
