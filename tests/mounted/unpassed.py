#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Calls that the kernel does not pass to FUSE, as umbra-run makes them. What is expected is what xfs does.

    unpassed.py DIR [CASE...]     DIR is on umbrafs, under umbra-run; or on xfs, without. Prints 'ok CASE' or 'not ok CASE: why'
"""
import ctypes
import errno
import os
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

FICLONE, FICLONERANGE, FIDEDUPERANGE, FIEMAP = 0x40049409, 0x4020940d, 0xc0189436, 0xc020660b
KEEP_SIZE, COLLAPSE, INSERT, UNSHARE = 1, 8, 32, 64
BLOCK = 4096


def call(fn, *args):
    """0 or the errno, by name; success leaves errno alone."""
    ctypes.set_errno(errno.EXFULL)
    rc = fn(*args)
    error = ctypes.get_errno()
    if rc == 0:
        assert error == errno.EXFULL, 'errno was changed'
        return 0
    return errno.errorcode[error]


def ioctl(fd, request, arg):
    return call(libc.ioctl, fd, request, arg)


def clone_range(dst, src, src_off, length, dst_off):
    return ioctl(dst, FICLONERANGE, ctypes.create_string_buffer(struct.pack('=qQQQ', src, src_off, length, dst_off)))


def dedupe(src, src_off, length, *dests, reserved=0):
    """The errno's name, or [(status, bytes)]."""
    data = struct.pack('=QQHHI', src_off, length, len(dests), 0, reserved)
    for fd, off in dests:
        data += struct.pack('=qQQiI', fd, off, 77, 77, 0)
    buf = ctypes.create_string_buffer(data)
    rc = ioctl(src, FIDEDUPERANGE, buf)
    if rc:
        return rc
    found = []
    for i in range(len(dests)):
        _, _, done, status, _ = struct.unpack_from('=qQQiI', buf.raw, 24 + 32 * i)
        found.append((errno.errorcode[-status] if status < 0 else status, done))
    return found


def fiemap(fd, start=0, length=1 << 63, flags=0, room=64):
    """The errno's name, or (count, [(logical, physical, length, flags)])."""
    buf = ctypes.create_string_buffer(struct.pack('=QQIIII', start, length, flags, 77, room, 0) + bytes(56 * room))
    rc = ioctl(fd, FIEMAP, buf)
    _, _, flags, count, _, _ = struct.unpack_from('=QQIIII', buf.raw)
    if rc:
        return rc, flags
    found = [struct.unpack_from('=QQQQQI', buf.raw, 32 + 56 * i) for i in range(min(count, room))]
    return count, [(f[0], f[1], f[2], f[5]) for f in found]


def is_same(what, got, wanted):
    assert got == wanted, '%s is %r, not %r' % (what, got, wanted)


class Files:
    """Descriptors and names of a case; all are closed after it."""

    def __init__(self, folder):
        self.folder, self.open_fds = folder, []

    def path(self, name):
        return os.path.join(self.folder, name)

    def open(self, name, flags=os.O_RDWR | os.O_CREAT):
        self.open_fds.append(os.open(self.path(name), flags, 0o644))
        return self.open_fds[-1]

    def make(self, name, data, flags=os.O_RDWR | os.O_CREAT | os.O_TRUNC):
        fd = self.open(name, flags)
        assert os.pwrite(fd, data, 0) == len(data)
        return fd

    def content(self, name):
        with open(self.path(name), 'rb') as f:
            return f.read()

    def close(self):
        for fd in self.open_fds:
            os.close(fd)


def text(seed, size):
    return b''.join(b'%07d\n' % (seed * 1000000 + i) for i in range(size // 8 + 1))[:size]


def case_clone(f):
    a = f.make('a', text(1, 5 * BLOCK + 100))
    b = f.open('b')
    is_same('clone', ioctl(b, FICLONE, a), 0)
    is_same('content', f.content('b'), text(1, 5 * BLOCK + 100))
    empty = f.make('empty', b'')
    is_same('clone of nothing', ioctl(b, FICLONE, empty), 0)
    is_same('content', f.content('b'), text(1, 5 * BLOCK + 100))
    is_same('range', clone_range(b, a, BLOCK, 2 * BLOCK, 0), 0)
    want = text(1, 5 * BLOCK + 100)
    is_same('content', f.content('b'), want[BLOCK:3 * BLOCK] + want[2 * BLOCK:])
    is_same('to the end', clone_range(b, a, 4 * BLOCK, 0, 8 * BLOCK), 0)
    is_same('size', os.fstat(b).st_size, 9 * BLOCK + 100)
    is_same('onto itself', clone_range(a, a, 0, BLOCK, BLOCK), 0)
    is_same('overlap', clone_range(a, a, 0, 2 * BLOCK, BLOCK), 'EINVAL')
    is_same('not aligned', clone_range(b, a, 1, BLOCK, 0), 'EINVAL')
    is_same('past the end', clone_range(b, a, 0, 100 * BLOCK, 0), 'EINVAL')
    is_same('from the end', clone_range(b, a, 5 * BLOCK + 100, 0, 0), 0)
    is_same('from after the end', clone_range(b, a, 6 * BLOCK, 0, 0), 'EINVAL')


def case_clone_refused(f):
    a, b = f.make('a', text(1, BLOCK)), f.make('b', text(2, BLOCK))
    read_only = f.open('b', os.O_RDONLY)
    write_only = f.open('a', os.O_WRONLY)
    append = f.open('b', os.O_RDWR | os.O_APPEND)
    folder = f.open('.', os.O_RDONLY)
    zero = f.open('/dev/zero', os.O_RDWR)
    shm = os.memfd_create('other')
    f.open_fds.append(shm)
    os.write(shm, text(3, BLOCK))
    is_same('read-only destination', ioctl(read_only, FICLONE, a), 'EBADF')
    is_same('write-only source', ioctl(b, FICLONE, write_only), 'EBADF')
    is_same('append', ioctl(append, FICLONE, a), 'EBADF')
    is_same('a folder', ioctl(b, FICLONE, folder), 'EISDIR')
    is_same('another file system', ioctl(b, FICLONE, shm), 'EXDEV')
    is_same('a device', ioctl(b, FICLONE, zero), 'EXDEV')
    is_same('no descriptor', ioctl(b, FICLONE, 1 << 20), 'EBADF')
    is_same('a bad address', ioctl(b, FICLONERANGE, 8), 'EFAULT')
    is_same('elsewhere', ioctl(shm, FICLONE, shm), 'ENOTSUP')
    is_same('content', f.content('b'), text(2, BLOCK))


def case_dedupe(f):
    a, b, c = f.make('a', text(1, 4 * BLOCK)), f.make('b', text(1, 4 * BLOCK)), f.make('c', text(2, 4 * BLOCK))
    is_same('two', dedupe(a, 0, 4 * BLOCK, (b, 0), (c, 0)), [(0, 4 * BLOCK), (1, 0)])
    is_same('shared', fiemap(b)[1][0][1], fiemap(a)[1][0][1])
    read_only = f.open('b', os.O_RDONLY)
    is_same('read-only destination', dedupe(a, 0, BLOCK, (read_only, 0)), [(0, BLOCK)])
    is_same('past the end', dedupe(a, 0, 5 * BLOCK, (b, 0)), 'EINVAL')
    is_same('not aligned', dedupe(a, 1, BLOCK, (b, 1)), [('EINVAL', 0)])
    # Only whole blocks are shared; xfs says that all was.
    status, done = dedupe(a, 0, BLOCK + 100, (b, 0))[0]
    is_same('part of a block', (status, done in (BLOCK, BLOCK + 100)), (0, True))
    folder = f.open('.', os.O_RDONLY)
    shm = os.memfd_create('other')
    f.open_fds.append(shm)
    is_same('bad ones', dedupe(a, 0, BLOCK, (folder, 0), (shm, 0), (1 << 20, 0), (-1, 0)),
            [('EISDIR', 0), ('EXDEV', 0), ('EBADF', 0), ('EBADF', 0)])
    is_same('reserved', dedupe(a, 0, BLOCK, (b, 0), reserved=1), 'EINVAL')
    is_same('a bad address', ioctl(a, FIDEDUPERANGE, 8), 'EFAULT')
    is_same('contents', [f.content(n) for n in 'abc'], [text(1, 4 * BLOCK), text(1, 4 * BLOCK), text(2, 4 * BLOCK)])
    is_same('tails', dedupe(f.make('d', b'abc'), 0, 3, (f.make('e', b'abc'), 0)), [(0, 3)])


def case_fiemap(f):
    a = f.make('a', text(1, 2 * BLOCK))
    os.pwrite(a, text(2, BLOCK), 8 * BLOCK)
    is_same('unwritten', call(libc.fallocate, a, KEEP_SIZE, 16 * BLOCK, BLOCK), 0)
    count, found = fiemap(a, flags=1)
    is_same('extents', [(e[0], e[2], e[3]) for e in found],
            [(0, 2 * BLOCK, 0), (8 * BLOCK, BLOCK, 0), (16 * BLOCK, BLOCK, 0x801)])
    is_same('count', count, 3)
    is_same('counted', fiemap(a, room=0), (3, []))
    is_same('no more room', fiemap(a, room=2)[0], 2)
    is_same('a part', [e[0] for e in fiemap(a, BLOCK, 8 * BLOCK)[1]], [BLOCK, 8 * BLOCK])
    is_same('a hole', fiemap(a, 3 * BLOCK, BLOCK), (0, []))
    is_same('the last', [(e[0], e[3] & 1) for e in fiemap(a, 16 * BLOCK)[1]], [(16 * BLOCK, 1)])
    is_same('after the end', fiemap(a, 100 * BLOCK), (0, []))
    is_same('no length', fiemap(a, length=0)[0], 'EINVAL')
    is_same('too far', fiemap(a, start=(1 << 64) - 1)[0], 'EFBIG')
    is_same('an unknown flag', fiemap(a, flags=0x100), ('EBADR', 0x100))
    is_same('a bad address', ioctl(a, FIEMAP, 8), 'EFAULT')
    is_same('nothing', fiemap(f.make('empty', b'')), (0, []))
    b = f.open('b')
    is_same('clone', ioctl(b, FICLONE, a), 0)
    is_same('shared', [e[3] & 0x2000 for e in fiemap(b)[1]][:2], [0x2000] * 2)
    is_same('elsewhere', fiemap(f.open('/proc/self/status', os.O_RDONLY))[0], 'ENOTSUP')


def case_fallocate(f):
    a = f.make('a', text(1, 8 * BLOCK))
    want = text(1, 8 * BLOCK)
    is_same('collapse', call(libc.fallocate, a, COLLAPSE, BLOCK, 2 * BLOCK), 0)
    want = want[:BLOCK] + want[3 * BLOCK:]
    is_same('content', f.content('a'), want)
    is_same('insert', call(libc.fallocate, a, INSERT, BLOCK, BLOCK), 0)
    is_same('content', f.content('a'), want[:BLOCK] + bytes(BLOCK) + want[BLOCK:])
    b = f.open('b')
    is_same('clone', ioctl(b, FICLONE, a), 0)
    is_same('unshare', call(libc.fallocate, b, UNSHARE, 0, 1 << 20), 0)
    is_same('shared', [e for e in fiemap(b)[1] if e[3] & 0x2000], [])
    is_same('content', f.content('b')[:7 * BLOCK], f.content('a'))
    is_same('not aligned', call(libc.fallocate, a, COLLAPSE, 1, BLOCK), 'EINVAL')
    is_same('to the end', call(libc.fallocate, a, COLLAPSE, 0, 7 * BLOCK), 'EINVAL')
    is_same('read-only', call(libc.fallocate, f.open('a', os.O_RDONLY), COLLAPSE, 0, BLOCK), 'EBADF')
    is_same('an unknown mode', call(libc.fallocate, a, 1 << 20, 0, BLOCK), 'ENOTSUP')


def by_kernel(f, fd, size):
    """How much of a file the kernel gives by itself, by the size that it knows."""
    out = f.open('out', os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.lseek(fd, 0, os.SEEK_SET)
    sent = os.sendfile(out, fd, 0, size)
    return sent, os.copy_file_range(fd, out, size, 0, 0)


def case_size_known(f):
    """Nobody asks for attributes after a call that has made the file longer, or shorter."""
    a, b, c = f.make('a', text(1, 8 * BLOCK)), f.make('b', b'b'), f.make('c', text(2, BLOCK))
    is_same('clone', ioctl(b, FICLONE, a), 0)
    is_same('after clone', by_kernel(f, b, 16 * BLOCK), (8 * BLOCK, 8 * BLOCK))
    is_same('range', clone_range(c, a, 0, 4 * BLOCK, BLOCK), 0)
    is_same('after a range', by_kernel(f, c, 16 * BLOCK), (5 * BLOCK, 5 * BLOCK))
    is_same('insert', call(libc.fallocate, a, INSERT, BLOCK, 2 * BLOCK), 0)
    is_same('after insert', by_kernel(f, a, 16 * BLOCK), (10 * BLOCK, 10 * BLOCK))
    is_same('collapse', call(libc.fallocate, a, COLLAPSE, 0, 3 * BLOCK), 0)
    is_same('after collapse', by_kernel(f, a, 16 * BLOCK), (7 * BLOCK, 7 * BLOCK))


def main():
    folder, names = sys.argv[1], sys.argv[2:]
    red = False
    for name in names or sorted(n[5:] for n in globals() if n.startswith('case_')):
        own = os.path.join(folder, name)
        os.mkdir(own)
        files = Files(own)
        try:
            globals()['case_' + name](files)
            print('ok ' + name)
        except (AssertionError, OSError) as e:
            print('not ok %s: %s' % (name, e))
            red = True
        files.close()
    sys.exit(red)


main()
