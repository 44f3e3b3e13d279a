"""TLS: the authorities that certificates are checked against, and the issuer of one that is not trusted.

Part of the adapters that speak HTTP with other machines.
"""

import ssl
from types import ModuleType
from typing import Any, Final

from ingestor.core.certificates import issuer_of
from ingestor.core.errors import ConfigError, ServiceUnavailable
from ingestor.core.network import Route, Trust

_EXPIRED: Final = 10
_OTHER_NAME: Final = 62
"""Of OpenSSL's results of a verification, X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_HOSTNAME_MISMATCH."""
_LOOK_SECONDS: Final = 5.0
"""How long each wait for a certificate that nobody trusts may take."""


def client_options(http: ModuleType, url: str, route: Route) -> dict[str, Any]:
    """What makes a client of `http` (httpx or httpx2) take a route to a URL, and read no variable of the environment.

    Takes up to 80 ms where there is TLS. Raises `ConfigError` for a file of authorities that cannot be read or holds
    none.
    """
    proxy = route.proxy
    is_plain = not any(each.startswith("https:") for each in (url, proxy.url if proxy else ""))
    # An address without TLS does without certificates, with a context that trusts nobody.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if is_plain else _context_of(route.trust)
    return {"trust_env": False, "verify": context, "proxy": _proxied(http, route, context)}


def _proxied(http: ModuleType, route: Route, context: ssl.SSLContext) -> Any:  # noqa: ANN401 - of either library
    proxy = route.proxy
    if proxy is None:
        return None
    return http.Proxy(proxy.url, ssl_context=context if proxy.url.startswith("https:") else None)


def _context_of(trust: Trust) -> ssl.SSLContext:
    """What connections are held against: the files of the environment, else the usual authorities, and one's own."""
    if trust.file or trust.folder:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        import httpx  # noqa: PLC0415 - 0.1 s, and not everybody's

        context = httpx.create_ssl_context(trust_env=False)
        # Those that the administrator of this machine has added, which other programs trust as well.
        context.load_default_certs()
    if trust.folder:
        context.load_verify_locations(capath=trust.folder)  # OpenSSL reads it while it verifies
    for file, origin in ((trust.file, "SSL_CERT_FILE"), (trust.own_file, trust.own_origin)):
        if file:
            _load(context, file, origin)
    return context


def certificate_fault(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """The refusal of a certificate among the causes of an error."""
    seen = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _remedy(fault: ssl.SSLCertVerificationError, setting: str) -> str:
    if fault.verify_code == _EXPIRED:
        return "have it renewed, or set the clock of this machine"
    if fault.verify_code == _OTHER_NAME:
        return "check the URL: the certificate is that of another name"
    return f"if you trust its issuer, set {setting} (or SSL_CERT_FILE) to a PEM file with the issuer's certificate"


def distrust(url: str, route: Route, fault: ssl.SSLCertVerificationError, setting: str) -> ServiceUnavailable:
    """The error for a service whose certificate was refused, with its issuer, which one more connection shows.

    That connection trusts everybody, and carries no key and no text. It is an outage: a network that wants a login
    first, as that of a hotel, shows a certificate of its own. `setting` can name an authority.
    """
    named = f"the certificate of {route.described(url)} is not trusted: {fault.verify_message}"
    issuer = _issuer_at(url, route)
    return ServiceUnavailable(
        f"{named}, issued by {issuer}" if issuer else named,
        remedy=_remedy(fault, setting),
    )


def _issuer_at(url: str, route: Route) -> str:
    """The issuer of a service's certificate; "" where that cannot be learnt."""
    import httpx  # noqa: PLC0415 - as above

    everybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    everybody.check_hostname = False
    everybody.verify_mode = ssl.CERT_NONE
    proxy = _proxied(httpx, route, everybody)
    try:
        with (
            httpx.Client(verify=everybody, proxy=proxy, trust_env=False, timeout=_LOOK_SECONDS) as client,
            client.stream("HEAD", httpx.URL(url).copy_with(raw_path=b"/", username="", password="")) as answer,
        ):
            connection = answer.extensions["network_stream"].get_extra_info("ssl_object")
            certificate = connection.getpeercert(True) if connection else None  # noqa: FBT003 - takes it by place alone
    except (httpx.HTTPError, httpx.InvalidURL, OSError):
        return ""
    return issuer_of(certificate) if certificate else ""


def _load(context: ssl.SSLContext, file: str, origin: str) -> None:
    remedy = f"set {origin} to a file of certificates in PEM form"
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as error:
        raise ConfigError(f"the file {file} ({origin}) holds no certificate", remedy=remedy) from error
    except OSError as error:
        raise ConfigError(f"the file {file} ({origin}) cannot be read: {error.strerror}", remedy=remedy) from error
