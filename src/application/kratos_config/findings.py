"""The result of a check: findings by line, and the hook coverage of each place.

Every judgement stands in one table: severity and rule, what happens, and what to do about it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from string import Template
from typing import Final, NamedTuple

from kratos_sync.application.kratos_config.hooks import Place
from kratos_sync.application.kratos_config.nodes import Path


class Severity(StrEnum):
    """How much a finding matters; only an error makes a check fail."""

    ERROR = "error"
    """Webhooks are missed, or a hook breaks a flow."""
    WARNING = "warning"
    """It works today, and not in every case."""
    NOTE = "note"
    """It would matter if something were turned on, or the file alone cannot tell."""


class Judgement(NamedTuple):
    """What happens, in one sentence, and what to do about it, in another.

    `rule` is a short name that stays the same over releases. No value of the file is quoted.
    """

    rule: str
    severity: Severity
    sentence: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A judgement, and where in the file it applies."""

    judgement: Judgement
    line: int
    path: Path

    @property
    def severity(self) -> Severity:
        """How much it matters."""
        return self.judgement.severity


@dataclass(frozen=True, slots=True)
class Coverage:
    """Whether this service is called for what happens at a place, and by which list of hooks."""

    place: Place
    is_on: bool
    is_covered: bool
    by: Path
    """The list that Kratos runs there: the method's own, or the flow's."""


@dataclass(frozen=True, slots=True)
class Report:
    """The findings, by line, and the coverage of every place."""

    findings: Sequence[Finding]
    coverage: Sequence[Coverage]

    @property
    def passed(self) -> bool:
        """Whether there is no error: everything that is on is covered, and every hook runs."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)


def finding(rule: str, line: int, path: Path, **values: str) -> Finding:
    """The finding of a rule, with these values in the places of its sentences."""
    return Finding(judgement(rule, **values), line, path)


def judgement(rule: str, **values: str) -> Judgement:
    """The judgement of a rule; `before:ignored` is one of several of the rule `before`."""
    found = _JUDGEMENTS[rule]
    if not values:
        return found
    sentence, remedy = (Template(text).substitute(values) for text in found[2:])
    return found._replace(sentence=sentence, remedy=remedy)


_TABLE: Final = """\
error not-heard
    $subject not heard: $why
    `kratos-sync hooks` prints what belongs there.
note not-heard-if-on
    $subject not heard once turned on: $why
    `kratos-sync hooks` prints what belongs there.
note no-common-hook
    $flow: a method that a later Kratos brings is not heard.
    Put the web_hook directly under `after` too.
note nobody-for-us
    No webhook calls /kratos/sync-identity.
    If we have another address, name it with --url.
error stray
    Kratos does not look for hooks here: this one never runs.
    $remedy

error repeated-key
    This key is there twice in the same map: Kratos refuses the file.
    Put what both have under one.
warning further-document
    Kratos reads the first document only; this is another one.
    Put all into one.
warning old-release
    Kratos before v25.4.0 sends no Ory-Webhook-Trigger-Id: what it repeats is recorded twice.
    Upgrade Kratos.
warning header-allowlist
    This hands a header with people's secrets to the templates of every webhook.
    Take it off the list: we need no header of the request.

error null
    Kratos refuses a key without a value here.
    Give it a value, or remove it.
error wrong-type
    Kratos expects $expected here, and refuses to start.
    $remedy
error wrong-value:choice
    Kratos takes only $choice here, and refuses to start.
    Write one of them.
error wrong-value:duration
    Kratos expects a duration such as 1h or 30s here, and refuses to start.
    Write a number and its unit.
error required-key
    `$name` is missing here: Kratos refuses to start.
    Add it.
error misplaced-key
    `$name` is in the wrong place: Kratos refuses to start, or does not see it.
    It belongs into `$place` of the hook.
error misplaced-key:template
    Kratos does not read `$name`: it finds no template, and never sends the hook.
    Name the template under `body`.
error misspelt-key
    Kratos does not know this key: it refuses to start, or does not see it.
    Perhaps it should be `$meant`.
error refused-key
    Kratos does not know this key, and refuses to start.
    Here stand only $known.
warning unknown-key
    This key is not known here: unless your Kratos is newer than this check,
     it refuses to start.
    See that it is spelt right, or remove it.
error unknown-hook
    Kratos knows no hook of this name, and refuses to start or leaves it out.
    A webhook is called `web_hook`.
error hook-not-allowed
    Kratos allows no `$name` here, and refuses to start.
    Here stand only $allowed. `$name` belongs to $places.
error no-hook
    This is no hook, and Kratos refuses to start.
    Give it a key `hook`, or remove it.
error repeated-hook
    The same hook stands in this list already: Kratos refuses to start.
    Remove one of them.
error no-config
    The hook has no `config`: it calls nobody.
    Take what `kratos-sync hooks` prints.
warning can-interrupt
    `can_interrupt` is deprecated.
    Write `response: {parse: true}`, or remove it.

error url
    The URL is none that can be called.
    Correct it.
error url-slash
    With a slash behind /kratos/sync-identity we do not answer: every call is lost.
    Remove the slash, or say --url if a proxy sees to it.
error private
    The address is private, and clients.http.disallow_private_ip_ranges is on:
     it is never called.
    Add the URL to clients.http.private_ip_exception_urls.
warning perhaps-private
    With clients.http.disallow_private_ip_ranges it is never called
     if its name stands for a private address.
    Add the URL to clients.http.private_ip_exception_urls.
error method
    The method is not POST: we refuse every call, and none is repeated.
    Write `method: POST`.
error content-type
    The body does not go as application/json: we refuse every call, and none is repeated.
    Remove the line.
warning no-dedupe-key
    With `emit_analytics_event: false` calls have no Ory-Webhook-Trigger-Id:
     what Kratos repeats is recorded twice.
    Remove the line.
error no-auth
    There is no `auth`: we refuse every call, and none is repeated.
    Set `auth` with `type: api_key`, `in: header` and `name: $header`.
error auth-type
    Our key is an `api_key`; with any other `auth` we refuse every call, and none is repeated.
    Set `auth` with `type: api_key`, `in: header` and `name: $header`.
error auth-in
    The key does not go in a header: we refuse every call, and none is repeated.
    Set `auth` with `type: api_key`, `in: header` and `name: $header`.
error auth-name
    The key goes in another header than the one we look at: we refuse every call,
     and none is repeated.
    Set `auth` with `type: api_key`, `in: header` and `name: $header`.
error no-key
    There is no key: we refuse every call, and none is repeated.
    Set `value` to a key of KRATOS_WEBHOOK_API_KEYS.
note key-variable
    Kratos does not expand variables in its file: it would send this as the key.
    See that something else puts the key there.
error ignore-and-parse
    An answer cannot be ignored and parsed: Kratos refuses to call, or to start.
    Leave `ignore: true` alone here.
error parse
    A hook that parses is called before anything is stored, and not after it:
     this one does not tell us what the identity is.
    Set `response: {ignore: true}` here, and let a second hook parse.
warning synchronous
    People wait for our answer, and are shown our errors, although everything is stored by then.
    Set `response: {ignore: true}`.

warning twice
    We are called twice here: each call has a dedupe key of its own.
    Leave one of them.
note network-hook
    Only the Ory Network runs this hook; there it replaces those directly under `after`.
    On the Ory Network, put the web_hook here too.
error parse-in-global
    A hook that parses is never called from the list directly under `after`.
    Put it into the list of every method.
warning after-synchronous
    When this webhook fails, those behind it are not called: we do not hear of
     what is stored by then.
    Put ours first.
error after-session
    Kratos before v1.3.1 may stop at `session` when an API client registers,
     and calls nothing behind it.
    Put `session` last.
note after-session:perhaps
    Kratos before v1.3.1 may stop at `session` when an API client registers,
     and calls nothing behind it.
    Put `session` last.
error before
    Before $flow there is no identity: we are sent null, and, as people wait for our answer,
     nobody gets any further.
    Move it under `after`.
warning before:ignored
    Before $flow there is no identity: we are sent null, which we refuse.
    Move it under `after`.

error no-body
    There is no `body`: Kratos finds no template, and never sends the hook.
    Take the one that `kratos-sync hooks` prints.
warning body-without-scheme
    The body is a path without a scheme, which Kratos has deprecated.
    Write file:// before it.
warning body-from-web
    The body's template is fetched over HTTP and kept for 60 minutes: a change is late,
     and while its server is away the hook is not sent. It was not looked at.
    Let it be a file:// or base64://.
note body-not-read
    The template's folder is not on this machine: it was not looked at.
    Put the template beside the configuration, and it is.
note body-not-judged
    The template takes too much to be run here: it was not judged.
    See that it renders for every flow: where it fails, nothing is sent.
error body-missing
    There is no such template: the hook is never sent.
    Correct the path, or take what `kratos-sync hooks` prints.
error body-not-base64
    The body is no base64 of a text: the hook is never sent.
    Take the one that `kratos-sync hooks` prints.
error body-not-jsonnet
    The template is no Jsonnet that Kratos can run: the hook is never sent.
    Correct it: a function of `ctx`, without imports or external variables.
error body-too-slow
    The template takes longer than the second that Kratos gives it: the hook is never sent.
    Take the one that `kratos-sync hooks` prints.
error body-without-identity
    The body has no field `identity` with the identity: we refuse every call,
     and none is repeated.
    Take the one that `kratos-sync hooks` prints.
error body-needs-session
    The template needs a session, and this flow gives it none: the hook is never sent.
    Take the one that `kratos-sync hooks` prints.
warning body-fails
    The template fails on an example of what Kratos gives it: where it fails, nothing is sent.
    See that it renders for every flow and everybody.
warning body-with-secrets
    The body carries more than the identity: a cookie of the session, or the flow's CSRF token.
    Take the one that `kratos-sync hooks` prints.
warning body-with-headers
    The body reads request headers: without such a header, or if
     clients.web_hook.header_allowlist leaves it out, the template fails and the hook is not sent.
    Take the one that `kratos-sync hooks` prints.
warning body-fails-for-some
    The template fails for a person without addresses, metadata or external id:
     nothing is sent of them.
    Ask `std.objectHas` before you read what may be absent.
"""


def _judgements(table: str) -> Iterator[tuple[str, Judgement]]:
    lines = table.replace("\n     ", " ").splitlines()  # a line that is indented more goes on
    lines = [line.strip() for line in lines if line]
    for head, sentence, remedy in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        severity, name = head.split()
        yield name, Judgement(name.partition(":")[0], Severity(severity), sentence, remedy)


_JUDGEMENTS: Final = dict(_judgements(_TABLE))
