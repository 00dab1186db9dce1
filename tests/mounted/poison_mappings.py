# SPDX-License-Identifier: BSD-3-Clause
"""Processes with mappings that meet bad memory: see poison_mappings.sh.

    poison_mappings.py CASE CLIENT PRELOAD POOL FOLDER UMBRACTL        the daemon has FOLDER/pipe and FOLDER/answers
"""
import json
import os
import subprocess
import sys
import time

from mapping_driver import BLOCK, Client, equal, file_make, word

BLOCKS = 64


class Pipe:
    """By which memory of a process becomes bad (poison_preload.c)."""
    def __init__(self, pipe, answers):
        self.pipe, self.answers = pipe, answers

    def tell(self, what, off):
        before = os.path.getsize(self.answers)
        with open(self.pipe, 'w') as f:
            f.write(f'{what} {off}\n')
        end = time.monotonic() + 60
        while os.path.getsize(self.answers) == before:
            assert time.monotonic() < end, 'nobody makes memory bad'
            time.sleep(0.01)
        with open(self.answers) as f:
            equal(f.read().split('\n')[-2], 'done', what)


class World:
    def __init__(self, program, preload, pool, folder, ctl):
        self.program, self.preload, self.pool, self.folder, self.ctl = program, preload, pool, folder, ctl
        self.daemon = Pipe(os.path.join(folder, 'pipe'), os.path.join(folder, 'answers'))
        self.clients = []

    def name(self, file):
        return os.path.join(self.folder, 'mnt', file)

    def place(self, file, block):
        out = subprocess.run([self.ctl, 'map', '--json', self.name(file)], check=True, capture_output=True, text=True).stdout
        off = block * BLOCK
        return next(e['dev_off'] + off - e['file_off'] for e in json.loads(out) if e['file_off'] <= off < e['file_off'] + e['len'])

    def client(self, *files, lasts=True):
        """With all of its files mapped and in place."""
        pipe, answers = (os.path.join(self.folder, f'{kind}{len(self.clients)}') for kind in ('pipe', 'answers'))
        os.mkfifo(pipe)
        with open(answers, 'w'):
            pass
        env = {'LD_PRELOAD': self.preload, 'UMBRA_POISON_PIPE': pipe, 'UMBRA_POISON_ANSWERS': answers, 'UMBRA_POISON_POOL': self.pool}
        c = Client(self.program, [self.name(f) for f in files], {**env, **({'UMBRA_POISON_LASTS': '1'} if lasts else {})})
        c.memory = Pipe(pipe, answers)
        self.clients.append(c)
        for i in range(len(files)):
            equal(c.ask('map', i), 'ok', 'map')
            for b in range(BLOCKS):
                equal(c.load(b * BLOCK + 8, i), word(b, 1), 'before')
        return c

    def end(self):
        for c in self.clients:
            c.kill()


def rest(c, lost, index=0):
    """All but what is lost can be loaded, and stored to."""
    for b in range(BLOCKS):
        if b not in lost:
            equal(c.load(b * BLOCK + 8, index), word(b, 1), f'block {b}')
            equal(c.store(b * BLOCK + 8, word(b, 1), index), 'ok', f'block {b}')


def is_bus(what):
    """Kernels without CONFIG_MEMORY_FAILURE say adrerr at once, others when it is touched again."""
    assert what in ('bus mceerr_ar 0', 'bus adrerr 0'), what


def is_lost(c, block, index=0, first=None):
    for at in (first, 0, 8, BLOCK - 8) if first is not None else (0, 8, BLOCK - 8):
        for what in c.load(block * BLOCK + at, index), c.store(block * BLOCK + at, 1, index):
            is_bus(what)


def whole(w, name, block):
    """Written as a whole by somebody else."""
    with open(w.name(name), 'r+b', buffering=0) as f:
        os.pwrite(f.fileno(), b''.join(word(block, at).to_bytes(8, 'little') for at in range(BLOCK // 8)), block * BLOCK)


def case_own_alone(w):
    """The daemon reads it well: all goes on, whether what is mapped anew is good or not."""
    file_make(w.name('file'), BLOCKS)
    for lasts in False, True:
        c = w.client('file', lasts=lasts)
        for block, first in (10, 'load'), (20, 'store'):
            c.memory.tell('bad', w.place('file', block))
            if first == 'store':
                equal(c.store(block * BLOCK + 16, 0x16), 'ok', 'store')
                equal(c.load(block * BLOCK + 16), 0x16, 'what was stored')
            equal(c.load(block * BLOCK + 24), word(block, 3), 'load')
            rest(c, ())
            with open(w.name('file'), 'rb', buffering=0) as f:
                equal(int.from_bytes(os.pread(f.fileno(), 8, block * BLOCK + 16), 'little'), 0x16 if first == 'store' else word(block, 2), 'by the kernel')
        c.end()


def case_both(w):
    """It is lost: SIGBUS at that very address, and nowhere else; then it is put back in each of the ways that there are."""
    file_make(w.name('file'), BLOCKS)
    with open(w.name('file'), 'rb') as f, open(os.path.join(w.folder, 'backup'), 'wb') as backup:
        backup.write(f.read())
    c = w.client('file')
    for block, first, heal in ((10, 'load', 'write'), (20, 'store', 'write'), (30, 'load', 'repair'), (40, 'store', 'punch'), (50, 'read', 'own write')):
        place = w.place('file', block)
        c.memory.tell('bad', place)
        w.daemon.tell('bad', place)
        if first == 'read':
            equal(c.read(block * BLOCK), '-5', 'read')
        else:
            is_bus(c.ask(first, 0, block * BLOCK + 48, 1))
        is_lost(c, block)
        rest(c, (block,))
        equal(c.ask('early', 0, block * BLOCK), 'ok', 'told early')
        if heal == 'write':
            whole(w, 'file', block)
        elif heal == 'repair':
            subprocess.run([w.ctl, 'repair', '--from', os.path.join(w.folder, 'backup'), w.name('file')], check=True, stdout=subprocess.DEVNULL)
        elif heal == 'punch':
            subprocess.run(['fallocate', '-p', '-o', str(block * BLOCK), '-l', str(BLOCK), w.name('file')], check=True)
        else:
            for at in range(0, BLOCK, 64):
                equal(c.ask('fill', 0, block * BLOCK + at, 64), 'ok', 'a line')
        if heal == 'punch':
            equal(c.load(block * BLOCK + 8), 0, 'a hole')
            equal(c.store(block * BLOCK + 8, word(block, 1)), 'ok', 'to a hole')
        # What the kernel has read once is read directly from then on.
        want = c.read(block * BLOCK + 8)
        before = c.ask('counts')
        equal(c.read(block * BLOCK + 8), want, 'read again')
        equal(c.ask('counts'), before, 'calls of the kernel')
        rest(c, ())
        subprocess.run([w.ctl, 'losses', w.name('')], check=True, stdout=subprocess.DEVNULL)
    equal(c.ask('counts').split()[2], '0', 'sessions lost')
    c.end()


def case_daemon_alone(w):
    """The daemon has met it first: whoever has it mapped is asked to let go, and what he could still read is not shown any more."""
    file_make(w.name('file'), BLOCKS)
    c = w.client('file')
    w.daemon.tell('bad', w.place('file', 10))
    with open(w.name('file'), 'rb', buffering=0) as f:
        try:
            os.pread(f.fileno(), 8, 10 * BLOCK)
            raise AssertionError('it can be read')
        except OSError:
            pass
    is_lost(c, 10)
    rest(c, (10,))
    whole(w, 'file', 10)
    rest(c, ())
    c.end()


def case_owners(w):
    """A block of several clones, in several processes: each has lost it, each is healed by itself."""
    file_make(w.name('a'), BLOCKS)
    for clone in 'b', 'c':
        subprocess.run(['cp', '--reflink=auto', w.name('a'), w.name(clone)], check=True)
    subprocess.run(['setfattr', '-n', 'user.umbra.on_poison', '-v', 'zero', w.name('c')], check=True)
    place = w.place('a', 10)
    equal(w.place('b', 10), place, 'the block of the clone')
    clients = [w.client('a', 'b', 'c') for _ in range(2)]
    one, two = clients
    # One of them has a copy of its own of what is around another block.
    equal(one.store(40 * BLOCK + 16, 0x1111, 1), 'ok', 'store')
    for memory in w.daemon, one.memory, two.memory:
        memory.tell('bad', place)
    is_bus(one.load(10 * BLOCK + 8, 1))
    for c in clients:
        is_lost(c, 10, 0)
        is_lost(c, 10, 1)
        equal(c.load(10 * BLOCK + 8, 2), 0, 'who wants zeroes')
        rest(c, (10,), 0)
        rest(c, (10,), 1)
        equal(c.load(40 * BLOCK + 16, 1), 0x1111, 'beside it')
    equal(one.store(10 * BLOCK + 8, 0x99, 2), 'ok', 'in the place of zeroes')
    equal(two.load(10 * BLOCK + 8, 2), 0x99, 'in the place of zeroes')
    whole(w, 'b', 10)
    for c in clients:
        is_lost(c, 10, 0)
        rest(c, (), 1)
    whole(w, 'a', 10)
    for c in clients:
        rest(c, (), 0)
        equal(c.ask('counts').split()[2], '0', 'sessions lost')
        c.end()


def main():
    case, *args = sys.argv[1:]
    w = World(*args)
    try:
        globals()['case_' + case](w)
    finally:
        w.end()


main()
