"""What the tests of the shipped services share."""

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugin_sdk import CallError

SERVICES = Path(__file__).parents[3] / "services"


async def refusal(call: Awaitable[object]) -> tuple[str, str]:
    """Code and text of the error that the call ends with."""
    with pytest.raises(CallError) as caught:
        await call
    return caught.value.code, caught.value.text


def shipped_config(name: str) -> dict[str, Any]:
    """The `config` of the plugin's own manifest."""
    manifest = yaml.safe_load((SERVICES / name / "plugin.yaml").read_text())
    config: dict[str, Any] = manifest.get("config", {})
    return config
