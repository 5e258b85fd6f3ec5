"""Figures as people read them."""

import pytest

from broker.cli.figures import amount, duration, rate, share, size, span


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (span(None), "-"),
        (span(0), "0 s"),
        (span(59.4), "59 s"),
        (span(90), "1.5 min"),
        (span(7200), "2.0 h"),
        (span(86_400 * 3), "3.0 d"),
        (size(None), "-"),
        (size(0), "0 B"),
        (size(999), "999 B"),
        (size(1000), "1.0 KiB"),
        (size(31.4 * 1024**2), "31.4 MiB"),
        (size(512 * 1024**2), "512 MiB"),
        (size(3 * 1024**4), "3.0 TiB"),
        (amount(0), "0"),
        (amount(999), "999"),
        (amount(1000), "1.0k"),
        (amount(123_456), "123k"),
        (amount(2_500_000), "2.5M"),
        (amount(7e9), "7.0G"),
        (rate(0), "0"),
        (rate(0.34), "0.3"),
        (rate(9.99), "10"),
        (rate(436_000), "436k"),
        (rate(None), "-"),
        (duration(None), "-"),
        (duration(0.0000005), "0.5 µs"),
        (duration(0.00123), "1.2 ms"),
        (duration(0.0456), "46 ms"),
        (duration(1.5), "1.5 s"),
        (duration(150), "2.5 min"),
        (share(0.004), "0.4 %"),
    ],
)
def test_figures_are_short_and_have_a_unit(text: str, expected: str) -> None:
    assert text == expected
