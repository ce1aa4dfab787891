"""The card in QEMU's Raspberry Pi 3 B, as far as QEMU knows one: from the Pi's own device tree, on its SD host and USB."""

import hall
from machine import Wiring
from panel import words
from stand import Stand, claim_code, healthy, panel_of, sound_card

# What it takes and in which state, as the kernel tells it of each pin: a meter that waits, relays that are open.
PINS = {17: "in", 18: "out lo", 23: "out lo"}


def pi(stand: Stand):
    """In an emulated Raspberry Pi 3 B the card boots to its panel, its pins are taken, its supply and watchdog are found."""
    card = stand.card(hall.HEADER)
    with stand.power(card, Wiring(pi=True)) as machine:
        panel = panel_of(machine)
        stand.note("power to panel, emulated Pi 3", f"{machine.since_power():.0f} s")
        model = machine.probe.run("tr -d '\\0' </proc/device-tree/model")
        assert model.startswith("Raspberry Pi 3 Model B"), f"the machine is a {model}"
        panel.claim(claim_code(machine))
        seen = machine.probe.run("cat /sys/kernel/debug/gpio").splitlines()
        for pin, state in PINS.items():
            # Numbered from 512 on, in the order of the header's names.
            told = next((line for line in seen if line.startswith(f" gpio-{512 + pin} ")), "nothing")
            assert "|clocher" in told and f") {state}" in told, f"of pin {pin} the kernel says {told}"
        watchdog = machine.probe.run("cat /sys/class/watchdog/watchdog0/identity").strip()
        assert watchdog == "Broadcom BCM2835 Watchdog timer", f"the watchdog is {watchdog}"
        machine.until("the panel tells that the supply is good", lambda: supply_is_good(panel), pause=5)
        healthy(machine)
        machine.stop()
    sound_card(card)


def supply_is_good(panel) -> bool:
    """As the page about the box has it; QEMU's firmware knows no weak supply."""
    return "Alimentation : correcte" in words(panel.see("/conditions"))
