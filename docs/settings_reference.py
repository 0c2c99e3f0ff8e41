"""The table of settings, written from the fields of `Settings`."""

from typing import Any, Final

from kratos_sync.infrastructure.secret_files import FROM_FILES
from kratos_sync.infrastructure.settings import Settings

DESCRIPTIONS: Final = {
    "database_url": (
        "The application's PostgreSQL, `postgresql://…`, with several hosts if there are any. All"
        " tables are in its schema `kratos_sync`."
    ),
    "database_direct_url": (
        "The same database past a pooler, where `DATABASE_URL` leads to one that shares sessions"
        " ([PostgreSQL](../postgresql.md#behind-pgbouncer)). For relay, `migrate` and `reconcile`."
    ),
    "broker_url": (
        "`redis://…`, `rediss://…`, `unix://…`, `amqp://…` or `amqps://…`; of several hosts"
        " `redis+sentinel://a,b,c/service`, `rediss+sentinel://…` or `amqp://a,b,c/`"
        " ([Broker clusters](../broker-clusters.md)). `memory://` is for `kratos-sync all` alone"
        " ([Without a broker](../without-a-broker.md))."
    ),
    "kratos_sync_app": (
        "Your application, as `module:attribute` ([Consumers](../consumers.md#your-application));"
        " by default that of the one installed package with an entry point for it."
    ),
    "kratos_webhook_api_keys": (
        "Keys that Kratos may send, comma separated, at least 16 characters each. Each of them is"
        " accepted, so that a key can be replaced without a gap. Required by `kratos-sync api`."
    ),
    "kratos_webhook_api_key_header": "The header that carries the key.",
    "kratos_admin_url": (
        "Kratos' Admin API, with the path before `/admin` if there is one. Needed by `reconcile`,"
        " `sync`, `delete` and `KRATOS_REFETCH`. Set it where the token is set: both in the"
        " environment, or both in `.env`."
    ),
    "kratos_public_url": (
        "Kratos' public API as services reach it. `reconcile` needs it only after Kratos' base URL"
        " has changed."
    ),
    "kratos_browser_url": (
        "Kratos' public API as browsers reach it (`serve.public.base_url`), if that is another URL."
    ),
    "kratos_admin_token": "A bearer token for the Admin API, as Ory Network requires one.",
    "identity_ids": (
        "The first hex digits of the ids that this deployment holds, such as `0-7`, `a` or `00-3f`,"
        " where several share the identities of one Kratos"
        " ([Scaling](../scaling.md#several-deployments-for-one-kratos))."
    ),
    "kratos_refetch": (
        "With `true` a webhook is only a hint: workers fetch the identity from the Admin API."
    ),
    "log_format": "Log lines for people, or one JSON object a line.",
    "log_level": "The lowest level that is logged. Other libraries are logged from `WARNING` on.",
    "database_pool_size": (
        "Pooled connections of a process. A worker has up to three more, the api four of its own."
    ),
    "worker_threads": "Threads of a worker process. Use 2 or more.",
    "lease_seconds": (
        "How long a dispatched delivery is reserved for the message that carries it, before it is"
        " dispatched again."
    ),
    "events_retention_days": (
        "How long events are kept; `forever` keeps them. Events with pending deliveries or dead"
        " letters are never purged, and neither are identities."
    ),
    "attempts_retention_days": "How long attempts are kept, or `forever`.",
    "operations_retention_days": (
        "How long the record of operations is kept"
        " ([Audit](../observability.md#audit)); `forever` keeps it. Only a relay removes what is"
        " older."
    ),
    "purge_every_hours": (
        "How often a relay purges old events and attempts; `never` leaves it to"
        " `kratos-sync purge`."
    ),
    "sentry_dsn": (
        "Where errors are reported to Sentry; needs the extra `sentry`"
        " ([Errors](../observability.md#errors))."
    ),
    "sentry_environment": "The environment that Sentry shows them in.",
    "metrics_port": (
        "The port of `/metrics` and `/health/…` of a process; off by default. Each process on a"
        " machine needs its own ([Metrics](../observability.md#metrics))."
    ),
    "metrics_host": (
        "The address to listen on there. In a container `0.0.0.0`, for a network that you trust:"
        " whoever reaches it may read all metrics."
    ),
    "console_sign_in": (
        "How operators sign in to the [console](../console.md#signing-in): `kratos`, `proxy` or"
        " `oidc`. Without it `kratos-sync console` does not start."
    ),
    "console_origin": (
        "The console's address in browsers, such as `https://console.example`, where a proxy is in"
        " front of it; always with `oidc`."
    ),
    "console_proxy_addresses": (
        "The proxy's addresses, such as `10.0.0.7` or `10.0.0.0/24`, comma separated: its headers"
        " count from there alone."
    ),
    "console_user_header": "The proxy's header with the operator's name.",
    "console_roles_header": "The proxy's header with the roles, comma separated.",
    "console_second_factor_header": (
        "The proxy's header that is `true` after a second factor, which erasing asks for."
    ),
    "console_oidc_issuer": (
        "The provider of OpenID Connect, `https://…`, to the letter as it names itself in"
        " `/.well-known/openid-configuration`."
    ),
    "console_oidc_client_id": "The console's client id at the provider,",
    "console_oidc_client_secret": "and its secret.",
    "console_oidc_scopes": "The scopes that are asked for, separated by spaces.",
    "console_oidc_name_claim": (
        "The claim of the ID token that names an operator in the audit trail: one that nobody can"
        " change for himself."
    ),
    "console_oidc_roles_claim": (
        "The claim with the list of an operator's roles. With dots it may lead into claims:"
        " `realm_access.roles`."
    ),
    "console_oidc_second_factor_acr": (
        "Values of the claim `acr` that say that there was a second factor, comma separated. The"
        " provider is asked for them (`acr_values`). `amr` counts in any case."
    ),
    "console_kratos_config": (
        "Kratos' own configuration file (YAML or JSON), where the console can read it: its page of"
        " Kratos shows which flows and methods call this service. Files that it names are not read."
    ),
    "console_session_hours": (
        "When a session that began by `oidc` or by a link ends; one by `oidc` ends half an hour"
        " after its last use too."
    ),
    "console_kept_seconds": (
        "How old what the console's first page and the groups of dead letters show may be, at most."
        " They are refreshed every few seconds while somebody looks at them, and after each change"
        " made in the console; with 0 each page asks PostgreSQL."
    ),
    "traces_per_second": (
        "The most traces a second of each process that callers (Kratos, and through it any browser)"
        " may ask for; without `OTEL_TRACES_SAMPLER` also the most that it begins. Beyond it a"
        " share is traced ([Traces](../observability.md#traces))."
    ),
    "traces_statements": (
        "With `true` traces have spans of statements to PostgreSQL and Redis too; needs the extra"
        " `otel-instrumentation`."
    ),
}
FOREVER: Final = {
    "events_retention_days": "forever",
    "attempts_retention_days": "forever",
    "operations_retention_days": "forever",
    "purge_every_hours": "never",
}
REQUIRED: Final = "*required*"


def settings_table() -> str:
    """A Markdown table of all settings: name, values, default, description."""
    properties = Settings.model_json_schema()["properties"]
    rows = [
        f"| `{name.upper()}` | {_values(name, properties[name])} | {_default(name)} |"
        f" {DESCRIPTIONS[name]} |"
        for name in Settings.model_fields
    ]
    return "\n".join(["| setting | values | default | |", "|---|---|---|---|", *rows])


def _values(name: str, schema: dict[str, Any]) -> str:
    choices = schema.get("anyOf", [schema])
    words = [_one(choice) for choice in choices if choice.get("type") != "null"]
    if name in FOREVER:
        words.append(f"`{FOREVER[name]}`")
    if name in FROM_FILES:
        words.append(f"`{name.upper()}_FILE`")
    return " or ".join(words)


def _one(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "integer":
        return f"{schema['minimum']} to {schema['maximum']}"
    return {"boolean": "`true` or `false`", "array": "list"}.get(schema["type"], "text")


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if field.is_required():
        return REQUIRED
    default = field.get_default()
    if default in (None, ()):
        return "–"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
