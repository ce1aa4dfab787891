"""The `clocher.toml` of the tests: an invented hall, as a technician would write it."""

MQTT_ACCOUNT, MQTT_PASSWORD = "temoin", "un secret assez long"

COMMUNE = """[commune]
name = "Montclar-sur-Lauquet"
gateway = "Salle des fêtes"
time_zone = "Europe/Paris"
"""

STORE = """
[store]
commit_within = "30 s"
"""

# The FTDI adapter QEMU gives, by the name udev makes of it.
LINKY = """
[[device]]
name = "electricity/hall"
label = "Électricité de la salle"
driver = "tic"
mode = "standard"
port = "/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_linky-if00-port0"
sharing = "internal"
"""

# Line 3 of the virtual board's PL061, which QEMU closes for a tenth of a second.
PULSES = """
[gpio]
backend = "cdev"
chip = "9030000.pl061"

[[device]]
name = "water/hall"
label = "Eau de la salle"
driver = "pulse"
pin = 3
pull = "down"
debounce = "5 ms"
litres_per_pulse = 1
sharing = "public"
"""

COUNTER = f"""
[broker]
listen = "127.0.0.1:1883"
listen_tls = "0.0.0.0:8883"

[[broker.account]]
name = "{MQTT_ACCOUNT}"
password = "{MQTT_PASSWORD}"
publish = ["sensors/#"]

[[device]]
name = "count/hall"
label = "Témoin"
driver = "mqtt"
topic = "sensors/count"
sharing = "public"

[[device.point]]
name = "value"
label = "Nombre"
pointer = ""
unit = "1"
kind = "counter"
decimals = 0
"""

# On a Pi's own header, as the technician's sheet has them.
HEADER = """
[[device]]
name = "water/hall"
label = "Eau de la salle"
driver = "pulse"
pin = 17
litres_per_pulse = 1

[announce]
card = "default:CARD=Headphones"
amplifier_pin = 18

[[announce.zone]]
name = "bourg"
label = "Le bourg"
pin = 23
"""

# The loopback card stands for the headphone socket; the test records its other end.
SPEAKERS = """
[announce]
output = "aplay"
card = "plughw:CARD=Loopback,DEV=0"
quiet_from = "03:00"
quiet_to = "03:00"

[[announce.zone]]
name = "bourg"
label = "Le bourg"
"""


def peers(authority: str) -> str:
    """The central server that pulls; its authority's certificate stands in the file itself."""
    return f'''
[peers]
listen = "0.0.0.0:8444"
authority = """
{authority.strip()}
"""

[[peers.peer]]
name = "central"
sharing = ["public", "internal"]
'''


def file(*parts: str) -> str:
    """Tables first, devices after them: TOML needs no order, people do."""
    return "\n".join([COMMUNE, *parts])
