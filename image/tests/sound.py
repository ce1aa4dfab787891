"""What a recording of the loudspeakers holds: how loud, how long, from when to when."""

import array
import math
import wave
from dataclasses import dataclass

WINDOW = 0.1
SILENT = -60.0


@dataclass(frozen=True)
class Heard:
    length: float
    begins: float
    ends: float
    peak: float
    rms: float
    """Of the windows that are not silent, dBFS."""

    def __str__(self):
        sounds = f"sound from {self.begins:.1f} to {self.ends:.1f} s of {self.length:.1f}"
        return f"{sounds}, {self.rms:.1f} dBFS rms, peak {self.peak:.1f} dBFS"


def decibels(level: float) -> float:
    return 20 * math.log10(level) if level > 0 else -math.inf


def measure(recording) -> Heard:
    """A WAV file of 16 bits. A recorder that was killed leaves a length of its own in the head: what is there counts."""
    with wave.open(str(recording)) as file:
        if file.getsampwidth() != 2:
            raise AssertionError(f"recorded in {8 * file.getsampwidth()} bits, not 16")
        rate, channels = file.getframerate(), file.getnchannels()
        samples = array.array("h", file.readframes(file.getnframes()))
    width = int(WINDOW * rate) * channels
    levels = []
    for start in range(0, len(samples) - width + 1, width):
        window = samples[start : start + width]
        levels.append(math.sqrt(sum(value * value for value in window) / width) / 32768)
    loud = [n for n, level in enumerate(levels) if decibels(level) > SILENT]
    if not loud:
        raise AssertionError(f"{len(samples) / rate / channels:.1f} s of silence were recorded")
    power = sum(levels[n] ** 2 for n in loud) / len(loud)
    peak = max(map(abs, samples)) / 32768
    length = len(samples) / rate / channels
    return Heard(length, loud[0] * WINDOW, (loud[-1] + 1) * WINDOW, decibels(peak), decibels(math.sqrt(power)))
