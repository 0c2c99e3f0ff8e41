"""Reading configurations of whatever origin: with lines, bounded, and never quoting a value."""

from time import process_time

import pytest

from kratos_sync.application.kratos_config.nodes import Items, Text, at, text_at
from kratos_sync.infrastructure.kratos.config_file import (
    DEEPEST,
    MOST_BYTES,
    UnreadableConfig,
    read_config,
)


def test_every_key_and_item_has_its_line() -> None:
    root = read_config(b"a:\n  b:\n    - c: 1\n    - 'd'\n").root
    items = at(root, "a", "b")

    assert items is not None
    assert items.line == 2
    assert isinstance(items.value, Items)
    assert [item.line for item in items.value.items] == [3, 4]


def test_a_merged_key_has_the_line_it_was_written_on() -> None:
    text = b"one: &one {x: 1, y: 1}\ntwo:\n  <<: *one\n  y: 2\nthree: {<<: [{x: 3}, *one]}\n"
    root = read_config(text).root

    assert [text_at(root, "two", key) for key in "xy"] == ["1", "2"]
    assert [text_at(root, "three", key) for key in "xy"] == ["3", "1"]
    merged = at(root, "two", "x")
    assert merged is not None
    assert merged.line == 1


def test_a_key_that_stands_over_a_merged_one_is_no_repetition() -> None:
    file = read_config(b"a: &a {x: 1}\nb: {x: 2, <<: *a}\nc: 1\nc: 2\n")

    assert text_at(file.root, "b", "x") == "2"
    assert list(file.repeated) == [("c", 4)]


def test_json_is_read_with_tabs_too() -> None:
    root = read_config(b'{\n\t"a": {\n\t\t"b": "\\u00e9\\/"\n\t}\n}\n').root

    assert text_at(root, "a", "b") == "é/"


def test_quoted_and_plain_texts_differ() -> None:
    root = read_config(b"a: true\nb: 'true'\n").root

    found = [entry.value for entry in root.entries.values()]
    assert [node.plain for node in found if isinstance(node, Text)] == [True, False]


def test_the_line_of_a_second_document_is_kept() -> None:
    assert read_config(b"a: 1\n---\nb: 1\n").further_document == 3
    assert read_config(b"---\na: 1\n...\n").further_document is None


def test_a_tag_makes_nothing_but_text() -> None:
    root = read_config(b"a: !!python/object/apply:os.getcwd []\n").root

    assert isinstance(root.entries["a"].value, Items)


@pytest.mark.parametrize(
    "content",
    [
        b"a: [b",
        b"a: 's3cr3t",
        b"a: *s3cr3t",
        b"a: !s3cr3t!s3cr3t b",
        b"a: %s3cr3t",
        b"a: b: s3cr3t",
        b"a: 1\n<<: s3cr3t",
        b"a: \x01s3cr3t",
        b"a: \xff",
        b"",
        b"# a comment",
        b"- a",
        b"a: &a [*a]",
        b"a: &a\n  <<: *a",
        b"a: 1\n---\nb: [s3cr3t",
    ],
)
def test_an_unreadable_file_is_explained_without_quoting_it(content: bytes) -> None:
    with pytest.raises(UnreadableConfig) as refused:
        read_config(content)

    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"{" * 100_000,
        b"- " * 100_000,
        b"a: " + b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1),
        b"a: 1 #" + b"x" * MOST_BYTES,
        b"a0: &a0 {x0: 1}\n"
        + b"".join(b"a%d: &a%d {<<: *a%d, x%d: 1}\n" % (n, n, n - 1, n) for n in range(1, 1_000)),
        b"a0: &a0 [x]\n"
        + b"".join(
            b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 60)
        ),
    ],
    ids=["brackets", "braces", "dashes", "deep", "large", "merges", "aliases"],
)
def test_a_configuration_that_would_take_too_long_is_refused_at_once(content: bytes) -> None:
    began = process_time()
    with pytest.raises(UnreadableConfig):
        read_config(content)

    assert process_time() - began < 2


@pytest.mark.parametrize(
    "content",
    [
        b"x:\n" + b"  - {a: 1, b: [1, 2]}\n" * 20_000,
        b"a: " + b"x" * 1_000_000,
        b"{" + b", ".join(b"a%d: 1" % n for n in range(80_000)) + b"}",
        b"a: 1\n" + b"# x\n" * 250_000,
    ],
    ids=["items", "text", "keys", "comments"],
)
def test_the_largest_files_are_read_in_seconds(content: bytes) -> None:
    began = process_time()
    read_config(content)

    assert process_time() - began < 5


def test_json_writes_a_character_in_two_halves() -> None:
    root = read_config(b'{"a": "\\ud83d\\ude00", "b": "\\\\ud83d\\\\ude00"}').root

    assert [text_at(root, key) for key in "ab"] == ["😀", "\\ud83d\\ude00"]


def test_a_tag_for_text_is_as_good_as_quotes() -> None:
    (found,) = read_config(b"a: !!str true").root.entries.values()

    assert isinstance(found.value, Text)
    assert not found.value.plain
