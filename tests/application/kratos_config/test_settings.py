"""What Kratos' configuration schema allows, refuses and lets pass unseen."""

import json
from typing import Any

import pytest

from kratos_sync.application.kratos_config.hooks import FLOWS_PATH, HOOKS, KNOWN_HOOKS, Place
from tests.application.kratos_config.reading import CONFIG, checked, flow, instead, web_hook
from tests.application.kratos_config.test_coverage import check_of, everything_on, hooks_at

HOOK_SETTINGS: dict[str, Any] = {"b2b_sso": {"config": {}}}
PLACES = [Place(name, method) for name, methods in HOOKS.items() for method in methods]


def built_in(name: str) -> dict[str, Any]:
    return {"hook": name, **HOOK_SETTINGS.get(name, {})}


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_hook_is_refused_exactly_where_kratos_does_not_allow_it(place: Place) -> None:
    for name in sorted(KNOWN_HOOKS - {"web_hook"}):
        printed = everything_on()
        hooks = hooks_at(printed, place)
        hooks[1:] = [built_in(name)]

        is_allowed = name in HOOKS[place.flow][place.method]
        assert ("hook-not-allowed" in check_of(printed)) is not is_allowed, name


@pytest.mark.parametrize(
    ("flow_name", "method", "hook"),
    [
        ("registration", None, "session"),
        ("registration", None, "show_verification_ui"),
        ("registration", "password", "revoke_active_sessions"),
        ("login", None, "session"),
        ("login", "password", "session"),
        ("settings", None, "require_verified_address"),
        ("settings", "password", "require_verified_address"),
        ("settings", "password", "show_verification_ui"),
        ("verification", None, "session"),
        ("recovery", None, "session"),
    ],
)
def test_these_were_seen_to_keep_kratos_from_starting(
    flow_name: str, method: str | None, hook: str
) -> None:
    text = flow(flow_name, f"{web_hook()}- hook: {hook}\n", method=method)
    (line,) = checked(text).lines("hook-not-allowed")

    assert text.splitlines()[line - 1].strip() == f"- hook: {hook}"
    assert not checked(text).report.passed


@pytest.mark.parametrize("name", ["session", "revoke_active_sessions", "require_verified_address"])
@pytest.mark.parametrize("flow_name", HOOKS)
def test_before_a_flow_only_webhooks_stand(flow_name: str, name: str) -> None:
    printed = everything_on()
    for_flow = printed["selfservice"]["flows"][flow_name]
    for_flow["before"] = {"hooks": [{"hook": name}]}

    assert "hook-not-allowed" in check_of(printed)


@pytest.mark.parametrize("method", ["saml", "deviceauthn", "profile", "link", "before"])
def test_a_method_without_hooks_is_refused(method: str) -> None:
    printed = everything_on()
    printed["selfservice"]["flows"]["login"]["after"][method] = {"hooks": [{"hook": "session"}]}
    found = check_of(printed)

    (line,) = found.lines("refused-key")
    assert f'"{method}": {{' in json.dumps(printed, indent=1).splitlines()[line - 1]
    assert found.uncovered() == set()


@pytest.mark.parametrize(
    ("hooks", "is_covered"),
    [
        (["verify_new_address"], True),
        (["organization"], True),
        (["b2b_sso"], True),
        (["organization", "b2b_sso", "verify_new_address"], True),
        ([], True),
        (["notify_previous_addresses"], False),
        (["verify_new_address", "notify_previous_addresses"], False),
    ],
)
def test_only_a_hook_that_runs_replaces_those_of_the_flow(
    hooks: list[str], is_covered: bool
) -> None:
    printed = everything_on()
    hooks_at(printed, Place("settings", "profile"))[:] = [built_in(name) for name in hooks]
    found = check_of(printed)

    assert found.uncovered() == (set() if is_covered else {"settings.after.profile"})
    assert found.report.passed is is_covered
    assert "unknown-hook" not in found


@pytest.mark.parametrize("name", ["verify_new_address", "notify_previous_addresses"])
def test_the_newest_hooks_beside_ours_are_no_fault(name: str) -> None:
    printed = everything_on()
    hooks_at(printed, Place("settings", "profile")).append({"hook": name})

    assert check_of(printed).rules == []


@pytest.mark.parametrize(
    ("hooks", "rule"),
    [
        ("null", "null"),
        ("", "null"),
        ("{}", "wrong-type"),
        ("session", "wrong-type"),
        ("[session]", "no-hook"),
        ("[{config: {}}]", "no-hook"),
        ("[{hook: session}, {hook: session}]", "repeated-hook"),
        ("[{hook: sesion}]", "unknown-hook"),
        ("[{hook: session, when: later}]", "refused-key"),
        ("[null]", "no-hook"),
    ],
)
def test_a_list_of_hooks_that_kratos_refuses(hooks: str, rule: str) -> None:
    text = f"selfservice:\n  flows:\n    login:\n      after:\n        hooks: {hooks}\n"

    assert checked(text).lines(rule) == [5]


def test_hooks_are_the_same_whatever_the_order_of_their_keys() -> None:
    first = "- {hook: web_hook, config: {url: 'http://a/b', method: POST, headers: {A: '1'}}}\n"
    second = "- {config: {headers: {A: \"1\"}, method: 'POST', url: http://a/b}, hook: web_hook}\n"
    other = second.replace('"1"', '"2"')

    assert "repeated-hook" in checked(flow("login", first + second))
    assert "repeated-hook" not in checked(flow("login", first + other))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ignore: true", "ignore: yes"),
        ("ignore: true", "ignore: on"),
        ("ignore: true", "ignore: 'true'"),
        ("ignore: true", "ignore: 1"),
        ("ignore: true", "ignore: !!str true"),
        ("{ignore: true}", "true"),
        ("value: key", "value: 0123"),
        ("value: key", "value: true"),
        ("value: key", "value: 1.5"),
        ("method: POST", "method: POST\ncan_interrupt: no"),
        ("method: POST", "method: POST\nemit_analytics_event: off"),
        ("method: POST", "method: POST\nheaders: {X-Tries: 3}"),
        ("method: POST", "method: POST\nheaders: [X-Tries]"),
    ],
)
def test_a_value_of_another_type_keeps_kratos_from_starting(old: str, new: str) -> None:
    found = checked(flow("recovery", web_hook(instead(old, new))))

    assert "wrong-type" in found
    assert not found.report.passed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ignore: true", "ignore: True"),
        ("ignore: true", "ignore: TRUE"),
        ("value: key", "value: yes"),
        ("value: key", "value: '0123'"),
        ("value: key", "value: 2026-01-01"),
        ("value: key", "value: $KEY"),
        ("method: POST", "method: POST\nheaders: {X-Tries: '3'}"),
        ("method: POST", "method: POST\nemit_analytics_event: true"),
    ],
)
def test_a_value_of_the_right_type_is_no_fault(old: str, new: str) -> None:
    rules = set(checked(flow("recovery", web_hook(instead(old, new)))).rules)

    assert rules <= {"key-variable"}


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ("serve: {public: {port: '4433'}}", "wrong-type"),
        ("serve: {public: {port: 0x1151}}", None),
        ("session: {lifespan: 24h}", None),
        ("session: {lifespan: 24}", "wrong-type"),
        ("session: {lifespan: a day}", "wrong-value"),
        ("session: {cookie: {same_site: lax}}", "wrong-value"),
        ("log: {level: DEBUG}", "wrong-value"),
        ("log: {levle: debug}", None),
        ("secrets: {cookie: a}", "wrong-type"),
        ("courier: {smtp: {connection_uri: null}}", "null"),
        ("identity: {schemas: [{id: default}]}", "required-key"),
        ("selfservise: {}", "misspelt-key"),
        ("x-shared: {}", "unknown-key"),
        ("feature_flags: {anything: 1}", None),
        ("dev: '{{ .Values.dev }}'", None),
        ("dev: ${DEV}", None),
    ],
)
def test_the_whole_configuration_is_read(settings: str, rule: str | None) -> None:
    found = checked(f"{settings}\n{flow('recovery', web_hook())}")

    assert found.lines(rule) == [1] if rule else found.rules == []


def test_a_method_is_on_by_a_truth_value_only() -> None:
    text = "selfservice:\n  methods:\n    oidc:\n      enabled: yes\n"

    assert checked(text).lines("wrong-type") == [4]


@pytest.mark.parametrize("key", ["data", "template", "payload"])
def test_a_template_under_another_key_is_never_found(key: str) -> None:
    other = instead("body:", f"{key}:").replace("kratos/sync-identity", "people")

    for config in (instead("body:", f"{key}:"), other):
        text = flow("login", web_hook() + web_hook(config))
        (line,) = checked(text).lines("misplaced-key")
        assert f"{key}: file:" in text.splitlines()[line - 1]
        assert "no-body" in checked(text)


def test_basic_auth_is_as_good_for_others_webhooks() -> None:
    auth = "auth: {type: basic_auth, config: {user: a, password: b}}\n"
    other = instead("kratos/sync-identity", "people").splitlines(keepends=True)
    config = "".join(auth if line.startswith("auth") else line for line in other)

    assert checked(flow("login", web_hook() + web_hook(config))).rules == []
    incomplete = config.replace(", password: b", "")
    assert "required-key" in checked(flow("login", web_hook() + web_hook(incomplete)))


def test_what_is_refused_in_one_place_is_found_through_an_alias_in_every_place() -> None:
    text = "x: &hooks\n  - hook: session\nselfservice:\n  flows:\n"
    for name in ("login", "recovery"):
        text += f"    {name}:\n      after:\n        hooks: *hooks\n"

    assert checked(text).lines("hook-not-allowed") == [2, 2]


def test_the_paths_name_flows_that_there_are() -> None:
    assert all(place.keys[:2] == FLOWS_PATH for place in PLACES)
    assert len(PLACES) == 24
    assert "response" in CONFIG
