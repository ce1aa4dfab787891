#!/usr/bin/env python3
"""A binary built for ARM, tried on a PC: what it asks of the system it will meet, then its main job under qemu-user, from
an MQTT message and pulses on a simulated pin to the readings pulled over mutual TLS: in a hall of ours, and in the
demonstration.

Serial lines are not tried here: qemu-user does not pass their ioctls on. `image/test` tries them in the booted image.

    tests/arm/check.py target/aarch64-unknown-linux-gnu/release/clocher
"""

import itertools
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Longer than anything here takes on a busy machine; a wait that reaches it is a failure.
PATIENCE = 180
LARGEST = 12_000_000
# What Debian 12, and with it Raspberry Pi OS "bookworm", has.
NEWEST_C_LIBRARY = (2, 36)
# Each is part of any Debian: packages libc6 and libgcc-s1.
LIBRARIES = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-aarch64.so.1", "ld-linux-armhf.so.3"}
# Machine of the ELF header: how it runs here.
EMULATORS = {
    "AArch64": ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"],
    "ARM": ["qemu-arm-static", "-L", "/usr/arm-linux-gnueabihf"],
}

PASSWORD = "a long enough secret"
HALL = """
[commune]
name = "Montclar"
[store]
directory = "{place}/store"
commit_within = "500 ms"
[clock]
trust = "always"
[gpio]
backend = "simulated"
control = "{place}/pins"
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
password = "{password}"
publish = ["sensors/#"]
[[device]]
name = "air/hall"
label = "Air"
driver = "mqtt"
topic = "sensors/air"
[[device.point]]
name = "co2"
label = "CO2"
pointer = "/co2"
unit = "[ppm]"
decimals = 0
[[device]]
name = "water/hall"
label = "Water"
driver = "pulse"
pin = 17
litres_per_pulse = 1
index = 100
report_every = "1 s"
"""


def main(binary):
    machine = asks_little_of_its_system(binary)
    clocher = [*EMULATORS[machine], str(binary)]
    says_its_version(clocher)
    reads_every_configuration(clocher)
    does_its_main_job(clocher)
    shows_its_demonstration(clocher)


def asks_little_of_its_system(binary):
    """Size, libraries and the age of the C library; gives the machine it is for."""
    size = binary.stat().st_size
    expect(size <= LARGEST, f"{size} bytes, more than {LARGEST}")
    read = run("readelf", "--wide", "--file-header", "--dynamic", "--version-info", "--sections", str(binary))
    machine = re.search(r"Machine: +(\w+)", read)[1]
    expect(machine in EMULATORS, f"made for {machine}")
    expect(".symtab" not in read, "not stripped")
    # Two builds in two places are to be the same bytes.
    places = [f"{ROOT}/src/", f"{os.environ.get('CARGO_HOME') or Path.home() / '.cargo'}/registry/"]
    # What image/arm puts in their place.
    places = [place for place in places if place not in ("/clocher/src/", "/cargo/registry/")]
    held = [place for place in places if place.encode() in binary.read_bytes()]
    expect(not held, f"names {held}, where it was built")
    libraries = set(re.findall(r"Shared library: \[(.+?)\]", read))
    expect(libraries <= LIBRARIES, f"asks for {libraries - LIBRARIES}")
    versions = {tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_(\d+\.\d+)", read)}
    newest = max(versions)
    expect(newest <= NEWEST_C_LIBRARY, f"asks for glibc {newest}, newer than {NEWEST_C_LIBRARY}")
    told = ".".join(map(str, newest))
    print(f"{size} bytes for {machine}, glibc {told} or newer, {', '.join(sorted(libraries))}")
    return machine


def says_its_version(clocher):
    wanted = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    said = run(*clocher, "--version").strip()
    expect(said == f"clocher {wanted}", f"its version is {said!r}, not {wanted}")
    print(said)


def reads_every_configuration(clocher):
    files = sorted((ROOT / "config").glob("*.toml"))
    with tempfile.TemporaryDirectory() as place:
        for file in files:
            # The words `clocher demo` fills in, config/demo.toml.
            words = {"PLACE": place, "PANEL": "127.0.0.1:8443", "ANY": "127.0.0.1:0", "PASSWORD": PASSWORD}
            words |= {"TIC": "/dev/ttyUSB0", "MODBUS": "/dev/ttyUSB1"}
            copy = Path(place, file.name)
            copy.write_text(re.sub("@([A-Z]+)@", lambda word: words[word[1]], file.read_text()))
            run(*clocher, "check", "--config", str(copy))
    print(f"{len(files)} configurations are sound")


def does_its_main_job(clocher):
    with tempfile.TemporaryDirectory(prefix="clocher-arm-") as place:
        make_certificates(place)
        Path(place, "gateway.toml").write_text(HALL.format(place=place, password=PASSWORD))
        began = time.monotonic()
        gateway = Running(*clocher, "run", "--config", f"{place}/gateway.toml")
        try:
            broker, peers = gateway.port("Broker ready"), gateway.port("Peers may pull")
            account = ["-u", "sensor", "-P", PASSWORD]
            # Acknowledged at QoS 1: on the card.
            run("mosquitto_pub", "-h", "127.0.0.1", "-p", broker, *account, "-q", "1", "-t", "sensors/air", "-m", '{"co2":812}')
            Path(place, "pins").open("w").write("17 pulse 5\n")
            pull(clocher, place, peers, {"air/hall/co2": 812, "water/hall/index": 105})
            took = time.monotonic() - began
            gateway.stop()
        finally:
            gateway.end()
    print(f"from start to the pulled readings of a message and five pulses: {took:.0f} s under qemu-user")


def shows_its_demonstration(clocher):
    """Its central server has pulled a litre and the air; the two serial meters are told as unplugged."""
    with tempfile.TemporaryDirectory(prefix="clocher-arm-") as place:
        demo = Running(*clocher, "demo", "--port", "0", "--directory", place, "--link-up", "86400")
        try:
            next(line for line in demo.lines() if "Panneau" in line)
            pulled = Path(place, "central.jsonl")
            until = time.monotonic() + PATIENCE
            wanted = {"water/hall/index", "air/hall/co2"}
            while not wanted <= (points := points_of(pulled)):
                expect(time.monotonic() < until, f"the demonstration's central server has pulled only {points}")
                time.sleep(0.2)
            demo.stop()
        finally:
            demo.end()
    print(f"the demonstration's central server has pulled {', '.join(sorted(points))}")


def points_of(pulled):
    lines = pulled.read_text().split("\n")[:-1] if pulled.exists() else []
    return {json.loads(line).get("point") for line in lines}


def pull(clocher, place, port, wanted):
    """Pulls, as a central server does, until the last result of each point is the wanted one."""
    files = ["--certificate", f"{place}/central.pem", "--key", f"{place}/central.key"]
    files += ["--authority", f"{place}/authority.pem", "--cursor", f"{place}/cursor"]
    puller = Running(*clocher, "pull", f"https://127.0.0.1:{port}", *files, "--follow")
    last = {}
    try:
        for line in puller.lines():
            if line.startswith("{"):
                reading = json.loads(line)
                last[reading.get("point")] = reading.get("result")
            if last.items() >= wanted.items():
                return
    finally:
        puller.end()


def make_certificates(place):
    """An authority, the gateway's certificate and a central server's, by openssl."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run("openssl", "req", "-x509", *key, "-keyout", f"{place}/authority.key", "-out", f"{place}/authority.pem", "-days", "2",
        "-subj", "/CN=Test")
    signed = ["-CA", f"{place}/authority.pem", "-CAkey", f"{place}/authority.key", "-days", "2"]
    for name, names, usage in (("gateway", "IP:127.0.0.1", "serverAuth"), ("central", "DNS:central", "clientAuth")):
        extensions = ["-addext", f"subjectAltName={names}", "-addext", f"extendedKeyUsage={usage}",
                      "-addext", "basicConstraints=critical,CA:FALSE"]
        run("openssl", "req", "-x509", *key, "-keyout", f"{place}/{name}.key", "-out", f"{place}/{name}.pem",
            "-subj", f"/CN={name}", *signed, *extensions)


class Running:
    """A process that is listened to."""

    def __init__(self, *command):
        self.said = []
        self.heard = queue.Queue()
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.heard.put(line)
        self.heard.put(None)

    def lines(self):
        """What it says, from its first word on; a failure once it has ended or patience has."""
        until = time.monotonic() + PATIENCE
        for number in itertools.count():
            if number == len(self.said):
                self.said.append(self.next_line(until))
            yield self.said[number]

    def next_line(self, until):
        try:
            line = self.heard.get(timeout=max(0, until - time.monotonic()))
        except queue.Empty:
            line = None
        expect(line is not None, f"nothing more from {' '.join(self.process.args)}; heard:\n{''.join(self.said)}")
        return line

    def port(self, text):
        """The port in a line such as `Panel ready address=127.0.0.1:43211`."""
        line = next(line for line in self.lines() if text in line)
        return re.search(r"address=\S+:(\d+)", line)[1]

    def stop(self):
        """Asks it to end, and expects it to end well."""
        self.process.terminate()
        code = self.process.wait(PATIENCE)
        expect(code == 0, f"ended with {code}")

    def end(self):
        self.process.kill()
        self.process.wait()


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    expect(done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def expect(truth, otherwise):
    if not truth:
        sys.exit(otherwise)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
