"""A central server: an authority made by openssl, a certificate of its own, and pulls over mutual TLS."""

import http.client
import json
import pathlib
import ssl
import subprocess

NAME = "central"


class Central:
    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"]
        self._openssl(
            *("req", "-x509", *key, "-keyout", "authority.key", "-out", "authority.pem", "-subj", "/CN=Essai"),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
        self._openssl(*("req", *key, "-keyout", "central.key", "-out", "central.csr", "-subj", f"/CN={NAME}"))
        (folder / "client.ext").write_text(
            f"basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n"
            f"subjectAltName=DNS:{NAME}\n"
        )
        self._openssl(
            *("x509", "-req", "-in", "central.csr", "-CA", "authority.pem", "-CAkey", "authority.key"),
            *("-days", "3650", "-set_serial", "2", "-extfile", "client.ext", "-out", "central.pem"),
        )

    def _openssl(self, *words: str):
        # A month old: as a central server's, it was made before the card, whose clock may be right only later.
        done = subprocess.run(["faketime", "-f", "-30d", "openssl", *words], cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"openssl {words[0]}: {done.stderr}")

    @property
    def authority(self) -> str:
        return (self.folder / "authority.pem").read_text()

    def page(self, port: int, path: str) -> list[dict]:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(self.folder / "central.pem", self.folder / "central.key")
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
        except (ssl.SSLError, http.client.HTTPException) as cause:
            raise OSError(str(cause)) from cause
        finally:
            connection.close()
        if answer.status != 200:
            raise AssertionError(f"{path} answers {answer.status}: {body[:300]}")
        return [json.loads(line) for line in body.splitlines()]

    def pull(self, port: int) -> list[dict]:
        """Every reading and gap the gateway has."""
        lines: list[dict] = []
        after = ""
        while True:
            *more, last = self.page(port, f"/v1/observations?limit=5000{after}")
            lines += more
            if last["complete"]:
                return lines
            after = f"&after={last['next']}"


def seqs(lines: list[dict]) -> list[int]:
    return [line["seq"] for line in lines if "seq" in line]


def of_point(lines: list[dict], point: str) -> list[float]:
    return [line["result"] for line in lines if line.get("point") == point]
