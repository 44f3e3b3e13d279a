"""Services behind the proxy of an office and a private authority, under names that only the proxy knows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingestor.adapters.chroma_server import ChromaServer
from tests.daemon import KEY, Finished, Site, free_port, provider_settings
from tests.embedding_server import EmbeddingServer
from tests.network import Authority, Proxy, behind_tls

MODEL_HOST = "embeddings.example.test"
CHROMA_HOST = "chroma.example.test"
BASE_URL = f"https://{MODEL_HOST}/v1"
PASSWORD = "s3cret-of-the-proxy"  # noqa: S105 - no secret of anybody


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer(api_key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(server: EmbeddingServer, authority: Authority) -> Iterator[Proxy]:
    """The way to the endpoint: its name is known here alone, and what answers shows a certificate of the authority."""
    port = int(server.url.rpartition(":")[2])
    with (
        behind_tls(port, authority.context_for(MODEL_HOST)) as encrypted,
        Proxy({MODEL_HOST: encrypted}, f"me:{PASSWORD}") as proxy,
    ):
        yield proxy


@pytest.fixture
def site(tmp_path: Path, server: EmbeddingServer) -> Iterator[Site]:
    with Site(tmp_path, provider_settings(server, EMBEDDING__BASE_URL=BASE_URL)) as site:
        (site.folder / "a.txt").write_text("A file behind a proxy.", encoding="utf-8")
        yield site


def url_of(proxy: Proxy) -> str:
    return proxy.url.replace("//", f"//me:{PASSWORD}@")


def rows(site: Site, **settings: str) -> dict[str, dict[str, Any]]:
    done = site.command("config", "--json", **settings)
    assert done.code == 0, done.err
    found: dict[str, dict[str, Any]] = done.json()
    assert PASSWORD not in done.out
    return found


def about_embedding(done: Finished) -> list[str]:
    assert PASSWORD not in done.out + done.err
    return [f"{each['sentence']} - {each['remedy']}" for each in done.json() if each["name"] == "embedding"]


@pytest.mark.parametrize("by", ["variables", "settings"])
def test_an_endpoint_behind_a_proxy_and_a_private_authority_is_used(
    site: Site, proxy: Proxy, authority: Authority, server: EmbeddingServer, by: str
) -> None:
    settings = {
        "variables": {"HTTPS_PROXY": url_of(proxy), "NO_PROXY": "127.0.0.1", "SSL_CERT_FILE": str(authority.file)},
        "settings": {
            "INGESTOR_EMBEDDING__PROXY": url_of(proxy),
            "INGESTOR_EMBEDDING__CA_FILE": str(authority.file),
            "HTTPS_PROXY": "http://127.0.0.1:9",
        },
    }[by]
    before = server.counters.texts

    done = site.command("sync", "--json", **settings)

    assert done.code == 0, done.err
    assert PASSWORD not in done.out + done.err
    assert server.counters.texts > before
    assert f"CONNECT {MODEL_HOST}:443 HTTP/1.1" in proxy.asked
    named = rows(site, **settings)
    origin = {"variables": "HTTPS_PROXY (environment)", "settings": "environment"}[by]
    assert named["embedding.proxy"] == {"value": proxy.url, "origin": origin}
    origin = {"variables": "SSL_CERT_FILE (environment)", "settings": "environment"}[by]
    assert named["embedding.ca_file"] == {"value": str(authority.file), "origin": origin}
    told = "\n".join(about_embedding(site.command("doctor", "--json", **settings)))
    assert f"through the proxy {proxy.url}" in told
    assert {"variables": "HTTPS_PROXY", "settings": "embedding.proxy"}[by] in told
    assert str(authority.file) in told


def test_what_goes_wrong_on_the_way_is_told_with_the_proxy_and_the_remedy(
    site: Site, proxy: Proxy, authority: Authority, tmp_path: Path
) -> None:
    trusted = {"SSL_CERT_FILE": str(authority.file)}

    def doctor(**settings: str) -> str:
        done = site.command("doctor", "--json", **settings)
        assert done.code != 0
        return "\n".join(about_embedding(done))

    told = doctor(HTTPS_PROXY=url_of(proxy))
    assert "certificate" in told
    assert "issued by O=Example Org, CN=Example Root" in told
    assert "embedding.ca_file (or SSL_CERT_FILE)" in told
    told = doctor(**trusted, HTTPS_PROXY=proxy.url)
    assert f"{BASE_URL} through the proxy {proxy.url} is out of reach: 407" in told
    assert "look at that proxy (HTTPS_PROXY)" in told
    closed = f"http://me:{PASSWORD}@127.0.0.1:{free_port()}"
    assert "through the proxy http://127.0.0.1:" in doctor(**trusted, INGESTOR_EMBEDDING__PROXY=closed)
    told = doctor(**trusted, ALL_PROXY=f"socks5://me:{PASSWORD}@127.0.0.1:1080")
    assert "the proxy socks5://127.0.0.1:1080 (ALL_PROXY) speaks SOCKS" in told
    assert "embedding.proxy" in told
    told = doctor(HTTPS_PROXY=url_of(proxy), SSL_CERT_FILE=str(tmp_path / "missing.pem"))
    assert f"{tmp_path / 'missing.pem'} (SSL_CERT_FILE) cannot be read" in told


def test_a_proxy_that_is_no_http_proxy_is_refused_by_its_setting(site: Site) -> None:
    done = site.command("status", INGESTOR_EMBEDDING__PROXY=f"socks5://me:{PASSWORD}@127.0.0.1:1080")
    assert done.code == 2
    assert "embedding.proxy" in done.err
    assert "SOCKS" in done.err
    assert PASSWORD not in done.err


def test_a_chroma_elsewhere_is_reached_through_the_proxy_and_trusted_by_its_authority(
    site: Site, server: EmbeddingServer, authority: Authority, tmp_path: Path
) -> None:
    chroma = ChromaServer(tmp_path / "elsewhere", free_port())
    chroma.start()
    try:
        with (
            behind_tls(chroma.port, authority.context_for(CHROMA_HOST)) as encrypted,
            Proxy({CHROMA_HOST: encrypted}) as proxy,
        ):
            settings = {
                "INGESTOR_EMBEDDING__BASE_URL": server.base_url,
                "INGESTOR_CHROMA__MODE": "http",
                "INGESTOR_CHROMA__HOST": f"https://{CHROMA_HOST}",
                "INGESTOR_CHROMA__PORT": "443",
            }
            done = site.command("sync", **settings, HTTPS_PROXY=proxy.url)
            assert done.code == 4
            assert "issued by O=Example Org, CN=Example Root" in done.err
            assert "chroma.ca_file (or SSL_CERT_FILE)" in done.err
            for named in (
                {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(authority.file)},
                {"INGESTOR_CHROMA__PROXY": proxy.url, "INGESTOR_CHROMA__CA_FILE": str(authority.file)},
            ):
                done = site.command("sync", **settings, **named)
                assert done.code == 0, done.err
                assert rows(site, **settings, **named)["chroma.proxy"]["value"] == proxy.url
            assert f"CONNECT {CHROMA_HOST}:443 HTTP/1.1" in proxy.asked
            told = str(site.command("doctor", "--json", **settings, **named).json())
            assert f"through the proxy {proxy.url}" in told
    finally:
        chroma.stop()
    done = site.command("sync", **settings, HTTPS_PROXY=proxy.url, SSL_CERT_FILE=str(authority.file))
    assert done.code == 4
    assert f"through the proxy {proxy.url} is out of reach" in done.err
