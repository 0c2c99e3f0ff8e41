import pytest

from kratos_sync.application.kratos_config.hooks import Receiver
from tests.application.kratos_config.reading import CONFIG, checked, flow, instead, web_hook

OTHERS = instead("kratos/sync-identity", "people")
"""A webhook that is not for us."""


def said_of(config: str, name: str = "recovery") -> list[str]:
    """The rules that a hook after a flow breaks."""
    rules = checked(flow(name, web_hook(config))).rules
    return [rule for rule in rules if not rule.startswith("not-heard")]


def test_a_right_hook_has_no_finding() -> None:
    assert said_of(CONFIG) == []


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("body: file:///etc/mapper.jsonnet", "", "no-body"),
        ("body: file:///etc/mapper.jsonnet", "body: ''", "no-body"),
        ("method: POST", "", "method"),
        ("method: POST", "method: GET", "method"),
        ("method: POST", "method: post", "method"),
        ("http://", "ftp://", "url"),
        ("sync-identity", "sync-identity/", "url-slash"),
        ("type: api_key", "type: basic_auth", "auth-type"),
        ("in: header", "in: cookie", "auth-in"),
        ("name: X-Api-Key", "name: Authorization", "auth-name"),
        ("value: key", "value: ''", "no-key"),
        ("value: key", "other: key", "no-key"),
        ("ignore: true", "ignore: true, parse: true", "ignore-and-parse"),
        ("method: POST", "method: POST\nheaders: {Content-Type: text/plain}", "content-type"),
        ("method: POST", "method: POST\nheaders: {content-type: text/plain}", "content-type"),
        ("method: POST", "method: POST\nheaders: {Content-Type: Application/JSON}", "content-type"),
        ("http://api:8000/kratos/sync-identity", "' http://api/kratos/sync-identity'", "url"),
        ("http://api:8000", "http://a pi:8000", "url"),
        ("http://api:8000", "http://api :8000", "url"),
    ],
)
def test_a_hook_that_never_reaches_us_leaves_its_flow_uncovered(
    old: str, new: str, rule: str
) -> None:
    found = checked(flow("recovery", web_hook(instead(old, new))))

    assert rule in found
    assert found.uncovered() == {"recovery.after"}
    assert not found.report.passed


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("ignore: true", "ignore: false", "synchronous"),
        ("response: {ignore: true}", "", "synchronous"),
        ("method: POST", "method: POST\nemit_analytics_event: false", "no-dedupe-key"),
        ("method: POST", "method: POST\ncan_interrupt: false", "can-interrupt"),
        ("file:///etc", "http://mappers/etc", "body-from-web"),
        ("file:///etc", "/etc", "body-without-scheme"),
        ("value: key", "value: '${WEBHOOK_KEY}'", "key-variable"),
    ],
)
def test_a_hook_that_reaches_us_at_a_risk_covers_its_flow(old: str, new: str, rule: str) -> None:
    found = checked(flow("recovery", web_hook(instead(old, new))))

    assert found.rules == [rule]
    assert found.report.passed


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "application/json ", "text/plain", ""]
)
def test_kratos_sends_two_content_types_only(content_type: str) -> None:
    headers = f"method: POST\nheaders: {{CONTENT-TYPE: '{content_type}'}}"
    for config in (instead("method: POST", headers), OTHERS.replace("method: POST", headers)):
        found = checked(flow("recovery", web_hook() + web_hook(config)))
        (said,) = (each for each in found.report.findings if each.rule == "content-type")
        assert "never sends" in said.sentence
    form = OTHERS.replace(
        "method: POST", "method: POST\nheaders: {Content-Type: application/x-www-form-urlencoded}"
    )
    assert checked(flow("recovery", web_hook() + web_hook(form))).rules == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("http://api:8000", "${SYNC_URL}"),
        ("file:///etc/mapper.jsonnet", "${MAPPER}"),
        ("file:///etc/mapper.jsonnet", "'{{ .Values.mapper }}'"),
        ("method: POST", "method: '{{ .Values.method }}'"),
        ("name: X-Api-Key", "name: $HEADER"),
        ("method: POST", "method: POST\nheaders: {Content-Type: $TYPE}"),
    ],
)
def test_a_value_that_something_else_fills_in_is_noted_and_not_checked(old: str, new: str) -> None:
    for config in (instead(old, new), OTHERS.replace(old, new)):
        found = checked(flow("recovery", web_hook() + web_hook(config)))
        assert set(found.rules) <= {"variable", "twice"}
        assert found.report.passed
    assert checked(flow("recovery", web_hook(instead(old, new)))).rules == ["variable"]


def test_a_missing_setting_is_reported_at_the_settings_around_it() -> None:
    text = flow("recovery", web_hook(instead("body: file:///etc/mapper.jsonnet\n", "")))
    (line,) = checked(text).lines("no-body")

    assert text.splitlines()[line - 1].strip() == "config:"


def test_a_wrong_setting_is_reported_at_its_line() -> None:
    text = flow("recovery", web_hook(instead("in: header", "in: cookie")))
    (line,) = checked(text).lines("auth-in")

    assert "in: cookie" in text.splitlines()[line - 1]


def test_without_auth_we_refuse() -> None:
    auth = "auth: {type: api_key, config: {in: header, name: X-Api-Key, value: key}}\n"

    assert said_of(instead(auth, "")) == ["no-auth"]
    assert said_of(instead(auth, "headers: {x-api-key: key}\n")) == []
    assert said_of(instead(auth, "headers: {x-api-key: ' '}\n")) == ["no-key"]
    assert said_of(instead(auth, "headers: {x-api-key: $KEY}\n")) == ["key-variable"]


def test_the_header_is_the_one_that_we_are_set_to() -> None:
    text = flow("recovery", web_hook())

    assert "auth-name" in checked(text, Receiver(header="X-Other-Key"))
    assert "auth-name" not in checked(text, Receiver(header="x-api-KEY"))


@pytest.mark.parametrize("flow_name", ["registration", "settings"])
@pytest.mark.parametrize("answer", ["response: {parse: true}", "can_interrupt: true"])
def test_a_hook_that_parses_does_not_cover_a_flow_that_stores(flow_name: str, answer: str) -> None:
    rules = said_of(instead("response: {ignore: true}", answer), flow_name)

    assert {"parse", "parse-in-global"} <= set(rules)


def test_a_hook_that_parses_covers_a_flow_that_stores_nothing() -> None:
    assert said_of(instead("response: {ignore: true}", "response: {parse: true}"), "login") == [
        "synchronous"
    ]


@pytest.mark.parametrize(
    ("url", "is_for_us"),
    [
        ("https://sync.example.org/behind/a/proxy/kratos/sync-identity", True),
        ("http://[::1]:8000/kratos/sync-identity?from=kratos", True),
        ("https://sync.example.org/elsewhere", False),
        ("http://api:8000/kratos/parse-identity", False),
        ("http://api:8000/kratos/sync-identity-2", False),
    ],
)
def test_we_are_known_by_our_path(url: str, is_for_us: bool) -> None:
    assert Receiver().is_called_by(url) is is_for_us


def test_another_address_of_ours_can_be_given() -> None:
    text = flow("recovery", web_hook(instead("http://api:8000/kratos/sync-identity", "http://a/b")))

    assert checked(text).uncovered() == {"recovery.after"}
    assert checked(text, Receiver(url="http://a/b")).rules == []


def test_when_nothing_calls_us_the_check_asks_for_our_address() -> None:
    text = flow("recovery", web_hook()).replace("/kratos/sync-identity", "/hooks")

    assert "nobody-for-us" in checked(text)
    assert "nobody-for-us" not in checked(text, Receiver(url="http://api:8000/hooks"))
