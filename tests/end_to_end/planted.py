"""Who comes and what is secret in tests/end_to_end/test_secrets.py."""

from tests.end_to_end.canaries import Search

SECRETS = {
    "the new key": "K3y-of-tomorrow-5f0c",
    "the old key": "K3y-of-yesterday-ключ-91aa",
    "PostgreSQL's password": "p0stgres@Pass:w/rd%é-77c1",
    "the broker's password": "v4lkey@Pass:w/rd%é-08d2",
    "a wrong password": "wr0ng@Pass:w/rd%é-3b9e",
    "the broker's other password": "0ther@Pass:w/rd%é-44ab",
}
PEOPLE = {
    "an e-mail address": "zoe.canary+4711@mail.test",
    "a name": "Zoë Ünïcanary 姓名 😀",
    "a phone number": "+36 30 555 47 11",
    "a trait of odd characters": "0ddC4nary",
    "a trait's key": "canary_of_a_trait",
    "public metadata": "metaC4nary–β",
    "an external id": "extC4nary/0815",
    "an unknown field": "unknownC4nary",
}
SENT = {
    "a wrong key": "wr0ng-key-e1e1",
    "a refused body": "refusedC4nary ä",
    "a header": "headerC4nary",
    "a query": "queryC4nary",
    "a path": "pathC4nary",
    "what was said meanwhile": "meanwhileC4nary ü",
    "a failed event": "poisonC4nary ß",
}
GARBAGE = {"garbage on the broker": "garbageC4nary@mail.test"}
EVERYTHING = Search({**SECRETS, **PEOPLE, **SENT, **GARBAGE})
# The tests themselves put garbage there.
AT_THE_BROKER = Search({**SECRETS, **PEOPLE, **SENT})
