"""What a day writes to the card, whole system, counted from outside by QEMU.

The day is accelerated by the machine, not by the software: QEMU skips idle time (`-icount`, sleep off), so the guest's
clock jumps to its next timer whenever nothing is left to do. Every timer of the kernel, of systemd and of the gateway
comes at its own time of that day, ext4's commit of 600 s too, and nothing in the image knows. The kernel keeps its tick
(`nohz=off`), so that a write to the card seems to take some milliseconds, as on a card, not until the next timer.

The load is that of DESIGN.md: fifty points, a value of each every ten seconds, published by a shell script over MQTT to
the box's own broker at QoS 0, which the gateway commits every 30 s as it does polled readings.
"""

import base64
import time

import hall
from machine import Wiring
from stand import Stand, claim_code, panel_of, pulled, sound_card

POINTS, EVERY = 50, 10
SETTLED = 1_200
LIMIT = 50_000_000

DEVICES = "".join(
    f"""
[[device]]
name = "load/{device}"
label = "Charge {device}"
driver = "mqtt"
topic = "sensors/load"
sharing = "public"
"""
    + "".join(f"""
[[device.point]]
name = "p{point}"
label = "Point {point}"
pointer = "/{device}/{point}"
unit = "1"
decimals = 1
""" for point in range(5))
    for device in range(POINTS // 5)
)

# MQTT 3.1.1 by hand: CONNECT, then one PUBLISH of every value at each tenth second. Values walk by one or two tenths.
LOAD = r"""
exec 3<>/dev/tcp/127.0.0.1/1883
field() { printf '\\x%02x\\x%02x' $((${#1} / 256)) $((${#1} % 256)); printf '%s' "$1"; }
length() { local n=$1; while ((n > 127)); do printf '\\x%02x' $((n % 128 + 128)); n=$((n / 128)); done; printf '\\x%02x' "$n"; }
send() { printf '%b%b%b' "$1" "$(length "$2")" "$3" >&3 || exit 1; }
body="$(field MQTT)\x04\xc2\x00\x00$(field load)$(field "$account")$(field "$password")"
send '\x10' $((10 + 2 + 4 + 2 + ${#account} + 2 + ${#password})) "$body"
cat <&3 >/dev/null &
values=(); for ((n = 0; n < POINTS; n++)); do values[n]=$((2000 + n * 10)); done
next=$(date +%s)
while :; do
  json='{'; for ((d = 0; d < POINTS / 5; d++)); do
    json+="\"$d\":{"
    for ((p = 0; p < 5; p++)); do
      n=$((d * 5 + p)); values[n]=$((values[n] + RANDOM % 5 - 2)); json+="\"$p\":$((values[n] / 10)).$((values[n] % 10)),"
    done
    json="${json%,}},"
  done
  json="${json%,}}"
  send '\x30' $((2 + 12 + ${#json})) "$(field sensors/load)$json"
  next=$((next + EVERY)); now=$(date +%s); ((next > now)) && sleep $((next - now))
done
"""


def load_script() -> str:
    script = LOAD.replace("EVERY", str(EVERY)).replace("POINTS", str(POINTS))
    return f"account={hall.MQTT_ACCOUNT}; password='{hall.MQTT_PASSWORD}'\n{script}"


def wear(stand: Stand):
    """A day of the whole system writes at most 50 MB to the card."""
    day = int(stand.hours * 3600)
    central = stand.central()
    card = stand.card(hall.COUNTER, DEVICES, hall.peers(central.authority))
    # The first boot has its own writing to do (the data partition grows); a day of wear is any later day.
    with stand.power(card) as machine:
        panel_of(machine).claim(claim_code(machine))
        machine.stop()
    with stand.power(card, Wiring(accelerated=True, meter=False, more_append=["nohz=off"])) as machine:
        panel_of(machine)
        script = base64.b64encode(load_script().encode()).decode()
        machine.probe.run(f"echo {script} | base64 -d >/run/load; systemd-run -q --unit=load bash /run/load")
        wait_for(machine, SETTLED)
        pulled(machine, central, "the load", lambda lines: loaded(lines) > 0)
        begun, written = time.monotonic(), machine.written()
        wait_for(machine, day)
        written = machine.written() - written
        took = time.monotonic() - begun
        assert machine.probe.holds("systemctl is-active -q load"), "the load has stopped"
        lines = machine.until("a central server pulls", lambda: central.pull(machine.ports["peers"]))
        expected = POINTS * day // EVERY
        assert loaded(lines) >= expected * 0.99, f"{loaded(lines)} readings in the day, {expected} were aimed at"
        stand.say(f"{loaded(lines)} readings stored; {day} s passed in {took:.0f} s")
        machine.stop()
    sound_card(card)
    a_day = written * 24 / stand.hours
    stand.note(
        "written to the card in a day", f"{a_day / 1e6:.1f} MB ({stand.hours:g} h passed in {took / 60:.0f} min)"
    )
    assert a_day <= LIMIT, f"{a_day / 1e6:.1f} MB a day, {LIMIT / 1e6:.0f} MB are allowed"


def loaded(lines: list[dict]) -> int:
    return sum(str(line.get("point", "")).startswith("load/") for line in lines)


def wait_for(machine, seconds: int):
    """Until so much of the machine's own time has passed."""
    until = uptime(machine) + seconds
    machine.probe.run(f"sleep {seconds}", timeout=7200)
    machine.until("the day passes", lambda: uptime(machine) >= until, pause=1)


def uptime(machine) -> float:
    return float(machine.probe.run("cut -d' ' -f1 /proc/uptime"))
