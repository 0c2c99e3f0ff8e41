"""Signing in by OpenID Connect, and what of it is bound to one browser and one use."""

import logging
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from starlette.responses import Response
from structlog.testing import capture_logs

from kratos_sync.api.http.console.access import NO_ROLE
from kratos_sync.api.http.console.oidc import (
    BEGUN_COOKIE,
    CALLBACK,
    MOST_TRIES,
    NOT_BEGUN,
)
from kratos_sync.api.http.console.sessions import COOKIE
from tests.api.http.console.provider import CLIENT_ID, CLIENT_SECRET, Provider, changed
from tests.api.http.console.signing_in import (
    Browser,
    Console,
    assert_refused,
    is_signed_in,
    lead_back,
    sign_in,
)


def test_whom_the_provider_signs_in_is_an_operator(browser: Browser) -> None:
    answer = sign_in(browser)
    assert answer.status_code == HTTPStatus.OK
    page = browser.open("/")
    assert "ada, second factor: False" in page.text
    assert "operator, privacy, viewer" in page.text


def test_a_page_of_the_console_leads_on_because_the_session_is_not_sent_from_elsewhere(
    browser: Browser,
) -> None:
    answer = sign_in(browser, "/failures")
    assert '<meta http-equiv="refresh" content="0; url=/failures">' in answer.text
    elsewhere = browser.open("/failures", from_elsewhere=True)
    assert elsewhere.headers["location"] == "/sign-in?to=%2Ffailures"
    lead_on = browser.open(elsewhere.headers["location"], from_elsewhere=True)
    assert '<meta http-equiv="refresh" content="0; url=/failures">' in lead_on.text
    assert browser.open("/failures").status_code == HTTPStatus.OK


def test_who_is_not_signed_in_is_asked_to_and_comes_to_the_page_he_wanted(
    browser: Browser,
) -> None:
    first = browser.open("/failures")
    ask = browser.open(first.headers["location"])
    assert 'href="/sign-in/start?to=/failures"' in ask.text
    assert "url=/failures" in sign_in(browser, "/failures").text


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_a_sign_in_leads_on_to_no_other_site(browser: Browser, to: str) -> None:
    ask = browser.open(f"/sign-in?to={quote(to)}")
    assert "evil" not in ask.text
    assert "evil" not in sign_in(browser, to).text
    assert "evil" not in browser.open(f"/sign-in?to={quote(to)}", from_elsewhere=True).text


def test_the_provider_is_asked_by_the_code_flow_with_pkce(provider: Provider) -> None:
    console = Console(provider, scope="openid groups", acr_values=("gold", "silver"))
    sign_in(console.browser())
    sign_in(console.browser())
    first, second = provider.authorized
    assert first["theme"] == "dark"
    assert first["scope"] == "openid groups"
    assert first["acr_values"] == "gold silver"
    assert first["client_id"] == CLIENT_ID
    for fresh in ("state", "nonce", "code_challenge"):
        assert len(first[fresh]) >= 43
        assert first[fresh] != second[fresh]


def test_a_second_factor_is_what_the_provider_says(provider: Provider) -> None:
    provider.claims["amr"] = ["pwd", "otp"]
    browser = Console(provider).browser()
    sign_in(browser)
    assert "second factor: True" in browser.open("/").text


@pytest.mark.parametrize("secure", [False, True])
def test_the_cookies_are_for_no_script_and_the_way_back_alone_is_lax(
    provider: Provider, secure: bool
) -> None:
    browser = Console(provider, secure=secure).browser()
    prefix = "__Host-" if secure else ""
    begun = browser.open("/sign-in/start").headers["set-cookie"]
    assert begun.startswith(prefix + BEGUN_COOKIE)
    back = sign_in(browser).headers.get_list("set-cookie")
    session = next(header for header in back if header.startswith(prefix + COOKIE))
    for header, site in ((begun, "samesite=lax"), (session, "samesite=strict")):
        flags = set(header.lower().split("; "))
        assert {"httponly", "path=/", site} <= flags
        assert ("secure" in flags) is secure
        assert not any(flag.startswith("domain") for flag in flags)
    used = next(header for header in back if "Max-Age=0" in header)
    assert used.startswith(prefix + BEGUN_COOKIE)


def test_who_signs_out_is_out_and_is_asked_before_he_signs_in_again(browser: Browser) -> None:
    sign_in(browser)
    cookies = dict(browser.cookies)
    assert browser.send("/sign-out").headers["location"] == "/sign-in"
    assert COOKIE not in browser.cookies
    browser.cookies.update(cookies)
    assert not is_signed_in(browser)
    assert browser.open("/sign-in").status_code == HTTPStatus.OK


def test_two_tabs_can_sign_in_side_by_side(browser: Browser) -> None:
    first, second = lead_back(browser), lead_back(browser)
    assert browser.open(second, from_elsewhere=True).status_code == HTTPStatus.OK
    assert browser.open(first, from_elsewhere=True).status_code == HTTPStatus.OK
    assert [name for name in browser.cookies if name.startswith(BEGUN_COOKIE)] == []


def test_a_callback_is_good_for_one_use(browser: Browser, provider: Provider) -> None:
    path = lead_back(browser)
    assert browser.open(path, from_elsewhere=True).status_code == HTTPStatus.OK
    again = browser.open(path, from_elsewhere=True)
    assert again.status_code == HTTPStatus.FORBIDDEN
    assert NOT_BEGUN in again.text
    assert provider.asked.count("/token") == 1


def test_a_callback_in_another_browser_signs_in_nobody(
    console: Console, provider: Provider
) -> None:
    path = lead_back(console.browser())
    victim = console.browser()
    lead_back(victim)
    assert_refused(victim, victim.open(path, from_elsewhere=True))
    assert "/token" not in provider.asked


@pytest.mark.parametrize(
    "query", ["", "code=1", "code=1&state=", "code=1&state=guessed", "error=x"]
)
def test_a_callback_without_a_sign_in_asks_the_provider_nothing(
    browser: Browser, provider: Provider, query: str
) -> None:
    answer = browser.open(f"{CALLBACK}?{query}", from_elsewhere=True)
    assert_refused(browser, answer)
    assert NOT_BEGUN in answer.text
    assert provider.asked == []


def test_a_callback_without_a_code_asks_the_provider_nothing(
    browser: Browser, provider: Provider
) -> None:
    state = parse_qs(urlsplit(lead_back(browser)).query)["state"][0]
    assert_refused(browser, browser.open(f"{CALLBACK}?state={state}", from_elsewhere=True))
    assert "/token" not in provider.asked


def test_who_knows_the_nonce_of_a_sign_in_cannot_finish_it_elsewhere(
    console: Console, provider: Provider
) -> None:
    """Even if the provider ignores PKCE."""
    provider.checks_verifier = False
    for known in (True, False):
        path = lead_back(console.browser())
        nonce = provider.authorized[-1]["nonce"] if known else ""
        thief = console.browser()
        state = parse_qs(urlsplit(path).query)["state"][0]
        thief.cookies[BEGUN_COOKIE + state] = f"{nonce}.verifier.%2F"
        assert_refused(thief, thief.open(path, from_elsewhere=True))
    assert provider.asked.count("/token") == 2


def test_the_code_of_another_sign_in_is_refused(console: Console, browser: Browser) -> None:
    stolen = parse_qs(urlsplit(lead_back(console.browser())).query)["code"][0]
    state = parse_qs(urlsplit(lead_back(browser)).query)["state"][0]
    query = urlencode({"code": stolen, "state": state})
    assert_refused(browser, browser.open(f"{CALLBACK}?{query}", from_elsewhere=True))


def test_who_has_no_role_is_told_so_and_has_no_session(
    browser: Browser, provider: Provider
) -> None:
    provider.claims["kratos_sync_roles"] = ["offline_access"]
    answer = sign_in(browser)
    assert_refused(browser, answer)
    assert NO_ROLE in answer.text


def test_a_session_goes_on_while_the_provider_is_away(browser: Browser, provider: Provider) -> None:
    sign_in(browser)
    provider.instead = Response("out of order", 502)
    assert is_signed_in(browser)


@pytest.mark.parametrize("kind", ["signed in", "refused", "no role", "away"])
def test_no_code_token_secret_or_claim_is_logged(
    browser: Browser,
    provider: Provider,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)  # as the console logs libraries
    provider.claims["email"] = "ada@example.org"
    sent: list[str] = []

    def sign(claims: dict[str, Any]) -> str:
        sent.append(provider.signed(claims))
        return sent[-1]

    provider.sign = sign
    if kind == "refused":
        provider.change = changed(aud="ada@example.org")
    if kind == "no role":
        provider.claims["kratos_sync_roles"] = ["ada@example.org"]
    with capture_logs() as logged:
        path = lead_back(browser)
        begun = list(browser.cookies.values())
        if kind == "away":
            provider.instead = Response("ada@example.org", 500)
        browser.open(path, from_elsewhere=True)
    said = f"{logged}{caplog.text}"
    secret = [part for cookie in begun for part in cookie.split(".")[:2]]
    secret += [value for values in parse_qs(urlsplit(path).query).values() for value in values]
    for each in [*secret, *sent, CLIENT_SECRET, "an-access-token", "ada@example.org"]:
        assert each not in said


def test_refusals_again_and_again_reach_the_provider_no_more(
    console: Console, provider: Provider
) -> None:
    provider.change = changed(nonce="another")
    browser = console.browser()
    for _ in range(MOST_TRIES):
        assert sign_in(browser).status_code == HTTPStatus.FORBIDDEN
    provider.change = changed()
    asked = provider.asked.count("/token")
    assert_refused(browser, sign_in(browser), 429)
    assert provider.asked.count("/token") == asked
