"""The `Link` header, and what is followed of it."""

import pytest

from kratos_sync.application.ports.kratos import KratosRefused
from kratos_sync.infrastructure.kratos.admin_api import is_token, next_token

ASKED = "http://kratos:4434/admin/identities?page_size=500"
BEHIND_A_PROXY = "https://gate.example.org/kratos/admin/identities?page_size=500"
NEXT = "page_size=500&page_token=43aa4f4e-cf7d-4051-9954-390572831ccb"


@pytest.mark.parametrize(
    "link",
    [
        f'</admin/identities?page_size=500>; rel="first",</admin/identities?{NEXT}>; rel="next"',
        f'</admin/identities?{NEXT}>; rel="next", </admin/identities>; rel="first"',
        f"</admin/identities?{NEXT}>; rel=next",
        f'</admin/identities?{NEXT}>; title="a, b; rel=first"; REL="last Next"',
        f'<?{NEXT}>;rel="next"',
        f'<http://kratos:4434/admin/identities?{NEXT}>; rel="next"',
    ],
)
def test_the_next_page_is_what_follows_the_question_mark(link: str) -> None:
    assert next_token(link, ASKED) == NEXT


@pytest.mark.parametrize(
    "link",
    [
        f'</admin/identities?{NEXT}>; rel="next"',
        f'</kratos/admin/identities?{NEXT}>; rel="next"',
        f'<https://gate.example.org/admin/identities?{NEXT}>; rel="next"',
    ],
)
def test_a_proxy_may_have_taken_a_piece_of_the_path_off(link: str) -> None:
    assert next_token(link, BEHIND_A_PROXY) == NEXT


@pytest.mark.parametrize(
    "link",
    [
        None,
        "",
        '</admin/identities?page_size=500>; rel="first"',
        f"</admin/identities?{NEXT}>",
        f'</admin/identities?{NEXT}>; rel="nextish"',
        f'/admin/identities?{NEXT}; rel="next"',
    ],
)
def test_without_such_a_link_the_page_is_the_last(link: str | None) -> None:
    assert next_token(link, ASKED) is None


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (f"http://evil/admin/identities?{NEXT}", "another place"),
        (f"//evil/admin/identities?{NEXT}", "another place"),
        (f"https://kratos:4434/admin/identities?{NEXT}", "another place"),
        (f"http://kratos:4433/admin/identities?{NEXT}", "another place"),
        (f"http://ada@kratos:4434/admin/identities?{NEXT}", "another place"),
        (f"/admin/sessions?{NEXT}", "another path"),
        (f"/admin/identities/../sessions?{NEXT}", "another path"),
        (f"/other/admin/identities?{NEXT}", "another path"),
        ("/admin/identities", "nowhere"),
        ("/admin/identities?page_size=500", "nowhere"),
        (f"/admin/identities?{'a' * 4097}", "nowhere"),
        ("/admin/identities?a b", "nowhere"),
    ],
)
def test_a_link_that_leads_elsewhere_is_refused(target: str, why: str) -> None:
    with pytest.raises(KratosRefused, match=why):
        next_token(f'<{target}>; rel="next"', ASKED)


@pytest.mark.parametrize("query", ["", "a b", "a\r\nb", "a#b", 'a"b', "ä", "a\x00", "a" * 4097])
def test_what_would_break_out_of_a_request_is_no_token(query: str) -> None:
    assert not is_token(query)
