"""A provider that is hostile, away or odd signs in nobody, and breaks nothing."""

import gzip
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey
from starlette.responses import RedirectResponse, Response
from structlog.testing import capture_logs

from kratos_sync.api.http.console import openid_provider
from kratos_sync.api.http.console.openid_provider import (
    AWAY_SECONDS,
    KEPT_SECONDS,
    LARGEST_ANSWER,
)
from tests.api.http.console.provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    Change,
    Provider,
    changed,
    new_key,
    providing,
    without,
)
from tests.api.http.console.signing_in import (
    Browser,
    Console,
    assert_refused,
    is_signed_in,
    lead_back,
    sign_in,
)

DISCOVERY = "/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(nonce="another"), "nonce"),
        (without("nonce"), "nonce"),
        (changed(aud="another"), "aud"),
        (changed(aud="another", azp=CLIENT_ID), "aud"),
        (changed(aud=[CLIENT_ID, "another"]), "azp"),
        (changed(aud=[CLIENT_ID, "another"], azp="another"), "azp"),
        (without("aud"), "aud"),
        (changed(iss="http://127.0.0.1/another"), "iss"),
        (without("iss"), "iss"),
        (changed(exp=1_000_000_000), "exp"),
        (changed(exp="never"), "exp"),
        (changed(exp=float("nan")), "exp"),
        (without("exp"), "exp"),
        (changed(iat=10_000_000_000), "iat"),
        (without("iat"), "iat"),
        (changed(nbf=10_000_000_000), "nbf"),
        (changed(sub=7), "sub"),
        (without("sub"), "sub"),
        (changed(at_hash="another"), "at_hash"),
        (changed(amr="mfa"), "amr"),
    ],
)
def test_an_id_token_with_a_wrong_claim_is_refused(
    browser: Browser,
    provider: Provider,
    change: Change,
    reason: str,
) -> None:
    provider.change = change
    with capture_logs() as logged:
        assert_refused(browser, sign_in(browser))
    assert [line["event"] for line in logged] == ["console_sign_in_refused"]
    assert f"the ID token's {reason} is wrong" in logged[0]["reason"]


def _by_another_key(provider: Provider) -> None:
    provider.key = new_key("first")


def _unsigned(provider: Provider) -> None:
    provider.sign = provider.unsigned


def _by_the_secret(provider: Provider) -> None:
    """As somebody would who knows the client's secret, or takes a public key for one."""
    key = OctKey.import_key(CLIENT_SECRET.encode() * 2)
    provider.sign = lambda claims: jwt.encode({"alg": "HS256", "kid": "first"}, claims, key)


def _by_a_key_of_another_kind(provider: Provider) -> None:
    provider.key, provider.algorithm = ECKey.generate_key("P-256"), "ES256"


def _without_id_token(provider: Provider) -> None:
    provider.sign = lambda _: ""


def _with_another_payload(provider: Provider) -> None:
    def sign(claims: dict[str, Any]) -> str:
        header, _, signature = provider.signed(claims).split(".")
        other = provider.signed({**claims, "kratos_sync_roles": ["privacy"]}).split(".")[1]
        return f"{header}.{other}.{signature}"

    provider.sign = sign


def _garbage(provider: Provider) -> None:
    provider.sign = lambda _: "no.token.at-all"


@pytest.mark.parametrize(
    "misbehave",
    [
        _by_another_key,
        _unsigned,
        _by_the_secret,
        _by_a_key_of_another_kind,
        _without_id_token,
        _with_another_payload,
        _garbage,
    ],
)
def test_an_id_token_that_the_provider_did_not_sign_is_refused(
    browser: Browser, provider: Provider, misbehave: Callable[[Provider], None]
) -> None:
    misbehave(provider)
    assert_refused(browser, sign_in(browser))


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256"])
def test_an_id_token_may_be_signed_by_any_algorithm_with_a_public_key(
    browser: Browser, provider: Provider, algorithm: str
) -> None:
    if algorithm == "ES256":
        provider.key = ECKey.generate_key("P-256", {"kid": "first"})
        provider.published = [provider.key]
    provider.algorithm = algorithm
    sign_in(browser)
    assert is_signed_in(browser)


@pytest.mark.parametrize("kid", ["second", None])
def test_a_new_key_of_the_provider_is_fetched_once(
    console: Console, provider: Provider, kid: str | None
) -> None:
    sign_in(console.browser())
    provider.rotate(kid)
    for _ in range(2):
        browser = console.browser()
        sign_in(browser)
        assert is_signed_in(browser)
    assert provider.asked.count("/keys") == 2


def test_a_key_that_the_provider_does_not_publish_is_asked_for_once(
    browser: Browser, provider: Provider
) -> None:
    provider.kid = "unknown"
    assert_refused(browser, sign_in(browser))
    assert provider.asked.count("/keys") == 2


def test_what_the_provider_publishes_is_kept_for_an_hour(
    console: Console, provider: Provider
) -> None:
    sign_in(console.browser())
    sign_in(console.browser())
    assert (provider.asked.count(DISCOVERY), provider.asked.count("/keys")) == (1, 1)
    console.clock.now += KEPT_SECONDS
    sign_in(console.browser())
    assert (provider.asked.count(DISCOVERY), provider.asked.count("/keys")) == (2, 2)


ODD: dict[str, Response] = {
    "an error": Response("out of order", 502),
    "a redirect": RedirectResponse("http://127.0.0.1:1/"),
    "no JSON": Response("<p>Welcome"),
    "no object": Response("[]"),
    "an empty object": Response("{}"),
    "too many requests": Response("slow down", 429),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_provider_that_cannot_be_used_is_away(
    browser: Browser, provider: Provider, kind: str
) -> None:
    provider.instead = ODD[kind]
    assert_refused(browser, browser.open("/sign-in/start"), 503)


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "an empty object"])
def test_a_provider_that_cannot_be_used_half_way_is_away(
    browser: Browser, provider: Provider, kind: str
) -> None:
    path = lead_back(browser)
    provider.instead = ODD[kind]
    assert_refused(browser, browser.open(path, from_elsewhere=True), 503)


def _padded(size: int) -> Callable[[Response], Response]:
    return lambda answer: Response(bytes(answer.body).ljust(size), answer.status_code)


def _packed(answer: Response) -> Response:
    return Response(gzip.compress(bytes(answer.body)), headers={"content-encoding": "gzip"})


@pytest.mark.parametrize("wrap", [_padded(LARGEST_ANSWER + 1), _packed], ids=["huge", "packed"])
def test_an_answer_that_is_huge_or_may_be_when_unpacked_is_not_read(
    console: Console, provider: Provider, wrap: Callable[[Response], Response]
) -> None:
    provider.wrap = wrap
    browser = console.browser()
    assert_refused(browser, browser.open("/sign-in/start"), 503)
    provider.wrap = _padded(LARGEST_ANSWER)
    console.clock.now += AWAY_SECONDS
    path = lead_back(browser)
    provider.wrap = wrap
    assert_refused(browser, browser.open(path, from_elsewhere=True), 503)


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "http://127.0.0.1:1"},
        {"issuer": None},
        {"token_endpoint": "http://192.0.2.1/token"},
        {"authorization_endpoint": "http://192.0.2.1/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": "http://192.0.2.1/keys"},
        {"jwks_uri": None},
        {"token_endpoint": 7},
    ],
    ids=str,
)
def test_a_provider_that_describes_itself_oddly_is_not_used(
    browser: Browser, provider: Provider, metadata: dict[str, Any]
) -> None:
    provider.metadata = metadata
    assert_refused(browser, browser.open("/sign-in/start"), 503)


@pytest.mark.parametrize("published", [{"keys": []}, {"keys": [{"kty": "RSA"}]}, {"keys": 7}])
def test_keys_that_cannot_be_read_sign_in_nobody(
    browser: Browser, provider: Provider, published: dict[str, Any]
) -> None:
    provider.metadata = {"jwks_uri": f"{provider.issuer}/keys-in-disorder"}
    provider.disorder = published
    assert_refused(browser, sign_in(browser), 503)


def test_a_provider_that_is_down_is_away_and_asked_again_shortly(
    console: Console, provider: Provider
) -> None:
    with providing() as other:
        port = other.port
        console = Console(other)
    browser = console.browser()
    assert_refused(browser, browser.open("/sign-in/start"), 503)
    with providing(port) as again:
        assert browser.open("/sign-in/start").status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert again.asked == []
        console.clock.now += AWAY_SECONDS
        sign_in(browser)
        assert is_signed_in(browser)


def test_a_provider_that_hangs_is_away(
    browser: Browser, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openid_provider, "ANSWER_SECONDS", 0.2)
    provider.go.clear()
    assert_refused(browser, browser.open("/sign-in/start"), 503)


@pytest.mark.parametrize("error", ["access_denied", "ada@example.org"])
def test_what_the_provider_refuses_is_said_and_quotes_no_unknown_error(
    browser: Browser, provider: Provider, error: str
) -> None:
    provider.error = error
    with capture_logs() as logged:
        assert_refused(browser, sign_in(browser))
    assert ("access_denied" in str(logged)) is (error == "access_denied")
    assert "ada@example.org" not in str(logged)


def test_a_provider_that_does_not_know_the_console_refuses(provider: Provider) -> None:
    browser = Console(provider, client_secret="another").browser()
    with capture_logs() as logged:
        assert_refused(browser, sign_in(browser))
    assert "invalid_client" in logged[0]["reason"]


def test_the_secret_is_sent_in_the_form_where_the_provider_takes_it_there_alone(
    browser: Browser, provider: Provider
) -> None:
    provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    sign_in(browser)
    assert is_signed_in(browser)
