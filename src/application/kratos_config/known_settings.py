"""The settings that Kratos knows: its configuration schema, in short.

Written after `embedx/config.schema.json` of ory/kratos.
"""

from collections.abc import Mapping
from typing import Final

from kratos_sync.application.kratos_config.flows import BEFORE, HOOKS
from kratos_sync.application.kratos_config.hook import (
    ANY,
    DURATION,
    NUMBER,
    REFUSED,
    TEXT,
    TRUTH,
    Hooks,
    Spec,
)

_PAGE: Final[dict[str, Spec]] = {"ui_url": TEXT, "lifespan": DURATION}
_STRATEGY: Final[dict[str, Spec]] = {
    "enabled": TRUTH,
    "use": ("link", "code"),
    "notify_unknown_recipients": TRUTH,
    **_PAGE,
}
_AAL: Final = ("aal1", "highest_available")
_SAME_SITE: Final = ("Strict", "Lax", "None")
_ENABLED: Final[Spec] = {"enabled": TRUTH, "config": {"*": ANY}}
_FLOWS: Final[Mapping[str, dict[str, Spec]]] = {
    "registration": {
        "enabled": TRUTH,
        "login_hints": TRUTH,
        "enable_legacy_one_step": TRUTH,
        "style": ("unified", "profile_first"),
        **_PAGE,
    },
    "login": {"style": ("unified", "identifier_first"), **_PAGE},
    "settings": {"privileged_session_max_age": DURATION, "required_aal": _AAL, **_PAGE},
    "verification": _STRATEGY,
    "recovery": _STRATEGY,
}


def _flow(name: str) -> dict[str, Spec]:
    after: dict[str, Spec] = {"default_browser_return_url": TEXT, REFUSED: ANY}
    for method, allowed in HOOKS[name].items():
        if method is None:
            after["hooks"] = Hooks(allowed)
        else:
            after[method] = {
                "default_browser_return_url": TEXT,
                "hooks": Hooks(allowed),
                REFUSED: ANY,
            }
    return {**_FLOWS[name], "before": {"hooks": Hooks(BEFORE), REFUSED: ANY}, "after": after}


_RP: Final[Spec] = {"id": TEXT, "display_name": TEXT, "origins": [TEXT], "origin": TEXT, "*": ANY}
_PROVIDER: Final[Spec] = {
    **dict.fromkeys(("id!", "provider!", "client_id", "client_secret", "mapper_url"), TEXT),
    "scope": [TEXT],
    "*": ANY,
}
_METHODS: Final[Mapping[str, Spec]] = {
    "profile": {"enabled": TRUTH, "*": ANY},
    "link": _ENABLED,
    "code": {
        "enabled": TRUTH,
        "passwordless_enabled": TRUTH,
        "passwordless_login_fallback_enabled": TRUTH,
        "mfa_enabled": TRUTH,
        "config": {"lifespan": DURATION, "*": ANY},
    },
    "password": {
        "enabled": TRUTH,
        "config": {
            "haveibeenpwned_host": TEXT,
            "haveibeenpwned_enabled": TRUTH,
            "max_breaches": NUMBER,
            "ignore_network_errors": TRUTH,
            "min_password_length": NUMBER,
            "identifier_similarity_check_enabled": TRUTH,
            "*": ANY,
        },
    },
    "totp": {"enabled": TRUTH, "config": {"issuer": TEXT, "*": ANY}},
    "lookup_secret": {"enabled": TRUTH, "*": ANY},
    "webauthn": {"enabled": TRUTH, "config": {"passwordless": TRUTH, "rp": _RP, "*": ANY}},
    "passkey": {"enabled": TRUTH, "config": {"rp": _RP, "*": ANY}},
    "oidc": {
        "enabled": TRUTH,
        "config": {
            "base_redirect_uri": TEXT,
            "providers": [_PROVIDER],
            "*": ANY,
        },
    },
    "saml": _ENABLED,
    "deviceauthn": _ENABLED,
    "b2b": {"*": ANY},
    "captcha": {"*": ANY},
}
_SERVER: Final[dict[str, Spec]] = {
    "base_url": TEXT,
    "host": TEXT,
    "port": NUMBER,
    "request_log": {"disable_for_health": TRUTH},
    "socket": {"owner": TEXT, "group": TEXT, "mode": NUMBER},
    "tls": {"*": ANY},
}
SETTINGS: Final[Mapping[str, Spec]] = {
    "version": TEXT,
    "dsn": TEXT,
    "selfservice": {
        "default_browser_return_url": TEXT,
        "allowed_return_urls": [TEXT],
        "flows": {
            **{name: _flow(name) for name in HOOKS},
            "logout": {"after": {"default_browser_return_url": TEXT}},
            "error": {"ui_url": TEXT},
        },
        "methods": _METHODS,
    },
    "identity": {
        "default_schema_id": TEXT,
        "schemas": [{"id!": TEXT, "url!": TEXT, "*": ANY}],
        "*": ANY,
    },
    "serve": {
        "admin": _SERVER,
        "public": {
            **_SERVER,
            "cors": {"enabled": TRUTH, "allowed_origins": [TEXT], "*": ANY},
        },
        "*": ANY,
    },
    "secrets": {"default": [TEXT], "cookie": [TEXT], "cipher": [TEXT], "*": ANY},
    "session": {
        "lifespan": DURATION,
        "earliest_possible_extend": DURATION,
        "cookie": {
            "domain": TEXT,
            "name": TEXT,
            "path": TEXT,
            "persistent": TRUTH,
            "same_site": _SAME_SITE,
            "*": ANY,
        },
        "whoami": {"required_aal": _AAL, "*": ANY},
        "*": ANY,
    },
    "cookies": {"domain": TEXT, "path": TEXT, "same_site": _SAME_SITE, "*": ANY},
    "courier": {
        "smtp": {"connection_uri": TEXT, "from_address": TEXT, "from_name": TEXT, "*": ANY},
        "delivery_strategy": ("smtp", "http"),
        "template_override_path": TEXT,
        "message_retries": NUMBER,
        "*": ANY,
    },
    "log": {
        "level": ("trace", "debug", "info", "warning", "error", "fatal", "panic"),
        "format": ("json", "text"),
        "leak_sensitive_values": TRUTH,
        "redaction_text": TEXT,
        "*": ANY,
    },
    "hashers": {
        "algorithm": ("argon2", "bcrypt"),
        "bcrypt": {"cost": NUMBER},
        "argon2": {"*": ANY},
        "*": ANY,
    },
    "ciphers": {"algorithm": ("noop", "aes", "xchacha20-poly1305"), "*": ANY},
    "clients": {
        "http": {
            "disallow_private_ip_ranges": TRUTH,
            "private_ip_exception_urls": [TEXT],
            "*": ANY,
        },
        "web_hook": {"header_allowlist": [TEXT], "*": ANY},
        "*": ANY,
    },
    "dev": TRUTH,
    "help": TRUTH,
    "sqa-opt-out": TRUTH,
    "watch-courier": TRUTH,
    "expose-metrics-port": NUMBER,
    "config": [TEXT],
    "organizations": [ANY],
    **dict.fromkeys(
        (
            *("database", "oauth2_provider", "preview", "tracing", "feature_flags", "security"),
            *("enterprise", "revision", "profiling", "sqa", "scim", "captcha"),
        ),
        ANY,
    ),
}
