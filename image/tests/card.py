"""The memory card of the virtual machine: a raw file, as `dd` would leave it on a card.

While the machine runs, the file itself is not touched. The machine writes to a throwaway overlay, and QEMU's
`blklogwrites` notes every write and every flush beside it. Only when the power goes does the card take what a card would
have kept: all of it after an orderly stop; after a cut everything up to the last flush the system waited for, and of what
was still in the drive's cache nothing, some, or some of it torn. That is harsher than killing QEMU on its own file, where
the host keeps each unflushed write.
"""

import mmap
import pathlib
import random
import re
import struct
import subprocess
from dataclasses import dataclass

SECTOR = 512
BOOT, SYSTEM_A, SYSTEM_B, DATA = range(4)


@dataclass(frozen=True)
class Partition:
    start: int
    size: int
    kind: int


@dataclass(frozen=True)
class Settled:
    """What became of the writes of one boot."""

    kept: int
    in_flight: int
    written: int


class Card:
    def __init__(self, image: pathlib.Path, folder: pathlib.Path, size: int):
        self.path = folder / "card.img"
        self.overlay = folder / "overlay.qcow2"
        self.log = folder / "writes.log"
        copy_sparse(image, self.path)
        if self.path.stat().st_size < size:
            with open(self.path, "r+b") as card:
                card.truncate(size)

    # -- partitions and the files of the boot partition --------------------------------------------------------------

    def partitions(self) -> list[Partition]:
        """The four primary partitions of the MBR."""
        with open(self.path, "rb") as card:
            record = card.read(SECTOR)
        if record[510:512] != b"\x55\xaa":
            raise AssertionError(f"{self.path} has no partition table")
        entries = (record[446 + 16 * n : 462 + 16 * n] for n in range(4))
        return [
            Partition(first * SECTOR, count * SECTOR, kind)
            for kind, first, count in ((e[4], *struct.unpack("<II", e[8:16])) for e in entries)
        ]

    def mtools(self, tool: str, *words: str, given: bytes | None = None) -> bytes:
        place = f"{self.path}@@{self.partitions()[BOOT].start}"
        done = subprocess.run([tool, "-i", place, *words], input=given, capture_output=True)
        if done.returncode != 0:
            raise FileNotFoundError(f"{tool} {' '.join(words)}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def read(self, name: str) -> bytes:
        """A file of the boot partition, as a PC with a card reader sees it."""
        return self.mtools("mtype", f"::{name}")

    def text(self, name: str) -> str:
        return self.read(name).decode("utf-8-sig")

    def write(self, name: str, content: str | bytes):
        given = content.encode() if isinstance(content, str) else content
        self.mtools("mcopy", "-o", "-", f"::{name}", given=given)

    def remove(self, name: str):
        self.mtools("mdel", f"::{name}")

    def has(self, name: str) -> bool:
        try:
            self.read(name)
        except FileNotFoundError:
            return False
        return True

    # -- one boot ------------------------------------------------------------------------------------------------------

    def insert(self, slot: str = "virtio") -> list[str]:
        """Makes the overlay and the log of one boot; the options with which QEMU uses them, in a slot of virtio or of the Pi's SD."""
        self.overlay.unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)
        with open(self.log, "wb") as log:
            log.truncate(64 << 30)  # no block of it exists until it is written
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self.path.resolve()), self.overlay]
        subprocess.run(create, check=True)
        # The host need not sync anything: the log tells what the system waited for.
        if slot == "sd":
            # The slot is part of the board, and takes the older form of the option only.
            overlay = f"file.driver=qcow2,file.file.driver=file,file.file.filename={self.overlay},file.cache.no-flush=on"
            log = f"log.driver=file,log.filename={self.log},log.cache.no-flush=on"
            return ["-drive", f"if=sd,driver=blklogwrites,node-name=card,{overlay},{log}"]
        nodes = [
            f"driver=file,node-name=overlay-file,filename={self.overlay},cache.no-flush=on",
            "driver=qcow2,node-name=overlay,file=overlay-file,cache.no-flush=on",
            f"driver=file,node-name=log,filename={self.log},cache.no-flush=on",
            "driver=blklogwrites,node-name=card,file=overlay,log=log",
        ]
        # QEMU 7.2 mixes up the log of "write zeroes" with what is written at the same time: zeroes come as plain writes.
        device = "virtio-blk-pci,id=card,drive=card,write-zeroes=off"
        return [word for node in nodes for word in ("-blockdev", node)] + ["-device", device]

    def settle(self, cut: random.Random | None = None) -> Settled:
        """What the card has once the power is gone. With `cut`, what was not flushed is lost, kept or torn as it draws."""
        with open(self.log, "rb") as log, mmap.mmap(log.fileno(), 0, access=mmap.ACCESS_READ) as view:
            entries = list(logged(view))
            flushed = max((n + 1 for n, entry in enumerate(entries) if entry.flush), default=0)
            chosen = entries if cut is None else entries[:flushed] + luck(entries[flushed:], cut)
            with open(self.path, "r+b") as card:
                for entry in chosen:
                    if entry.length:
                        card.seek(entry.offset)
                        card.write(view[entry.data : entry.data + entry.length])
        written = sum(entry.length for entry in entries)
        self.overlay.unlink()
        self.log.unlink()
        return Settled(len(chosen), len(entries) - flushed, written)

    # -- what a repair shop would say --------------------------------------------------------------------------------

    def faults_of_data(self) -> str:
        """What e2fsck finds on a copy of the data partition after the journal was replayed, as a mount does; empty when sound."""
        copy = self.path.with_name("data.check")
        data = self.partitions()[DATA]
        carve(self.path, data, copy)
        try:
            replay = subprocess.run(["e2fsck", "-E", "journal_only", "-p", copy], capture_output=True, text=True)
            check = subprocess.run(["e2fsck", "-fn", copy], capture_output=True, text=True)
        finally:
            copy.unlink()
        if replay.returncode > 1 or check.returncode != 0:
            return f"{replay.stdout}{replay.stderr}{check.stdout}{check.stderr}"
        return ""

    def faults_of_boot(self) -> str:
        """What fsck.fat finds on the boot partition beyond what the box itself puts right at its next start; empty when sound.

        FAT has no journal. A cut while RESULTAT.txt is written leaves the mark of a disk not put away and a stale count of free
        clusters; anything else, a lost cluster or a damaged entry, is a fault.
        """
        copy = self.path.with_name("boot.check")
        carve(self.path, self.partitions()[BOOT], copy)
        try:
            start = subprocess.run(["fsck.fat", "-a", copy], capture_output=True, text=True)
            check = subprocess.run(["fsck.fat", "-n", copy], capture_output=True, text=True)
        finally:
            copy.unlink()
        found = [line for line in start.stdout.splitlines() if not MARK_OF_A_CUT.match(line)]
        return "" if check.returncode == 0 and not found else "\n".join(found) + check.stdout + check.stderr


# source: dosfstools 4.2, src/boot.c and src/check.c
MARK_OF_A_CUT = re.compile(
    r"fsck\.fat |There are differences between boot sector|This is mostly harmless|  65:0[01]/0[01]$|  Not automatically fixing"
    r"|Dirty bit is set| Automatically removing dirty bit|Free cluster summary wrong|  Auto-correcting|\*\*\* Filesystem was changed"
    r"|Writing changes|.* files, \d+/\d+ clusters$|$"
)


# -- the log ---------------------------------------------------------------------------------------------------------

# source: Linux Documentation/admin-guide/device-mapper/log-writes.rst, QEMU block/blklogwrites.c
MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4


@dataclass(frozen=True)
class Entry:
    offset: int
    length: int
    data: int
    flush: bool


def logged(view):
    """Each write and flush, in order. The count in the log's head is as old as the last flush, so the end is told by an
    entry of zeroes."""
    magic, version, _, sector = struct.unpack_from("<QQQI", view)
    if magic == 0:
        return  # nothing was written in this boot
    if (magic, version) != (MAGIC, 1):
        raise AssertionError("not a log of blklogwrites")
    place = sector
    while place + sector <= len(view):
        first, count, flags, _ = struct.unpack_from("<QQQQ", view, place)
        if count == 0 and flags == 0:
            return
        length = 0 if flags & DISCARD else count * sector
        yield Entry(first * sector, length, place + sector, bool(flags & (FLUSH | FUA)))
        place += sector + length


def luck(unflushed: list[Entry], cut: random.Random) -> list[Entry]:
    """What a card may keep of writes nobody flushed: none, or some in any order, one of them torn."""
    if cut.random() < 0.5:
        return []
    kept = [entry for entry in unflushed if entry.length and cut.random() < 0.5]
    cut.shuffle(kept)
    if kept:
        last = kept.pop()
        sectors = cut.randrange(last.length // SECTOR + 1)
        kept.append(Entry(last.offset, sectors * SECTOR, last.data, False))
    return kept


# -- files with holes ------------------------------------------------------------------------------------------------


def copy_sparse(source: pathlib.Path, target: pathlib.Path):
    """A copy whose zeroes take no room."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", source, target], check=True)


def carve(card: pathlib.Path, partition: Partition, target: pathlib.Path):
    """One partition as a file of its own."""
    window = ["skip_bytes", "count_bytes", "fullblock"]
    words = [f"if={card}", f"of={target}", "bs=4M", f"skip={partition.start}", f"count={partition.size}"]
    subprocess.run(["dd", *words, f"iflag={','.join(window)}", "conv=sparse", "status=none"], check=True)
    with open(target, "r+b") as file:
        file.truncate(partition.size)
