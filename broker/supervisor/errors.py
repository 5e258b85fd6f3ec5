"""What the supervisor raises, and what it understands when a plugin answers with an error."""

from plugin_sdk.wire.errors import BusError


class SupervisorError(BusError):
    """An order to the supervisor was not carried out; `code` is one of the wire's registry."""


class CommandError(BusError):
    """A life-cycle command ended without a result; raised by the implementation of `Mesh`."""


# Asking again cannot help: a person has to change the configuration or the program first.
FINAL_CODES = frozenset({"bad_config", "disabled", "bad_version", "bad_name"})
