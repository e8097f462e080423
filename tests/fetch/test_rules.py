import pytest

from services.core.errors import UrlRefused
from services.fetch.rules import FetchRules, check_address, check_url

RULES = FetchRules(("m.media-amazon.com", "*.shop.example", "covers.example:8443"))


@pytest.mark.parametrize(
    "url",
    [
        "https://m.media-amazon.com/images/I/1.jpg",
        "http://M.Media-Amazon.com/1.jpg",
        "https://cdn.shop.example/1.jpg",
        "https://covers.example:8443/1.jpg",
    ],
)
def test_an_image_on_an_allowed_host_may_be_fetched(url: str):
    assert check_url(url, RULES).host


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://m.media-amazon.com/1.jpg", "not http or https"),
        ("file:///etc/passwd", "not http or https"),
        ("//m.media-amazon.com/1.jpg", "not http or https"),
        ("https://other.example/1.jpg", "not on an allowed host"),
        ("https://m.media-amazon.com.evil.example/1.jpg", "not on an allowed host"),
        ("https://shop.example/1.jpg", "not on an allowed host"),
        ("https://evilshop.example/1.jpg", "not on an allowed host"),
        ("https://m.media-amazon.com:6379/1.jpg", "not on an allowed host"),
        ("https://covers.example/1.jpg", "not on an allowed host"),
        ("https://user:secret@m.media-amazon.com/1.jpg", "user name or password"),
        ("https://m.media-amazon.com@evil.example/1.jpg", "user name or password"),
        ("https:///1.jpg", "names no host"),
        ("http://2130706433/1.jpg", "as a number"),
        ("http://0x7f000001/1.jpg", "as a number"),
        ("http://0177.0.0.1/1.jpg", "Invalid IPv4"),
        ("http://127.1/1.jpg", "as a number"),
        ("http://127.0.0.1/1.jpg", "not on an allowed host"),
        ("http://[::1]/1.jpg", "not on an allowed host"),
        ("http://[not-an-address]/1.jpg", "not a URL"),
        ("http://m.media-amazon.com:port/1.jpg", "not a URL"),
        ("https://m.media-amazon.com/\x00", "not a URL"),
    ],
)
def test_any_other_address_is_refused_with_its_reason(url: str, reason: str):
    with pytest.raises(UrlRefused, match=reason):
        check_url(url, RULES)


def test_a_refusal_does_not_repeat_the_secrets_in_a_url():
    with pytest.raises(UrlRefused) as refused:
        check_url("https://u:hunter2@other.example/1.jpg?token=hunter2#hunter2", RULES)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(UrlRefused) as refused:
        check_url("https://u:hunter2/1.jpg", RULES)

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_reached(address: str):
    check_address(address, host="covers.example")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",  # cloud metadata
        "100.64.0.1",  # carrier-grade NAT
        "0.0.0.0",
        "168.63.129.16",  # the agent of an Azure host
        "192.0.0.8",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",  # IPv4-compatible
        "::ffff:127.0.0.1",  # IPv4-mapped
        "::ffff:169.254.169.254",
        "2002:7f00:1::",  # 6to4 of 127.0.0.1
        "64:ff9b::7f00:1",  # NAT64 of 127.0.0.1
        "64:ff9b:1::1",
        "2001:0:7f00:1::1",  # Teredo
        "fc00::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "localhost",
    ],
)
def test_addresses_that_are_not_public_are_refused_however_they_are_written(address: str):
    with pytest.raises(UrlRefused, match=r"covers\.example"):
        check_address(address, host="covers.example")
