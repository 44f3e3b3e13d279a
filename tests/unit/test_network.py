"""Which proxy the settings and the environment name for a URL, and how a Chroma server may be named."""

import pytest

from ingestor.core.certificates import issuer_of
from ingestor.core.errors import ConfigError
from ingestor.core.network import Route, proxy_of, route_to, server_url

HERE = "http://proxy.example:3128"
THERE = "https://api.example/v1"


def proxy_to(url: str, **environ: str) -> str:
    proxy = route_to(url, environ, group="embedding").proxy
    return f"{proxy.shown} ({proxy.origin})" if proxy else ""


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        (THERE, {"HTTPS_PROXY": HERE}, f"{HERE} (HTTPS_PROXY)"),
        (THERE, {"https_proxy": HERE}, f"{HERE} (https_proxy)"),
        (THERE, {"https_proxy": HERE, "HTTPS_PROXY": "http://other"}, f"{HERE} (https_proxy)"),
        (THERE, {"HTTP_PROXY": HERE}, ""),
        ("http://api.example/v1", {"HTTP_PROXY": HERE}, f"{HERE} (HTTP_PROXY)"),
        (THERE, {"ALL_PROXY": HERE}, f"{HERE} (ALL_PROXY)"),
        (THERE, {"ALL_PROXY": "socks5://127.0.0.1:1080", "HTTPS_PROXY": HERE}, f"{HERE} (HTTPS_PROXY)"),
        (THERE, {"HTTPS_PROXY": "", "all_proxy": HERE}, f"{HERE} (all_proxy)"),
        (THERE, {"HTTPS_PROXY": "proxy.example:3128"}, f"{HERE} (HTTPS_PROXY)"),
        (THERE, {"HTTPS_PROXY": "https://u:p@proxy.example"}, "https://proxy.example (HTTPS_PROXY)"),
        ("http://127.0.0.1:8000/v1", {"HTTP_PROXY": HERE}, ""),
        ("http://localhost:11434/v1", {"ALL_PROXY": HERE}, ""),
        ("http://[::1]:11434/v1", {"ALL_PROXY": HERE}, ""),
        (THERE, {"HTTPS_PROXY": HERE, "NO_PROXY": "*"}, ""),
        (THERE, {"HTTPS_PROXY": HERE, "no_proxy": "other, api.example"}, ""),
        (THERE, {"HTTPS_PROXY": HERE, "NO_PROXY": "example"}, ""),
        (THERE, {"HTTPS_PROXY": HERE, "NO_PROXY": ".example"}, ""),
        (THERE, {"HTTPS_PROXY": HERE, "NO_PROXY": "*.example"}, ""),
        (THERE, {"HTTPS_PROXY": HERE, "NO_PROXY": "API.Example:443"}, ""),
        (THERE, {"HTTPS_PROXY": HERE, "NO_PROXY": "api.example:444"}, f"{HERE} (HTTPS_PROXY)"),
        (THERE, {"HTTPS_PROXY": HERE, "NO_PROXY": "pi.example,,[,http://"}, f"{HERE} (HTTPS_PROXY)"),
        ("https://10.1.2.3/v1", {"HTTPS_PROXY": HERE, "NO_PROXY": "10.0.0.0/8"}, ""),
        ("https://10.1.2.3/v1", {"HTTPS_PROXY": HERE, "NO_PROXY": "10.1.2.4"}, f"{HERE} (HTTPS_PROXY)"),
        ("https://[fd00::1]/v1", {"HTTPS_PROXY": HERE, "NO_PROXY": "fd00::/8"}, ""),
    ],
)
def test_the_environment_names_the_proxy_of_a_url(url: str, environ: dict[str, str], expected: str) -> None:
    assert proxy_to(url, **environ) == expected


def test_a_setting_goes_before_the_environment_and_none_is_no_proxy() -> None:
    environ = {"HTTPS_PROXY": "http://other", "NO_PROXY": "*"}
    route = route_to(THERE, environ, group="embedding", proxy=HERE)
    assert route.proxy is not None
    assert (route.proxy.shown, route.proxy.origin) == (HERE, "embedding.proxy")
    assert route.described(THERE) == f"{THERE} through the proxy {HERE}"
    assert route_to(THERE, {"HTTPS_PROXY": HERE}, group="embedding", proxy="none").proxy is None
    assert route_to("http://127.0.0.1/v1", {}, group="embedding", proxy=HERE).proxy is None


def test_a_password_is_carried_and_never_shown() -> None:
    proxy = proxy_of("http://me:s3%40cret@proxy.example:3128", "HTTPS_PROXY")
    assert proxy.url == "http://me:s3%40cret@proxy.example:3128"
    assert "s3" not in repr(Route(proxy)) + proxy.shown
    for wrong in ("socks5://me:s3cret@h:1", "ftp://me:s3cret@h", "http://me:s3cret@h:port", "http://me:s3cret@"):
        with pytest.raises(ConfigError) as caught:
            proxy_of(wrong, "ALL_PROXY", "embedding.proxy")
        assert "s3cret" not in caught.value.sentence
        assert "ALL_PROXY" in str(caught.value)
        assert "embedding.proxy" in caught.value.remedy


def test_certificates_are_those_of_the_variables_and_one_s_own() -> None:
    environ = {"SSL_CERT_FILE": "/a.pem", "SSL_CERT_DIR": "/b"}
    route = route_to(THERE, environ, group="chroma", ca_file="/own.pem")
    assert route.trust.named() == [
        ("/own.pem", "chroma.ca_file"),
        ("/a.pem", "SSL_CERT_FILE"),
        ("/b", "SSL_CERT_DIR"),
    ]


@pytest.mark.parametrize(
    ("host", "port", "is_encrypted", "url"),
    [
        ("chroma.example", None, False, "http://chroma.example:8000"),
        ("chroma.example", 80, True, "https://chroma.example:80"),
        ("chroma.example:9000", None, False, "http://chroma.example:9000"),
        ("chroma.example:9000", 9000, False, "http://chroma.example:9000"),
        ("::1", 9000, False, "http://[::1]:9000"),
        ("[::1]", 9000, False, "http://[::1]:9000"),
        ("[::1]:9000", None, False, "http://[::1]:9000"),
        ("http://[::1]:9000", None, False, "http://[::1]:9000"),
        ("https://chroma.example", None, False, "https://chroma.example"),
        ("https://chroma.example/", None, True, "https://chroma.example"),
        ("http://chroma.example", 9000, False, "http://chroma.example:9000"),
        ("http://chroma.example:9000/chroma/", None, False, "http://chroma.example:9000/chroma"),
        ("chroma.example/chroma", 9000, False, "http://chroma.example:9000/chroma"),
        ("httpd", None, False, "http://httpd:8000"),
    ],
)
def test_a_server_is_named_by_host_address_or_url(host: str, port: int | None, is_encrypted: bool, url: str) -> None:  # noqa: FBT001 - a parameter of a test
    assert server_url(host, port, is_encrypted=is_encrypted) == url


@pytest.mark.parametrize(
    ("host", "port", "is_encrypted", "words"),
    [
        ("chroma.example:9000", 8000, False, "names port 9000"),
        ("http://chroma.example", None, True, "begins with http://"),
        ("ftp://chroma.example", None, False, "must begin with"),
        ("http://me:pw@chroma.example", None, False, "chroma.token"),
        ("http://chroma.example/?x=1", None, False, "chroma.token"),
        ("chroma.example:port", None, False, "neither a host"),
        ("::1:port", None, False, "neither a host"),
        ("a b", None, False, "neither a host"),
        ("http://", None, False, "neither a host"),
    ],
)
def test_a_server_that_cannot_be_named_so_is_refused(
    host: str,
    port: int | None,
    is_encrypted: bool,  # noqa: FBT001 - a parameter of a test
    words: str,
) -> None:
    with pytest.raises(ValueError, match=words):
        server_url(host, port, is_encrypted=is_encrypted)


@pytest.mark.parametrize(
    "data", [b"", b"\x30", b"\x30\x80\x00\x00", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x01\x02"]
)
def test_bytes_that_are_no_certificate_have_no_issuer(data: bytes) -> None:
    assert issuer_of(data) == ""
