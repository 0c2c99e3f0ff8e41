import pytest

from tests.application.kratos_config.reading import CONFIG, checked, flow, instead, web_hook

OTHER = instead("http://api:8000/kratos/sync-identity", "http://crm/new").replace(
    "response: {ignore: true}", ""
)
SESSION = "- hook: session\n"


def test_a_hook_that_parses_never_runs_from_the_list_directly_under_after() -> None:
    parsing = OTHER + "response: {parse: true}\n"

    assert "parse-in-global" in checked(flow("registration", web_hook() + web_hook(parsing)))
    assert "parse-in-global" not in checked(flow("login", web_hook() + web_hook(parsing)))


def test_a_synchronous_webhook_before_ours_can_keep_it_back() -> None:
    assert checked(flow("login", web_hook(OTHER) + web_hook())).rules == ["after-synchronous"]
    assert checked(flow("login", web_hook() + web_hook(OTHER))).rules == []


def test_being_called_twice_is_reported() -> None:
    other_label = CONFIG + "headers: {X-Kratos-Hook: again}\n"

    assert checked(flow("login", web_hook() + web_hook(other_label))).rules == ["twice"]


@pytest.mark.parametrize(
    ("version", "rules"),
    [
        ("", ["after-session"]),
        ("version: v1.0.0\n", ["old-release", "after-session"]),
        ("version: v1.3.1\n", ["old-release"]),
        ("version: v26.2.0\n", []),
    ],
)
def test_a_session_before_our_hook_matters_to_old_releases(version: str, rules: list[str]) -> None:
    found = checked(version + flow("registration", SESSION + web_hook(), method="password"))

    assert [rule for rule in found.rules if not rule.startswith("not-heard")] == rules


@pytest.mark.parametrize(
    ("version", "is_old"),
    [("v25.3.9", True), ("v25.4.0", False), ("v1.3.1", True), ("v26.2.0-rc.1", False), ("", False)],
)
def test_releases_without_a_dedupe_key_are_reported(version: str, is_old: bool) -> None:
    text = f"version: '{version}'\n" + flow("login", web_hook())

    assert checked(text).lines("old-release") == ([1] if is_old else [])


def test_a_hook_for_us_before_a_flow_is_reported() -> None:
    text = flow("recovery", web_hook(), under="before")
    waiting = flow("recovery", web_hook(instead("ignore: true", "ignore: false")), under="before")

    assert checked(text).uncovered() == {"recovery.after"}
    assert "before" in checked(text)
    assert "the flow fails" in str(checked(waiting).report.findings)


@pytest.mark.parametrize("name", ["Cookie", "authorization", "X-Session-Token"])
def test_a_header_with_secrets_on_the_allowlist_is_reported(name: str) -> None:
    allowlist = "clients:\n  web_hook:\n    header_allowlist:\n      - User-Agent\n"

    assert checked(allowlist + flow("login", web_hook())).rules == []
    assert checked(f"{allowlist}      - {name}\n{flow('login', web_hook())}").lines(
        "header-allowlist"
    ) == [5]


def test_a_repeated_key_is_reported_at_the_second() -> None:
    text = flow("login", web_hook()) + "selfservice: {}\n"

    assert checked(flow("login", web_hook()) + "dsn: a\ndsn: b\n").lines("repeated-key") == [
        len(text.splitlines()) + 1
    ]


def test_a_further_document_is_reported() -> None:
    text = flow("login", web_hook())

    assert checked(f"{text}---\nselfservice: {{}}\n").rules == ["further-document"]


@pytest.mark.parametrize("url", ["crm/new", "ftp://crm/new", "http://", "//crm/new"])
def test_an_address_that_cannot_be_called_is_reported_for_other_webhooks_too(url: str) -> None:
    other = web_hook(OTHER.replace("http://crm/new", url))

    assert "url" in checked(flow("login", web_hook() + other))
    assert "url" not in checked(flow("login", web_hook() + web_hook(OTHER)))
    assert "url" in checked(flow("login", other, under="before"))
