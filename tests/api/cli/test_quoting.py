from kratos_sync.api.cli.output import harmless, indented


def test_what_would_steer_a_terminal_is_replaced() -> None:
    assert harmless("a\x1b[31mb\x07c\u202ed") == "a\N{REPLACEMENT CHARACTER}[31mb" + (
        "\N{REPLACEMENT CHARACTER}c\N{REPLACEMENT CHARACTER}d"
    )


def test_every_line_gets_the_margin() -> None:
    assert indented("one\n\ttwo\r\n三", 2) == ["  one", "          two", "  三"]
