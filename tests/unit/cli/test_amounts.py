"""Sizes and speeds as people write and read them."""

import click
import pytest

from broker.cli.amounts import events_text, read_size, read_speed, size_text

CONTEXT, PARAMETER = click.Context(click.Command("record")), click.Option(["--size"])


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("100k", 102_400), ("1.5M", 1_572_864), ("2GiB", 2 << 30), ("1 tb", 1 << 40), (None, None)],
)
def test_sizes_are_read(text: str | None, size: int | None) -> None:
    assert read_size(CONTEXT, PARAMETER, text) == size


@pytest.mark.parametrize("text", ["", "many", "-1M", "1e6", "10", "0", "5 parsecs"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"is not a size|is too small"):
        read_size(CONTEXT, PARAMETER, text)


@pytest.mark.parametrize(("text", "speed"), [("original", 1.0), ("MAX", None), ("2x", 2.0), ("0.5", 0.5)])
def test_speeds_are_read(text: str, speed: float | None) -> None:
    assert read_speed(CONTEXT, PARAMETER, text) == speed


@pytest.mark.parametrize("text", ["", "fast", "0", "-1x", "nan", "inf", "2xx"])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no speed: use original, max, or a factor such as 2x"):
        read_speed(CONTEXT, PARAMETER, text)


def test_amounts_are_written_for_people() -> None:
    assert [size_text(size) for size in (512, 1023, 1024, 1 << 20, 1 << 41)] == [
        "512 bytes",
        "1023 bytes",
        "1.0 KiB",
        "1.0 MiB",
        "2.0 TiB",
    ]
    assert [events_text(number) for number in (0, 1, 12_345)] == ["0 events", "1 event", "12,345 events"]
