"""Sends mail to users: by SMTP, or into files as long as no server is configured."""

import asyncio
import os
import smtplib
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import make_msgid, parseaddr
from math import inf
from pathlib import Path
from typing import Any

from plugin_sdk import BusError, CallError, Event, Plugin

LONGEST_TEXT = 10_000  # characters
LONGEST_ID = 64
USERS_SECS = 10.0
_EXPECTED: dict[type, str] = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class SmtpSettings:
    """The `config.smtp` of plugin.yaml, where each is explained; raises ValueError for what makes no sense."""

    host: str = ""
    port: int = 587
    starttls: bool = True
    timeout_secs: float = 5.0
    user: str = ""
    password_env: str = ""

    def __post_init__(self) -> None:
        _check(self, "smtp.", {"port": (1, 65_535), "timeout_secs": (0.1, 60)})
        if self.user and not self.starttls:
            raise ValueError("smtp.user needs smtp.starttls: the password would travel in clear")
        if self.user and not os.environ.get(self.password_env):
            expected = f"the name of an environment variable that holds the password of {self.user!r}"
            raise ValueError(f"smtp.password_env is {self.password_env!r}; expects {expected}")


@dataclass(frozen=True)
class Settings:
    """The `config` of plugin.yaml, where each is explained; raises ValueError for what makes no sense."""

    sender: str = "plugmesh <noreply@example.org>"
    attempts: int = 3
    wait_secs: float = 0.5
    concurrency: int = 4
    outbox_files: int = 1000
    smtp: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = {"attempts": (1, 10), "wait_secs": (0, 60), "concurrency": (1, 100), "outbox_files": (1, 100_000)}
        _check(self, "", limits)
        if not self.domain:
            raise ValueError(f"sender is {self.sender!r}; expects an address such as 'Shop <shop@example.org>'")

    @property
    def domain(self) -> str:
        """The domain of the sender."""
        return parseaddr(self.sender)[1].partition("@")[2]


def _check(settings: Any, prefix: str, limits: Mapping[str, tuple[float, float]]) -> None:
    """A setting has the type of its default and is within its limits; raises ValueError."""
    for each in fields(settings):
        value, kind = getattr(settings, each.name), type(each.default)
        if kind in _EXPECTED and type(value) is not kind and (kind, type(value)) != (float, int):
            raise ValueError(f"{prefix}{each.name} is {value!r}; expects {_EXPECTED[kind]}")
        low, high = limits.get(each.name, (-inf, inf))
        if each.name in limits and not low <= value <= high:
            raise ValueError(f"{prefix}{each.name} is {value!r}; expects a number from {low} to {high}")


class SmtpTransport:
    """Hands mails to an SMTP server, over one connection each."""

    name = "smtp"

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings

    def send(self, mail: EmailMessage) -> None:
        """Send one mail; blocks. Raises CallError, with the code `rejected` when another attempt is no use."""
        try:
            self._converse(mail)
        except OSError as error:
            number, text = _smtp_reply(error)
            # RFC 5321 section 4.2.1: 4yz asks to try again, 5yz does not.
            final = number >= 500 or isinstance(error, smtplib.SMTPNotSupportedError | ssl.SSLCertVerificationError)
            reason = f"{self._settings.host}:{self._settings.port}: {text}"
            raise CallError("rejected" if final else "unavailable", reason) from error

    def _converse(self, mail: EmailMessage) -> None:
        settings = self._settings
        server = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_secs)
        try:
            if settings.starttls:
                server.starttls(context=ssl.create_default_context())
            if settings.user:
                server.login(settings.user, os.environ[settings.password_env])
            server.send_message(mail)
            # The mail is the server's now: what goes wrong after that must not send it a second time.
            with suppress(OSError):
                server.quit()
        finally:
            server.close()


def _smtp_reply(error: OSError) -> tuple[int, str]:
    """The reply code of the server, or 0 when there was none, and the reason for a person."""
    replies: list[tuple[int, bytes | str]] = []
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        replies += error.recipients.values()
    elif isinstance(error, smtplib.SMTPResponseException):
        replies.append((error.smtp_code, error.smtp_error))
    for number, reply in replies:
        return number, f"{number} {reply.decode(errors='replace') if isinstance(reply, bytes) else reply}"
    return 0, str(error) or type(error).__name__


class FileTransport:
    """Writes mails into a directory, for a demo without a server; keeps the newest ones."""

    name = "file"

    def __init__(self, outbox: Path, keep: int) -> None:
        self._outbox = outbox
        self._keep = keep

    def send(self, mail: EmailMessage) -> None:
        """Write one mail; blocks. Raises CallError."""
        try:
            self._outbox.mkdir(exist_ok=True)
            path = self._outbox / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{os.urandom(4).hex()}.eml"
            draft = path.with_suffix(".tmp")
            draft.write_bytes(mail.as_bytes())
            draft.replace(path)
            for old in sorted(self._outbox.glob("*.eml"))[: -self._keep]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise CallError("unavailable", f"{self._outbox}: {error.strerror}") from error


class Notification(Plugin):
    """Turns events about users into mails to them."""

    async def initialize(self, config: dict[str, Any]) -> None:
        """Take the settings, and choose the transport by them."""
        self._settings = Settings(**config)
        smtp = SmtpSettings(**self._settings.smtp)
        outbox = FileTransport(self.data_dir / "outbox", self._settings.outbox_files)
        self._transport = SmtpTransport(smtp) if smtp.host else outbox
        self._in_hand: list[dict[str, Any]] = []

    async def start(self) -> None:
        """Subscribe as a queue group: of several instances one sends the mail."""
        for subject in ("user.welcome", "order.created"):
            limit = self._settings.concurrency
            await self.bus.subscribe(subject, self.notify, group="notification", concurrency=limit)
        self.log.info("mails go by transport %r", self._transport.name)

    async def cleanup(self) -> None:
        """Give up the mails that could not be finished in the time for stopping, and say so."""
        for outcome in self._in_hand:
            failure = {"code": "shutting_down", "reason": "stopped while trying; the mail may have been sent"}
            await self.publish("notification.failed", outcome | failure)

    async def notify(self, event: Event) -> None:
        """Send the mail for one event, and publish what became of it."""
        outcome: dict[str, Any] = {"about": event.subject, "user_id": None, "transport": self._transport.name}
        self._in_hand.append(outcome)
        try:
            await self._notify(event, outcome)
        finally:
            self._in_hand.remove(outcome)

    async def _notify(self, event: Event, outcome: dict[str, Any]) -> None:
        try:
            outcome["user_id"] = user_id = _text_of(event, "user_id", LONGEST_ID)
            subject, text = compose(event)
            user = await self.call("users.get", {"user_id": user_id}, timeout=USERS_SECS, wait_ready=USERS_SECS)
            mail = self._mail(user, subject, text)
            outcome["attempts"] = await self._deliver(mail)
        except BusError as error:
            self.log.warning("no mail about %s to user %r: %s", event.subject, outcome["user_id"], error)
            await self.publish("notification.failed", outcome | {"code": error.code, "reason": error.text[:500]})
        else:
            await self.publish("notification.sent", outcome | {"message_id": str(mail["Message-ID"])})

    def _mail(self, user: Any, subject: str, text: str) -> EmailMessage:
        mail = EmailMessage()
        try:
            mail["To"] = Address(display_name=user["name"], addr_spec=user["email"])
            mail["From"] = self._settings.sender
            mail["Subject"] = subject
        except (LookupError, TypeError, ValueError, MessageError) as error:
            raise CallError("failed", f"no mail can be addressed to {user!r:.200}: {error}") from error
        mail["Date"] = datetime.now(UTC)
        # One id for all attempts shows a mail that came twice. Without a domain, make_msgid would wait for DNS.
        mail["Message-ID"] = make_msgid(domain=self._settings.domain)
        mail.set_content(f"Dear {user['name']},\n\n{text}\n")
        return mail

    async def _deliver(self, mail: EmailMessage) -> int:
        """Send it and return how many attempts that took; raises the CallError of the last one."""
        attempt = 1
        while True:
            try:
                await asyncio.to_thread(self._transport.send, mail)
                return attempt
            except CallError as error:
                if attempt == self._settings.attempts or not error.retry:
                    raise
                self.log.info("attempt %d: %s", attempt, error)
            await asyncio.sleep(self._settings.wait_secs * 2 ** (attempt - 1))
            attempt += 1


def compose(event: Event) -> tuple[str, str]:
    """Subject and text of the mail about an event; raises CallError when the event lacks what they need."""
    if event.subject == "order.created":
        order = _text_of(event, "order_id", LONGEST_ID)
        return f"Your order {order}", f"thank you for your order {order}."
    return "Welcome", _text_of(event, "text", LONGEST_TEXT)


def _text_of(event: Event, name: str, longest: int) -> str:
    value = event.data.get(name) if isinstance(event.data, dict) else None
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        expected = f"expects a text of 1 to {longest} characters"
        raise CallError("bad_request", f"{name} of {event.subject} is {value!r:.80}; {expected}")
    return value


if __name__ == "__main__":
    Notification("notification", version="1.0.0", requires=["users>=1.0"], description="Sends mail to users").run()
