"""Teams, users, tokens, quotas and usage, as an administrator keeps them from Python."""

from typing import Any
from urllib.parse import quote

from stoker.client.job import pages
from stoker.client.transport import Transport
from stoker.jobs.documents import check

Item = dict[str, Any]


class Administration:
    """``client.administration``: each call is one request; changes take an administrator (Forbidden)."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def teams(self) -> list[Item]:
        """One's own team; for administrators all."""
        return list(pages(self._transport, "/teams"))

    def add_team(self, name: str, weight: float = 1.0) -> Item:
        """Add a team; raises InvalidInput, Conflict."""
        return self._send("POST", "/teams", name=name, weight=weight)

    def set_team(self, name: str, weight: float) -> Item:
        """Give a team another weight; raises InvalidInput, NotFound."""
        return self._send("PATCH", f"/teams/{_part(name)}", weight=weight)

    def remove_team(self, name: str) -> None:
        """Remove a team to which nothing belongs; raises NotFound, Conflict."""
        self._transport.send("DELETE", f"/teams/{_part(name)}")

    def users(self) -> list[Item]:
        """The users of one's own team; for administrators all."""
        return list(pages(self._transport, "/users"))

    def add_user(self, name: str, team: str, role: str = "member", email: str | None = None) -> Item:
        """Add a user; raises InvalidInput, NotFound for the team, Conflict."""
        return self._send("POST", "/users", name=name, team=team, role=role, email=email)

    def set_user(
        self,
        name: str,
        *,
        team: str | None = None,
        role: str | None = None,
        disabled: bool | None = None,
        email: str | None = None,
    ) -> Item:
        """Move a user, give another role or mail address ("" for none), let them sign in no more.

        Raises InvalidInput, NotFound, Conflict for the last admin.
        """
        return self._send("PATCH", f"/users/{_part(name)}", team=team, role=role, disabled=disabled, email=email)

    def tokens(self, user: str | None = None) -> list[Item]:
        """One's own tokens, or those of a user."""
        return list(pages(self._transport, "/tokens", user=user))

    def add_token(self, name: str, *, user: str | None = None, expires: str | float | None = None) -> Item:
        """Make a token, shown this once; ``expires`` such as "30d"."""
        return self._send("POST", "/tokens", name=name, user=user, expires=expires)

    def remove_token(self, number: int, *, user: str | None = None) -> None:
        """Take a token out of use; raises NotFound."""
        self._transport.send("DELETE", f"/tokens/{number}", user=user)

    def quotas(self) -> list[Item]:
        """The quotas of one's own team; for administrators all."""
        return list(pages(self._transport, "/quotas"))

    def set_quota(self, team: str, pool: str = "default", **changes: float | None) -> Item:
        """Change gpus, cpus (guaranteed), gpus_limit, cpus_limit (None: no limit); what is left out stays.

        Raises InvalidInput when a pool cannot guarantee so much, NotFound.
        """
        document = {"team": team, "pool": pool, **changes}
        check(document)
        answer: Item = self._transport.send("PATCH", "/quotas", document)
        return answer

    def remove_quota(self, team: str, pool: str = "default") -> None:
        """Guarantee a team nothing in a pool; raises NotFound."""
        self._transport.send("DELETE", "/quotas", team=team, pool=pool)

    def pools(self) -> list[Item]:
        """The pools of workers: name, fractions, workers."""
        return list(pages(self._transport, "/pools"))

    def set_pool(self, name: str, *, fractions: bool) -> Item:
        """Let jobs ask for a part of a GPU in a pool, or no longer; raises NotFound."""
        return self._send("PATCH", f"/pools/{_part(name)}", fractions=fractions)

    def usage(self, by: str = "team", since: str = "7d") -> Item:
        """What was used since so long ago, by "team" or "user": since, until, items."""
        answer: Item = self._transport.get("/usage", by=by, since=since)
        return answer

    def _send(self, method: str, path: str, **fields: Any) -> Item:
        document = {name: value for name, value in fields.items() if value is not None}
        check(document)
        answer: Item = self._transport.send(method, path, document)
        return answer


def _part(name: str) -> str:
    return quote(name, safe="")
