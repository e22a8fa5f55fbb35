"""One mail to a recipient, by the administrator's own server."""

import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from urllib.parse import unquote, urlsplit

from stoker.errors import InvalidInput, SettingInvalid, Undelivered
from stoker.jobs.recipients import Mailbox, mailbox
from stoker.log import Events

log = Events("stoker.mail")
SETTING = "STOKER_SMTP_URL"
SECONDS = 10.0  # for each wait
PORTS = {"smtp": 587, "smtps": 465, "smtp+plain": 25}


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed in, and as whom."""

    scheme: str  # smtp: TLS after STARTTLS, which is required; smtps: TLS from the start; smtp+plain: none
    host: str
    port: int
    user: str | None
    password: str | None
    sender: Mailbox

    @classmethod
    def of(cls, url: str, sender: str | None) -> "MailServer":
        """Read STOKER_SMTP_URL and STOKER_SMTP_FROM.

        Raises SettingInvalid, which does not show the URL: it holds a password.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in PORTS or parts.path not in {"", "/"} or parts.query:
            fix = "write smtp://user:password@host:587, smtps:// or smtp+plain://"
            raise SettingInvalid(SETTING, "is not understood", fix)
        if parts.password and parts.scheme == "smtp+plain":
            raise SettingInvalid(SETTING, "would send its password in clear", "use smtp:// or smtps://")
        if sender is None:
            raise SettingInvalid("STOKER_SMTP_FROM", "is not set", "name the address that mail comes from")
        try:
            own = mailbox(sender, "STOKER_SMTP_FROM")
        except InvalidInput as wrong:
            raise SettingInvalid(wrong.field, wrong.problem, wrong.fix) from None
        user, password = (unquote(part) if part else None for part in (parts.username, parts.password))
        return cls(parts.scheme, host, port or PORTS[parts.scheme], user, password, own)

    def send(self, to: Mailbox, subject: str, text: str, notification: int) -> None:
        """Hand in one mail. Its id is made of the notification's, so that one that comes twice can be told.

        Raises Undelivered.
        """
        message = EmailMessage(policy=SMTP)  # which refuses line breaks in a header
        message["From"], message["To"], message["Subject"] = self.sender.shown, to.shown, subject
        message["Message-ID"] = f"<stoker-{notification}@{self.sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        try:
            with self._connect() as server:
                server.send_message(message, self.sender.shown, [to.shown])
        except smtplib.SMTPRecipientsRefused as refused:
            code = next(iter(refused.recipients.values()))[0]
            raise Undelivered(f"the mail server refuses the address ({code})", again=code < 500) from None
        except smtplib.SMTPResponseException as refused:
            raise Undelivered(f"the mail server refuses it ({refused.smtp_code})") from None
        except (smtplib.SMTPException, OSError) as error:
            log.warning("mail_server_failed", error=f"{type(error).__name__}: {error}"[:300])  # for its administrator
            raise Undelivered("the mail server did not take it") from None

    def _connect(self) -> smtplib.SMTP:
        tls = ssl.create_default_context()
        if self.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(self.host, self.port, timeout=SECONDS, context=tls)
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=SECONDS)
        try:
            if self.scheme == "smtp":
                server.starttls(context=tls)
            if self.user is not None:
                server.login(self.user, self.password or "")
        except BaseException:
            server.close()
            raise
        return server
