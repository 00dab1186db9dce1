# SPDX-License-Identifier: BSD-3-Clause
"""Processes with mappings whose daemon is killed, and the next one: see restart.sh.

    restart.py CASE UMBRAFS CLIENT POOL FOLDER
"""
import errno
import mmap
import os
import subprocess
import sys
import time

from mapping_driver import BLOCK, Client, equal, file_make, word

BLOCKS = 64


class World:
    def __init__(self, umbrafs, program, pool, folder):
        self.umbrafs, self.program, self.pool, self.folder = umbrafs, program, pool, folder
        self.mnt, self.log = os.path.join(folder, 'mnt'), open(os.path.join(folder, 'log'), 'w')
        self.daemon, self.clients = None, []

    def up(self, at=None, options='', fails=False, pool=None):
        at = at or self.mnt
        self.daemon = subprocess.Popen([self.umbrafs, '-f', *(['-o', options] if options else []), pool or self.pool, at],
                                       stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        end = time.monotonic() + 60
        while not os.path.ismount(at):
            ended = self.daemon.poll() is not None
            assert fails or not ended, 'the daemon has ended'
            if ended:
                return
            assert time.monotonic() < end
            time.sleep(0.02)
        assert not fails, 'it is mounted'
        self.at = at

    def kill(self, lazily=True):
        """As a crash; the mount is taken away as an administrator would."""
        self.daemon.kill()
        self.daemon.wait()
        if lazily:
            subprocess.run(['umount', '-l', self.at], check=True)

    def stop(self):
        """As it is stopped under open files: it takes the mount away by itself."""
        self.daemon.terminate()
        assert self.daemon.wait(60) == 0
        assert not os.path.ismount(self.at), 'it is still mounted'

    def down(self):
        """As soon as nobody is there any more: who has just ended, or is being looked at in /proc, may hold it for a moment."""
        end = time.monotonic() + 60
        while subprocess.run(['umount', self.at], check=False, stderr=self.log).returncode:
            assert time.monotonic() < end, 'it cannot be unmounted'
            time.sleep(0.02)
        assert self.daemon.wait(60) == 0

    def name(self, file):
        return os.path.join(self.mnt, file)

    def client(self, *files, wait='wait:90', **env):
        c = Client(self.program, [self.name(f) for f in files], {'UMBRA_RESTART': wait, **env})
        self.clients.append(c)
        for i in range(len(files)):
            equal(c.ask('map', i), 'ok', 'map')
        return c

    def kernel(self, off, file='file'):
        with open(os.path.join(self.at, file), 'rb', buffering=0) as f:
            return int.from_bytes(os.pread(f.fileno(), 8, off), 'little')

    def end(self):
        for c in self.clients:
            c.kill()
        if self.daemon and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()
        if os.path.ismount(self.at):
            subprocess.run(['umount', '-l', self.at], check=False)


def blocked(answer):
    """Not a proof, but what is wrong here is so nearly at once."""
    return not answer.is_there(0.5)


def case_goes_on(w):
    """Loads, stores and calls wait for the next daemon; what was stored and synchronized is there."""
    file_make(w.name('file'), BLOCKS)
    c = w.client('file')
    equal(c.load(5 * BLOCK), word(5), 'before')
    equal(c.store(6 * BLOCK, 0x6666), 'ok', 'store')
    equal(c.ask('sync'), 'ok', 'sync')
    equal(c.write(7 * BLOCK, 0x7777), 'ok', 'write')
    for turn in range(3):
        if turn == 1:
            w.stop()
        else:
            w.kill()
        c.let_go()
        waiting = [c.send('load', 0, 5 * BLOCK), c.send('store', 0, 8 * BLOCK, 0x8880 + turn), c.send('read', 0, 6 * BLOCK),
                   c.send('write', 0, 9 * BLOCK, 0x9990 + turn), c.send('sync')]
        for answer in waiting:
            assert blocked(answer), f'it went on without a daemon: {answer.get()}'
        w.up()
        equal([a.get() for a in waiting], [hex(word(5)), 'ok', '0x6666', 'ok', 'ok'], 'after')
        equal(c.load(7 * BLOCK), 0x7777, 'what was written before')
        equal(c.load(9 * BLOCK), 0x9990 + turn, 'what waited')
        for off, want in (6 * BLOCK, 0x6666), (7 * BLOCK, 0x7777), (8 * BLOCK, 0x8880 + turn), (9 * BLOCK, 0x9990 + turn):
            equal(w.kernel(off), want, 'by the kernel')
        equal(c.store(10 * BLOCK, 0xaaa0 + turn), 'ok', 'store')
        equal(w.kernel(10 * BLOCK), 0xaaa0 + turn, 'stored with the new daemon')
    equal(c.ask('counts').split()[:2], ['0', '0'], 'calls of the kernel')
    c.end()
    w.down()


def case_places(w):
    """What is stored where there was a hole, or other files have the blocks, has its place for good from then on."""
    file_make(w.name('file'), BLOCKS)
    subprocess.run(['cp', '--reflink=auto', w.name('file'), w.name('clone')], check=True)
    with open(w.name('holes'), 'wb') as f:
        f.truncate(BLOCKS * BLOCK)
        f.write(bytes(BLOCK))
    c = w.client('clone', 'holes')
    for turn in range(3):
        for index in range(2):
            for block in range(4 + turn, BLOCKS, 5):
                equal(c.store(block * BLOCK + 8 * turn, 0xabc + turn, index), 'ok', 'store')
        w.kill()
        w.up()
        for seen in range(turn + 1):
            for index, name in enumerate(('clone', 'holes')):
                for block in range(4 + seen, BLOCKS, 5):
                    equal(c.load(block * BLOCK + 8 * seen, index), 0xabc + seen, name)
                    equal(w.kernel(block * BLOCK + 8 * seen, name), 0xabc + seen, f'{name} by the kernel')
        for block in range(BLOCKS):
            equal(w.kernel(block * BLOCK, 'file'), word(block), 'the other file')
    c.end()
    w.down()


def case_umbra_run(w):
    """Positional calls of a program under umbra-run."""
    file_make(w.name('file'), BLOCKS)
    script = r"""
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for line in sys.stdin:
    off = int(line)
    got = os.pread(fd, 8, off)
    os.pwrite(fd, bytes(reversed(got)), off)
    print(int.from_bytes(os.pread(fd, 8, off), 'big'), flush=True)
"""
    run = os.path.join(os.path.dirname(w.umbrafs), 'umbra-run')
    program = subprocess.Popen([run, sys.executable, '-c', script, w.name('file')], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, 'UMBRA_DIRECT': 'all', 'UMBRA_RESTART': 'wait:90'})

    def tell(block):
        program.stdin.write(f'{block * BLOCK + 8}\n')
        program.stdin.flush()

    try:
        for turn in range(3):
            tell(turn)
            equal(int(program.stdout.readline()), word(turn, 1), 'before')
            w.kill()
            tell(turn + 10)
            time.sleep(0.3)
            w.up()
            equal(int(program.stdout.readline()), word(turn + 10, 1), 'after')
            equal(w.kernel((turn + 10) * BLOCK + 8), int.from_bytes(word(turn + 10, 1).to_bytes(8, 'little'), 'big'), 'by the kernel')
        program.stdin.close()
        assert program.wait(60) == 0
    finally:
        program.kill()
    w.down()


def case_elsewhere(w):
    """The next mount is at another place, and the file has another name; the first mount is still there."""
    os.mkdir(w.name('d'))
    file_make(w.name('d/file'), BLOCKS)
    c = w.client('d/file')
    equal(c.load(BLOCK), word(1), 'before')
    os.rename(w.name('d'), w.name('e'))
    first = w.mnt
    w.kill(lazily=False)
    c.let_go()
    waiting = c.send('load', 0, 3 * BLOCK)
    assert blocked(waiting)
    other = os.path.join(w.folder, 'other place')
    os.mkdir(other)
    # By another name of the pool: then its socket tells.
    name = w.pool + '.link'
    os.symlink(w.pool, name)
    w.up(other, pool=name)
    equal(waiting.get(), hex(word(3)), 'after')
    equal(c.store(4 * BLOCK, 0x44), 'ok', 'store')
    equal(w.kernel(4 * BLOCK, 'e/file'), 0x44, 'by the kernel')
    subprocess.run(['umount', '-l', first], check=True)
    equal(c.load(5 * BLOCK), word(5), 'the first mount is gone')
    c.end()
    w.down()


def case_is_gone(w):
    """Removed, or another file under the name: nobody reads or writes that."""
    file_make(w.name('gone'), BLOCKS)
    file_make(w.name('other'), BLOCKS)
    file_make(w.name('stays'), BLOCKS)
    c = w.client('gone', 'other', 'stays')
    for i in range(3):
        equal(c.load(BLOCK, i), word(1), 'before')
    w.kill()
    hidden = os.path.join(w.folder, 'hidden')
    os.mkdir(hidden)
    # Where this process does not see it: changed there before anybody can go on.
    script = (f'mount --make-rprivate / && {{ "$0" -f "$1" "{hidden}" & }} && until mountpoint -q "{hidden}"; do sleep 0.02; done; '
              f'cd "{hidden}" && rm gone other && cp stays other && sync . && cd / && umount "{hidden}" && wait')
    subprocess.run(['unshare', '-m', 'bash', '-c', script, w.umbrafs, w.pool], check=True, stdout=w.log, stderr=w.log)
    w.up()
    equal(c.load(BLOCK, 2), word(1), 'the one that stays')
    for i, what in enumerate(('gone', 'replaced')):
        equal(c.load(2 * BLOCK, i), 'bus adrerr 0', what)
        equal(c.store(2 * BLOCK, 1, i), 'bus adrerr 0', what)
        equal(c.read(2 * BLOCK, i), str(-errno.ESTALE), what)
        equal(c.write(2 * BLOCK, 1, i), str(-errno.ESTALE), what)
    equal(w.kernel(2 * BLOCK, 'other'), word(2), 'the one that was put there')
    equal(c.store(2 * BLOCK, 0x22, 2), 'ok', 'the one that stays')
    c.end()
    w.down()


def links_of(pid):
    """What the descriptors of a process show, but for those that it closes meanwhile."""
    fds = os.path.join('/proc', str(pid), 'fd')
    for fd in os.listdir(fds):
        try:
            yield os.readlink(os.path.join(fds, fd))
        except FileNotFoundError:
            pass


def case_deleted(w):
    """Somebody asks the dead mount about the names: the kernel, which gets no answer, calls the files deleted then. They are found all the same."""
    os.mkdir(w.name('d'))
    names = ('file', 'd/file', 'called (deleted)', 'other')
    for name in names:
        file_make(w.name(name), BLOCKS)
    c = w.client(*names)
    for turn in range(2):
        for i in range(len(names)):
            equal(c.load(BLOCK, i), word(1), 'before')
        w.kill(lazily=False)
        for name in names + ('d',):
            try:
                os.open(w.name(name), os.O_CREAT | os.O_EXCL | os.O_RDWR)
                raise AssertionError('the dead mount answers')
            except OSError as e:
                equal(e.errno, errno.ENOTCONN, 'of the dead mount')
        deleted = {link[:-len(' (deleted)')] for link in links_of(c.process.pid) if link.endswith(' (deleted)')}
        assert {w.name(n) for n in ('file', 'called (deleted)', 'other')} <= deleted, f'the kernel calls {deleted} deleted'
        subprocess.run(['umount', '-l', w.at], check=True)
        w.up()
        for i, name in enumerate(names):
            off = (2 + turn) * BLOCK
            equal(c.load(off, i), word(2 + turn), name)
            equal(c.write(off, 0x77, i), 'ok', name)
            equal(w.kernel(off, name), 0x77, name)
    c.end()
    w.down()


def case_fails(w):
    """As told, it fails at once, or after some time; and goes on when there is a daemon."""
    file_make(w.name('file'), BLOCKS)
    for how in 'fail', 'wait:1':
        c = w.client('file', wait=how)
        equal(c.load(BLOCK), word(1), 'before')
        equal(c.store(3 * BLOCK, 0x33), 'ok', 'store')
        w.kill()
        c.let_go()
        equal(c.load(BLOCK), 'bus adrerr 0', how)
        equal(c.store(2 * BLOCK, 1), 'bus adrerr 0', how)
        equal(c.read(BLOCK), str(-errno.ENOTCONN), how)
        equal(c.write(BLOCK, 1), str(-errno.ENOTCONN), how)
        equal(c.ask('sync'), str(-errno.ENOTCONN), how)
        w.up()
        end = time.monotonic() + 60
        while c.load(BLOCK) != word(1):
            assert time.monotonic() < end, 'it does not go on'
            time.sleep(0.02)
        equal(c.store(2 * BLOCK, word(2)), 'ok', 'store')
        equal(c.read(BLOCK), word(1), 'read')
        c.end()
    w.down()


def case_attached_again(w):
    """A file that is mapped, and attached by a descriptor of the next mount: it is one file all the same."""
    file_make(w.name('file'), BLOCKS)
    file_make(w.name('file2'), BLOCKS)
    for first in 'attach', 'load':
        c = w.client('file', 'file2')
        equal(c.load(BLOCK), word(1), 'before')
        equal(c.ask('detach'), 'ok', 'detach')
        w.kill()
        w.up()
        if first == 'load':
            equal(c.load(2 * BLOCK), word(2), 'after')
        equal(c.ask('attach'), 'ok', 'attach')
        subprocess.run(['cp', '--reflink=auto', w.name('file'), w.name('copy')], check=True)
        for i in range(10, 20):
            equal(c.load(i * BLOCK), word(i), 'load')
            equal(c.write(i * BLOCK + 8, 0x1000 + i), 'ok', 'write')
            equal(c.load(i * BLOCK + 8), 0x1000 + i, 'what was written')
            equal(c.store(i * BLOCK + 16, 0x2000 + i), 'ok', 'store')
            equal(c.read(i * BLOCK + 16), 0x2000 + i, 'what was stored')
            equal(w.kernel(i * BLOCK + 8), 0x1000 + i, 'by the kernel')
            equal(w.kernel(i * BLOCK + 16), 0x2000 + i, 'by the kernel')
        for i in range(10, 20):
            equal(w.kernel(i * BLOCK + 8, 'copy'), word(i, 1) if first == 'attach' else 0x1000 + i, 'the clone')
        os.unlink(w.name('copy'))
        c.end()
    w.down()


def case_small_stack(w):
    """Threads with small stacks for signals, on which the file is found again."""
    folder = 'a-rather-long-name-' * 10
    os.mkdir(w.name(folder))
    file_make(w.name(f'{folder}/file'), BLOCKS)
    c = w.client(f'{folder}/file', MAPPING_STACK='1')
    equal(c.load(BLOCK), word(1), 'before')
    for turn in range(2):
        w.kill()
        c.let_go()
        waiting = [c.send('load', 0, 5 * BLOCK), c.send('store', 0, 8 * BLOCK, 0x8880 + turn)]
        w.up()
        equal([a.get() for a in waiting], [hex(word(5)), 'ok'], 'after')
        equal(c.load(8 * BLOCK), 0x8880 + turn, 'what was stored')
    c.end()
    w.down()


def case_last_thread(w):
    """A process without a main thread ends with its last one, which is none of the library's."""
    file_make(w.name('file'), BLOCKS)
    c = w.client('file', MAPPING_ENDS='1')
    equal(c.load(BLOCK), word(1), 'before')
    w.kill()
    c.let_go()
    waiting = c.send('store', 0, 2 * BLOCK, 0x222)
    c.process.stdin.close()
    assert blocked(waiting), f'it went on without a daemon: {waiting.get()}'
    w.up()
    equal(waiting.get(), 'ok', 'a thread that is left')
    assert c.process.wait(100) == 0, 'how it ended'
    equal(w.kernel(2 * BLOCK), 0x222, 'what it has stored')
    w.down()


def case_stopped(w):
    """Who cannot let go keeps the next mount away, which says so; then it goes on."""
    file_make(w.name('file'), BLOCKS)
    c = w.client('file')
    equal(c.load(BLOCK), word(1), 'before')
    c.stop()
    w.kill()
    w.up(fails=True)
    with open(os.path.join(w.folder, 'log'), encoding='utf-8') as log:
        assert f' {c.process.pid} (mapping_client)' in log.read(), 'it does not say who'
    c.go_on()
    w.up()
    equal(c.load(BLOCK), word(1), 'after')
    c.end()
    w.down()


def is_kernels(c, name):
    with open(f'/proc/{c.process.pid}/maps', encoding='utf-8') as maps:
        return name in maps.read()


def case_kernels(w):
    """A mapping that has become the kernel's, since others have the file open through it: it waits for the next daemon too."""
    file_make(w.name('file'), BLOCKS)
    with open(w.name('file'), 'r+b') as f, mmap.mmap(f.fileno(), 0) as other:
        c = w.client('file')
        equal(int.from_bytes(other[:8], 'little'), word(0), 'what another process has mapped')
        equal(c.store(5 * BLOCK, 0x55), 'ok', 'store')
        equal(c.load(6 * BLOCK), word(6), 'load')
    assert is_kernels(c, w.name('file')), 'it is not the mapping of the kernel'
    equal(c.ask('sync'), 'ok', 'sync')
    w.kill(lazily=False)
    end = time.monotonic() + 60
    while is_kernels(c, w.name('file')):
        assert time.monotonic() < end, 'it stays the mapping of the kernel'
        time.sleep(0.01)
    subprocess.run(['umount', '-l', w.at], check=True)
    waiting = [c.send('load', 0, 6 * BLOCK), c.send('load', 0, 40 * BLOCK), c.send('store', 0, 7 * BLOCK, 0x77)]
    for answer in waiting:
        assert blocked(answer), f'it went on without a daemon: {answer.get()}'
    w.up()
    equal([a.get() for a in waiting], [hex(word(6)), hex(word(40)), 'ok'], 'after')
    equal(w.kernel(5 * BLOCK), 0x55, 'by the kernel')
    equal(w.kernel(7 * BLOCK), 0x77, 'by the kernel')
    c.end()
    w.down()


def case_many(w):
    """Threads and processes that store while daemons are killed: each word once stored is there in the end."""
    file_make(w.name('file'), BLOCKS)
    clients = [w.client('file') for _ in range(3)]
    stored = {}
    for turn in range(4):
        sent = []
        for number, c in enumerate(clients):
            for i in range(12):
                off = ((turn * 12 + i) * BLOCK + 8 * number) % (BLOCKS * BLOCK)
                value = turn << 16 | number << 8 | i
                sent.append((c.send('store' if i % 2 else 'write', 0, off, value), off, value))
            if number == 0:
                w.kill()
        w.up()
        for answer, off, value in sent:
            equal(answer.get(), 'ok', 'store')
            stored[off] = value
    for off, value in stored.items():
        equal(clients[off // 8 % 2].load(off), value, 'load')
        equal(w.kernel(off), value, 'by the kernel')
    for c in clients:
        c.end()
    w.down()


def main():
    case, *rest = sys.argv[1:]
    w = World(*rest)
    try:
        w.up()
        globals()['case_' + case](w)
    finally:
        w.end()


main()
