"""Starts a gateway, gives it readings, and lets other people's programs judge what it answers.

Called by tests/api/run with the binary and the folder of the tools. Ends with 1 at the first thing that is wrong.
"""

import contextlib
import csv
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading

import requests
import trustme
from frictionless import Package, Schema
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

BINARY, TOOLS = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
HERE = pathlib.Path(__file__).resolve().parent
SECRET = "a long enough secret"
POINTS = [("heat", "gauge", "Cel", 1), ("count", "counter", "L", 0), ("door", "state", "1", 0)]
READINGS = 400


def configure(place):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(place / "authority.pem")
    for name, issued in [
        ("gateway", authority.issue_cert("localhost", "127.0.0.1")),
        ("central", authority.issue_cert("central")),
    ]:
        issued.private_key_pem.write_to_path(place / f"{name}.key")
        for blob in issued.cert_chain_pems:
            blob.write_to_path(place / f"{name}.pem", append=True)
    for key in place.glob("*.key"):
        key.chmod(0o600)
    devices = "".join(
        f"""
        [[device]]
        name = "{name}/hall"
        label = "Salle des fêtes, \\"{name}\\""
        driver = "mqtt"
        topic = "sensors/{name}"
        [[device.point]]
        name = "value"
        label = "Value"
        pointer = ""
        unit = "{unit}"
        kind = "{kind}"
        decimals = {decimals}
        """
        for name, kind, unit, decimals in POINTS
    )
    (place / "gateway.toml").write_text(
        f"""
        [commune]
        name = "Saint-Éxemple"
        gateway = "Salle des fêtes"
        [store]
        directory = "{place}/store"
        commit_within = "500 ms"
        [clock]
        trust = "always"
        [panel]
        listen = "127.0.0.1:0"
        [peers]
        listen = "127.0.0.1:0"
        certificate = "{place}/gateway.pem"
        key = "{place}/gateway.key"
        authority = "{place}/authority.pem"
        [[peers.peer]]
        name = "central"
        sharing = ["public", "internal"]
        [broker]
        listen = "127.0.0.1:0"
        [[broker.account]]
        name = "sensor"
        password = "{SECRET}"
        publish = ["sensors/#"]
        subscribe = ["clocher/#"]
        {devices}
        """
    )


class Gateway:
    """The real binary."""

    def __init__(self, place):
        self.process = subprocess.Popen(
            [BINARY, "run", "--config", place / "gateway.toml"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "CLOCHER_LOG": "info"},
        )
        self.heard, self.news = [], threading.Condition()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stderr:
            with self.news:
                self.heard.append(line)
                self.news.notify_all()

    def port(self, text):
        def found():
            for line in self.heard:
                if text in line and (port := re.search(r"address=\S*:(\d+)", line)):
                    return int(port[1])
            return None

        with self.news:
            ready = self.news.wait_for(found, timeout=60)
            assert ready, f"no {text!r} in:\n{''.join(self.heard)}"
            return ready

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=30)


def publish(port):
    for name, kind, _, _ in POINTS:
        lines = {"gauge": lambda n: 18 + n % 40 / 10, "counter": lambda n: 1000 + n, "state": lambda n: n % 2}[kind]
        told = "".join(f"{lines(n)}\n" for n in range(READINGS))
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-u", "sensor", "-P", SECRET]
        subprocess.run([*command, "-q", "1", "-t", f"sensors/{name}", "-l"], input=told, text=True, check=True)


@contextlib.contextmanager
def life(port):
    """A reading four times a second, so that long polls have something to wait for."""
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-u", "sensor", "-P", SECRET, "-t", "sensors/heat", "-l"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as sensor:
        over = threading.Event()

        def measure():
            while not over.wait(0.25):
                print(20.5, file=sensor.stdin, flush=True)

        measuring = threading.Thread(target=measure)
        measuring.start()
        try:
            yield
        finally:
            over.set()
            measuring.join()
            sensor.stdin.close()


def check_metrics(ask):
    old = ask("/metrics", Accept="text/plain")
    assert old.headers["content-type"].startswith("text/plain; version=0.0.4"), old.headers
    families = {family.name: family for family in prometheus(old.text)}
    new = ask("/metrics", Accept="application/openmetrics-text")
    assert new.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0"), new.headers
    strict = {family.name: family for family in openmetrics(new.text)}
    for families in (families, strict):
        gauges = {sample.labels["point"]: sample.value for sample in families["clocher_point_value"].samples}
        assert set(gauges) == {"heat/hall/value", "door/hall/value"}, gauges
        counted = families["clocher_point_index"].samples[0]
        assert (counted.name, counted.value) == ("clocher_point_index_total", 1000 + READINGS - 1), counted
    assert strict["clocher_store_size_bytes"].unit == "bytes"
    if promtool := shutil.which("promtool"):
        subprocess.run([promtool, "check", "metrics"], input=old.text, text=True, check=True)
    print(f"metrics: {len(strict)} families read by prometheus_client" + (", promtool agrees" if promtool else ""))


def check_days(ask, place):
    folder = place / "package"
    (folder / "days").mkdir(parents=True)
    package = ask("/v1/days").json()
    (folder / "days.json").write_text(json.dumps(package))
    (folder / "days" / "schema.json").write_text(ask("/v1/days/schema.json").text)
    rows = 0
    for day in package["resources"]:
        answer = ask(f"/v1/{day['path']}")
        (folder / day["path"]).write_bytes(answer.content)
        rows += len(list(csv.reader(io.StringIO(answer.content.decode(), newline=""), strict=True))) - 1
    assert rows == READINGS * len(POINTS), rows
    assert Schema.from_descriptor(json.loads((folder / "days" / "schema.json").read_text()))
    report = Package(str(folder / "days.json")).validate()
    assert report.valid, report.to_summary()
    print(f"days: {len(package['resources'])} of {rows} rows, valid by frictionless")


def check_senml(ask):
    path, values, packs = "/v1/observations?limit=500", 0, 0
    while path:
        answer = ask(path, Accept="application/senml+json")
        assert answer.headers["content-type"] == "application/senml+json"
        pack = answer.json()
        values += sum("v" in record for record in pack)
        packs += 1
        path = None if pack[-1]["vb"] else answer.links["next"]["url"]
    assert values == READINGS * len(POINTS), values
    print(f"senml: {values} values in {packs} packs")


def check_requests(ask, place, port):
    document = place / "openapi.json"
    document.write_text(subprocess.run([BINARY, "openapi"], check=True, capture_output=True, text=True).stdout)
    assert json.loads(document.read_text()) == ask("/v1/openapi.json").json()
    seconds = os.environ.get("API_SECONDS", "30")
    command = [TOOLS / "st", "--config-file", HERE / "schemathesis.toml", "run", document]
    command += ["--url", f"https://127.0.0.1:{port}", "--tls-verify", place / "authority.pem"]
    command += ["--request-cert", place / "central.pem", "--request-cert-key", place / "central.key"]
    command += ["--checks", "all", "--max-time", seconds, "--max-examples", "60", "--generation-allow-x00", "true"]
    if seed := os.environ.get("API_SEED"):
        command += ["--seed", seed]
    # Its database of examples and its reports stay with the rest.
    # Another authority named in the environment would go before ours.
    environment = {key: value for key, value in os.environ.items() if not key.endswith("CA_BUNDLE")}
    environment |= {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(command, check=True, cwd=place, env=environment)


def main():
    with tempfile.TemporaryDirectory(prefix="clocher-api-") as place:
        place = pathlib.Path(place)
        configure(place)
        gateway = Gateway(place)
        try:
            port = gateway.port("Peers may pull")
            broker = gateway.port("Broker ready")
            publish(broker)
            session = requests.Session()
            session.trust_env = False
            session.verify = str(place / "authority.pem")
            session.cert = (str(place / "central.pem"), str(place / "central.key"))

            def ask(path, **headers):
                answer = session.get(f"https://127.0.0.1:{port}{path}", headers=headers, timeout=60)
                assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
                return answer

            # The last publish was acknowledged, so all is on the card.
            check_metrics(ask)
            check_days(ask, place)
            check_senml(ask)
            with life(broker):
                check_requests(ask, place, port)
            assert ask("/v1/health").json()["conditions"]["alarm"] == 0
        except BaseException:
            print("".join(gateway.heard[-40:]), file=sys.stderr)
            raise
        finally:
            ended = gateway.stop()
        assert ended == 0, ended


if __name__ == "__main__":
    main()
