import json
from base64 import b64decode
from pathlib import Path

import pytest
import rjsonnet

from kratos_sync.application.kratos_config.templates import MAPPER, inline, judge_ours
from kratos_sync.infrastructure.kratos.config_file import JsonnetTemplates

DEPLOYED = Path(__file__).parents[3] / "deploy/kratos/identity.mapper.jsonnet"


def rules(template: str, flow: str = "login") -> list[str]:
    return list(judge_ours(inline(template), flow, JsonnetTemplates(None)))


@pytest.mark.parametrize("context", [{"identity": {"id": "1"}, "request_cookies": {}}, {}])
def test_our_mapper_renders_the_identity_and_nothing_else(context: dict[str, object]) -> None:
    rendered = rjsonnet.evaluate_snippet("mapper", MAPPER, tla_codes={"ctx": json.dumps(context)})

    assert json.loads(rendered) == {"identity": context.get("identity")}


def test_our_mapper_is_the_one_that_compose_runs_whatever_its_comments_say() -> None:
    assert b64decode(inline().removeprefix("base64://")).decode() == MAPPER
    assert rules(MAPPER) == []
    assert rules(DEPLOYED.read_text()) == []


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("function(ctx) { identity: ctx.identity }", []),
        ("function(ctx) { 'identity': ctx.identity, flow_id: ctx.flow.id }", []),
        ("local of(ctx) = { ['iden' + 'tity']: ctx.identity }; of", []),
        ("function(ctx) { identity: ctx.identity } // ctx.request_cookies", []),
        ("function(ctx) { user: ctx.identity }", ["body-without-identity"]),
        ("function(ctx) { identity: 'me' }", ["body-without-identity"]),
        ("function(ctx) [ctx.identity]", ["body-without-identity"]),
        ("{ identity: { id: 'mine' } }", ["body-without-identity"]),
        ("// identity: here\nfunction(ctx) { user: 1 }", ["body-without-identity"]),
        ("function(ctx) ctx", ["body-with-secrets"]),
        ("function(ctx) { identity: ctx.identity, ctx: ctx }", ["body-with-secrets"]),
        ("function(ctx) { identity: ctx.identity, flow: ctx.flow }", ["body-with-secrets"]),
        (
            "function(ctx) { identity: ctx.identity, c: ctx.request_cookies }",
            ["body-with-secrets"],
        ),
        (
            "function(ctx) { identity: ctx.identity, ip: ctx.request_headers['True-Client-Ip'] }",
            ["body-with-headers"],
        ),
        (
            "function(ctx) { identity: ctx.identity, to: ctx.identity.verifiable_addresses[0] }",
            ["body-fails-for-some"],
        ),
        ("function(ctx) { identity: ctx.identity, plan: ctx.plan }", ["body-fails"]),
        ("function(ctx) error 'cancel'", ["body-fails"]),
    ],
)
def test_another_mapper_is_judged_by_what_it_makes(template: str, said: list[str]) -> None:
    assert rules(template) == said


@pytest.mark.parametrize(
    "template",
    [
        "",
        "function(ctx) {",
        "/* never closed",
        "/* " * 60_000,
        "function(ctx) { identity: ctx.identity",
        "function(ctx) { identity: context.identity }",
        "function(context) { identity: context.identity }",
        "function(ctx) { identity: import 'identity.libsonnet' }",
        "function(ctx) { identity: importstr '/etc/passwd' }",
        "function(ctx) { identity: std.extVar('identity') }",
    ],
    ids=range(10),
)
def test_what_kratos_cannot_run_is_never_sent(template: str) -> None:
    assert rules(template) == ["body-not-jsonnet"]


def test_a_template_that_needs_a_session_is_sent_only_where_there_is_one() -> None:
    template = "function(ctx) { identity: ctx.identity, session_id: ctx.session.id }"

    assert rules(template, "login") == []
    assert rules(template, "registration") == ["body-needs-session"]


def test_a_template_that_takes_too_long_is_stopped() -> None:
    inner = "std.foldl(function(a, b) a + b, std.range(1, 100000), 0)"
    template = f"function(ctx) std.foldl(function(a, b) {inner}, std.range(1, 100000), 0)"

    assert rules(template) == ["body-too-slow"]


@pytest.mark.parametrize(
    "template",
    ["(" * 100_000, "function(ctx) std.repeat('x', 3000000000)"],
    ids=["stack", "memory"],
)
def test_a_template_that_breaks_what_runs_it_breaks_nothing_else(template: str) -> None:
    assert rules(template) in (["body-not-judged"], ["body-not-jsonnet"], ["body-fails"])


@pytest.mark.parametrize("encoded", ["%%%", "abc", "gIA="])
def test_what_is_no_base64_of_a_text_is_never_sent(encoded: str) -> None:
    found = judge_ours(f"base64://{encoded}", "login", JsonnetTemplates(None))

    assert list(found) == ["body-not-base64"]
