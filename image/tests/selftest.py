"""The tests' own instruments, tried before they are believed: what the card keeps of a power cut, what is heard of a
recording. `image/test` runs these first; they take a second.
"""

import math
import pathlib
import random
import struct
import subprocess
import tempfile
import unittest
import wave

import sound
from card import SECTOR, Card

CARD = 4 << 20
KEPT, LOST = 64 << 10, 128 << 10


class Never(random.Random):
    """A card that keeps nothing it was not told to flush."""

    def random(self):
        return 0.0


class CardTest(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.folder = pathlib.Path(place.name)
        image = self.folder / "image"
        record = bytearray(SECTOR)
        record[446:462] = struct.pack("<8xII", 1, CARD // SECTOR - 1)
        record[510:] = b"\x55\xaa"
        image.write_bytes(record)
        self.card = Card(image, self.folder, CARD)

    def write(self, *orders: str):
        nodes = [word for word in self.card.insert() if word.startswith("driver=")]
        options = [word for node in nodes for word in ("--blockdev", node)]
        # The storage daemon stands in for the machine, qemu-io for the system in it.
        socket = self.folder / "nbd"
        export = "type=nbd,id=card,node-name=card,name=card,writable=on"
        daemon = subprocess.Popen(
            ["qemu-storage-daemon", *options, "--nbd-server", f"addr.type=unix,addr.path={socket}", "--export", export]
        )
        try:
            while not socket.exists() and daemon.poll() is None:
                pass
            words = [word for order in orders for word in ("-c", order)]
            # Without a cache of its own, and without the flush at its end: `abort` leaves as a power cut does.
            target = f"nbd+unix:///card?socket={socket}"
            subprocess.run(
                ["qemu-io", "-f", "raw", "-t", "writeback", *words, "-c", "abort", target], capture_output=True
            )
        finally:
            daemon.kill()
            daemon.wait()

    def byte(self, offset: int) -> int:
        with open(self.card.path, "rb") as card:
            card.seek(offset)
            return card.read(1)[0]

    def test_what_was_flushed_survives_a_cut_and_what_was_not_is_lost(self):
        self.write(f"write -P 1 {KEPT} 4096", "flush", f"write -P 2 {LOST} 4096")
        settled = self.card.settle(Never())
        self.assertEqual((self.byte(KEPT), self.byte(LOST), settled.in_flight), (1, 0, 1))

    def test_an_orderly_stop_keeps_everything(self):
        self.write(f"write -P 1 {KEPT} 4096", "flush", f"write -P 2 {LOST} 4096")
        self.card.settle()
        self.assertEqual((self.byte(KEPT), self.byte(LOST)), (1, 2))

    def test_a_boot_that_wrote_nothing_leaves_the_card_as_it_was(self):
        self.write()
        self.assertEqual(self.card.settle(Never()).kept, 0)


class SoundTest(unittest.TestCase):
    def recording(self, levels: list[float]) -> pathlib.Path:
        place = tempfile.NamedTemporaryFile(suffix=".wav")
        self.addCleanup(place.close)
        with wave.open(place.name, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            for level in levels:
                tone = (level * math.sin(math.tau * 440 * n / 8000) for n in range(8000))
                file.writeframes(b"".join(struct.pack("<h", round(32767 * value)) for value in tone))
        return pathlib.Path(place.name)

    def test_a_tone_between_silences_is_found_and_measured(self):
        heard = sound.measure(self.recording([0, 0.5, 0]))
        self.assertAlmostEqual(heard.begins, 1.0, delta=0.11)
        self.assertAlmostEqual(heard.ends, 2.0, delta=0.11)
        self.assertAlmostEqual(heard.rms, -9.03, delta=0.1)
        self.assertAlmostEqual(heard.peak, -6.02, delta=0.1)

    def test_silence_is_no_announcement(self):
        with self.assertRaises(AssertionError):
            sound.measure(self.recording([0]))


def trouble() -> str:
    """What is wrong with the instruments; empty when nothing is."""
    suite = unittest.defaultTestLoader.loadTestsFromModule(__import__(__name__))
    result = unittest.TestResult()
    suite.run(result)
    return "\n".join(text for _, text in result.errors + result.failures)
