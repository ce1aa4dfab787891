"""A card just flashed: with the file as it ships, a wrong one, none; without a network."""

import hall
from machine import Wiring
from stand import (
    CODE,
    Stand,
    claim_code,
    healthy,
    linky_of,
    panel_of,
    pulled,
    result_of,
    sound_card,
)

# What QEMU's network gives to the one machine on it.
ADDRESS = "https://10.0.2.15"


def boot(stand: Stand):
    """The card as flashed boots to a panel that is claimed over HTTPS with the code of RESULTAT.txt, and again."""
    card = stand.card()
    before = card.partitions()
    with stand.power(card) as machine:
        panel = panel_of(machine)
        stand.note("power to panel, first boot", f"{machine.since_power():.0f} s")
        code = claim_code(machine)
        told = result_of(machine, "its address", lambda text: ADDRESS in text)
        panel.claim(code)
        digits = "".join(told.lower().replace(":", "").split())
        assert panel.fingerprint in digits, f"RESULTAT.txt does not tell the fingerprint {panel.fingerprint}:\n{told}"
        result_of(machine, "no claim code any more", lambda text: not CODE.search(text))
        healthy(machine)
        stand.note("orderly stop", f"{machine.stop():.0f} s")
    after = card.partitions()
    assert after[:3] == before[:3], "the first boot moved a partition"
    assert after[3].start + after[3].size > card.path.stat().st_size - (
        64 << 20
    ), f"the data partition did not grow: {after[3]}"
    sound_card(card)
    assert card.text("RESULTAT.txt").strip(), "RESULTAT.txt is empty on the card"
    with stand.power(card) as machine:
        panel = panel_of(machine)
        stand.note("power to panel", f"{machine.since_power():.0f} s")
        panel.sign_in()
        # There is no Pi's firmware here to ask for the supply's state; that the driver is of this very kernel can be seen.
        machine.probe.run("modprobe raspberrypi-hwmon")
        healthy(machine)


def no_file(stand: Stand):
    """Without clocher.toml the box shows its panel, and RESULTAT.txt says what is missing."""
    card = stand.card()
    card.remove("clocher.toml")
    with stand.power(card) as machine:
        panel = panel_of(machine)
        told = result_of(
            machine,
            "that the file is missing",
            lambda text: "pas de fichier clocher.toml" in text and CODE.search(text),
        )
        panel.claim(CODE.search(told)[0])
        healthy(machine)


WRONG = """[commune]
name = "Montclar"
time_zone = "Europe/Carcasonne"        # fault
[store]
comit_within = "30 s"                  # fault
[[device]]
name = "count/hall"
label = "Témoin"
driver = "mqtt"
topic = "sensors/count"
[[device.point]]
name = "value"
label = "Nombre"
pointer = ""
unit = "1"
kind = "counter"
decimals = 0
[[device]]
name = "water/hall"
driver = "pulze"                       # fault
[[device]]
name = "heating/pump"
driver = "modbus"
model = "SDM121"                       # fault
port = "/dev/ttyUSB7"
"""


def wrong_file(stand: Stand):
    """A file with four faults: RESULTAT.txt names each with its line, the panel is there; corrected, nothing is left of them."""
    card = stand.card()
    card.write("clocher.toml", WRONG)
    faulty = [number for number, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# fault")]
    with stand.power(card) as machine:
        panel = panel_of(machine)
        told = result_of(machine, "the claim code", CODE.search)
        missing = [number for number in faulty if f"\nLigne {number} :" not in told]
        assert not missing, f"faults at lines {missing} are not told:\n{told}"
        panel.claim(CODE.search(told)[0])
        healthy(machine)
        machine.stop()
    card.write("clocher.toml", hall.file(hall.COUNTER))
    with stand.power(card) as machine:
        panel_of(machine).sign_in()
        result_of(machine, "no fault any more", lambda text: ADDRESS in text and "\nLigne " not in text)
        healthy(machine)


def no_network(stand: Stand):
    """With no cable the box starts, reads and keeps; plugged in later, all of it is pulled."""
    central = stand.central()
    card = stand.card(hall.LINKY, hall.PULSES, hall.peers(central.authority))
    with stand.power(card, Wiring(cable=False)) as machine:
        linky_of(machine)
        listening = "ss -Hltn | grep -q ':443 '"
        machine.until("the panel listens without a network", lambda: machine.probe.holds(listening), pause=1)
        told = result_of(
            machine,
            "the claim code, and that there is no address",
            lambda text: CODE.search(text) and ADDRESS not in text,
        )
        assert "vérifiez le câble" in told, f"RESULTAT.txt does not tell what to do:\n{told}"
        stand.say(f"without a network, the panel listens after {machine.since_power():.0f} s")
        healthy(machine)
        alone = machine.since_power()
        machine.plug(True)
        panel_of(machine).claim(CODE.search(told)[0])
        result_of(machine, "its address", lambda text: ADDRESS in text)
        lines = pulled(
            machine,
            central,
            "readings of the Linky",
            lambda lines: any("electricity" in str(line.get("point")) for line in lines),
        )
        first = min(line["clock"]["monoMs"] for line in lines if "clock" in line) / 1000
        assert first < alone, f"the first reading is {first:.0f} s old in its boot, the cable came after {alone:.0f} s"
        healthy(machine)
