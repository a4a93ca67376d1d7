"""The simulator, nginx and tinyproxy as processes of their own."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from string import Template

from .certificates import Certificate
from .processes import HOST, Server, free_port, until
from .record import Asked

PROXY_USER, PROXY_PASSWORD = "walker", "swordfish"
OUTSIDE_HOST = "simulator.test"
"""A host that is not loopback by its name; only the proxy knows where it is."""

_FORMAT = json.dumps(
    {
        "task_id": "$task_id",
        "status": "$status",
        "ended": "$msec",
        "took": "$request_time",
        "connection": "$connection",
        "encoding": "$sent_http_content_encoding",
        "via": "$http_via",
    }
)
_NGINX = Template("""
user root;
daemon off;
worker_processes 2;
pid $folder/nginx.pid;
error_log $folder/error.log info;
events { worker_connections 2048; }
http {
    client_body_temp_path $folder;
    proxy_temp_path $folder;
    fastcgi_temp_path $folder;
    uwsgi_temp_path $folder;
    scgi_temp_path $folder;
    map $$uri $$task_id { ~([^/]+)$$ $$1; }
    log_format record escape=json '$format';
    access_log $folder/access.log record;
    $http
    server {
        listen $host:$port $tls;
        proxy_next_upstream off;
        $server
        location / { proxy_pass http://$host:$upstream; }
    }
}
""")
_TLS = "ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;"
_TINYPROXY = """
Port {port}
Listen {host}
Timeout 60
MaxClients 400
LogLevel Error
Allow {host}
BasicAuth {user} {password}
ConnectPort {connect}
"""


class Simulator(Server):
    """The API. Killed and started again, it knows the same tasks and is at the same port."""

    def __init__(self, within: Path, *, latency_s: float) -> None:
        folder, port = within / "simulator", free_port()
        folder.mkdir()
        program = ("-m", f"{__package__}.program_simulator", str(port), str(folder), str(latency_s))
        super().__init__([sys.executable, *program], folder=folder, port=port)

    async def asked(self) -> list[Asked]:
        """Stop it, and give what it was asked since it was last started."""
        await self.stop()
        rows = json.loads((self.folder / "asked.json").read_text())
        return [Asked(**row) for row in rows]


class Nginx(Server):
    """nginx as a reverse proxy of the simulator."""

    def __init__(
        self,
        within: Path,
        upstream: int,
        *,
        http: str = "",
        server: str = "",
        certificate: Certificate | None = None,
    ) -> None:
        folder, port = within / "nginx", free_port()
        folder.mkdir()
        command = ["nginx", "-p", str(folder), "-e", "error.log", "-c", "nginx.conf"]
        super().__init__(command, folder=folder, port=port)
        self.scheme = "http" if certificate is None else "https"
        if certificate is not None:
            certificate.install(folder)
            server += _TLS.format(folder=folder)
        text = _NGINX.substitute(
            folder=folder,
            format=_FORMAT,
            host=HOST,
            port=port,
            upstream=upstream,
            http=http,
            server=server,
            tls="" if certificate is None else "ssl",
        )
        (folder / "nginx.conf").write_text(text)

    @property
    def base_url(self) -> str:
        """Its address."""
        return f"{self.scheme}://{HOST}:{self.port}"

    @property
    def outside_url(self) -> str:
        """Its address for those who go through the proxy."""
        return f"{self.scheme}://{OUTSIDE_HOST}:{self.port}"

    def reload(self, certificate: Certificate | None = None) -> None:
        """Read the configuration again, with another certificate if one is given."""
        if certificate is not None:
            certificate.install(self.folder)
        self.send(signal.SIGHUP)

    async def answers(self, status: int, *, at_least: int) -> None:
        """Wait until so many queries were answered with a status."""
        word = f'"status": "{status}"'
        await until(lambda: self._log("access.log").count(word) >= at_least)

    async def more_answers(self, count: int) -> None:
        """Wait for so many answers more."""
        before = self._log("access.log").count("\n")
        await until(lambda: self._log("access.log").count("\n") >= before + count)

    @property
    def refused_handshakes(self) -> int:
        """How many clients have refused the certificate, but for who only looked if it listens."""
        log = self._log("error.log")
        return log.count("while SSL handshaking") - log.count("client closed connection while SSL")

    async def asked(self) -> list[Asked]:
        """Stop it, as it notes a query after its answer, and give all that it has answered."""
        await self.stop()
        return [_asked(json.loads(line)) for line in self._log("access.log").splitlines()]

    def _log(self, name: str) -> str:
        return (self.folder / name).read_text()


def _asked(row: dict[str, str]) -> Asked:
    ended = float(row.pop("ended"))
    started = ended - float(row.pop("took"))
    return Asked(started=started, ended=ended, status=int(row.pop("status")), **row)


class Tinyproxy(Server):
    """A forward proxy with a password, which alone can resolve `OUTSIDE_HOST`."""

    def __init__(self, within: Path, *, connect: int) -> None:
        folder, port = within / "tinyproxy", free_port()
        folder.mkdir()
        text = _TINYPROXY.format(
            port=port,
            host=HOST,
            folder=folder,
            user=PROXY_USER,
            password=PROXY_PASSWORD,
            connect=connect,
        )
        (folder / "tinyproxy.conf").write_text(text)
        (folder / "hosts").write_text(f"{HOST} {OUTSIDE_HOST}\n")
        super().__init__(
            ["tinyproxy", "-d", "-c", str(folder / "tinyproxy.conf")],
            folder=folder,
            port=port,
            environment={
                "LD_PRELOAD": "libnss_wrapper.so",
                "NSS_WRAPPER_HOSTS": str(folder / "hosts"),
            },
        )

    @property
    def url(self) -> str:
        """What `HTTP_PROXY` or `HTTPS_PROXY` is set to."""
        return f"http://{PROXY_USER}:{PROXY_PASSWORD}@{HOST}:{self.port}"
