"""A virtual Raspberry Pi of sorts: QEMU's `virt` board with the cores of a Pi 3 and its card, started as the Pi's
firmware starts it, with kernel, initramfs and command line taken out of the boot partition.

Nothing is put on the card. What the tests need in the running system comes from outside: a unit given as a systemd
credential on the kernel's command line starts a shell on a virtio port (see `probe`).

`Wiring(pi=True)` is QEMU's Raspberry Pi 3 B instead, with the Pi's own device tree, SD host, USB, pins and watchdog: slower,
its pins hear nothing and its card cannot be cut, but what is the Pi's about the image is seen. No test sees the firmware that
a real Pi runs before Linux.
"""

import base64
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field

from card import Card
from probe import UNIT, Probe

# TCG on two busy cores: what takes a Pi seconds may take minutes.
BOOT_TIMEOUT = 600


@dataclass
class Wiring:
    """What is plugged in."""

    cable: bool = True
    meter: bool = True
    clock: str = "utc"
    memory: str = "512M"
    cores: int = 2
    time_server: bool = False
    accelerated: bool = False
    pi: bool = False
    more_append: list[str] = field(default_factory=list)


# source: the name the firmware looks for on a 3 B with `upstream_kernel=1`.
DEVICE_TREE = "bcm2837-rpi-3-b.dtb"


@dataclass(frozen=True)
class BootFiles:
    kernel: pathlib.Path
    initrd: pathlib.Path
    device_tree: pathlib.Path
    line: str


def boot_files(card: Card, folder: pathlib.Path) -> BootFiles:
    """What the Pi's firmware finds by `config.txt`."""
    settings, initramfs = {}, None
    for line in card.text("config.txt").splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("initramfs "):
            initramfs = line.split()[1]
        elif "=" in line:
            key, value = line.split("=", 1)
            settings.setdefault(key.strip(), value.strip())
    prefix = settings.get("os_prefix", "")
    kernel, initrd, device_tree = folder / "kernel", folder / "initrd", folder / "device-tree"
    kernel.write_bytes(card.read(prefix + settings.get("kernel", "kernel8.img")))
    device_tree.write_bytes(card.read(prefix + DEVICE_TREE))
    if initramfs is None:
        raise AssertionError("config.txt names no initramfs")
    initrd.write_bytes(card.read(prefix + initramfs))
    named = settings.get("cmdline", "cmdline.txt")
    line = card.text(prefix + named if card.has(prefix + named) else named)
    return BootFiles(kernel, initrd, device_tree, " ".join(line.split()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Machine:
    """One boot, from power to power cut. Use as a context: whatever happens, no QEMU is left behind."""

    PORTS = {"panel": 443, "peers": 8444, "mqtt": 8883}

    def __init__(self, card: Card, folder: pathlib.Path, wiring: Wiring | None = None):
        self.card, self.folder, self.wiring = card, folder, wiring or Wiring()
        self.ports = {name: free_port() for name in self.PORTS}
        self.console = folder / "console.log"
        self.started = 0.0
        self.process: subprocess.Popen | None = None
        self.probe: Probe | None = None
        self._answers = b""

    # -- power ---------------------------------------------------------------------------------------------------------

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()

    def start(self) -> "Machine":
        files = boot_files(self.card, self.folder)
        drive = self.card.insert(slot="sd" if self.wiring.pi else "virtio")
        for name in ("qmp", "probe", "meter"):
            (self.folder / name).unlink(missing_ok=True)
        command = ["qemu-system-aarch64", *self._board(), *drive, *self._network(), *self._wires()]
        command += ["-kernel", str(files.kernel), "-initrd", str(files.initrd), "-append", self._append(files.line)]
        command += ["-dtb", str(files.device_tree)] if self.wiring.pi else []
        command += ["-S"]
        self.console.write_bytes(b"")
        errors = open(self.folder / "qemu.log", "wb")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        errors.close()
        self._open_qmp()
        if not self.wiring.cable:
            self.plug(False)
        self.probe = Probe(self.connect("probe"), self.alive)
        self.started = time.monotonic()
        self.qmp("cont")
        return self

    def _board(self) -> list[str]:
        wiring = self.wiring
        board = ["-display", "none", "-monitor", "none", "-no-reboot", "-nodefaults"]
        board += ["-qmp", f"unix:{self.folder / 'qmp'},server=on,wait=off"]
        board += ["-chardev", f"file,id=console,path={self.console}"]
        if wiring.pi:
            # The first serial port is Bluetooth's. Memory, cores and clock are the board's own.
            return [*board, "-M", "raspi3b", "-serial", "null", "-serial", "chardev:console"]
        # GICv2 as on a Pi 3 and 4; without firmware there is no ACPI, and the board is told by its device tree, as on a Pi.
        board += ["-M", "virt,gic-version=2", "-cpu", "cortex-a53", "-m", wiring.memory]
        board += ["-serial", "chardev:console", "-device", "virtio-rng-pci"]
        if wiring.accelerated:
            # Idle time is skipped: virtual time jumps to the next timer. One core, and a clock that follows.
            board += ["-smp", "1", "-accel", "tcg,thread=single", "-icount", "shift=3,sleep=off,align=off"]
            return board + ["-rtc", f"base={wiring.clock},clock=vm"]
        return board + ["-smp", str(wiring.cores), "-accel", "tcg,thread=multi", "-rtc", f"base={wiring.clock}"]

    def _network(self) -> list[str]:
        forwards = ",".join(f"hostfwd=tcp:127.0.0.1:{self.ports[name]}-:{port}" for name, port in self.PORTS.items())
        # `restrict`: nothing of the host's network is reached, the time servers least of all.
        # Without the firmware a PC would start from: it is a package of its own.
        adapter = "usb-net" if self.wiring.pi else "virtio-net-pci,romfile="
        network = ["-netdev", f"user,id=net,restrict=on,{forwards}", "-device", f"{adapter},id=nic,netdev=net"]
        if self.wiring.time_server:
            # A second cable, to this machine only in so far as its time server answers at 10.9.0.2.
            network += ["-netdev", "user,id=hours,net=10.9.0.0/24", "-device", "virtio-net-pci,romfile=,id=second,netdev=hours"]
        return network

    def _wires(self) -> list[str]:
        wires = ["-chardev", f"socket,id=probe,path={self.folder / 'probe'},server=on,wait=off"]
        if self.wiring.pi:
            return [*wires, "-device", "usb-serial,chardev=probe,serial=probe,always-plugged=on"]
        wires += ["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=probe,name=probe"]
        if self.wiring.meter:
            wires += ["-device", "qemu-xhci"]
            wires += ["-chardev", f"socket,id=meter,path={self.folder / 'meter'},server=on,wait=off"]
            wires += ["-device", "usb-serial,chardev=meter,serial=linky,always-plugged=on"]
        return wires

    def _append(self, line: str) -> str:
        unit = base64.b64encode(UNIT.encode()).decode()
        more = [
            "console=ttyS1,115200" if self.wiring.pi else "console=ttyAMA0",
            "systemd.journald.forward_to_console=1",
            f"systemd.set_credential_binary=systemd.extra-unit.probe.service:{unit}",
            "systemd.wants=probe.service",
            # An emulator on a busy machine finds the card's partitions later than a Pi would.
            "systemd.default_device_timeout_sec=600",
            # gpio_keys: leaves the line of the board's power button to the gateway, it is our pulse meter. vchiq: the Pi's own
            # sound card, which is its video core's, and QEMU has none.
            "module_blacklist=gpio_keys,vchiq",
            *self.wiring.more_append,
        ]
        if self.wiring.pi:
            # QEMU's watchdog of a Pi bites as soon as it is set (hw/misc/bcm2835_powermgt.c).
            more.append("systemd.watchdog_device=/dev/none")
        whole = f"{line} {' '.join(more)}"
        if len(whole) >= 2048:  # arm64's COMMAND_LINE_SIZE
            raise AssertionError(f"the command line has {len(whole)} characters, the kernel takes 2047")
        return whole

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """The end of QEMU, at once."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self, timeout: float = 300) -> float:
        """An orderly stop, as `systemctl poweroff`; how long it took."""
        begun = time.monotonic()
        self.probe.tell("systemctl poweroff --no-block")
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the system did not stop within {timeout:.0f} s") from None
        self.process = None
        self.card.settle()
        return time.monotonic() - begun

    def cut(self, luck):
        """A power cut: no more instruction is executed, and the card keeps what a card keeps."""
        self.kill()
        return self.card.settle(luck)

    # -- what the board does ------------------------------------------------------------------------------------------

    def connect(self, name: str) -> socket.socket:
        """One of the sockets QEMU listens on."""
        until = time.monotonic() + 30
        while True:
            wire = socket.socket(socket.AF_UNIX)
            try:
                wire.connect(str(self.folder / name))
                return wire
            except OSError:
                wire.close()
                if time.monotonic() > until or not self.alive():
                    said = (self.folder / "qemu.log").read_text(errors="replace")
                    raise AssertionError(f"QEMU does not listen on {name}: {said}") from None
                time.sleep(0.05)

    def _open_qmp(self):
        self._qmp = self.connect("qmp")
        self._qmp.settimeout(60)
        self._line()
        self.qmp("qmp_capabilities")

    def _line(self) -> dict:
        while b"\n" not in self._answers:
            chunk = self._qmp.recv(65536)
            if not chunk:
                raise AssertionError("QEMU has gone")
            self._answers += chunk
        line, self._answers = self._answers.split(b"\n", 1)
        return json.loads(line)

    def qmp(self, order: str, **arguments):
        asked = {"execute": order} | ({"arguments": arguments} if arguments else {})
        self._qmp.sendall(json.dumps(asked).encode())
        while True:
            answer = self._line()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise AssertionError(f"QEMU refuses {order}: {answer['error']['desc']}")

    def plug(self, cable: bool):
        """The network cable."""
        self.qmp("set_link", name="nic", up=cable)

    def pulse(self):
        """Closes the contact wired to line 3 of the board's PL061 for an instant: QEMU's power button."""
        self.qmp("system_powerdown")

    def written(self) -> int:
        """Bytes the system has sent to the card since power came, as QEMU counts them."""
        drives = self.qmp("query-blockstats")
        return next(drive["stats"]["wr_bytes"] for drive in drives if drive.get("node-name") == "card")

    def said(self, lines: int = 60) -> str:
        """The end of what the console showed."""
        text = self.console.read_text(errors="replace")
        clean = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")
        return "\n".join(clean.splitlines()[-lines:])

    def until(self, what: str, test, timeout: float = BOOT_TIMEOUT, pause: float = 0.3):
        """Asks `test` until it gives something; what it gave. Fails by name when time is over or the machine has gone."""
        end = time.monotonic() + timeout
        last = None
        while True:
            try:
                given = test()
                if given:
                    return given
            except (OSError, EOFError, ValueError) as cause:
                last = cause
            if not self.alive():
                raise AssertionError(f"{what}: the machine has stopped")
            if time.monotonic() > end:
                reason = f" ({last})" if last else ""
                raise AssertionError(f"{what}: not within {timeout:.0f} s{reason}")
            time.sleep(pause)

    def since_power(self) -> float:
        return time.monotonic() - self.started


def host() -> str:
    """The machine this runs on, for whoever compares figures."""
    info = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", info)
    return f"{model[1] if model else 'unknown processor'}, {os.cpu_count()} cores"
