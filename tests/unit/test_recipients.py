"""Who may be named in `notify`, and to which addresses a webhook may lead."""

import ipaddress

import pytest

from stoker.errors import InvalidInput, SettingInvalid
from stoker.jobs.allowance import Allowance
from stoker.jobs.recipients import Mailbox, Webhook, mailbox, recipient
from stoker.jobs.spec import parse_spec

INNER = (  # each leads to this machine, to its neighbours, or nowhere
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
    "192.0.0.8", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fd00::1",
    "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::10.0.0.1",
    "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:1:2:3:4:80ff:fffe", "2001:db8::1", "100::1",
)  # fmt: skip
OUTER = ("8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8")


def test_urls_and_addresses_are_read() -> None:
    assert recipient("https://Hooks.Lab/a/b?c=d") == Webhook(True, "hooks.lab", 443, "/a/b?c=d")
    assert recipient("http://[2606:4700::1]:8080") == Webhook(False, "2606:4700::1", 8080, "/")
    assert recipient("http://[2606:4700::1]:8080").shown == "http://[2606:4700::1]:8080"
    assert recipient("https://hooks.lab:443/secret").shown == "https://hooks.lab"
    assert recipient("Ada.L+x@Lab.org") == Mailbox("Ada.L+x", "lab.org")


@pytest.mark.parametrize(
    "text",
    [
        "", "ada", "@lab.org", "ada@", "ada lovelace@lab.org", "ada@lab.org\r\nBcc: eve@lab.org",
        "ada@lab.org,eve@x.y", '"ada"@lab.org', "<ada@lab.org>", "ada@lab..org", "ada@-lab.org", ".ada@lab.org",
        "ada@läb.org", "a" * 300 + "@b.c",
        "ftp://hooks.lab/", "file:///etc/passwd", "gopher://127.0.0.1:6379/_FLUSHALL", "https://", "https:///x",
        "https://user:pw@hooks.lab/", "https://hooks.lab@127.0.0.1/", "https://hooks.lab/#x", "https://hooks.lab\\@x/",
        "https://hooks.lab/a b", "https://hooks.lab/\r\nHost: x", "https://hooks.lab/\x00", "https://hoöks.lab/",
        "https://hooks.lab:0/", "https://hooks.lab:65536/", "https://hooks.lab:x/", "https://[fe80::1%25eth0]/",
        "https://2130706433/", "https://0x7f000001/", "https://127.1/", "https://0177.0.0.1/", "https://[::1",
        "https://" + "a" * 1000,
    ],
)  # fmt: skip
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="notify") as refused:
        parse_spec({"train": {"dataset": "digits"}, "notify": [text]})
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_a_spec_names_at_most_five_and_each_once() -> None:
    for wrong in (["a@b.c"] * 2, [f"a{n}@b.c" for n in range(6)], "a@b.c", [1]):
        with pytest.raises(InvalidInput, match="notify"):
            parse_spec({"train": {"dataset": "digits"}, "notify": wrong})
    assert parse_spec({"train": {"dataset": "digits"}, "notify": ["a@b.c"]}).document()["notify"] == ["a@b.c"]


@pytest.mark.parametrize("address", INNER)
def test_no_inner_address_is_public(address: str) -> None:
    hook, found = Webhook(True, "hooks.lab", 443, "/"), [ipaddress.ip_address(address)]
    assert Allowance("public").reachable(hook, found) == []
    written = f"[{address}]" if ":" in address else address
    with pytest.raises(InvalidInput, match="not allowed here"):
        Allowance("public").refuse(recipient(f"https://{written}/"), None)


def test_public_addresses_are_good_by_https_where_the_administrator_says_so() -> None:
    hook, found = Webhook(True, "hooks.lab", 443, "/"), [ipaddress.ip_address(one) for one in OUTER]
    assert Allowance().reachable(hook, found) == []
    assert Allowance("public").reachable(hook, found) == found
    assert Allowance("public").reachable(Webhook(False, "hooks.lab", 443, "/"), found) == []
    assert Allowance.of("listed", "hooks.lab").reachable(hook, found) == found
    for port in (22, 25, 80, 6379, 5432):
        assert Allowance("public").reachable(Webhook(True, "hooks.lab", port, "/"), found) == []
        with pytest.raises(InvalidInput, match=f"https://hooks.lab:{port} is not allowed here; take a public host"):
            Allowance("public").refuse(Webhook(True, "hooks.lab", port, "/"), None)
    with pytest.raises(InvalidInput, match=r"https://hooks.lab is not allowed here; an administrator may list it"):
        Allowance().refuse(hook, None)


def test_what_an_administrator_lists_is_good() -> None:
    listed = Allowance.of("public", "10.1.0.0/16, chat.lab [fd00::5]:9000  127.0.0.1:8099 @lab.org")

    def good(host: str, port: int, address: str) -> bool:
        return bool(listed.reachable(Webhook(False, host, port, "/"), [ipaddress.ip_address(address)]))

    assert good("any.lab", 443, "10.1.2.3")
    assert good("any.lab", 443, "::ffff:10.1.2.3")
    assert not good("any.lab", 22, "10.1.2.3")
    assert not good("any.lab", 443, "10.2.2.3")
    assert good("chat.lab", 8080, "192.168.7.7")
    assert not good("evil.lab", 8080, "192.168.7.7")
    assert not good("chat.lab", 80, "169.254.169.254"), "a name leads to no metadata, whoever listed it"
    assert good("x", 9000, "fd00::5")
    assert not good("x", 80, "fd00::5")
    assert good("127.0.0.1", 8099, "127.0.0.1")
    listed.refuse(recipient("http://127.0.0.1:8099/"), None)
    listed.refuse(recipient("eve@lab.org"), None)


def test_mail_goes_to_the_owner_or_to_a_listed_domain_alone() -> None:
    allowance = Allowance.of("public", "@lab.org")
    allowance.refuse(mailbox("ada@home.net"), "ada@home.net")
    for other in ("eve@home.net", "ada@sub.lab.org", "ada@notlab.org"):
        with pytest.raises(InvalidInput, match="neither your registered address nor of a listed domain"):
            allowance.refuse(mailbox(other), "ada@home.net")
    with pytest.raises(InvalidInput, match="STOKER_NOTIFY is none"):
        Allowance("none").refuse(mailbox("ada@home.net"), "ada@home.net")


@pytest.mark.parametrize("text", ["10.0.0.1/8", "300.1.1.1", "[x]", "a b://c", "@", "@-x", "hooks.lab:99999999", "*"])
def test_a_list_that_is_wrong_is_named(text: str) -> None:
    with pytest.raises(SettingInvalid, match="STOKER_NOTIFY_ALLOW"):
        Allowance.of("public", text)
