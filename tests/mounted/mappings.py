#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Direct mappings, through the bare protocol.

    mappings.py DIR [CASE...]     DIR is on an umbrafs that root has mounted. Prints 'ok CASE' or 'not ok CASE: why'
"""
import errno
import fcntl
import mmap
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import traceback

from mappings_client import (ACK, ATTACH, BAD, BLOCK, BYE, DETACH, HELLO, IOC_CLONE_RANGE, IOC_INFO, IOC_MAP_TOKEN, IOC_TOKEN, MAP, MAP_RELEASE, MAP_WHOLE,
                             MAP_WRITE, NO_SLOT, PIECE_HOLE, PIECE_PAST, PIECE_SHARED, PIECE_WRITE, READ, RELEASE, REVOKE, WHOLE, WRITE, Client,
                             Refused, about, fallocate, stats, token)

here, sock = '', ''
PUNCH, COLLAPSE, INSERT, UNSHARE, KEEP = 2 | 1, 8, 32, 64, 1


def path(name):
    return os.path.join(here, name)


def content(blocks, seed=0):
    return b''.join(struct.pack('=QQ', seed, i) * 256 for i in range(blocks))


def make(name, blocks, seed=0):
    with open(path(name), 'wb') as f:
        f.write(content(blocks, seed))
    return content(blocks, seed)


def clone(src, dst):
    with open(path(src), 'rb') as s, open(path(dst), 'wb') as d:
        size = os.fstat(s.fileno()).st_size
        assert os.copy_file_range(s.fileno(), d.fileno(), size) == size


def share(src, dst):
    """All of it, or it fails."""
    with open(path(src), 'rb') as s, open(path(dst), 'wb') as d:
        fcntl.ioctl(d.fileno(), IOC_CLONE_RANGE, bytearray(token(s.fileno()) + bytes(40)))


def read(name):
    """By another process: our own descriptors do not matter."""
    return subprocess.run(['cat', path(name)], stdout=subprocess.PIPE, check=True).stdout


def refused(name, fn, *args):
    try:
        fn(*args)
    except Refused as e:
        assert e.name == name, f'{e.name}, not {name}'
    except OSError as e:
        assert errno.errorcode[e.errno] == name, f'{errno.errorcode[e.errno]}, not {name}'
    else:
        raise AssertionError(f'it was done, not {name}')


def wait(what, fn):
    end = time.monotonic() + 20
    while not fn():
        assert time.monotonic() < end, f'waited in vain: {what}'
        time.sleep(0.01)


def count(key):
    return stats(here)[key]


class Opened:
    def __init__(self, name, flags=os.O_RDWR):
        self.name, self.flags = name, flags

    def __enter__(self):
        self.fd = os.open(path(self.name), self.flags)
        return self.fd

    def __exit__(self, *_):
        os.close(self.fd)


class Other:
    """A child that runs fn(say, hear) and can be talked to and killed."""
    def __init__(self, fn):
        down, up = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(down[1])
            os.close(up[0])
            try:
                fn(lambda text: os.write(up[1], text.encode()), lambda: os.read(down[0], 1))
                os._exit(0)
            except BaseException:
                os.write(up[1], ('not: ' + traceback.format_exc()).encode())
                os._exit(1)
        os.close(down[0])
        os.close(up[1])
        self.down, self.up = down[1], up[0]

    def hear(self, want=None):
        text = os.read(self.up, 65536).decode()
        assert want is None or text == want, f'it says {text!r}, not {want!r}'
        return text

    def say(self):
        os.write(self.down, b'x')

    def end(self, kill=True):
        if self.pid:
            if kill:
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.up)
            os.close(self.down)
        self.pid = 0


# ---- pieces ----

def case_hello():
    with Client(sock) as c:
        assert c.rights == READ | WRITE and c.device_bytes > 0 and c.align >= BLOCK and c.revoke_ms > 0
        refused('EALREADY', c.call, HELLO, struct.pack('=II', 1, READ))
        mode = fcntl.fcntl(c.device, fcntl.F_GETFL) & os.O_ACCMODE
        assert mode == os.O_RDWR
    with Client(sock, hello=False) as c:
        refused('EPROTONOSUPPORT', c.hello, READ, 2)
    with Client(sock, hello=False) as c:
        refused('EINVAL', c.hello, 8)
    with Client(sock, hello=False) as c:
        c.send(DETACH, struct.pack('=II', 1, 0))
        refused('ENOTCONN', c.receive)
    wait('all sessions to end', lambda: count('sessions') == 0)


def case_read():
    want = make('file', 40)
    with Opened('file', os.O_RDONLY) as fd, Client(sock) as c:
        f = c.attach(fd)
        assert f['rights'] == READ and f['slot'] == NO_SLOT and f['size'] == len(want) and f['ino'] == os.fstat(fd).st_ino, f
        found = c.map(f['handle'], 0, 1 << 20)
        assert c.bytes(f['handle'], found) == want and c.size == len(want)
        assert not any(p.flags & (PIECE_WRITE | PIECE_HOLE | PIECE_SHARED) for p in found), found
        assert c.pieces(f['handle'], 64 * BLOCK, BLOCK) == []
        assert count('shadows') == len(found)
        refused('EACCES', c.pieces, f['handle'], 0, BLOCK, MAP_WRITE)
        for off, length, flags in ((1, BLOCK, 0), (0, 1, 0), (0, 0, 0), (0, BLOCK, 8), (1 << 63, BLOCK, 0), ((1 << 64) - BLOCK, BLOCK, 0),
                                   (BLOCK, (1 << 64) - BLOCK, 0)):
            refused('EINVAL', c.pieces, f['handle'], off, length, flags)
        refused('EBADF', c.pieces, f['handle'] + 1000, 0, BLOCK)
        c.detach(f['handle'])
        refused('EBADF', c.pieces, f['handle'], 0, BLOCK)
        refused('EBADF', c.detach, f['handle'])
        assert count('shadows') == 0


def case_holes():
    with open(path('holes'), 'wb') as f:
        f.seek(4 * BLOCK)
        f.write(content(1))
        f.truncate(10 * BLOCK + 5)
    with Opened('holes') as fd, Client(sock) as c:
        f = c.attach(fd)
        found = c.map(f['handle'], 0, 16 * BLOCK)
        assert [(p.off // BLOCK, p.len // BLOCK, p.flags & PIECE_HOLE) for p in found] == [(0, 4, 2), (4, 1, 0), (5, 6, 2)], found
        assert c.size == 10 * BLOCK + 5
        # Who knows of a hole is told when somebody fills it.
        os.pwrite(fd, b'x', 7 * BLOCK)
        assert c.revokes, 'it was filled behind its back'
        found = c.map(f['handle'], 6 * BLOCK, 2 * BLOCK, MAP_WRITE)
        assert all(p.flags & PIECE_WRITE for p in found), found
        c.store(f['handle'], found[0].off, b'direct')
        assert read('holes')[6 * BLOCK:6 * BLOCK + 6] == b'direct'
    with open(path('small'), 'wb') as f:
        f.write(b'small')
    with Opened('small') as fd, Client(sock) as c:
        refused('EINVAL', c.pieces, c.attach(fd)['handle'], 0, BLOCK)


def case_write():
    old = make('file', 32)
    with Opened('file') as fd, Client(sock) as c:
        f = c.attach(fd)
        assert f['rights'] == READ | WRITE and f['slot'] != NO_SLOT
        found = c.map(f['handle'], 0, len(old), MAP_WRITE)
        assert all(p.flags & PIECE_WRITE for p in found), found
        c.store(f['handle'], 3 * BLOCK + 7, b'hello')
        want = old[:3 * BLOCK + 7] + b'hello' + old[3 * BLOCK + 12:]
        assert read('file') == want
        # And the other way round.
        with open(path('file'), 'r+b') as g:
            g.seek(5 * BLOCK)
            g.write(b'kernel')
        start = max(p.off for p in found if p.off <= 5 * BLOCK)
        assert c.maps[f['handle'], start][5 * BLOCK - start:5 * BLOCK - start + 6] == b'kernel'
    with Opened('file', os.O_WRONLY) as fd, Client(sock) as c:
        refused('EBADF', c.attach, fd, IOC_TOKEN)
        f = c.attach(fd, IOC_MAP_TOKEN)
        assert f['rights'] == WRITE
        refused('EACCES', c.pieces, f['handle'], 0, BLOCK)
        assert c.map(f['handle'], 0, BLOCK, MAP_WRITE)[0].flags & PIECE_WRITE


def case_whole():
    """2 MiB of a file as one piece of the device, up to behind its end."""
    old = make('file', 100)
    with Opened('file') as fd, Client(sock) as c:
        f = c.attach(fd)['handle']
        refused('EINVAL', c.pieces, f, BLOCK, WHOLE, MAP_WHOLE)
        refused('EINVAL', c.pieces, f, 0, 2 * WHOLE, MAP_WHOLE)
        refused('ENOTSUP', c.pieces, f, 0, WHOLE, MAP_WHOLE)
        found = c.map(f, 0, WHOLE, MAP_WHOLE | MAP_WRITE)
        assert found[0].dev % WHOLE == 0 and sum(p.len for p in found) == WHOLE, found
        for p in found:
            assert p.dev == found[0].dev + p.off, found
            assert p.flags == PIECE_WRITE | (0 if p.off < len(old) else PIECE_PAST), found
        c.store(f, 0, b'first')
        c.store(f, found[1].off, b'behind')
        # Whoever has that lets go of it before it is the file's.
        os.truncate(path('file'), 200 * BLOCK)
        wait('revoked', lambda: (f, found[1].off) not in c.maps)
        assert read('file') == b'first' + old[5:] + bytes(100 * BLOCK)
        assert c.pieces(f, WHOLE, WHOLE, MAP_WHOLE | MAP_WRITE) == []


def case_shared():
    old = make('file', 16)
    clone('file', 'clone')
    with Opened('file') as fd, Client(sock) as c:
        f = c.attach(fd)
        found = c.map(f['handle'], 0, len(old))
        assert all(p.flags & PIECE_SHARED and not p.flags & PIECE_WRITE for p in found), found
        assert c.bytes(f['handle'], found) == old
        c.let_go(f['handle'], 3 * BLOCK, BLOCK)
        found = c.map(f['handle'], 3 * BLOCK, BLOCK, MAP_WRITE | MAP_RELEASE)
        assert len(found) == 1 and found[0].flags & (PIECE_WRITE | PIECE_SHARED) == PIECE_WRITE, found
        assert c.bytes(f['handle'], found) == old[3 * BLOCK:4 * BLOCK]
        c.store(f['handle'], 3 * BLOCK, b'new')
        assert read('clone') == old
        assert read('file') == old[:3 * BLOCK] + b'new' + old[3 * BLOCK + 3:]


def case_rights():
    make('file', 4)
    with Opened('file') as fd, Client(sock, rights=READ) as c:
        assert c.rights == READ and fcntl.fcntl(c.device, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        try:
            mmap.mmap(c.device, BLOCK, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            raise AssertionError('a descriptor for reading can be mapped to be stored to')
        except PermissionError:
            pass
        f = c.attach(fd)
        assert f['rights'] == READ and f['slot'] == NO_SLOT
        refused('EACCES', c.pieces, f['handle'], 0, BLOCK, MAP_WRITE)
        assert not c.map(f['handle'], 0, BLOCK)[0].flags & PIECE_WRITE


def case_tokens():
    make('file', 4)
    with Opened('file') as fd, Client(sock) as c:
        t = token(fd)
        c.attach_token(t)
        refused('EACCES', c.attach_token, t)
        refused('EACCES', c.attach_token, bytes(32))
        other = Other(lambda say, hear: say(token(fd).hex()))
        t = bytes.fromhex(other.hear())
        other.end(kill=False)
        refused('EACCES', c.attach_token, t)
    with Client(sock) as c:
        fd = os.open(here, os.O_RDONLY)
        refused('EINVAL', c.attach, fd)
        os.close(fd)


def as_nobody(say, _):
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    rights, where = about(here)
    try:
        Client(where)
        say(f'{rights} welcome')
    except Refused as e:
        say(f'{rights} {e.name}')


def case_others():
    other = Other(as_nobody)
    other.hear('0 EACCES')
    other.end(kill=False)
    assert stat.S_IMODE(os.stat(sock).st_mode) == 0o666


# ---- letting go ----

def revoked(name, change, write_only=False, flags=0, cloned=False):
    """The change asks the holder, and goes on after its answer."""
    old = make(name, 16)
    if cloned:
        clone(name, name + '.clone')
    with Opened(name) as fd, Client(sock) as c:
        f = c.attach(fd)
        c.map(f['handle'], 0, len(old), flags)
        order, go = [], threading.Event()

        def before_ack():
            go.wait(5)
            order.append('ack')

        c.before_ack = before_ack
        thread = threading.Thread(target=lambda: (change(name), order.append('done')))
        thread.start()
        c.wait_revoked()
        go.set()
        thread.join(20)
        assert not thread.is_alive(), 'it hangs'
        assert order[0] == 'ack' and order[-1] == 'done', order
        assert any(bool(r[3] & 1) == write_only for r in c.revokes), c.revokes
        assert count('late_revokes') == late, 'somebody was late'


late = 0  # of late_revokes: when the case began, and those that it wants


def case_revoke():
    def with_file(fn):
        def change(name):
            with Opened(name) as fd:
                fn(fd)
        return change

    revoked('cut', lambda name: os.truncate(path(name), 5 * BLOCK))
    revoked('cut2', lambda name: os.truncate(path(name), 5 * BLOCK), flags=MAP_WRITE)
    revoked('punch', with_file(lambda fd: fallocate(fd, PUNCH, 4 * BLOCK, 2 * BLOCK)))
    revoked('collapse', with_file(lambda fd: fallocate(fd, COLLAPSE, 4 * BLOCK, 2 * BLOCK)))
    revoked('insert', with_file(lambda fd: fallocate(fd, INSERT, 4 * BLOCK, 2 * BLOCK)))
    revoked('shared', with_file(lambda fd: os.pwrite(fd, b'x' * BLOCK, 4 * BLOCK)), cloned=True)
    revoked('clone', lambda name: clone(name, name + '.clone'), flags=MAP_WRITE, write_only=True)
    assert read('shared')[4 * BLOCK:5 * BLOCK] == b'x' * BLOCK


def case_no_revoke():
    """What changes no place asks nobody."""
    make('file', 16)
    with Opened('file', os.O_RDONLY) as fd, Client(sock) as c:
        f = c.attach(fd)
        c.map(f['handle'], 0, 16 * BLOCK)
        before = count('revokes')
        with Opened('file', os.O_WRONLY) as other:
            os.pwrite(other, b'x' * BLOCK, 4 * BLOCK)
        clone('file', 'clone')
        read('file')
        assert count('revokes') == before and not c.revokes, c.revokes


def case_silent():
    """A client that never answers: the call goes on without it, and what it maps is nobody else's until it is gone."""
    global late
    old = make('file', 64)

    def never(say, hear):
        fd = os.open(path('file'), os.O_RDWR)
        c = Client(sock, answers=False)
        f = c.attach(fd)
        found = c.map(f['handle'], 0, len(old), MAP_WRITE)
        os.close(fd)
        say('mapped')
        c.wait_over()
        say('over')
        hear()
        assert c.bytes(f['handle'], found) == old, 'what it maps has changed'
        c.store(f['handle'], 0, b'late')
        say('same')
        hear()

    other = Other(never)
    try:
        other.hear('mapped')
        os.truncate(path('file'), 0)
        other.hear('over')
        assert count('quarantine_blocks') == 64 and count('late_revokes') == late + 1
        late += 1
        # Nobody gets them, whatever is written.
        make('more', 512, seed=1)
        os.unlink(path('more'))
        want = make('again', 512, seed=2)
        other.say()
        other.hear('same')
        assert read('again') == want
        assert count('orphan_sessions') == 1 and count('quarantine_blocks') == 64
    finally:
        other.end()
    wait('the quarantine to end', lambda: count('quarantine_blocks') == 0)
    assert count('sessions') == 0 and count('orphan_sessions') == 0


def silent(blocks):
    """A client that has the file and never answers: it is waited for as long as revoke_ms says."""
    def never(say, hear):
        fd = os.open(path('file'), os.O_RDWR)
        c = Client(sock, answers=False)
        c.map(c.attach(fd)['handle'], 0, blocks * BLOCK, MAP_WRITE)
        say('mapped')
        hear()

    make('file', blocks)
    other = Other(never)
    other.hear('mapped')
    return other


def behind_silent(attempt):
    """True if others have got through while it was waited for. A busy machine may be too slow for that now and then, but not each time."""
    global late
    cores = os.sched_getaffinity(0)
    for _ in range(6):
        other = silent(64)
        try:
            os.sched_setaffinity(0, {min(cores)})
            through = attempt()
            late += 1
        finally:
            os.sched_setaffinity(0, cores)
            other.end()
        if through:
            return
        wait('it to be gone', lambda: count('sessions') == 0)
    raise AssertionError('all waited for it')


def case_silent_behind():
    """Whoever waits for a client that does not answer holds up no others, not on his own core either."""
    def attempt():
        before = count('revokes')
        waits = threading.Thread(target=os.truncate, args=(path('file'), 0))
        waits.start()
        wait('it to be asked', lambda: count('revokes') > before)
        for i in range(5):
            make(f'other{i}', 1)
        through = waits.is_alive()
        waits.join()
        return through

    behind_silent(attempt)


def in_ioctl(thread):
    """Also if it has been: then somebody else has not got through."""
    try:
        with open(f'/proc/self/task/{thread.native_id}/syscall', encoding='ascii') as f:
            return f.read().split()[0] == '16'
    except (FileNotFoundError, ProcessLookupError):
        return True


def case_silent_many():
    """Many changes of one core that wait for such a client hold up no others."""
    def collapse():
        with Opened('file') as fd:
            fallocate(fd, COLLAPSE, 0, BLOCK)

    def attempt():
        waits = [threading.Thread(target=collapse) for _ in range(20)]
        for thread in waits:
            thread.start()
        wait('all to wait', lambda: all(in_ioctl(thread) for thread in waits))
        for i in range(3):
            make(f'other{i}', 1)
        through = all(thread.is_alive() for thread in waits)
        for thread in waits:
            thread.join()
        assert os.stat(path('file')).st_size == 44 * BLOCK
        return through

    behind_silent(attempt)


def case_silent_share():
    """Who may store and does not answer keeps a file from being shared."""
    global late
    make('file', 8)

    def never(say, hear):
        fd = os.open(path('file'), os.O_RDWR)
        c = Client(sock, answers=False)
        c.map(c.attach(fd)['handle'], 0, 8 * BLOCK, MAP_WRITE)
        say('mapped')
        hear()

    other = Other(never)
    try:
        other.hear('mapped')
        refused('EBUSY', share, 'file', 'clone')
        late += 1
        refused('EBUSY', share, 'file', 'clone')
        # What does not have to share, copies.
        subprocess.run(['cp', path('file'), path('clone')], check=True)
        assert read('clone') == read('file')
        assert count('late_revokes') == late, 'it was waited for twice'
    finally:
        other.end()
    wait('it to be gone', lambda: count('sessions') == 0)
    clone('file', 'clone')


def case_killed():
    """Killed after each step: nothing is left of it, and the file can be changed."""
    steps = ['connect', 'hello', 'attach', 'map', 'store', 'revoked']

    def life(last):
        def run(say, hear):
            c = Client(sock, hello=False, answers=False)
            if last != 'connect':
                c.hello(READ | WRITE)
            fd = os.open(path('file'), os.O_RDWR)
            if steps.index(last) >= 2:
                f = c.attach(fd)
            if steps.index(last) >= 3:
                c.map(f['handle'], 0, 16 * BLOCK, MAP_WRITE if steps.index(last) >= 4 else 0)
            if steps.index(last) >= 4:
                c.store(f['handle'], 0, b'stored', f['slot'])
            say('there')
            if last == 'revoked':
                c.wait_revoked()
                say('asked')
            hear()
        return run

    for last in steps:
        make('file', 16)
        other = Other(life(last))
        try:
            other.hear('there')
            if last == 'revoked':
                thread = threading.Thread(target=os.truncate, args=(path('file'), 0))
                thread.start()
                other.hear('asked')
        finally:
            other.end()
        if last == 'revoked':
            thread.join(20)
            assert not thread.is_alive()
        os.truncate(path('file'), 0)
        wait(f'nothing to be left after {last}', lambda: count('sessions') == 0 and count('quarantine_blocks') == 0)
    assert count('shadows') == 0 and count('masters') == 0


def case_child():
    """The child of a process that dies still maps what that had."""
    old = make('file', 16)

    def parent(say, hear):
        fd = os.open(path('file'), os.O_RDONLY)
        c = Client(sock)
        f = c.attach(fd)
        found = c.map(f['handle'], 0, len(old))
        c.sock.detach()
        if os.fork():
            os._exit(0)
        # Without its socket and its descriptor: the mapping alone.
        for n in range(3, 64):
            if n not in (say.__closure__[0].cell_contents[1], hear.__closure__[0].cell_contents[0]):
                try:
                    os.close(n)
                except OSError:
                    pass
        say('here')
        hear()
        assert c.bytes(f['handle'], found) == old
        say('same')
        hear()

    other = Other(parent)
    os.waitpid(other.pid, 0)
    other.hear('here')
    wait('the session to end', lambda: count('orphan_sessions') == 1)
    os.truncate(path('file'), 0)
    assert count('quarantine_blocks') == 16
    make('again', 256, seed=3)
    other.say()
    other.hear('same')
    assert count('quarantine_blocks') == 16 and count('orphan_sessions') == 1
    other.say()
    wait('the child to be seen gone', lambda: count('quarantine_blocks') == 0 and count('sessions') == 0)
    os.close(other.up)
    os.close(other.down)


# ---- the kernel ----

def case_times():
    make('file', 4)
    os.utime(path('file'), (1000, 1000))
    with Opened('file') as fd, Client(sock) as c:
        f = c.attach(fd)
        c.map(f['handle'], 0, 4 * BLOCK, MAP_WRITE)
        os.utime(path('file'), (1000, 1000))
        assert os.stat(path('file')).st_mtime == 1000
        c.store(f['handle'], 0, b'x', f['slot'])
        assert os.stat(path('file')).st_mtime > 1000
        # And seen by itself, without anybody who asks.
        os.utime(path('file'), (1000, 1000))
        c.store(f['handle'], 0, b'y', f['slot'])
        wait('the mark to be taken', lambda: c.slots[f['slot'] * 16:f['slot'] * 16 + 8] == bytes(8))
        assert os.stat(path('file')).st_mtime > 1000
        os.utime(path('file'), (1000, 1000))
        c.store(f['handle'], 0, b'z', f['slot'])
        c.detach(f['handle'])
    assert os.stat(path('file')).st_mtime > 1000


def case_cache():
    """What the kernel has read before is read anew; who has the file open through the page cache keeps others from storing."""
    make('file', 8)
    read('file')

    def holder(say, hear):
        fd = os.open(path('file'), os.O_RDONLY)
        os.read(fd, 10)
        say('open')
        hear()
        os.close(fd)
        say('closed')
        hear()

    other = Other(holder)
    try:
        other.hear('open')
        with Opened('file') as fd, Client(sock) as c:
            f = c.attach(fd)
            c.map(f['handle'], 0, BLOCK)
            refused('EBUSY', c.pieces, f['handle'], 0, BLOCK, MAP_WRITE)
            other.say()
            other.hear('closed')
            wait('the kernel to say that it is closed', lambda: tries(c, f))
            c.store(f['handle'], 0, b'direct')
            assert read('file')[:6] == b'direct'
            with open(path('file'), 'rb', buffering=0) as g:
                assert g.read(6) == b'direct'
                c.store(f['handle'], 0, b'second')
                g.seek(0)
                assert g.read(6) == b'second', 'it is read through the page cache'
            # An open that came later bypasses the cache, and so is in nobody's way.
            with open(path('file'), 'rb'), Client(sock) as d, Opened('file') as fd2:
                assert d.map(d.attach(fd2)['handle'], 0, BLOCK, MAP_WRITE)
    finally:
        other.end()


def tries(c, f, off=0, flags=MAP_WRITE | MAP_RELEASE, blocks=1):
    """Pieces to store to; False: somebody has the file open through the page cache."""
    try:
        return c.map(f['handle'], off, blocks * BLOCK, flags, at_once=True)
    except Refused as e:
        assert e.name == 'EBUSY', e.name
        return False


def put(c, f, fd, text, off=0):
    """Directly where that may be, as libumbra does it."""
    if tries(c, f, off):
        c.store(f['handle'], off, text)
    else:
        os.pwrite(fd, text, off)


def case_detached():
    """Who keeps an old descriptor and has no session any more sees what others store."""
    make('file', 8)
    with Opened('file') as old, Opened('file') as fd, Client(sock) as c, Client(sock) as d:
        f, g = c.attach(old), d.attach(fd)
        assert d.map(g['handle'], 0, 4 * BLOCK, MAP_WRITE)
        os.pread(old, BLOCK, 0)
        assert not d.maps, 'beside a page of the kernel'
        assert d.map(g['handle'], 0, 4 * BLOCK, MAP_WRITE)
        d.store(g['handle'], 0, b'before')
        c.detach(f['handle'])
        assert os.pread(old, 6, 0) == b'before', 'a page from the time when it was attached'
        assert not d.maps, 'it may still be stored to'
        put(d, g, fd, b'after', BLOCK)
        assert os.pread(old, 5, BLOCK) == b'after', 'what was read, and then stored to'
        put(d, g, fd, b'again', BLOCK)
        assert os.pread(old, 5, BLOCK) == b'again', 'what was read, and then stored to'
        # One that comes only now.
        with Opened('file') as fd2, Client(sock) as e:
            refused('EBUSY', e.map, e.attach(fd2)['handle'], 0, BLOCK, MAP_WRITE, True)
        # Attached again it is in nobody's way.
        f = c.attach(old)
        wait('the kernel to say that the other one is closed', lambda: tries(d, g))
        c.detach(f['handle'])
        refused('EBUSY', d.map, g['handle'], 0, BLOCK, MAP_WRITE, True)
    with Opened('file') as fd, Client(sock) as c:
        assert c.map(c.attach(fd)['handle'], 0, BLOCK, MAP_WRITE)


def case_detached_storing():
    """A descriptor is left alone while the others ask for more and more: none gets through."""
    make('file', 64)
    for i in range(30):
        with Opened('file') as old, Opened('file') as fd, Client(sock) as c, Client(sock) as d:
            f, g = c.attach(old), d.attach(fd)
            d.map(g['handle'], 0, BLOCK, MAP_WRITE)
            stop = threading.Event()

            def asks():
                while not stop.is_set():
                    for off in range(0, 64 * BLOCK, BLOCK):
                        tries(d, g, off)

            thread = threading.Thread(target=asks)
            thread.start()
            c.detach(f['handle'])
            stop.set()
            thread.join(60)
            assert not thread.is_alive(), 'it hangs'
            want = os.pread(old, 64 * BLOCK, 0)
            text = b'%8d' % i
            for off in range(0, 64 * BLOCK, BLOCK):
                put(d, g, fd, text, off)
            assert all(os.pread(old, 8, off) == text for off in range(0, 64 * BLOCK, BLOCK)), 'stale'
            assert len(want) == 64 * BLOCK


def case_pages_after():
    """No page that was read while others stored is left when that is over."""
    for closed in False, True:
        make('file', 8)
        fd = os.open(path('file'), os.O_RDWR)
        with Client(sock) as c:
            f = c.attach(fd)
            c.map(f['handle'], 0, BLOCK, MAP_WRITE)
            os.pread(fd, BLOCK, 0)
            put(c, f, fd, b'direct')
            assert c.maps
            if closed:
                os.close(fd)
            c.detach(f['handle'])
            assert read('file')[:6] == b'direct', f'closed {closed}'
            if not closed:
                os.close(fd)
            assert read('file')[:6] == b'direct', f'closed {closed}'


def case_pages_killed():
    """The same when the process ends without a word, and another has its descriptor."""
    make('file', 8)
    with Opened('file') as fd:
        def storer(say, hear):
            with Client(sock) as c:
                f = c.attach(fd)
                c.map(f['handle'], 0, BLOCK, MAP_WRITE)
                os.pread(fd, BLOCK, 0)
                put(c, f, fd, b'direct')
                assert c.maps
                say('stored')
                hear()

        other = Other(storer)
        try:
            other.hear('stored')
        finally:
            other.end()
        wait('the old page to go', lambda: os.pread(fd, 6, 0) == b'direct')
        assert read('file')[:6] == b'direct'


def case_kernel_map():
    """What another has mapped through the kernel counts until the mapping is gone, and its stores are not lost."""
    make('file', 8)

    def holder(say, hear):
        fd = os.open(path('file'), os.O_RDWR)
        m = mmap.mmap(fd, 8 * BLOCK)
        os.close(fd)
        m[0:6] = b'mapped'
        say('mapped')
        hear()
        m[BLOCK:BLOCK + 6] = b'second'
        m.close()
        say('gone')
        hear()

    other = Other(holder)
    try:
        other.hear('mapped')
        with Opened('file') as fd, Client(sock) as c:
            f = c.attach(fd)
            refused('EBUSY', c.map, f['handle'], 0, BLOCK, MAP_WRITE, True)
            other.say()
            other.hear('gone')
            wait('the kernel to say that it is gone', lambda: tries(c, f))
            assert c.map(f['handle'], 0, 2 * BLOCK, MAP_WRITE | MAP_RELEASE)
            got = c.maps[f['handle'], 0]
            assert got[0:6] == b'mapped' and got[BLOCK:BLOCK + 6] == b'second', 'dirty pages came too late'
            c.store(f['handle'], 0, b'direct')
            c.detach(f['handle'])
        os.sync()
        assert read('file')[:6] == b'direct', 'written back over a direct store'
    finally:
        other.end()


def case_own_kernel_map():
    """A kernel mapping of who stores directly himself: its dirty pages come before the stores, not over them."""
    make('file', 8)
    with Opened('file') as fd, mmap.mmap(fd, 8 * BLOCK) as m, Client(sock) as c:
        m[0:6] = b'mapped'
        f = c.attach(fd)
        assert c.map(f['handle'], 0, BLOCK, MAP_WRITE)
        assert c.maps[f['handle'], 0][0:6] == b'mapped'
        c.store(f['handle'], 0, b'direct')
        m.flush()
        os.fsync(fd)
        assert c.maps[f['handle'], 0][0:6] == b'direct', 'a page that is not dirty was written'
        c.detach(f['handle'])
        assert m[0:6] == b'direct'


def case_pages_lent():
    """What the kernel may have stored to its pages is read directly all the same; what it is given to store to nobody has beside it."""
    make('file', 64)

    def storer(say, hear):
        hear()
        fd = os.open(path('file'), os.O_RDWR)
        with mmap.mmap(fd, 64 * BLOCK) as m:
            for text in b'first ', b'second', b'third ':
                m[0:6] = text
                m[40 * BLOCK:40 * BLOCK + 6] = text
                say('stored')
                hear()
            os.pwrite(fd, b'fourth', 0)
            say('stored')
            hear()

    other = Other(storer)
    try:
        with Opened('file', os.O_RDONLY) as fd, Client(sock) as c:
            f = c.attach(fd)
            other.say()
            other.hear('stored')
            for text in b'first ', b'second', b'third ', b'fourth':
                assert text == b'fourth' or not c.maps, 'not asked for'
                c.map(f['handle'], 0, BLOCK)
                c.map(f['handle'], 40 * BLOCK, BLOCK)
                assert c.maps[f['handle'], 0][0:6] == text
                assert c.maps[f['handle'], 40 * BLOCK][0:6] == (text if text != b'fourth' else b'third ')
                if text != b'fourth':
                    other.say()
                    other.hear('stored')
                    c.let_go(f['handle'], 40 * BLOCK, BLOCK)
            # Others who only read, and whose pages nobody stores to, change nothing.
            other.say()
            os.waitpid(other.pid, 0)
            other.pid = 0
            c.map(f['handle'], 0, 64 * BLOCK, 0)
            before = len(c.revokes)
            with Opened('file', os.O_RDONLY) as third, mmap.mmap(third, 64 * BLOCK, prot=mmap.PROT_READ) as m:
                assert m[0:6] == b'fourth'
            assert len(c.revokes) == before
    finally:
        other.end()


def case_pages_through():
    """Who writes through pages was there before: what the kernel may have stored to its pages is its, until he has closed the file."""
    make('file', 64)

    def writer(say, hear):
        fd = os.open(path('file'), os.O_RDWR)
        with Opened('file', os.O_RDONLY) as read:
            os.pread(read, 6, 0)
        say('opened')
        hear()
        os.pwrite(fd, b'first ', 0)
        say('written')
        hear()
        os.close(fd)
        say('closed')
        hear()

    other = Other(writer)
    try:
        other.hear('opened')
        with Opened('file', os.O_RDONLY) as fd, Client(sock) as c:
            f = c.attach(fd)
            refused('EBUSY', c.pieces, f['handle'], 0, BLOCK)
            other.say()
            other.hear('written')
            refused('EBUSY', c.pieces, f['handle'], 0, BLOCK)
            # Beside him others write through pages too; mapped, an open that bypasses them would have them dropped.
            with Opened('file') as fourth:
                os.pwrite(fourth, b'second', 0)
                refused('EBUSY', c.pieces, f['handle'], 0, BLOCK)
            other.say()
            other.hear('closed')
            c.map(f['handle'], 0, BLOCK)
            assert c.maps[f['handle'], 0][0:6] == b'second'
    finally:
        other.end()


def case_pages_of_bypass():
    """An open that bypasses the page cache is mapped: from its first page on it counts, until it is gone."""
    for flags in mmap.MAP_SHARED, mmap.MAP_PRIVATE:
        make('file', 64)

        def reader(say, hear):
            hear()
            with Opened('file', os.O_RDONLY) as fd:
                m = mmap.mmap(fd, 64 * BLOCK, flags=flags, prot=mmap.PROT_READ)
            say('mapped')
            for _ in range(2):
                hear()
                say(m[0:6].decode())
            hear()
            m.close()
            hear()

        other = Other(reader)
        try:
            with Opened('file') as fd, Client(sock) as c:
                f = c.attach(fd)
                c.map(f['handle'], 0, 64 * BLOCK, MAP_WRITE)
                other.say()
                other.hear('mapped')
                c.store(f['handle'], 0, b'before')
                assert tries(c, f), 'nothing has been read'
                other.say()
                other.hear('before')
                assert (f['handle'], 0) not in c.maps, 'it may still be stored to'
                refused('EBUSY', c.map, f['handle'], 0, BLOCK, MAP_WRITE)
                assert c.map(f['handle'], 0, BLOCK)
                os.pwrite(fd, b'called', 0)
                other.say()
                other.hear('called')
                other.say()
                wait('the kernel to say that it is gone', lambda: tries(c, f))
                c.store(f['handle'], 0, b'direct')
                assert read('file')[:6] == b'direct'
        finally:
            other.end()


# ---- hostile ----

def alive():
    with Client(sock) as c:
        assert c.session


def ends(fn):
    """The connection is ended."""
    with Client(sock, hello=False) as c:
        fn(c)
        try:
            assert c.receive() is None
        except (ConnectionError, BrokenPipeError):
            pass
        except Refused as e:
            raise AssertionError(f'it was answered, by {e.name}') from e


def case_hostile():
    ends(lambda c: c.sock.send(b'x'))
    ends(lambda c: c.sock.send(bytes(15)))
    ends(lambda c: c.sock.send(bytes(16)))
    ends(lambda c: c.sock.send(bytes(4096)))
    ends(lambda c: c.send(HELLO, struct.pack('=II', 1, READ), pad=1))
    ends(lambda c: c.send(HELLO, struct.pack('=II', 1, READ), size=17))
    ends(lambda c: c.send(HELLO, struct.pack('=I', 1)))
    for kind in (0, 1, 2, 4, 6, 9, REVOKE, 14, 16, 255, 65535):
        ends(lambda c, k=kind: c.send(k))
        ends(lambda c, k=kind: c.send(k, bytes(16)))
    # Descriptors that nobody wants.
    with Client(sock, hello=False) as c, open(os.devnull, 'rb') as null:
        before = len(os.listdir(f'/proc/{daemon()}/fd'))
        for _ in range(20):
            socket.send_fds(c.sock, [struct.pack('=IHHQ', 16, ACK, 0, 7)], [null.fileno()] * 20)
        c.send(DETACH, bytes(8))
        refused('ENOTCONN', c.receive)
        assert len(os.listdir(f'/proc/{daemon()}/fd')) <= before + 1
    make('file', 4)
    with Opened('file') as fd, Client(sock) as c:
        f = c.attach(fd)
        refused('EINVAL', c.call, DETACH, struct.pack('=II', f['handle'], 1))
        refused('EINVAL', c.call, BAD, struct.pack('=IIQ', f['handle'], 0, 5))
        refused('EINVAL', c.call, BAD, struct.pack('=IIQ', f['handle'], 1, 0))
        refused('EBADF', c.call, BAD, struct.pack('=IIQ', 77, 0, 0))
        assert c.bad(f['handle'], 0) == 0 and c.bad(f['handle'], 100 * BLOCK) == 0
        for off, length, pad in ((1, 1, 0), (0, (1 << 64) - 1, 0), ((1 << 64) - BLOCK, BLOCK, 0), (0, 0, 0), (0, BLOCK, 9)):
            c.send(RELEASE, struct.pack('=IIQQ', f['handle'], pad, off, length))
        c.send(RELEASE, struct.pack('=IIQQ', 4711, 0, 0, BLOCK))
        for number in (0, 1, 1 << 63, (1 << 64) - 1):
            c.send(ACK, number=number)
        c.slots[:] = b'\xff' * len(c.slots)
        assert c.map(f['handle'], 0, 4 * BLOCK, MAP_WRITE)
    # Who asks and never reads is cut off, and nobody waits for him.
    with Client(sock, hello=False) as c:
        c.sock.setblocking(False)
        try:
            for _ in range(200000):
                c.send(MAP, struct.pack('=IIQQ', 1, 0, 0, BLOCK))
        except (BlockingIOError, ConnectionError, BrokenPipeError):
            pass
        alive()
    alive()
    wait('all sessions to end', lambda: count('sessions') == 0)


def case_many():
    """Requests of many sessions at once, while the file changes: nobody hangs, what is read is what was written."""
    want = make('file', 64)
    stop, errors = threading.Event(), []

    def work(number):
        try:
            with Opened('file') as fd, Client(sock) as c:
                f = c.attach(fd)
                while not stop.is_set():
                    # None to store to: an open of one of the others is not attached yet, or not any more.
                    for p in tries(c, f, number * 4 * BLOCK, MAP_WRITE if number % 2 else 0, 4) or []:
                        assert p.len
        except BaseException:
            errors.append(traceback.format_exc())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for n in range(10):
        clone('file', f'clone{n % 2}')
        with Opened('file') as fd:
            os.pwrite(fd, want[n * BLOCK:(n + 1) * BLOCK], n * BLOCK)
    stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), 'it hangs'
    assert not errors, errors[0]
    assert read('file') == want and read('clone0') == want and read('clone1') == want
    assert count('late_revokes') == late


def daemon():
    """Its process."""
    buf = bytearray(1352)
    with Opened('.', os.O_RDONLY) as fd:
        fcntl.ioctl(fd, IOC_INFO, buf)
    return struct.unpack_from('=I', buf, 100)[0]


def main():
    global here, sock, late
    here = sys.argv[1]
    names = sys.argv[2:] or [name[5:] for name in globals() if name.startswith('case_')]
    rights, sock = about(here)
    assert rights == READ | WRITE and sock, (rights, sock)
    failed = False
    for name in names:
        for left in os.listdir(here):
            os.unlink(path(left))
        try:
            late = count('late_revokes')
            globals()['case_' + name]()
            wait('all to be let go', lambda: count('sessions') == 0 and count('quarantine_blocks') == 0)
            print(f'ok {name}', flush=True)
        except Exception:
            failed = True
            why = traceback.format_exc().strip().split('\n')
            print(f'not ok {name}: ' + ' | '.join(line.strip() for line in why[-7:]), flush=True)
    return failed


if __name__ == '__main__':
    sys.exit(main())
