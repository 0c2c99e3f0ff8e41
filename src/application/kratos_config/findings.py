"""Every finding of a check, in a table: its severity, what happens, and what to do."""

import re
from dataclasses import dataclass
from enum import StrEnum
from string import Template
from typing import Final

from kratos_sync.application.kratos_config.nodes import Path


class Severity(StrEnum):
    """How much a finding matters; only an error makes a check fail."""

    ERROR = "error"
    """Webhooks are missed, or a hook breaks a flow."""
    WARNING = "warning"
    """It works today, and not in every case."""
    NOTE = "note"
    """It would matter if something were turned on, or the file alone cannot show it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What happens, in one sentence, what to do about it, in another, and where in the file.

    `rule` is a short name that stays the same over releases. No value of the file is quoted.
    """

    rule: str
    severity: Severity
    sentence: str
    remedy: str
    line: int
    path: Path


def finding(name: str, line: int, path: Path, /, **values: str) -> Finding:
    """The finding of this name in the table, with these values in its sentences.

    `before:ignored` is one of several findings of the rule `before`.
    """
    severity, *texts = _FINDINGS[name]
    sentence, remedy = (Template(text).substitute(values) for text in texts)
    return Finding(name.partition(":")[0], Severity(severity), sentence, remedy, line, path)


_TABLE: Final = """\
error not-heard: $subject not covered: $why
  -> Add what `kratos-sync hooks` prints.
note not-heard-if-on: $subject not covered once turned on: $why
  -> Add what `kratos-sync hooks` prints.
note no-common-hook: $flow: a method that a later Kratos adds is not covered.
  -> Put the web_hook directly under `after` too.
note nobody-for-us: No webhook of this file calls /kratos/sync-identity.
  -> If this service has another address, name it with --url.
error stray: Kratos reads no hooks in this place: this one never runs.
  -> $remedy
error repeated-key: This key appears twice in the same map: Kratos refuses the file.
  -> Put the contents of both under one key.
warning further-document: Kratos reads the first document only; this is another one.
  -> Put everything into one document.
warning old-release: Without Ory-Webhook-Trigger-Id (before v25.4.0) repeats are recorded twice.
  -> Upgrade Kratos.
warning header-allowlist: This gives a header with people's secrets to every webhook's template.
  -> Remove it: this service needs no header of the request.
error null: Kratos refuses a key without a value here.
  -> Give it a value, or remove it.
error wrong-type: Kratos expects $expected here, and refuses to start.
  -> $remedy
error wrong-value:choice: Kratos accepts only $choice here, and refuses to start.
  -> Use one of them.
error wrong-value:duration: Kratos expects a duration such as 1h or 30s, and refuses to start.
  -> Write a number and its unit.
error required-key: `$name` is missing here: Kratos refuses to start.
  -> Add it.
error misplaced-key: `$name` is in the wrong place: Kratos refuses to start, or ignores it.
  -> It belongs into `$place` of the hook.
error misplaced-key:template: Kratos ignores `$name`: without a template it never sends the hook.
  -> Name the template under `body`.
error misspelt-key: Kratos does not know this key: it refuses to start, or ignores it.
  -> Perhaps it should be `$meant`.
error refused-key: Kratos does not know this key, and refuses to start.
  -> Only these are allowed here: $known.
warning unknown-key: Unless your Kratos is newer than this check, it refuses to start with this key.
  -> Check its spelling, or remove it.
error unknown-hook: Kratos knows no hook of this name, and refuses to start or ignores it.
  -> A webhook is called `web_hook`.
error hook-not-allowed: Kratos allows no `$name` here, and refuses to start.
  -> Only these are allowed here: $allowed. `$name` belongs to $places.
error no-hook: This is not a hook, and Kratos refuses to start.
  -> Give it a key `hook`, or remove it.
error repeated-hook: The same hook is in this list already: Kratos refuses to start.
  -> Remove one of them.
error no-config: The hook has no `config`: it calls nothing.
  -> Use what `kratos-sync hooks` prints.
warning can-interrupt: `can_interrupt` is deprecated.
  -> Write `response: {parse: true}`, or remove it.
error url: The URL cannot be called.
  -> Correct it.
error url-slash: With a slash after /kratos/sync-identity every call is lost.
  -> Remove the slash, or use --url if a proxy removes it.
error private: The address is private: clients.http.disallow_private_ip_ranges blocks every call.
  -> Add the URL to clients.http.private_ip_exception_urls.
warning perhaps-private: If the address is private, disallow_private_ip_ranges blocks every call.
  -> Add the URL to clients.http.private_ip_exception_urls.
error method: The method is not POST: every call is rejected, and not repeated.
  -> Write `method: POST`.
error content-type: The body is not application/json: every call is rejected, and not repeated.
  -> Remove the line.
error content-type:never: Kratos does not know this content type, and never sends the hook.
  -> Write `application/json`, to the letter, or remove the line.
warning no-dedupe-key: Calls then have no Ory-Webhook-Trigger-Id: repeats are recorded twice.
  -> Remove the line.
error no-auth: There is no `auth`: every call is rejected, and not repeated.
  -> Set `auth` with `type: api_key`, `in: header` and `name: $header`.
error auth-type: Only an `api_key` is accepted: every call is rejected, and not repeated.
  -> Set `auth` with `type: api_key`, `in: header` and `name: $header`.
error auth-in: The key is not in a header: every call is rejected, and not repeated.
  -> Set `auth` with `type: api_key`, `in: header` and `name: $header`.
error auth-name: The key is in the wrong header: every call is rejected, and not repeated.
  -> Set `auth` with `type: api_key`, `in: header` and `name: $header`.
error no-key: There is no key: every call is rejected, and not repeated.
  -> Set `value` to a key of KRATOS_WEBHOOK_API_KEYS.
note variable: Kratos does not expand variables in its file: this value was not checked.
  -> Make sure that something else puts the value there.
note key-variable: Kratos does not expand variables in its file: it would send this as the key.
  -> Make sure that something else puts the key there.
error ignore-and-parse: A response cannot be ignored and parsed: Kratos refuses to call or to start.
  -> Leave only `ignore: true` here.
error parse: A hook that parses runs before anything is stored: it does not report the identity.
  -> Set `response: {ignore: true}` here, and let a second hook parse.
warning synchronous: People wait for the response and see its errors, though everything is stored.
  -> Set `response: {ignore: true}`.
warning twice: This service is called twice here: each call has a dedupe key of its own.
  -> Keep one of them.
note network-hook: Only the Ory Network runs this hook: there it replaces those of the flow.
  -> On the Ory Network, put the web_hook here too.
error parse-in-global: A hook that parses is never called from the list directly under `after`.
  -> Put it into the list of every method.
warning after-synchronous: When this webhook fails, those after it are not called.
  -> Put the hook for this service first.
error after-session: Kratos before v1.3.1 may stop here for API clients, and call nothing after it.
  -> Put `session` last.
note after-session:perhaps: Kratos before v1.3.1 may stop here, and call nothing after it.
  -> Put `session` last.
error before: Before $flow there is no identity: null is rejected, and the flow fails.
  -> Move it under `after`.
warning before:ignored: Before $flow there is no identity: null is sent, which is rejected.
  -> Move it under `after`.
error no-body: There is no `body`: without a template Kratos never sends the hook.
  -> Use what `kratos-sync hooks` prints.
warning body-without-scheme: The body is a path without a scheme, which Kratos has deprecated.
  -> Write file:// before it.
warning body-from-web: The template is fetched over HTTP and kept for 60 minutes: changes are
  late, and while its server cannot be reached nothing is sent. It was not checked.
  -> Use file:// or base64://.
note body-not-read: The template's folder is not on this machine: it was not checked.
  -> Put the template beside the configuration to have it checked.
note body-not-judged: The template is too large or too slow to be run here: it was not checked.
  -> Make sure that it renders for every flow: where it fails, nothing is sent.
error body-missing: There is no such template: the hook is never sent.
  -> Correct the path, or use what `kratos-sync hooks` prints.
error body-not-base64: The body is not the base64 of a text: the hook is never sent.
  -> Use what `kratos-sync hooks` prints.
error body-not-jsonnet: The template is not Jsonnet that Kratos can run: the hook is never sent.
  -> Correct it: a function of `ctx`, without imports or external variables.
error body-too-slow: The template takes longer than the second it has: the hook is never sent.
  -> Use what `kratos-sync hooks` prints.
error body-without-identity: The body has no `identity`: every call is rejected, and not repeated.
  -> Use what `kratos-sync hooks` prints.
error body-needs-session: The template needs a session, and this flow has none: it is never sent.
  -> Use what `kratos-sync hooks` prints.
warning body-fails: The template fails on an example of its input: where it fails, nothing is sent.
  -> Make sure that it renders for every flow and identity.
warning body-with-secrets: The body holds more than the identity: a session cookie or a CSRF token.
  -> Use what `kratos-sync hooks` prints.
warning body-with-headers: The template fails, and nothing is sent, without a request header that it
  reads, or if clients.web_hook.header_allowlist omits it.
  -> Use what `kratos-sync hooks` prints.
warning body-fails-for-some: The template fails without addresses, metadata or external id.
  -> Use `std.objectHas` before you read what may be absent.
"""


def _parse(entry: str) -> tuple[str, tuple[str, str, str]]:
    what, remedy = (" ".join(part.split()) for part in entry.split("->"))
    head, sentence = what.split(": ", 1)
    severity, name = head.split()
    return name, (severity, sentence, remedy)


_FINDINGS: Final = dict(map(_parse, re.split(r"\n(?=\S)", _TABLE.strip())))
