"""Welcomes users who log in: the smallest plugin that does something useful."""

from plugin_sdk import CallError, Event, Plugin

LONGEST_TEXT = 200  # characters

plugin = Plugin("hello", version="1.0.0", requires=["logger>=1.0"], description="Welcomes users who log in")


@plugin.subscribe("user.login")
async def on_login(event: Event) -> None:
    """Answer a login with `user.welcome`; an event without a usable user id is refused and logged by the SDK."""
    data = event.data if isinstance(event.data, dict) else {}
    user_id = _text(data.get("user_id"), "user_id of user.login")
    await plugin.publish("user.welcome", {"user_id": user_id, "text": f"Welcome, user {user_id}!"})
    await plugin.publish("log.hello", {"level": "info", "message": "user welcomed", "fields": {"user_id": user_id}})


@plugin.service("greet")
async def greet(name: str) -> str:
    """Return a greeting for `name`."""
    return f"Hello, {_text(name, 'name')}!"


def _text(value: object, what: str) -> str:
    """What comes from the bus may be anything: check it before it travels on."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_TEXT:
        raise CallError("bad_request", f"{what} is {value!r:.80}; expects a text of 1 to {LONGEST_TEXT} characters")
    return value


if __name__ == "__main__":
    plugin.run()
