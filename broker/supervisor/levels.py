"""The level of a line that a plugin wrote, however it is written: most programs say it near the beginning."""

import re

LEVELS = ("debug", "info", "warning", "error", "critical")
DEFAULT = "info"

# A level further to the right is part of what is said.
_REACH = 80

_WORDS = {
    "TRACE": "debug",
    "DEBUG": "debug",
    "INFO": "info",
    "NOTICE": "info",
    "WARN": "warning",
    "WARNING": "warning",
    "ERR": "error",
    "ERROR": "error",
    "CRIT": "critical",
    "CRITICAL": "critical",
    "FATAL": "critical",
    "PANIC": "critical",
}
_WORD = re.compile(rf"(?<![\w.])({'|'.join(_WORDS)})(?![\w.])")
# logfmt and JSON write it in lower case, with its name before it.
_NAMED = re.compile(r"""\b(?:level|severity|lvl)["']?\s*[=:]\s*["']?([A-Za-z]+)""")
_EXCEPTION = re.compile(r"(?:Traceback \(most recent call last\)|[\w.]*(?:Error|Exception)\b(?::|$)|panic: )")


def level_of(line: str, before: str = DEFAULT) -> str:
    """The level of one line.

    Args:
        line: without a line break.
        before: the level of the line before, which those that are indented belong to.
    """
    head = line[:_REACH]
    if named := _NAMED.search(head):
        return _WORDS.get(named[1].upper(), DEFAULT)
    if line[:1] in (" ", "\t"):
        return before
    if word := _WORD.search(head):
        return _WORDS[word[1]]
    return "error" if _EXCEPTION.match(head) else DEFAULT


def at_least(level: str, least: str) -> bool:
    """Whether a level is as grave as another one."""
    return LEVELS.index(level) >= LEVELS.index(least)
