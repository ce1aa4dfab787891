"""A meter that publishes over MQTT and believes nothing but an acknowledgement: the witness of what was stored.
MQTT 3.1.1 over TLS, as much of it as QoS 1 needs.
"""

import contextlib
import socket
import ssl
import struct
import threading

CONNECT, CONNACK, PUBLISH, PUBACK = 0x10, 0x20, 0x30, 0x40


def field(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("!H", len(raw)) + raw


def packet(kind: int, body: bytes) -> bytes:
    length, left = bytearray(), len(body)
    while True:
        left, digit = left >> 7, left & 0x7F
        length.append(digit | (0x80 if left else 0))
        if not left:
            return bytes([kind]) + bytes(length) + body


class Meter:
    def __init__(self, port: int, account: str, password: str, timeout: float = 60):
        # The box's certificate is its own; the panel's scenario compares its fingerprint.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", port), timeout)
        try:
            self._wire = context.wrap_socket(plain)
            # Clean session, user name and password, kept alive for ten minutes.
            greeting = field("MQTT") + bytes([4, 0xC2]) + struct.pack("!H", 600)
            self._wire.sendall(packet(CONNECT, greeting + field("witness") + field(account) + field(password)))
            kind, body = self._receive()
        except BaseException:
            plain.close()
            raise
        if kind != CONNACK or body[1] != 0:
            raise ConnectionError(f"the broker refuses the witness: {body[1:].hex()}")
        self._next = 0

    def _exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            chunk = self._wire.recv(count - len(got))
            if not chunk:
                raise EOFError("the broker hung up")
            got += chunk
        return got

    def _receive(self) -> tuple[int, bytes]:
        kind, length, shift = self._exactly(1)[0], 0, 0
        while True:
            digit = self._exactly(1)[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                return kind & 0xF0, self._exactly(length)

    def send(self, topic: str, payload: str) -> int:
        """Publishes at QoS 1; the number its acknowledgement will carry."""
        self._next = self._next % 0xFFFF + 1
        self._wire.sendall(packet(PUBLISH | 2, field(topic) + struct.pack("!H", self._next) + payload.encode()))
        return self._next

    def acknowledged(self) -> int:
        """Waits for the next acknowledgement; the number it carries."""
        while True:
            kind, body = self._receive()
            if kind == PUBACK:
                return struct.unpack("!H", body[:2])[0]

    def publish(self, topic: str, payload: str):
        number = self.send(topic, payload)
        while self.acknowledged() != number:
            pass

    def close(self):
        self._wire.close()

    def hang_up(self):
        """Ends the line under whoever waits for it."""
        self._wire.shutdown(socket.SHUT_RDWR)


class Witness(threading.Thread):
    """Publishes rising numbers, some on the way at once, until the machine dies under it. What was acknowledged stays."""


    # A card that is being filled, or refuses, keeps it waiting.
    PATIENCE = 600

    def __init__(self, port: int, account: str, password: str, topic: str, first: int, in_flight: int = 8, payload=str):
        super().__init__(daemon=True)
        self._reach = (port, account, password, self.PATIENCE)
        self._in_flight, self._payload = in_flight, payload
        self._topic = topic
        self.next = first
        self.acknowledged: set[int] = set()
        self.fault: str | None = None
        self._enough = threading.Condition()
        self._meter: Meter | None = None

    def run(self):
        try:
            meter = self._meter = Meter(*self._reach)
            on_the_way: dict[int, int] = {}
            while True:
                while len(on_the_way) < self._in_flight:
                    on_the_way[meter.send(self._topic, self._payload(self.next))] = self.next
                    self.next += 1
                value = on_the_way.pop(meter.acknowledged())
                with self._enough:
                    self.acknowledged.add(value)
                    self._enough.notify_all()
        except (OSError, EOFError) as cause:
            with self._enough:
                self.fault = str(cause)
                self._enough.notify_all()

    def wait(self, count: int, timeout: float = 300):
        """Until so many were acknowledged."""
        with self._enough:
            done = self._enough.wait_for(lambda: len(self.acknowledged) >= count or self.fault, timeout)
        if not done or len(self.acknowledged) < count:
            why = self.fault or f"not within {timeout:.0f} s"
            raise AssertionError(f"{len(self.acknowledged)} of {count} readings were acknowledged: {why}")

    def stop(self):
        """Hangs up; what is on the way stays unanswered."""
        if self._meter is not None:
            with contextlib.suppress(OSError):  # it has hung up itself
                self._meter.hang_up()
        self.join(60)
