"""A Linky's customer port: the real frames of `tests/fixtures/tic`, at the pace of the wire, into the serial adapter of
the virtual machine (an FTDI on its USB).
"""

import pathlib
import socket
import threading

FRAMES = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "tic" / "frames"
# source: Enedis-NOI-CPT_54E, §5: 9600 baud in the standard mode; 7 data bits, parity, start and stop are ten bits.
BYTES_A_SECOND = 9600 / 10
PIECE = 48
GAP = 0.02


class Linky(threading.Thread):
    """Speaks until it is closed, as the real one, whether or not anybody listens."""

    def __init__(self, wire: socket.socket):
        super().__init__(daemon=True)
        self._wire = wire
        self._frame = (FRAMES / "enedis_tic2ws_ticFrameStandard_00.bin").read_bytes()
        self._closed = threading.Event()

    def run(self):
        # A meter hears nothing; but what nobody takes out of the wire would stop the whole virtual machine.
        threading.Thread(target=self._hear, daemon=True).start()
        try:
            while not self._closed.is_set():
                for start in range(0, len(self._frame), PIECE):
                    self._wire.sendall(self._frame[start : start + PIECE])
                    # This is the line's speed, not a wait for something.
                    self._closed.wait(PIECE / BYTES_A_SECOND)
                self._closed.wait(GAP)
        except OSError:
            pass  # the machine has gone

    def _hear(self):
        try:
            while self._wire.recv(4096):
                pass
        except OSError:
            pass

    def close(self):
        self._closed.set()
        self._wire.close()
