"""A hall at work: readings from a serial line, from pulses and over MQTT, and an announcement that is heard."""

import base64
import time

import central as central_server
import hall
import sound
from mqtt import Meter
from panel import Panel, words
from stand import Stand, claim_code, healthy, linky_of, panel_of, pulled, sound_card, whole

PULSES = 20
# Between two pulses: what the virtual contact needs to open again, and the kernel to see it.
PULSE_PAUSE = 0.5


def readings(stand: Stand):
    """Readings flow from a Linky on the serial adapter, from pulses on a GPIO line and over MQTT, and are pulled."""
    central = stand.central()
    card = stand.card(hall.LINKY, hall.PULSES, hall.COUNTER, hall.peers(central.authority))
    with stand.power(card) as machine:
        linky_of(machine)
        panel_of(machine)
        stand.note("power to panel", f"{machine.since_power():.0f} s")
        pulled(machine, central, "a first reading", len)
        stand.note("power to first stored reading", f"{machine.since_power():.0f} s")

        machine.until("the gateway listens to the pin", lambda: interrupts(machine) is not None, pause=1)
        before = interrupts(machine)
        for _ in range(PULSES):
            machine.pulse()
            time.sleep(PULSE_PAUSE)
        stand.say(f"{PULSES} pulses given, {interrupts(machine) - before} edges seen by the kernel")
        counted = lambda lines: max(central_server.of_point(lines, "water/hall/index"), default=0)
        lines = pulled(machine, central, f"{PULSES} litres", lambda lines: counted(lines) >= PULSES)
        assert counted(lines) == PULSES, f"{counted(lines)} litres counted, {PULSES} pulses given"

        meter = Meter(machine.ports["mqtt"], hall.MQTT_ACCOUNT, hall.MQTT_PASSWORD)
        meter.publish("sensors/count", "42")
        lines = central.pull(machine.ports["peers"])
        assert central_server.of_point(lines, "count/hall/value") == [42.0], "acknowledged, but not there to pull"
        lines = pulled(
            machine,
            central,
            "the Linky's index",
            lambda lines: central_server.of_point(lines, "electricity/hall/index"),
        )
        whole(lines)
        points = {line["point"] for line in lines if "point" in line}
        stand.say(f"{len(lines)} readings of {len(points)} points pulled")
        stand.note("gateway, resident", f"{machine.probe.resident('clocher') / 2**20:.1f} MiB")
        memory = machine.probe.memory()
        stand.note(
            "system, in use",
            f"{(memory['MemTotal'] - memory['MemAvailable']) / 2**20:.0f} MiB of {memory['MemTotal'] / 2**20:.0f}",
        )
        healthy(machine)
        machine.stop()
    sound_card(card)


def interrupts(machine) -> int | None:
    """How often the GPIO chip's line 3 has interrupted; None while nobody listens to it."""
    seen = machine.probe.ask("grep -E 'pl061|9030000' /proc/interrupts")[1].decode()
    counts = [sum(int(word) for word in line.split()[1:] if word.isdigit()) for line in seen.splitlines()]
    return max(counts, default=None)


def heard_to_its_end(panel: Panel) -> bool:
    """What the page of announcements says of the one that was sent."""
    said = words(panel.see("/announcements"))
    assert "pas entendu" not in said, f"the journal says: {said}"
    return "entendu jusqu'au bout" in said


TEXT = "Bonjour. Le marché du jeudi se tient ce matin devant la salle des fêtes."


def announce(stand: Stand):
    """An announcement ordered on the panel is spoken into the sound card; its recording is as loud as it should be."""
    card = stand.card(hall.SPEAKERS)
    with stand.power(card) as machine:
        machine.probe.run("modprobe snd-aloop")
        panel = panel_of(machine)
        panel.claim(claim_code(machine))
        ear = "arecord -q -D plughw:CARD=Loopback,DEV=1 -f S16_LE -r 44100 -c 1 /run/ear.wav"
        machine.probe.run(f"systemd-run -q --unit=ear -p KillSignal=SIGINT -p SuccessExitStatus=1 {ear}")
        machine.until("the recorder listens", lambda: machine.probe.holds("test -s /run/ear.wav"))
        begun = time.monotonic()
        panel.announce(TEXT)
        machine.until("the journal tells that it was heard", lambda: heard_to_its_end(panel), timeout=300, pause=1)
        stand.say(f"played after {time.monotonic() - begun:.0f} s")
        machine.probe.run("systemctl stop ear")
        recording = stand.folder / "announcement.wav"
        recording.write_bytes(base64.b64decode(machine.probe.run("base64 -w0 /run/ear.wav")))
        healthy(machine)
    heard = sound.measure(recording)
    stand.note("announcement", str(heard))
    assert 4 < heard.ends - heard.begins < 30, f"chime and voice last some seconds: {heard}"
    assert -26 < heard.rms < -10, f"the loudness aimed at is -16 LUFS: {heard}"
    assert heard.peak <= -1.0, f"the peak must stay below -1 dBFS: {heard}"
