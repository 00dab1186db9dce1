# SPDX-License-Identifier: BSD-3-Clause
"""A plain client of the protocol of <umbra/direct.h>, for tests."""
import array
import ctypes
import errno
import fcntl
import itertools
import mmap
import os
import socket
import struct
import threading
import time

(ERROR, DONE, HELLO, WELCOME, ATTACH, ATTACHED, DETACH, MAP, PIECES, RELEASE, REVOKE, ACK, BAD, LOST, BYE) = range(1, 16)
READ, WRITE = 1, 2
MAP_WRITE, MAP_RELEASE, MAP_WHOLE = 1, 2, 4
PIECE_WRITE, PIECE_HOLE, PIECE_SHARED, PIECE_LOST, PIECE_PAST = 1, 2, 4, 8, 16
WHOLE = 2 << 20
NO_SLOT = 0xffffffff
BLOCK = 4096
WAIT_S = 30


def ioc(direction, number, size):
    return direction << 30 | size << 16 | 0xd5 << 8 | number


IOC_TOKEN, IOC_MAP_TOKEN = ioc(2, 1, 32), ioc(2, 21, 32)
IOC_DIRECT = ioc(2, 20, 120)
IOC_INFO = ioc(2, 6, 1352)
IOC_CLONE_RANGE = ioc(3, 2, 72)
IOC_STATS = ioc(2, 7, 280)
IOC_SHADOWS = ioc(3, 22, 56 + 256 * 48)
IOC_FALLOCATE = ioc(1, 5, 24)
STATS = ('total_blocks free_blocks reserve_blocks inodes free_inodes meta_chunks meta_free_units commits aborts retries lines_logged '
         'heals damaged_units replayed_records cached_inodes requests read_bytes written_bytes cloned_bytes bad_reads bad_blocks '
         'lost_blocks lost_bytes zeroed_blocks zeroed_bytes sessions orphan_sessions shadows masters quarantine_blocks shadow_bytes '
         'revokes late_revokes').split()


def about(path):
    """(rights, socket)"""
    buf = bytearray(120)
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, IOC_DIRECT, buf)
    finally:
        os.close(fd)
    version, rights, where = struct.unpack_from('=II108s', buf)
    assert version == 1
    return rights, where.split(b'\0')[0].decode()


def stats(path):
    buf = bytearray(280)
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, IOC_STATS, buf)
    finally:
        os.close(fd)
    return dict(zip(STATS, struct.unpack_from(f'={len(STATS)}Q', buf)))


def token(fd, request=IOC_TOKEN):
    buf = bytearray(32)
    fcntl.ioctl(fd, request, buf)
    return bytes(buf)


class Refused(Exception):
    """An answer of type ERROR."""
    def __init__(self, number):
        super().__init__(errno.errorcode.get(number, str(number)))
        self.name = errno.errorcode.get(number, str(number))


class Piece:
    def __init__(self, raw):
        self.off, self.dev, self.len, self.flags, _ = raw

    def __repr__(self):
        return f'{self.off // BLOCK}+{self.len // BLOCK}@{self.dev // BLOCK}/{self.flags}'


class Client:
    """One session. Mappings are given up when they are revoked, unless answers is false."""

    def __init__(self, path, rights=READ | WRITE, answers=True, hello=True):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(path)
        self.ids = itertools.count(1)
        self.answers, self.revokes, self.maps = answers, [], {}
        self.before_ack = lambda: None
        self.lock, self.came = threading.Lock(), threading.Condition()
        self.replies, self.over = {}, False
        self.device = self.slots = None
        if hello:
            self.hello(rights)

    # ---- messages ----

    def send(self, kind, body=b'', number=None, pad=0, size=None):
        number = next(self.ids) if number is None else number
        self.sock.send(struct.pack('=IHHQ', 16 + len(body) if size is None else size, kind, pad, number) + body)
        return number

    def receive(self):
        """(type, id, body, descriptors), or None at the end."""
        data, ancillary, _, _ = self.sock.recvmsg(65536, socket.CMSG_SPACE(8))
        if not data:
            return None
        fds = array.array('i')
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload)
        size, kind, _, number = struct.unpack_from('=IHHQ', data)
        assert size == len(data)
        if kind == ERROR:
            raise Refused(struct.unpack_from('=I', data, 16)[0])
        return kind, number, data[16:], list(fds)

    def hello(self, rights, version=1):
        self.send(HELLO, struct.pack('=II', version, rights))
        kind, _, body, fds = self.receive()
        assert kind == WELCOME and len(fds) == 2, (kind, fds)
        (self.version, self.rights, self.session, self.device_bytes, self.align, self.revoke_ms,
         slots) = struct.unpack('=IIQQQII', body)
        self.device, slots_fd = fds
        self.slots = mmap.mmap(slots_fd, slots * 16)
        os.close(slots_fd)
        self.sock.settimeout(None)  # it may be silent for long
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        try:
            while self.listen_once():
                pass
        except OSError:
            pass
        with self.came:
            self.over = True
            self.came.notify_all()

    def listen_once(self):
        data = self.sock.recv(65536)
        if not data:
            return False
        size, kind, _, number = struct.unpack_from('=IHHQ', data)
        assert size == len(data)
        if kind == REVOKE:
            handle, flags, off, length = struct.unpack_from('=IIQQ', data, 16)
            with self.came:
                self.revokes.append((handle, off, length, flags))
                self.came.notify_all()
            if self.answers:
                self.before_ack()
                self.let_go(handle, off, length)
                self.send(ACK, number=number)
        else:
            with self.came:
                self.replies[number] = (kind, data[16:])
                self.came.notify_all()
        return True

    def call(self, kind, body):
        number = self.send(kind, body)
        with self.came:
            assert self.came.wait_for(lambda: number in self.replies or self.over, WAIT_S), 'no answer'
            if number not in self.replies:
                raise ConnectionError('the session is over')
            kind, body = self.replies.pop(number)
        if kind == ERROR:
            raise Refused(struct.unpack_from('=I', body)[0])
        return kind, body

    def wait_over(self):
        with self.came:
            assert self.came.wait_for(lambda: self.over, WAIT_S), 'the session goes on'

    def wait_revoked(self, count=1):
        with self.came:
            assert self.came.wait_for(lambda: len(self.revokes) >= count, WAIT_S), 'nobody asked'

    # ---- files ----

    def attach(self, fd, request=None):
        if request is None:
            request = IOC_MAP_TOKEN if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY else IOC_TOKEN
        return self.attach_token(token(fd, request))

    def attach_token(self, what):
        kind, body = self.call(ATTACH, what)
        assert kind == ATTACHED
        handle, rights, ino, generation, size, slot, pad = struct.unpack('=IIQQQII', body)
        assert pad == 0
        return {'handle': handle, 'rights': rights, 'ino': ino, 'gen': generation, 'size': size, 'slot': slot}

    def detach(self, handle):
        for key in [key for key in self.maps if key[0] == handle]:
            self.maps.pop(key).close()
        kind, _ = self.call(DETACH, struct.pack('=II', handle, 0))
        assert kind == DONE

    def pieces(self, handle, off, length, flags=0):
        kind, body = self.call(MAP, struct.pack('=IIQQ', handle, flags, off, length))
        assert kind == PIECES
        self.size, count, pad = struct.unpack_from('=QII', body)
        found = [Piece(struct.unpack_from('=QQQII', body, 16 + 32 * i)) for i in range(count)]
        for piece in found:
            assert piece.off == off and pad == 0, found
            off += piece.len
        return found

    def pieces_patiently(self, handle, off, length, flags):
        """Whoever has just closed the file may still count: the kernel tells the daemon of it later."""
        end = time.monotonic() + WAIT_S
        while True:
            try:
                return self.pieces(handle, off, length, flags)
            except Refused as e:
                if e.name != 'EBUSY' or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def map(self, handle, off, length, flags=0, at_once=False):
        """Pieces, mapped: {(handle, off): mmap}."""
        found = (self.pieces if at_once else self.pieces_patiently)(handle, off, length, flags)
        with self.lock:
            for piece in found:
                if not piece.flags & (PIECE_HOLE | PIECE_LOST):
                    prot = mmap.PROT_READ | (mmap.PROT_WRITE if piece.flags & PIECE_WRITE else 0)
                    self.maps[handle, piece.off] = mmap.mmap(self.device, piece.len, mmap.MAP_SHARED, prot,
                                                             offset=piece.dev)
        return found

    def let_go(self, handle, off, length):
        """All mappings that reach into the range, as a whole."""
        with self.lock:
            for key in [k for k, m in self.maps.items() if k[0] == handle and k[1] < off + length and off < k[1] + len(m)]:
                self.maps.pop(key).close()

    def bytes(self, handle, pieces):
        return b''.join(bytes(piece.len) if piece.flags & PIECE_HOLE else self.maps[handle, piece.off][:]
                        for piece in pieces)

    def store(self, handle, off, data, slot=None):
        for (h, start), m in self.maps.items():
            if h == handle and start <= off < start + len(m):
                m[off - start:off - start + len(data)] = data
                if slot is not None:
                    self.slots[slot * 16:slot * 16 + 8] = struct.pack('=Q', 1)
                return
        raise AssertionError('not mapped')

    def bad(self, handle, off):
        kind, body = self.call(BAD, struct.pack('=IIQ', handle, 0, off))
        assert kind == LOST
        return struct.unpack('=Q', body)[0]

    def close(self, bye=True):
        with self.lock:
            for m in self.maps.values():
                m.close()
            self.maps = {}
        if self.device is not None:
            os.close(self.device)
            self.device = None
        if bye:
            try:
                self.send(BYE)
            except OSError:
                pass
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


libc = ctypes.CDLL(None, use_errno=True)


def fallocate(fd, mode, off, length):
    fcntl.ioctl(fd, IOC_FALLOCATE, struct.pack('=QQII', off, length, mode, 0))
