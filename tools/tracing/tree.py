"""A trace as a tree, for a terminal."""

from collections.abc import Iterator, Sequence

from tools.tracing.receiver import Span


def roots(spans: Sequence[Span]) -> list[Span]:
    """The spans whose parents are not among them, in the order in which they began."""
    ids = {span.span_id for span in spans}
    return _in_order([span for span in spans if span.parent_id not in ids])


def children(span: Span, spans: Sequence[Span]) -> list[Span]:
    """The spans below one, in the order in which they began."""
    return _in_order([each for each in spans if each.parent_id == span.span_id])


def render(spans: Sequence[Span]) -> str:
    """All spans of one trace, a line each: name, who, kind, when it began after the first, how long it took."""
    first = min(span.began for span in spans)
    lines = [line for root in roots(spans) for line in _lines(root, spans, first, "", "")]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {rest}" for name, rest in lines)


def _lines(span: Span, spans: Sequence[Span], first: int, lead: str, below: str) -> Iterator[tuple[str, str]]:
    times = f"+{(span.began - first) / 1e6:7.2f} ms {(span.ended - span.began) / 1e6:8.2f} ms"
    failure = f"  {span.attributes.get('error.type', 'failed')}" if span.failed else ""
    yield lead + span.name, f"{span.service:<12} {span.kind:<8} {times}{failure}"
    found = children(span, spans)
    for each in found:
        last = each is found[-1]
        yield from _lines(each, spans, first, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))


def _in_order(spans: Sequence[Span]) -> list[Span]:
    return sorted(spans, key=lambda span: span.began)
