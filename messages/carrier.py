"""Brings a notice to its recipient, by the way that the recipient asks for."""

import json
import time
from dataclasses import dataclass
from typing import Any

from stoker.errors import InvalidInput, Undelivered
from stoker.jobs.allowance import Allowance
from stoker.jobs.deliveries import Notice, Receipt
from stoker.jobs.recipients import Webhook, recipient
from stoker.messages.mail import MailServer
from stoker.messages.webhook import Poster, signature
from stoker.settings import Settings


@dataclass(frozen=True, slots=True)
class Carrier:
    """What is allowed, and by what means."""

    allowance: Allowance
    poster: Poster
    mail: MailServer | None
    key: str | None  # signs where the team has no key of its own
    url: str | None  # where users reach the API

    @classmethod
    def of(cls, settings: Settings) -> "Carrier":
        """Raises SettingInvalid."""
        allowance = allowance_of(settings)
        mail = MailServer.of(settings.smtp_url, settings.smtp_from) if settings.smtp_url else None
        return cls(allowance, Poster(allowance), mail, settings.notify_key, settings.public_url)

    def carry(self, notice: Notice) -> Receipt:
        """Deliver; whatever goes wrong becomes one sentence for the job's owner."""
        try:
            to = recipient(notice.recipient)
            self.allowance.refuse(to, notice.registered)  # it may have changed since the submit
            if isinstance(to, Webhook):
                self._post(notice, to)
            elif self.mail is None:
                raise Undelivered("this server sends no mail: STOKER_SMTP_URL is not set", again=False)
            else:
                self.mail.send(to, headline(notice.document), self._text(notice), notice.id)
        except InvalidInput as refused:
            return Receipt(notice, refused.problem, again=False)
        except Undelivered as failed:
            return Receipt(notice, str(failed), again=failed.again)
        return Receipt(notice)

    def _post(self, notice: Notice, to: Webhook) -> None:
        if notice.key_unreadable:
            raise Undelivered("the team's secret NOTIFY_KEY cannot be opened with the server's STOKER_SECRET_KEY")
        document = {"delivery": notice.id, "text": self._text(notice), **notice.document, "link": self._link(notice)}
        body = json.dumps(document).encode()
        headers = {"Stoker-Delivery": str(notice.id)}
        if key := notice.key or self.key:
            headers["Stoker-Signature"] = signature(key, body, int(time.time()))
        self.poster.post(to, body, headers)

    def _link(self, notice: Notice) -> str | None:
        return f"{self.url.rstrip('/')}/api/v1/jobs/{notice.job_number}" if self.url else None

    def _text(self, notice: Notice) -> str:
        """What is said to people; chat servers show the field `text` of what is posted to them."""
        found = notice.document
        lines = [headline(found)]
        if found["accuracy"] is not None:
            lines.append(f"accuracy {100 * found['accuracy']:.1f} %")
        if found["failure"]:
            lines.append(f"failure: {found['failure']}")
        elif found["state"] != "succeeded":
            lines.append(f"reason: {found['reason']}")
        return "\n".join([*lines, *filter(None, [self._link(notice)])])


def allowance_of(settings: Settings) -> Allowance:
    """Whom the settings let jobs notify; raises SettingInvalid."""
    return Allowance.of(settings.notify, settings.notify_allow)  # type: ignore[arg-type]  # one of its choices


def headline(found: dict[str, Any]) -> str:
    """One line: which job, whose, and how it ended."""
    return f"Job {found['job']} {found['state']}: {found['name']} ({found['owner']}, team {found['team']})"
