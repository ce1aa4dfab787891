"""A root shell in the running system that no image contains: its unit comes as a systemd credential on the kernel's
command line and talks over a virtio port, or a USB adapter on a Pi, which has no such port. One command at a time; output and exit code come back, base64 on one line.
"""

import base64
import re
import shlex
import socket
import time

# Early, of its own, and gone with the system: it must answer also when the rest does not start.
UNIT = """[Unit]
DefaultDependencies=no
[Service]
StandardInput=null
ExecStart=/bin/bash -c 'modprobe -q virtio_console; p=; until [ "$p" ]; do for p in /dev/vport* /dev/serial/by-id/*_probe-*; do [ -c $p ] && break; p=; done; sleep .1; done; exec 3<>$p; [ -t 3 ] && stty raw -echo <&3; echo ready >&3; while read -r l <&3; do echo $l | base64 -d >/run/probe; o=$(bash /run/probe 2>&1 | base64 -w0; exit $${PIPESTATUS[0]}); echo "$? $o" >&3; done'
"""


class Failed(AssertionError):
    """A command of the probe ended with another code than 0."""


class Probe:
    def __init__(self, wire: socket.socket, alive):
        self._wire, self._alive = wire, alive
        self._heard = b""
        self.is_ready = False

    def _line(self, timeout: float) -> str:
        end = time.monotonic() + timeout
        self._wire.settimeout(0.5)
        while b"\n" not in self._heard:
            try:
                chunk = self._wire.recv(1 << 16)
            except TimeoutError:
                chunk = None
            if chunk == b"" or not self._alive():
                raise AssertionError("the machine has gone while it was asked")
            if chunk is None and time.monotonic() > end:
                raise AssertionError(f"no answer of the probe within {timeout:.0f} s")
            self._heard += chunk or b""
        line, self._heard = self._heard.split(b"\n", 1)
        return line.decode()

    def ready(self, timeout: float = 600):
        """Waits until the shell is there."""
        while not self.is_ready:
            self.is_ready = self._line(timeout).strip() == "ready"

    def tell(self, command: str):
        """Sends a command and does not wait."""
        self.ready()
        self._wire.sendall(base64.b64encode(command.encode()) + b"\n")

    def ask(self, command: str, timeout: float = 120) -> tuple[int, bytes]:
        """Exit code and output."""
        self.tell(command)
        code, _, output = self._line(timeout).partition(" ")
        return int(code), base64.b64decode(output)

    def run(self, command: str, timeout: float = 120) -> str:
        """The output; a code other than 0 is a failure."""
        code, output = self.ask(command, timeout)
        text = output.decode(errors="replace")
        if code != 0:
            raise Failed(f"`{command}` ended with {code}: {text.strip()}")
        return text

    def holds(self, command: str) -> bool:
        return self.ask(command)[0] == 0

    # -- questions every scenario asks ---------------------------------------------------------------------------------

    def failed_units(self) -> list[str]:
        listed = self.run("systemctl list-units --failed --plain --no-legend")
        return [line.split()[0] for line in listed.splitlines() if line.strip()]

    def resident(self, unit: str) -> int:
        """Bytes of memory the main process of a unit holds."""
        status = self.run(f"cat /proc/$(systemctl show -P MainPID {shlex.quote(unit)})/status")
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024

    def memory(self) -> dict[str, int]:
        """/proc/meminfo in bytes."""
        lines = self.run("cat /proc/meminfo").splitlines()
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}

    def journal(self, words: str = "-b --no-pager") -> str:
        return self.run(f"journalctl {words}")
