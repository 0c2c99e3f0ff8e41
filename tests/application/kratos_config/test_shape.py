import pytest

from tests.application.kratos_config.reading import CONFIG, checked, flow, instead, web_hook


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("response: {ignore: true}", "ignore: true"),
        ("auth: {type: api_key, config: {in", "auth: {type: api_key, in: header, config: {in"),
        ("method: POST", "method: POST\nin: header"),
        ("{ignore: true}", "{ignore: true, can_interrupt: false}"),
    ],
)
def test_a_key_in_the_wrong_place_is_reported(old: str, new: str) -> None:
    assert "misplaced-key" in checked(flow("recovery", web_hook(instead(old, new))))


def test_settings_beside_config_are_reported() -> None:
    text = flow("recovery", web_hook() + "  response: {ignore: true}\n")
    (line,) = checked(text).lines("misplaced-key")

    assert text.splitlines()[line - 1] == "          response: {ignore: true}"


def test_an_unknown_key_is_reported() -> None:
    assert checked(flow("recovery", web_hook(CONFIG + "retries: 5\n"))).rules == ["unknown-key"]


def test_a_hook_without_settings_calls_nothing() -> None:
    assert "no-config" in checked(flow("recovery", "- hook: web_hook\n"))


def test_a_misspelt_hook_is_reported() -> None:
    assert "unknown-hook" in checked(flow("recovery", web_hook(name="webhook")))


@pytest.mark.parametrize(
    ("elsewhere", "remedy"),
    [
        ("    verification:\n      after:\n        code:\n          hooks: [HOOK]\n", "for code"),
        ("    verification:\n      hooks: [HOOK]\n", "directly under `after`"),
        ("    verification:\n      after: [HOOK]\n", "directly under `after`"),
        ("    logout:\n      after:\n        hooks: [HOOK]\n", "the flows are"),
        ("  methods:\n    password:\n      hooks: [HOOK]\n", "the flows are"),
        ("  after:\n    hooks: [HOOK]\n", "the flows are"),
    ],
)
def test_an_unreachable_hook_is_reported(elsewhere: str, remedy: str) -> None:
    hook = "{hook: web_hook, config: {url: 'http://api:8000/kratos/sync-identity'}}"
    found = checked(flow("recovery", web_hook(), elsewhere=elsewhere.replace("HOOK", hook)))

    (unreachable,) = [f for f in found.report.findings if f.rule == "stray"]
    assert remedy in unreachable.remedy
    assert not found.report.passed


def test_a_method_that_a_flow_does_not_have_runs_no_hooks() -> None:
    hooks = "selfservice: {flows: {registration: {after: {totp: {hooks: [{hook: web_hook}]}}}}}"

    assert "stray" in checked(hooks)
    assert "stray" not in checked(hooks.replace("registration", "login"))


def test_a_hook_that_an_alias_puts_into_a_list_is_reachable() -> None:
    text = flow("recovery", "- *hook")
    hook = "{hook: web_hook, config: {url: 'http://api:8000/kratos/sync-identity'}}"

    assert "stray" not in checked(f"x-hook: &hook {hook}\n{text}")
    assert "stray" in checked(f"x-hook: &hook {hook}\n{flow('recovery', web_hook())}")
