"""What every scenario stands on: a card made of the image under test, a machine to put it in, and a place for figures."""

import pathlib
import re
import time
from dataclasses import dataclass, field

import hall
from card import Card
from central import Central
from machine import Machine, Wiring
from meter import Linky
from panel import Panel

# What a shop sells as 8 GB would do; 4 GB show that the data partition grows, and copy faster.
CARD_SIZE = 4 << 30
CODE = re.compile(r"\b[A-Z0-9]{4}-[A-Z0-9]{4}-[A-Z0-9]{4}\b")


@dataclass
class Stand:
    image: pathlib.Path
    folder: pathlib.Path
    cuts: int = 20
    hours: float = 24
    figures: dict[str, str] = field(default_factory=dict)
    machine: Machine | None = None

    def note(self, what: str, figure: str):
        self.figures[what] = figure
        self.say(f"{what}: {figure}")

    def say(self, text: str):
        print(f"    {time.strftime('%H:%M:%S')} {text}", flush=True)

    def card(self, *parts: str) -> Card:
        """A card just flashed, with a `clocher.toml` of these parts in place of the image's when there are any."""
        card = Card(self.image, self.folder, CARD_SIZE)
        if parts:
            card.write("clocher.toml", hall.file(*parts))
        return card

    def central(self) -> Central:
        return Central(self.folder / "central")

    def power(self, card: Card, wiring: Wiring | None = None) -> Machine:
        """Power comes. The machine is a context and is remembered, for its console if the scenario fails."""
        self.machine = Machine(card, self.folder, wiring)
        return self.machine


# -- what scenarios wait for -----------------------------------------------------------------------------------------


def panel_of(machine: Machine) -> Panel:
    """The panel, once it answers."""
    panel = Panel(machine.ports["panel"])
    machine.until("the panel answers", lambda: panel.ask("GET", "/about")[0] == 200)
    return panel


def result_of(machine: Machine, what: str, holds) -> str:
    """RESULTAT.txt, once it says what is waited for."""
    last = ""

    def read():
        nonlocal last
        code, text = machine.probe.ask("cat /boot/firmware/RESULTAT.txt")
        last = text.decode("utf-8-sig", errors="replace")
        return last if code == 0 and holds(last) else None

    try:
        return machine.until(f"RESULTAT.txt tells {what}", read, timeout=300, pause=1)
    except AssertionError as cause:
        raise AssertionError(f"{cause}; it says:\n{last}") from None


def claim_code(machine: Machine) -> str:
    return CODE.search(result_of(machine, "the claim code", CODE.search))[0]


def linky_of(machine: Machine) -> Linky:
    """A Linky plugged into the machine, speaking until the machine is gone."""
    linky = Linky(machine.connect("meter"))
    linky.start()
    return linky


def pulled(machine: Machine, central: Central, what: str, holds, timeout: float = 300) -> list[dict]:
    """Everything stored, once it holds what is waited for."""

    def pull():
        lines = central.pull(machine.ports["peers"])
        return lines if holds(lines) else None

    return machine.until(f"a central server pulls {what}", pull, timeout=timeout, pause=1)


def healthy(machine: Machine):
    """No unit failed and the card was not found wanting."""
    assert machine.probe.failed_units() == [], f"failed units: {machine.probe.failed_units()}"
    wrong = machine.probe.ask("dmesg | grep -E 'EXT4-fs (error|warning)|I/O error|fsck.*UNEXPECTED'")[1].decode()
    assert not wrong, f"the kernel says: {wrong}"
    told = machine.probe.ask("journalctl -b -u clocher --no-pager | grep -E 'code=store-damaged|code=readings-lost'")[1]
    assert not told, f"the gateway says: {told.decode()}"


def sound_card(card: Card):
    """What a repair shop would say of the card once it is out of the machine."""
    assert not card.faults_of_data(), f"the data partition needs repair:\n{card.faults_of_data()}"
    assert not card.faults_of_boot(), f"the boot partition needs repair:\n{card.faults_of_boot()}"


def whole(lines: list[dict]):
    """Numbers from 1 without a hole and without a repetition."""
    numbers = [line["seq"] for line in lines if "seq" in line]
    gaps = [line for line in lines if "gap" in line]
    assert not gaps, f"readings were lost: {gaps}"
    assert numbers == list(range(1, len(numbers) + 1)), f"numbers {numbers[:3]} … {numbers[-3:]} have a hole or repeat"
