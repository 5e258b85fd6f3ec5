"""Whatever the SDK raises can be caught by a name that it exports."""

import ast
import builtins
from pathlib import Path

import plugin_sdk

ROOM = Path(plugin_sdk.__file__).parent
# Of no concern to those who use the SDK: each ends inside of it.
INSIDE = {"AttemptFailed", "AttemptMayBeRepeated", "Overrun", "_End"}


def test_every_exception_that_the_sdk_raises_is_exported() -> None:
    raised = {
        ast.unparse(node.exc.func)
        for file in ROOM.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    }
    ours = {name for name in raised if name.lstrip("_")[:1].isupper() and not hasattr(builtins, name)}
    assert "RequestFailed" in ours
    assert ours - INSIDE <= set(plugin_sdk.__all__)
