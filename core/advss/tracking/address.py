"""Where ``advss ui`` listens, and by which names its pages may be asked for.

MLflow's server answers only what is asked for by a name that it was told, and takes changes only from pages of such a
name, so that no other page in somebody's browser can reach it.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import psutil

from advss.errors import UsageError

HOST, PORT = "127.0.0.1", 5000
EXPECTED = f"expected an address or a name of this machine, such as {HOST}, ::1, or 0.0.0.0 for all that it has"
HERE = ("localhost", HOST, "[::1]")
HERE_PATTERNS = ("localhost:*", f"{HOST}:*", "[[]::1]:*")  # as fnmatch reads them
ALLOWED, ORIGINS = "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Attributes:
        host: a name or an address.
        number: its address.
        port: of it.
    """

    host: str
    number: str
    port: int

    @property
    def local(self) -> bool:
        """Whether it can be reached from this machine only."""
        return ip_address(self.number).is_loopback

    @property
    def url(self) -> str:
        """How this machine reaches it."""
        here = {"0.0.0.0": HOST, "::": "::1"}
        return self.url_of(here.get(self.number, self.host))

    @property
    def url_elsewhere(self) -> str:
        """How other machines may reach it, where that is by another name."""
        return self.url_of(socket.gethostname()) if ip_address(self.number).is_unspecified else ""

    def url_of(self, name: str) -> str:
        """The address of the pages by one of the names."""
        return f"http://{_bracketed(name)}:{self.port}"

    def options(self) -> list[str]:
        """What lets its names in; where the environment says which, that counts."""
        if self.local:
            return []
        names = [_bracketed(name) for name in self._names()]
        hosts = [*HERE, *HERE_PATTERNS, *names, *(f"{name}:{self.port}" for name in names)]
        said = {"--allowed-hosts": (ALLOWED, hosts), "--cors-allowed-origins": (ORIGINS, map(self.url_of, names))}
        unsaid = [(option, values) for option, (variable, values) in said.items() if not os.environ.get(variable)]
        return [word for option, values in unsaid for word in (option, ",".join(values))]

    def _names(self) -> list[str]:
        """By which names and addresses it can be asked for."""
        if not ip_address(self.number).is_unspecified:
            return list(dict.fromkeys([self.host.lower(), self.number]))
        every = [address for addresses in psutil.net_if_addrs().values() for address in addresses]
        numbers = [a.address.partition("%")[0] for a in every if a.family in (socket.AF_INET, socket.AF_INET6)]
        return list(dict.fromkeys([socket.gethostname().lower(), socket.getfqdn().lower(), *numbers]))


def find_address(host: str | None, port: int | None) -> Address:
    """Where to listen, of which it is known that it can be done.

    Raises:
        UsageError: the host is not this machine's, or the port is in use.
    """
    named, wanted = (HOST if host is None else host.strip().removeprefix("[").removesuffix("]")), port or PORT
    try:
        if not named:
            raise OSError("it is empty")
        family, _, _, _, where = socket.getaddrinfo(named, wanted, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host: '{host}' cannot be used ({_reason(error)}); {EXPECTED}") from error
    _check_free(family, where, host or HOST)
    return Address(named, str(where[0]), wanted)


def _check_free(family: socket.AddressFamily, where: tuple[Any, ...], host: str) -> None:
    try:
        with socket.socket(family) as probe:
            # Without it, a port that a server has just left counts as taken for a minute.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise UsageError(f"--host: '{host}' cannot be used ({_reason(error)}); {EXPECTED}") from error
        with socket.socket(family) as other:
            other.bind((where[0], 0, *where[2:]))
            free = other.getsockname()[1]
        raise UsageError(f"port {where[1]} cannot be used ({_reason(error)}); try --port {free}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name
