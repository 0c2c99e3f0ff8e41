import json
from base64 import b64decode
from pathlib import Path

import pytest

from application.kratos_config.mapper import MAPPER, inline, judge

DEPLOYED = Path(__file__).parents[3] / "deploy/kratos/identity.mapper.jsonnet"


def rules(template: str) -> list[str]:
    return [judgement.rule for judgement in judge(inline(template))]


@pytest.mark.parametrize("context", [{"identity": {"id": "1"}, "request_cookies": {}}, {}])
def test_our_mapper_renders_the_identity_and_nothing_else(context: dict[str, object]) -> None:
    rjsonnet = pytest.importorskip("rjsonnet")

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
        ("function(ctx) { user: ctx.identity }", ["body-without-identity"]),
        ("// identity: here\nfunction(ctx) { user: 1 }", ["body-without-identity"]),
        ("function(ctx) ctx", ["body-with-secrets"]),
        ("function(ctx) { identity: ctx.identity, ctx: ctx }", ["body-with-secrets"]),
        ("function(ctx) { identity: ctx.identity, flow: ctx.flow }", ["body-with-secrets"]),
        ("function(ctx) { identity: 1, c: ctx.request_cookies }", ["body-with-secrets"]),
        (
            "function(ctx) { identity: 1, ip: ctx.request_headers['True-Client-Ip'] }",
            ["body-with-headers"],
        ),
    ],
)
def test_another_mapper_is_judged_by_what_it_names(template: str, said: list[str]) -> None:
    ends = [] if "body-without-identity" in said else ["body-not-judged"]

    assert rules(template) == said + ends


@pytest.mark.parametrize("encoded", ["%%%", "abc", "gIA="])
def test_what_is_no_base64_of_a_text_is_never_sent(encoded: str) -> None:
    assert [j.rule for j in judge(f"base64://{encoded}")] == ["body-not-base64"]
