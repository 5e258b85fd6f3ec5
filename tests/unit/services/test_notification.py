"""notification sends mail to users over real SMTP, or into files, and always says what became of it."""

import asyncio
import email.policy
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from plugin_sdk import Plugin
from plugin_sdk.testing import Mesh, mesh
from services.notification.notification import Notification
from services.users.users import Users
from tests.unit.sdk.coroutines import until
from tests.unit.services.certificate import self_signed
from tests.unit.services.support import refusal, shipped_config

WELCOME = {"user_id": "12345", "text": "Welcome, user 12345!"}
FAST = {"wait_secs": 0.01}


def parsed(content: bytes) -> EmailMessage:
    message = BytesParser(policy=email.policy.default).parsebytes(content)
    assert isinstance(message, EmailMessage)
    return message


class Mailbox:
    """The handler of a real SMTP server: keeps mails, after giving the replies that the test has put down."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.logins: list[LoginPassword] = []
        self.replies: list[str] = []
        self.rcpt_replies: list[str] = []
        self.attempts: list[str] = []

    async def handle_RCPT(self, _: Any, __: Session, envelope: Envelope, address: str, ___: list[str]) -> str:  # noqa: N802
        if self.rcpt_replies:
            return self.rcpt_replies.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: Any, __: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        mail = parsed(content)
        self.attempts.append(str(mail["Message-ID"]))
        if self.replies:
            return self.replies.pop(0)
        self.mails.append(mail)
        return "250 OK"

    def authenticate(self, _: Any, __: Any, ___: Any, ____: str, login: Any) -> AuthResult:
        self.logins.append(login)
        # "handled" would mean that the refusal has been sent already.
        return AuthResult(success=login.password == b"secret", handled=False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


Serve = Callable[..., dict[str, Any]]


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def serve(mailbox: Mailbox) -> Iterator[Serve]:
    """Starts an SMTP server; returns the plugin's configuration for it."""
    running: list[Controller] = []

    def start(**how: Any) -> dict[str, Any]:
        server = Controller(mailbox, hostname="127.0.0.1", port=free_port(), **how)
        server.start()
        running.append(server)
        return {**FAST, "smtp": {"host": "127.0.0.1", "port": server.port, "starttls": False}}

    yield start
    for server in running:
        server.stop()


def outbox(plugin: Notification) -> list[EmailMessage]:
    """The mails in the files that transport `file` has written, oldest first."""
    return [parsed(path.read_bytes()) for path in sorted((plugin.data_dir / "outbox").glob("*.eml"))]


async def begin(m: Mesh, config: dict[str, Any]) -> Notification:
    await m.start(Users("users"), shipped_config("users"))
    plugin = Notification("notification")
    await m.start(plugin, config)
    return plugin


async def outcome_of(m: Mesh, subject: str, data: Any) -> tuple[str, dict[str, Any]]:
    """Publishes an event and returns what the plugin publishes about it."""
    client = await m.client()
    m.published.clear()
    await client.publish(subject, data)
    event = await m.published.wait("notification.*")
    return event.subject, event.data


async def test_a_welcome_is_sent_over_smtp(serve: Serve, mailbox: Mailbox) -> None:
    async with mesh() as m:
        await begin(m, serve())
        subject, sent = await outcome_of(m, "user.welcome", WELCOME)
    (mail,) = mailbox.mails
    assert (mail["To"], mail["From"]) == ("Ada Lovelace <ada@example.org>", "plugmesh <noreply@example.org>")
    assert mail["Subject"] == "Welcome"
    assert mail.get_content().splitlines() == ["Dear Ada Lovelace,", "", "Welcome, user 12345!"]
    assert subject == "notification.sent"
    assert sent == {
        "about": "user.welcome",
        "user_id": "12345",
        "transport": "smtp",
        "attempts": 1,
        "message_id": mail["Message-ID"],
    }


async def test_an_order_is_confirmed(serve: Serve, mailbox: Mailbox) -> None:
    async with mesh() as m:
        await begin(m, serve())
        subject, _ = await outcome_of(m, "order.created", {"user_id": "12345", "order_id": "A1", "total": 9.5})
    assert subject == "notification.sent"
    assert mailbox.mails[0]["Subject"] == "Your order A1"


async def test_without_a_server_the_mail_is_a_file_and_the_event_says_so() -> None:
    async with mesh() as m:
        plugin = await begin(m, shipped_config("notification"))
        subject, sent = await outcome_of(m, "user.welcome", WELCOME)
        assert (subject, sent["transport"]) == ("notification.sent", "file")
        (mail,) = outbox(plugin)
        assert mail["Message-ID"] == sent["message_id"]


async def test_the_outbox_keeps_the_newest_mails_only() -> None:
    async with mesh() as m:
        plugin = await begin(m, {"outbox_files": 2})
        for number in range(4):
            await outcome_of(m, "order.created", {"user_id": "12345", "order_id": str(number)})
        assert [mail["Subject"] for mail in outbox(plugin)] == ["Your order 2", "Your order 3"]


async def test_an_outbox_that_cannot_be_written_is_the_reason() -> None:
    async with mesh() as m:
        plugin = await begin(m, FAST)
        (plugin.data_dir / "outbox").write_text("in the way")
        subject, failed = await outcome_of(m, "user.welcome", WELCOME)
    assert (subject, failed["code"]) == ("notification.failed", "unavailable")
    assert failed["reason"].endswith("outbox: File exists")


async def test_a_server_that_says_try_again_is_tried_again_with_the_same_mail(serve: Serve, mailbox: Mailbox) -> None:
    mailbox.replies += ["451 try again", "451 try again"]
    async with mesh() as m:
        await begin(m, serve())
        subject, sent = await outcome_of(m, "user.welcome", WELCOME)
    assert (subject, sent["attempts"]) == ("notification.sent", 3)
    assert mailbox.attempts == [sent["message_id"]] * 3
    assert len(mailbox.mails) == 1


async def test_attempts_have_a_bound(serve: Serve, mailbox: Mailbox) -> None:
    mailbox.replies += ["451 try again"] * 10
    async with mesh() as m:
        await begin(m, serve())
        subject, failed = await outcome_of(m, "user.welcome", WELCOME)
    assert (subject, failed["code"]) == ("notification.failed", "unavailable")
    assert failed["reason"].endswith("451 try again")
    assert len(mailbox.attempts) == 3


@pytest.mark.parametrize("stage", ["replies", "rcpt_replies"])
async def test_a_refusal_for_good_is_not_tried_again(serve: Serve, mailbox: Mailbox, stage: str) -> None:
    getattr(mailbox, stage).append("550 no such mailbox")
    async with mesh() as m:
        await begin(m, serve())
        subject, failed = await outcome_of(m, "user.welcome", WELCOME)
        assert (subject, failed["code"]) == ("notification.failed", "rejected")
        assert failed["reason"].endswith("550 no such mailbox")
        assert (await outcome_of(m, "user.welcome", WELCOME))[0] == "notification.sent", "the service goes on"
    assert len(mailbox.mails) == 1


async def test_a_server_that_is_not_there_is_named_with_its_port() -> None:
    port = free_port()
    async with mesh() as m:
        await begin(m, {**FAST, "smtp": {"host": "127.0.0.1", "port": port}})
        _, failed = await outcome_of(m, "user.welcome", WELCOME)
    assert (failed["code"], failed["transport"]) == ("unavailable", "smtp")
    assert failed["reason"] == f"127.0.0.1:{port}: [Errno 111] Connection refused"


async def test_a_server_that_says_nothing_costs_a_bounded_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        smtp = {"host": "127.0.0.1", "port": mute.getsockname()[1], "timeout_secs": 0.1}
        async with mesh() as m:
            await begin(m, {**FAST, "smtp": smtp})
            _, failed = await outcome_of(m, "user.welcome", WELCOME)
    assert (failed["code"], failed["reason"].endswith("timed out")) == ("unavailable", True)


async def test_a_login_goes_over_tls_with_the_password_from_the_environment(
    tmp_path: Path, serve: Serve, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("SHOP_PASSWORD", "secret")
    config = serve(tls_context=server_context(certificate), require_starttls=True, authenticator=mailbox.authenticate)
    config["smtp"] |= {"host": "localhost", "starttls": True, "user": "shop", "password_env": "SHOP_PASSWORD"}
    async with mesh() as m:
        await begin(m, config)
        assert (await outcome_of(m, "user.welcome", WELCOME))[0] == "notification.sent"
        monkeypatch.setenv("SHOP_PASSWORD", "wrong")
        _, failed = await outcome_of(m, "user.welcome", WELCOME)
    assert mailbox.logins[0] == LoginPassword(b"shop", b"secret")
    assert failed["code"] == "rejected"
    assert "535" in failed["reason"]
    assert "wrong" not in str(failed)


async def test_a_server_whose_certificate_is_not_trusted_gets_no_mail(
    tmp_path: Path, serve: Serve, mailbox: Mailbox
) -> None:
    config = serve(tls_context=server_context(self_signed(tmp_path, "localhost")))
    config["smtp"] |= {"starttls": True}
    async with mesh() as m:
        await begin(m, config)
        _, failed = await outcome_of(m, "user.welcome", WELCOME)
    assert (failed["code"], "certificate verify failed" in failed["reason"]) == ("rejected", True)
    assert mailbox.mails == []


async def test_a_server_without_tls_gets_no_mail_in_clear(serve: Serve, mailbox: Mailbox) -> None:
    config = serve()
    config["smtp"] |= {"starttls": True}
    async with mesh() as m:
        await begin(m, config)
        _, failed = await outcome_of(m, "user.welcome", WELCOME)
    assert failed["code"] == "rejected"
    assert mailbox.mails == []


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_a_user_who_is_not_there_is_the_reason() -> None:
    async with mesh() as m:
        await begin(m, {})
        subject, failed = await outcome_of(m, "user.welcome", WELCOME | {"user_id": "nobody"})
    assert subject == "notification.failed"
    assert failed == {
        "about": "user.welcome",
        "user_id": "nobody",
        "transport": "file",
        "code": "not_found",
        "reason": "there is no user 'nobody'",
    }


async def test_users_may_come_later() -> None:
    async with mesh() as m:
        client = await m.client()
        await m.start(Notification("notification"))
        await client.publish("user.welcome", WELCOME)
        await m.settle()
        await m.start(Users("users"), shipped_config("users"))
        assert (await m.published.wait("notification.*")).subject == "notification.sent"


@pytest.mark.parametrize(
    ("subject", "data", "named"),
    [
        ("user.welcome", None, "user_id of user.welcome"),
        ("user.welcome", "12345", "user_id of user.welcome"),
        ("user.welcome", {"text": "hi"}, "user_id of user.welcome"),
        ("user.welcome", {"user_id": 12345, "text": "hi"}, "user_id of user.welcome"),
        ("user.welcome", {"user_id": "12345"}, "text of user.welcome"),
        ("user.welcome", {"user_id": "12345", "text": "x" * 5_000_000}, "text of user.welcome"),
        ("order.created", {"user_id": "12345"}, "order_id of order.created"),
        ("order.created", {"user_id": "12345", "order_id": ["A1"]}, "order_id of order.created"),
        ("order.created", {"user_id": "12345", "order_id": "A1\r\nBcc: all@example.org"}, "no mail can be addressed"),
    ],
)
async def test_an_event_that_makes_no_mail_is_answered_with_the_reason(subject: str, data: Any, named: str) -> None:
    async with mesh() as m:
        await begin(m, {})
        done, failed = await outcome_of(m, subject, data)
        assert done == "notification.failed"
        assert named in failed["reason"]
        assert (await outcome_of(m, "user.welcome", WELCOME))[0] == "notification.sent", "the service goes on"


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"name": "A"},
        {"name": 1, "email": 2},
        {"name": "A", "email": ""},
        {"name": "A", "email": "@"},
        {"name": "A\nB", "email": "a@b"},
        {"name": "A", "email": "a@b\nBcc: c@d"},
    ],
)
async def test_a_record_that_nobody_can_write_to_is_the_reason(answer: Any) -> None:
    users = Plugin("users")

    @users.service("get")
    async def get(user_id: str) -> Any:
        return answer

    async with mesh() as m:
        await m.start(users)
        await m.start(Notification("notification"))
        subject, failed = await outcome_of(m, "user.welcome", WELCOME)
    assert (subject, failed["code"]) == ("notification.failed", "failed")
    assert failed["reason"].startswith("no mail can be addressed to")


async def test_a_mail_that_is_not_finished_when_the_plugin_has_to_end_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with mesh() as m:
        client = await m.client()
        plugin = await begin(m, {"wait_secs": 60, "smtp": {"host": "127.0.0.1", "port": free_port()}})
        await client.publish("user.welcome", WELCOME)
        await until(lambda: "attempt 1: unavailable" in caplog.text)
        stopping = asyncio.create_task(m.stop(plugin))
        await m.advance(10)
        await stopping
        failed = (await m.published.wait("notification.failed")).data
    assert (failed["code"], failed["user_id"]) == ("shutting_down", "12345")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"sender": "nobody"}, "sender"),
        ({"attempts": 0}, "attempts"),
        ({"attempts": True}, "attempts"),
        ({"attempts": 2.5}, "attempts"),
        ({"wait_secs": "1"}, "wait_secs"),
        ({"wait_secs": float("nan")}, "wait_secs"),
        ({"smtp": {"starttls": "no"}}, "smtp.starttls"),
        ({"smtp": {"host": 7}}, "smtp.host"),
        ({"smtp": 7}, "mapping"),
        ({"colour": 1}, "colour"),
        ({"smtp": {"port": 0}}, "smtp.port"),
        ({"smtp": {"hots": "x"}}, "hots"),
        ({"smtp": {"host": "x", "user": "shop", "password_env": "NOT_SET_ANYWHERE"}}, "NOT_SET_ANYWHERE"),
        ({"smtp": {"host": "x", "user": "shop", "starttls": False}}, "smtp.starttls"),
    ],
)
async def test_a_bad_configuration_is_refused_by_the_name_of_the_setting(config: dict[str, Any], named: str) -> None:
    async with mesh() as m:
        code, text = await refusal(m.start(Notification("notification"), config))
        assert (code, named in text) == ("bad_config", True)
