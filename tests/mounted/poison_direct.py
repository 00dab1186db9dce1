# SPDX-License-Identifier: BSD-3-Clause
"""A process with direct mappings that meets bad memory: see poison.sh, case client.

    poison_direct.py LIBUMBRA FILE DAEMON_PIPE DAEMON_ANSWERS PLACE...     PLACE: where blocks 10, 20 and 30 of FILE lie in the pool

It runs with poison_preload.c, by which its own memory becomes bad, as that of the daemon does. FILE has 64 blocks.
"""
import ctypes
import errno
import os
import sys
import time

BLOCK = 4096


class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in
                'reads read_bytes writes written_bytes kernel_reads kernel_writes maps revokes lost_sessions'.split()]


class File:
    def __init__(self, lib, fd):
        self.lib, self.file = ctypes.CDLL(lib), ctypes.c_void_p()
        for name in 'umbra_pread', 'umbra_pwrite':
            fn = getattr(self.lib, name)
            fn.restype, fn.argtypes = ctypes.c_ssize_t, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
        rc = self.lib.umbra_attach(fd, ctypes.byref(self.file))
        assert rc == 0, f'attach: {rc}'

    def read(self, off, size):
        """Bytes, or a negative number."""
        buf = ctypes.create_string_buffer(size)
        n = self.lib.umbra_pread(self.file, buf, size, off)
        return buf.raw[:n] if n >= 0 else n

    def write(self, off, data):
        return self.lib.umbra_pwrite(self.file, data, len(data), off)

    def counts(self):
        counts = Counts()
        self.lib.umbra_get_counts(ctypes.byref(counts))
        return counts


def bad(pipe, answers, off):
    before = os.path.getsize(answers)
    with open(pipe, 'w') as f:
        f.write(f'bad {off}\n')
    end = time.monotonic() + 60
    while os.path.getsize(answers) == before:
        assert time.monotonic() < end, 'nobody makes memory bad'
        time.sleep(0.01)
    with open(answers) as f:
        said = f.read().split('\n')[-2]
    assert said == 'done', said


def kernel(name):
    with open(name, 'rb', buffering=0) as f:
        return f.read()


def own_alone(f, name, want, off, own):
    """The daemon reads it well: it is read and written as if nothing was."""
    bad(*own, off)
    before = f.counts().kernel_reads
    assert f.read(0, len(want)) == want, 'bytes beside bad memory of our own'
    assert f.read(10 * BLOCK + 100, 50) == want[10 * BLOCK + 100:10 * BLOCK + 150]
    assert f.counts().kernel_reads > before, 'the memory was not bad'
    want[10 * BLOCK:11 * BLOCK] = b'w' * BLOCK
    assert f.write(10 * BLOCK, b'w' * BLOCK) == BLOCK
    assert f.read(0, len(want)) == want and kernel(name) == want, 'after a write there'


def both_read(f, name, want, off, own, daemon):
    """It is lost: EIO there, and nowhere else, until it is written."""
    bad(*daemon, off)
    bad(*own, off)
    assert f.read(20 * BLOCK, BLOCK) == -errno.EIO
    assert f.read(20 * BLOCK + 200, 8) == -errno.EIO
    assert f.read(0, 20 * BLOCK) == want[:20 * BLOCK] and f.read(21 * BLOCK, len(want)) == want[21 * BLOCK:]
    part = f.read(0, len(want))
    assert part and len(part) <= 20 * BLOCK and part == want[:len(part)], 'what is before it'
    assert f.write(20 * BLOCK + 100, b'p' * 10) == -errno.EIO, 'a part of a line'
    assert f.write(20 * BLOCK, b'n' * BLOCK) == BLOCK
    want[20 * BLOCK:21 * BLOCK] = b'n' * BLOCK
    assert f.read(0, len(want)) == want and kernel(name) == want, 'after it was written'


def both_write(f, name, want, off, own, daemon):
    """The first access is a store."""
    bad(*daemon, off)
    bad(*own, off)
    assert f.write(30 * BLOCK, b's' * BLOCK) == BLOCK
    want[30 * BLOCK:31 * BLOCK] = b's' * BLOCK
    assert f.read(0, len(want)) == want and kernel(name) == want, 'after a store to bad memory'


def main():
    lib, name, *daemon = sys.argv[1:5]
    places = [int(place) for place in sys.argv[5:]]
    own = os.environ['UMBRA_POISON_PIPE'], os.environ['UMBRA_POISON_ANSWERS']
    want = bytearray(kernel(name))
    fd = os.open(name, os.O_RDWR)
    f = File(lib, fd)
    assert f.read(0, len(want)) == want and f.counts().kernel_reads == 0
    assert f.write(0, bytes(want)) == len(want) and f.counts().kernel_writes == 0
    own_alone(f, name, want, places[0], own)
    both_read(f, name, want, places[1], own, daemon)
    both_write(f, name, want, places[2], own, daemon)
    assert f.counts().lost_sessions == 0, 'the session was lost'
    f.lib.umbra_detach(f.file)


main()
