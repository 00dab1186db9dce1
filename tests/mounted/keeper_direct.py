# SPDX-License-Identifier: BSD-3-Clause
"""Processes with mappings in a mount with a keeper, whose daemon is killed or replaced: see keeper.sh.

    keeper_direct.py CASE UMBRAFS CLIENT POOL FOLDER
"""
import mmap
import os
import signal
import subprocess
import sys
import threading
import time

from keeper import daemon_of
from mapping_driver import BLOCK, equal, file_make, word
from restart import BLOCKS, World, is_kernels


class Kept(World):
    def kill(self, lazily=True):
        os.kill(daemon_of(self.daemon.pid), signal.SIGKILL)

    def upgrade(self):
        ctl = os.path.join(os.path.dirname(self.umbrafs), 'umbractl')
        subprocess.run([ctl, 'upgrade', self.mnt], check=True, stdout=self.log, stderr=self.log)

    def place(self, block):
        """Where the pool has this block of a file_make() file, and nothing else."""
        with open(self.pool, 'rb') as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as pool:
            start = b''.join(word(block, at).to_bytes(8, 'little') for at in range(BLOCK // 8))
            at = pool.find(start)
            assert at >= 0 and at % BLOCK == 0 and pool.find(start, at + 1) < 0, 'the file is not where it should be'
        return at

    def pool_has(self, at, block):
        with open(self.pool, 'rb') as f:
            f.seek(at)
            return f.read(8) == word(block).to_bytes(8, 'little')

    def fill(self, name):
        """All that there is, with bytes that are in no other file."""
        with open(self.name(name), 'wb', buffering=0) as f:
            size = 1 << 20
            while size >= BLOCK:
                try:
                    f.write(b'\xee' * size)
                except OSError:
                    size //= 2

    def free(self):
        return os.statvfs(self.mnt).f_bfree

    def wait_free(self, blocks):
        until(lambda: self.free() >= blocks, f'not {blocks} blocks are free')


def until(is_so, what):
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def case_goes_on(w):
    """Calls and accesses wait for the next daemon, and then it is the device again that is mapped."""
    file_make(w.name('file'), BLOCKS)
    c = w.client('file')
    for turn in range(6):
        equal(c.store((10 + turn) * BLOCK, 0x100 + turn), 'ok', 'store before')
        equal(c.write((20 + turn) * BLOCK, 0x200 + turn), 'ok', 'write before')
        if turn % 2:
            w.upgrade()
        else:
            w.kill()
        equal(c.load(5 * BLOCK), word(5), 'load')
        equal(c.read(6 * BLOCK), word(6), 'read')
        equal(c.store((30 + turn) * BLOCK, 0x300 + turn), 'ok', 'store')
        equal(c.write((40 + turn) * BLOCK, 0x400 + turn), 'ok', 'write')
        equal(c.ask('sync'), 'ok', 'sync')
        for before in range(turn + 1):
            for place, what in (10, 0x100), (20, 0x200), (30, 0x300), (40, 0x400):
                equal(c.load((place + before) * BLOCK), what + before, 'what was stored')
                equal(w.kernel((place + before) * BLOCK), what + before, 'what was stored, by the kernel')
    assert not is_kernels(c, w.name('file')), 'it has become a mapping of the kernel'
    equal(c.ask('counts').split()[2], '6', 'ends of sessions')
    c.end()
    w.down()


def case_places(w):
    """What is stored where there was a hole, or other files have the blocks, has its place for good."""
    file_make(w.name('file'), BLOCKS)
    subprocess.run(['cp', '--reflink=auto', w.name('file'), w.name('clone')], check=True)
    with open(w.name('holes'), 'wb') as f:
        f.truncate(BLOCKS * BLOCK)
    c = w.client('clone', 'holes')
    for turn in range(4):
        for index in range(2):
            for block in range(4 + turn, BLOCKS, 5):
                equal(c.store(block * BLOCK + 8 * turn, 0xabc + turn, index), 'ok', 'store')
        w.kill()
        for seen in range(turn + 1):
            for index, name in enumerate(('clone', 'holes')):
                for block in range(4 + seen, BLOCKS, 5):
                    equal(w.kernel(block * BLOCK + 8 * seen, name), 0xabc + seen, f'{name} by the kernel')
                    equal(c.load(block * BLOCK + 8 * seen, index), 0xabc + seen, name)
        for block in range(BLOCKS):
            equal(w.kernel(block * BLOCK, 'file'), word(block), 'the other file')
    c.end()
    w.down()


def case_unlinked(w):
    """A file without a name is there as long as somebody maps it."""
    file_make(w.name('file'), BLOCKS)
    c = w.client('file')
    equal(c.load(BLOCK), word(1), 'before')
    os.unlink(w.name('file'))
    for turn in range(3):
        w.kill()
        equal(c.load((2 + turn) * BLOCK), word(2 + turn), 'load')
        equal(c.store(9 * BLOCK, turn), 'ok', 'store')
        equal(c.load(9 * BLOCK), turn, 'what was stored')
    c.end()
    w.down()


def case_times(w):
    """That a file was stored to is known though the daemon that was to hear of it has ended."""
    file_make(w.name('file'), BLOCKS)
    c = w.client('file')
    for turn, what in enumerate(('write', 'store', 'write', 'store')):
        equal(c.ask(what, 0, BLOCK, 1), 'ok', what)
        w.free()
        os.utime(w.name('file'), (1, 1))
        equal(c.ask(what, 0, 2 * BLOCK, turn), 'ok', what)
        w.kill()
        # It says so when it touches the file again, of which it has nothing in place any more.
        c.let_go()
        equal(c.load(2 * BLOCK), turn, 'what was stored')
        assert os.stat(w.name('file')).st_mtime > 1, f'turn {turn}: its time has not moved'
    c.end()
    w.down()


def stopped(w, before):
    """One who does not let go, because he is stopped. before: the daemon has given him up, and was killed after that."""
    free = w.free()
    file_make(w.name('file'), BLOCKS)
    file_make(w.name('other'), 4)
    place = w.place(20)
    c = w.client('file')
    equal(c.load(BLOCK), word(1), 'before')
    equal(c.store(3 * BLOCK, 0x33), 'ok', 'store')
    c.stop()
    if before:
        os.truncate(w.name('file'), 8 * BLOCK)
    w.kill()
    # Whatever he does not have goes on.
    with open(w.name('other'), 'r+b') as f:
        f.write(b'x')
    if not before:
        os.truncate(w.name('file'), 8 * BLOCK)
    equal(w.kernel(3 * BLOCK), 0x33, 'what he has stored')
    for turn in range(2):
        w.fill(f'full{turn}')
        assert w.pool_has(place, 20), 'blocks that he has were handed out'
        os.unlink(w.name(f'full{turn}'))
        if turn == 0:
            w.kill()
    c.go_on()
    equal(c.load(2 * BLOCK), word(2), 'after')
    equal(c.store(4 * BLOCK, 0x44), 'ok', 'store')
    equal(w.kernel(4 * BLOCK), 0x44, 'by the kernel')
    equal(c.load(20 * BLOCK), 'bus adrerr 0', 'past the end')
    c.end()
    os.unlink(w.name('file'))
    os.unlink(w.name('other'))
    w.wait_free(free)
    w.fill('full')
    assert not w.pool_has(place, 20), 'blocks are never used again'
    w.down()


def case_stopped(w):
    stopped(w, False)


def case_stopped_before(w):
    stopped(w, True)


def case_dies(w):
    """A process that is killed while there is no daemon is nobody to wait for."""
    free = w.free()
    for turn in range(4):
        file_make(w.name('file'), BLOCKS)
        c = w.client('file')
        equal(c.store(BLOCK, 1), 'ok', 'store')
        c.stop()
        w.kill()
        c.kill()
        w.clients.remove(c)
        equal(w.kernel(BLOCK), 1, 'what it stored')
        os.truncate(w.name('file'), 0)
        os.unlink(w.name('file'))
        w.wait_free(free)
    w.down()


def truncate(name, size, said):
    os.truncate(name, size)
    said.append(name)


def up_holding(w):
    """With hold_preload.c: the name of its file, which is not there."""
    hold = os.path.join(w.folder, 'holding')
    hold_end(hold)
    os.environ.update(HOLD=hold, HOLD_WRITES='1', LD_PRELOAD=os.path.join(os.path.dirname(w.program), 'libhold_preload.so'))
    w.up(options='keeper,threads=8')
    del os.environ['LD_PRELOAD']
    return hold


def hold_end(hold):
    for name in (hold, hold + '.there', hold + '.taken'):
        if os.path.exists(name):
            os.unlink(name)


def cuts_taken(hold):
    return os.path.getsize(hold + '.taken') if os.path.exists(hold + '.taken') else 0


def case_locked(w):
    """
    Who has the lock of his address space while he waits for a WRITE lets go when that has been answered, whatever else is asked again: here files of his are cut off, and
    wait for him. In which order the kernel asks again is chance.
    """
    files, hold = [f'file{i}' for i in range(6)], up_holding(w)
    for turn in range(6):
        for name in (*files, 'pages'):
            file_make(w.name(name), 4)
        c = w.client(*files, others=['pages'])
        for i in range(len(files)):
            equal(c.store(8 * i, 0x100 + i, i), 'ok', 'store')
        open(hold, 'w').close()
        written = c.send('kernel', len(files), 8, 0x700 + turn)
        until(lambda: os.path.exists(hold + '.there'), 'no page is written')
        said = []
        cuts = [threading.Thread(target=truncate, args=(w.name(name), BLOCK, said)) for name in files]
        for cut in cuts:
            cut.start()
        until(lambda: cuts_taken(hold) == len(files), 'not all are cut off')
        assert not said and not written.is_there(), 'somebody was answered by the daemon before'
        w.kill()
        hold_end(hold)
        equal(written.get(), 'ok', 'what is written')
        for cut in cuts:
            cut.join()
        with open(w.log.name) as log:
            assert 'does not let go in time' not in log.read(), 'he was given up'
        equal(w.kernel(8, 'pages'), 0x700 + turn, 'what was written')
        for i, name in enumerate(files):
            equal(c.load(8 * i, i), 0x100 + i, 'what was stored')
            equal(c.load(BLOCK, i), 'bus adrerr 0', 'past the end')
            equal(w.kernel(8 * i, name), 0x100 + i, 'by the kernel')
        c.end()
    w.down()


def case_again(w):
    """That a request waits for who maps the file while daemons are killed is not taken for its having ended them."""
    hold = up_holding(w)
    file_make(w.name('file'), 4)
    c = w.client('file')
    equal(c.store(0, 0x100), 'ok', 'store')
    c.stop()
    open(hold, 'w').close()
    said = []
    cut = threading.Thread(target=truncate, args=(w.name('file'), BLOCK, said))
    cut.start()
    until(lambda: cuts_taken(hold), 'it is not cut off')
    for _ in range(6):
        w.free()  # it answers: all that was asked again has been begun
        w.kill()
    c.go_on()
    cut.join()
    hold_end(hold)
    equal(said, [w.name('file')], 'who was to cut it off')
    equal(w.kernel(0), 0x100, 'what was stored')
    equal(c.load(BLOCK), 'bus adrerr 0', 'past the end')
    c.end()
    w.down()


def main():
    case, *rest = sys.argv[1:]
    w = Kept(*rest)
    try:
        if case not in ('locked', 'again'):
            w.up(options='keeper')
        globals()['case_' + case](w)
    finally:
        w.end()


main()
