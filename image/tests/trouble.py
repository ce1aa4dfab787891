"""What happens to a box in a village: the power is cut, the card is full, the clock is wrong."""

import calendar
import random
import socket
import struct
import threading
import time

import central as central_server
import hall
from machine import Wiring
from mqtt import Meter, Witness
from stand import Stand, healthy, linky_of, panel_of, pulled, sound_card, whole

SEED = 20261122


def kill(stand: Stand):
    """Power cuts (twenty) while readings flow: nothing acknowledged is lost, every boot succeeds, nothing needs repair."""
    luck = random.Random(SEED)
    central = stand.central()
    card = stand.card(hall.LINKY, hall.PULSES, hall.COUNTER, hall.peers(central.authority))
    acknowledged: set[int] = set()
    following = 1
    lost_in_flight = 0
    for cut in range(1, stand.cuts + 1):
        with stand.power(card) as machine:
            linky_of(machine)
            panel_of(machine)
            ready = machine.since_power()
            healthy(machine)
            witness = Witness(machine.ports["mqtt"], hall.MQTT_ACCOUNT, hall.MQTT_PASSWORD, "sensors/count", following)
            witness.start()
            witness.wait(luck.randrange(5, 60))
            # Any moment: within a commit, within a flush of the journal, or between them.
            time.sleep(luck.random())
            machine.pulse()
            time.sleep(luck.random())
            settled = machine.cut(luck)
            witness.join(60)
            acknowledged |= witness.acknowledged
            following = witness.next
            lost_in_flight += settled.in_flight
        sound_card(card)
        stand.say(
            f"cut {cut}: panel after {ready:.0f} s, {len(witness.acknowledged)} acknowledged, {settled.in_flight} writes in flight"
        )
        if cut % 5 == 0:
            # Also before everything is up.
            with stand.power(card) as machine:
                machine.probe.ready()
                machine.until(
                    "the gateway is started",
                    lambda: machine.probe.holds(
                        "systemctl is-active clocher -q || systemctl show -P SubState clocher | grep -q start"
                    ),
                )
                time.sleep(3 * luck.random())
                machine.cut(luck)
            sound_card(card)
    with stand.power(card) as machine:
        panel_of(machine)
        lines = machine.until("a central server pulls", lambda: central.pull(machine.ports["peers"]))
        healthy(machine)
        machine.stop()
    sound_card(card)
    stored = {int(value) for value in central_server.of_point(lines, "count/hall/value") if value is not None}
    lost = sorted(acknowledged - stored)
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged readings are lost: {lost[:20]}"
    whole(lines)
    stand.note(
        "power cuts",
        f"{stand.cuts}, {len(acknowledged)} readings acknowledged, 0 lost; {lost_in_flight} writes were in flight",
    )


def full(stand: Stand):
    """A full card: the gateway warns, then says so, acknowledges nothing it has not stored, goes on, and recovers with room."""
    central = stand.central()
    card = stand.card(hall.COUNTER, hall.peers(central.authority))
    reach = (hall.MQTT_ACCOUNT, hall.MQTT_PASSWORD)
    with stand.power(card) as machine:
        panel_of(machine)
        # It publishes all the while, and much: the gateway's head, whose room is set aside, takes hundreds of commits more.
        witness = Witness(machine.ports["mqtt"], *reach, "sensors/count", 1, 60, lambda number: str(scattered(number)))
        witness.start()
        witness.wait(5)
        # The reserve of the superuser too: to the gateway the card is full either way.
        machine.probe.ask("dd if=/dev/zero of=/data/filler bs=1M; cat /dev/zero >>/data/filler; sync", timeout=900)
        assert machine.probe.run("df --output=avail /data | tail -1").strip() == "0", "the card is not full"
        told(machine, "warns that the card is nearly full", "raised code=card-nearly-full")
        told(machine, "tells that the card refuses writes", "raised code=store-refuses-writes", timeout=1200)
        stand.say(f"{len(witness.acknowledged)} acknowledged before it refused")
        assert panel_of(machine), "the panel is gone"
        restarts = machine.probe.run("systemctl show -P NRestarts clocher").strip()
        assert restarts == "0", f"the gateway was restarted {restarts} times"
        machine.probe.run("rm /data/filler; sync")
        told(machine, "is content again", "closed code=store-refuses-writes")
        told(machine, "finds room again", "closed code=card-nearly-full")
        witness.stop()
        late = Meter(machine.ports["mqtt"], *reach)
        late.publish("sensors/count", str(scattered(witness.next)))
        lines = central.pull(machine.ports["peers"])
        stored = {int(value) for value in central_server.of_point(lines, "count/hall/value")}
        lost = [number for number in (*witness.acknowledged, witness.next) if scattered(number) not in stored]
        assert not lost, f"{len(lost)} of {len(witness.acknowledged)} acknowledged readings are lost: {lost[:20]}"
        stand.note("card full", f"{len(witness.acknowledged)} readings acknowledged meanwhile, 0 lost")
        whole(lines)
        healthy(machine)
        machine.stop()
    sound_card(card)


def scattered(number: int) -> int:
    """Values that no block packs well, each another's than the rest."""
    return number * 2_654_435_761 % 2**40


def told(machine, what: str, condition: str, timeout: float = 300):
    """Waits until the gateway's log tells of a condition."""
    seen = f"journalctl -b -u clocher --no-pager | grep -q 'Condition {condition}'"
    machine.until(f"the gateway {what}", lambda: machine.probe.holds(seen), timeout=timeout, pause=2)


def clock(stand: Stand):
    """A first boot in 1970 without a network: readings are kept, and dated rightly once a time server answers."""
    central = stand.central()
    card = stand.card(hall.LINKY, hall.COUNTER, hall.peers(central.authority))
    wiring = Wiring(cable=False, clock="1970-01-01T00:00:00", time_server=True)
    with TimeServer() as hours, stand.power(card, wiring) as machine:
        machine.qmp("set_link", name="second", up=False)
        linky_of(machine)
        listening = "ss -Hltn | grep -q ':443 '"
        machine.until("the panel listens without a network", lambda: machine.probe.holds(listening), pause=1)
        stand.say(f"the box believes it is {machine.probe.run('date -u +%F').strip()}")
        machine.plug(True)
        panel_of(machine)
        lines = pulled(machine, central, "readings without a time", len)
        early = {line["seq"] for line in lines if "seq" in line}
        assert hours.asked == 0, "a time server was reached while there should be none"
        settings = "/run/systemd/timesyncd.conf.d"
        machine.probe.run(
            f"mkdir -p {settings}; printf '[Time]\\nNTP=10.9.0.2\\n' >{settings}/test.conf; systemctl restart systemd-timesyncd"
        )
        machine.qmp("set_link", name="second", up=True)
        # By hand: the box's own profile serves one cable.
        machine.probe.run("ip link set eth1 up; ip address add 10.9.0.15/24 dev eth1")
        started = int(machine.probe.run("systemctl show -P ExecMainStartTimestampMonotonic clocher")) / 1e6
        begun = time.time() - machine.since_power() + started
        ours = lambda lines: [line for line in lines if line.get("seq") in early]
        lines = pulled(
            machine,
            central,
            "times that NTP vouches for",
            lambda lines: all(line["clock"]["source"] == "ntp" for line in ours(lines)),
            timeout=600,
        )
        # As near as it is known here: the gateway counts from when it has started, the system from when its kernel has.
        worst = max(abs(moment(line["phenomenonTime"]) - begun - line["clock"]["monoMs"] / 1000) for line in ours(lines))
        stand.note("readings of 1970, dated beside", f"{worst:.1f} s at most")
        assert worst < 60, f"a reading is dated {worst:.0f} s beside"
        whole(lines)
        healthy(machine)
        machine.stop()
    sound_card(card)


def moment(text: str) -> float:
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))


class TimeServer(threading.Thread):
    """SNTP (RFC 4330) on this machine's port 123, which the virtual machine sees at 10.9.0.2. As root."""

    SINCE_1900 = 2208988800

    def __init__(self):
        super().__init__(daemon=True)
        self.asked = 0
        self._wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def __enter__(self):
        self._wire.bind(("127.0.0.1", 123))
        self.start()
        return self

    def __exit__(self, *_):
        self._wire.close()

    def run(self):
        while True:
            try:
                asked, whence = self._wire.recvfrom(512)
            except OSError:
                return
            now = self._now()
            # Leap none, version 4, server; stratum 1, poll 6, precision 2^-20.
            head = struct.pack(
                "!BBbb11I", 0x24, 1, 6, -20, 0, 0, 0x4C4F434C, *now, *struct.unpack("!2I", asked[40:48]), *now, *now
            )
            self.asked += 1
            self._wire.sendto(head, whence)

    def _now(self) -> tuple[int, int]:
        seconds = time.time() + self.SINCE_1900
        return int(seconds), int(seconds % 1 * 2**32)
