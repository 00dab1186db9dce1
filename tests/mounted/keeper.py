#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A mount with a keeper whose daemon is killed again and again under load: no call fails, all that was done is there once.

  keeper.py DIR KEEPER ROUNDS SEED [PART...]    KEEPER: its process; a daemon is killed ROUNDS times

Each part is a process that knows what must be there, and stops at the first call that fails or shows something else. The last line has the pauses that a
caller saw. Status 1: something was wrong.
"""
import errno, json, mmap, os, random, signal, sqlite3, sys, time, traceback

QUICK_S = 1.2  # a daemon that lives shorter, again and again, is started later and later


class Wrong(Exception):
    pass


def must(is_so, *what):
    if not is_so:
        raise Wrong(" ".join(str(w) for w in what))


# ---- parts: each a step, done again and again, and a look at the end ----


class Names:
    """Every call on names, in one directory, against a dict. Each can be done only once."""

    def __init__(self, home, rng):
        self.home, self.rng, self.files, self.serial = home, rng, {}, 0

    def path(self, name):
        return os.path.join(self.home, name)

    def fresh(self):
        self.serial += 1
        return "n%d" % self.serial

    def some(self, kind):
        names = [n for n, v in self.files.items() if v[0] == kind]
        return self.rng.choice(names) if names else None

    def step(self):
        getattr(self, self.rng.choice(("create create make_dir remove remove_dir rename over exchange link symlink attribute mode").split()))()
        if self.serial % 50 == 0:
            self.look()

    def create(self):
        name = self.fresh()
        fd = os.open(self.path(name), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        must(os.write(fd, name.encode()) == len(name), "short write")
        must(os.fstat(fd).st_nlink == 1, "nlink of a new file")
        os.close(fd)
        self.files[name] = ["file", name]

    def make_dir(self):
        name = self.fresh()
        os.mkdir(self.path(name))
        self.files[name] = ["dir", None]

    def remove(self):
        name = self.some("file") or self.some("link")
        if name:
            os.unlink(self.path(name))
            del self.files[name]

    def remove_dir(self):
        name = self.some("dir")
        if name:
            os.rmdir(self.path(name))
            del self.files[name]

    def rename(self):
        name, to = self.some(self.rng.choice(("file", "dir", "link"))), self.fresh()
        if name:
            os.rename(self.path(name), self.path(to))
            self.files[to] = self.files.pop(name)

    def over(self):
        name, to = self.some("file"), self.some("file")
        if name and name != to and self.files[name][1] != self.files[to][1]:
            os.rename(self.path(name), self.path(to))
            self.files[to] = self.files.pop(name)

    def exchange(self):
        name = self.some("file")
        if name:  # by way of a third name
            to = self.fresh()
            os.link(self.path(name), self.path(to))
            os.unlink(self.path(name))
            self.files[to] = self.files.pop(name)

    def link(self):
        name, to = self.some("file"), self.fresh()
        if name:
            os.link(self.path(name), self.path(to))
            self.files[to] = list(self.files[name])

    def symlink(self):
        name = self.fresh()
        os.symlink("to-" + name, self.path(name))
        self.files[name] = ["link", "to-" + name]

    def attribute(self):
        name = self.some("file")
        if not name:
            return
        key = "user.k%d" % self.serial
        self.serial += 1
        os.setxattr(self.path(name), key, b"v", os.XATTR_CREATE)
        must(os.getxattr(self.path(name), key) == b"v", "xattr")
        os.removexattr(self.path(name), key)

    def mode(self):
        name = self.some("file")
        if name:
            os.chmod(self.path(name), self.rng.choice((0o600, 0o640, 0o644)))

    def look(self):
        must(sorted(os.listdir(self.home)) == sorted(self.files), "names differ:", set(os.listdir(self.home)) ^ set(self.files))
        for name, (kind, content) in self.files.items():
            if kind == "file":
                with open(self.path(name)) as f:
                    must(f.read() == content, "content of", name)
            elif kind == "link":
                must(os.readlink(self.path(name)) == content, "target of", name)


class Append:
    """Records at the end of a file, each there once and in order; through an open that stays."""

    def __init__(self, home, rng):
        self.path, self.rng, self.size, self.count = os.path.join(home, "log"), rng, 0, 0
        self.fd = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)

    def step(self):
        text = ("%08d " % self.count) * self.rng.choice((1, 3, 200, 30000))
        written = os.write(self.fd, text.encode())
        must(written == len(text), "an append of", len(text), "bytes has", written)
        self.size += len(text)
        self.count += 1
        must(os.fstat(self.fd).st_size == self.size, "size is", os.fstat(self.fd).st_size, "not", self.size)
        if self.size > 30 << 20:
            self.look()
            os.ftruncate(self.fd, 0)
            self.size = 0

    def look(self):
        with open(self.path) as f:
            last, total = None, 0
            while True:
                word = f.read(9)
                if not word:
                    break
                number = int(word)
                must(last is None or number in (last, last + 1), "record", number, "after", last)
                last, total = number, total + 9
            must(total == self.size, "the log has", total, "bytes, not", self.size)


class Data:
    """Reads, writes, truncates, holes and copies of a file at random, against bytes in memory. It has no name: only its opens keep it."""

    SIZE = 1 << 20

    def __init__(self, home, rng):
        path = os.path.join(home, "data")
        self.rng, self.bytes = rng, bytearray()
        self.fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        self.second = os.open(path, os.O_RDWR)
        os.unlink(path)

    def range(self):
        start = self.rng.randrange(self.SIZE)
        return start, min(self.rng.choice((1, 100, 4096, 70000, 300000)), self.SIZE - start)

    def step(self):
        start, size = self.range()
        what = self.rng.choice(("read", "read", "write", "write", "write", "cut", "copy", "flush"))
        if what == "read":
            must(os.pread(self.second, size, start) == bytes(self.bytes[start : start + size]), "bytes at", start, "of", size)
        elif what == "write":
            new = self.rng.randbytes(size)
            must(os.pwrite(self.fd, new, start) == size, "short write")
            self.bytes.extend(bytes(max(0, start - len(self.bytes))))
            self.bytes[start : start + size] = new
        elif what == "cut":
            os.ftruncate(self.fd, start)
            del self.bytes[start:]
            self.bytes.extend(bytes(start - len(self.bytes)))
        elif what == "copy":
            at = self.rng.randrange(self.SIZE)
            size = min(size, self.SIZE - at, abs(at - start), max(0, len(self.bytes) - start))
            if size > 0:
                n = os.copy_file_range(self.fd, self.fd, size, start, at)
                new = self.bytes[start : start + n]
                self.bytes.extend(bytes(max(0, at - len(self.bytes))))
                self.bytes[at : at + n] = new
        else:
            os.fsync(self.fd)
        must(os.fstat(self.second).st_size == len(self.bytes), "size")

    def look(self):
        must(os.pread(self.second, self.SIZE, 0) == bytes(self.bytes), "bytes of the file without a name")


class Beside:
    """One file written directly (O_WRONLY), stored to through a mapping and read through the page cache by others all the time: the daemon has the kernel drop pages
    of it again and again, and waits for it."""

    SIZE, BLOCK = 1 << 20, 4096

    def __init__(self, home, rng):
        path = os.path.join(home, "file")
        self.rng, self.stamp, self.blocks = rng, 0, {}
        self.mapped = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        os.ftruncate(self.mapped, self.SIZE)
        self.memory = mmap.mmap(self.mapped, self.SIZE)
        self.written, self.read = os.open(path, os.O_WRONLY), os.open(path, os.O_RDONLY)
        self.readers = [self.reader(path, rng.random()) for _ in range(2)]

    def reader(self, path, seed):
        pid = os.fork()
        if pid:
            return pid
        status, rng, parent = 1, random.Random(seed), os.getppid()
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        try:
            fd = os.open(path, os.O_RDONLY)
            while os.getppid() == parent:
                start, size = rng.randrange(self.SIZE), rng.choice((self.BLOCK, 65536, 300000))
                must(len(os.pread(fd, size, start)) == min(size, self.SIZE - start), "short read")
                if rng.random() < 0.3:
                    os.posix_fadvise(fd, start, size, os.POSIX_FADV_DONTNEED)
            status = 0
        except (OSError, Wrong) as e:
            print("beside, a reader:", e, flush=True)
        finally:
            os._exit(status)

    def bytes_of(self, block):
        return self.blocks.get(block, 0).to_bytes(8, "little") * (self.BLOCK // 8)

    def step(self):
        must(os.waitpid(-1, os.WNOHANG)[0] == 0, "a reader has ended")
        block, count = self.rng.randrange(self.SIZE // self.BLOCK), self.rng.choice((1, 4, 32))
        blocks = range(block, min(block + count, self.SIZE // self.BLOCK))
        what = self.rng.choice(("write", "write", "store", "seek", "times"))
        if what in ("write", "store"):
            self.stamp += 1
            self.blocks.update((b, self.stamp) for b in blocks)
            new = b"".join(self.bytes_of(b) for b in blocks)
            if what == "write":
                must(os.pwrite(self.written, new, block * self.BLOCK) == len(new), "short write")
            else:
                self.memory[block * self.BLOCK : block * self.BLOCK + len(new)] = new
            must(os.pread(self.read, len(new), block * self.BLOCK) == new, "what is read after a", what)
        elif what == "seek":
            if self.blocks.get(block):
                must(os.lseek(self.read, block * self.BLOCK, os.SEEK_DATA) == block * self.BLOCK, "no data at", block)
        else:
            os.utime(self.mapped, ns=(self.stamp, self.stamp))
            must(os.fstat(self.mapped).st_mtime_ns == self.stamp, "a time that was set")

    def look(self):
        for pid in self.readers:
            os.kill(pid, signal.SIGTERM)
            must(os.waitpid(pid, 0)[1] == 0, "a reader failed")
        for block in range(self.SIZE // self.BLOCK):
            must(os.pread(self.read, self.BLOCK, block * self.BLOCK) == self.bytes_of(block), "block", block)
            must(self.memory[block * self.BLOCK : (block + 1) * self.BLOCK] == self.bytes_of(block), "block", block, "mapped")


class Sqlite:
    """A database; each transaction is there."""

    def __init__(self, home, rng):
        self.rng, self.count = rng, 0
        self.db = sqlite3.connect(os.path.join(home, "db"), isolation_level=None, timeout=60)
        self.db.execute("create table t (n integer primary key, v blob)")

    def step(self):
        self.db.execute("begin immediate")
        for _ in range(self.rng.choice((1, 5, 40))):
            self.db.execute("insert into t values (?, ?)", (self.count, self.rng.randbytes(self.rng.choice((10, 500, 5000)))))
            self.count += 1
        self.db.execute("commit")
        if self.count > 3000:
            self.look()
            self.db.execute("delete from t")
            self.count = 0

    def look(self):
        must(self.db.execute("pragma integrity_check").fetchone()[0] == "ok", "the database is damaged")
        must(self.db.execute("select count(*) from t").fetchone()[0] == self.count, "rows are missing")


class Temporary:
    """Files that never have a name, or get one late."""

    def __init__(self, home, rng):
        self.home, self.rng, self.open, self.count = home, rng, [], 0

    def step(self):
        fd = os.open(self.home, os.O_TMPFILE | os.O_RDWR, 0o600)
        self.count += 1
        text = b"%d" % self.count
        must(os.write(fd, text) == len(text), "short write")
        if self.rng.random() < 0.2:
            name = os.path.join(self.home, "late%d" % self.count)
            os.link("/proc/self/fd/%d" % fd, name, src_dir_fd=fd)  # so that it follows the link
            with open(name, "rb") as f:
                must(f.read() == text, "content of", name)
            os.unlink(name)
        self.open.append((fd, text))
        if len(self.open) > 20:
            old, text = self.open.pop(self.rng.randrange(len(self.open)))
            must(os.pread(old, 100, 0) == text, "content of a file without a name")
            os.close(old)

    def look(self):
        for fd, text in self.open:
            must(os.pread(fd, 100, 0) == text, "content of a file without a name")


class Pause:
    """How long one small call takes: it goes to the daemon each time."""

    def __init__(self, home, rng):
        self.path, self.longest = os.path.join(home, "p"), []
        with open(self.path, "w") as f:
            f.write("x")

    def step(self):
        start = time.monotonic()
        os.close(os.open(self.path, os.O_RDONLY))
        took = time.monotonic() - start
        if took > 0.005:
            self.longest.append(round(took * 1000))
        time.sleep(0.001)

    def look(self):
        print("pauses", json.dumps(sorted(self.longest)), flush=True)


PARTS = {c.__name__.lower(): c for c in (Names, Append, Data, Beside, Sqlite, Temporary, Pause)}


def part_run(name, home, seed):
    os.mkdir(home)
    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(1))
    part, steps = PARTS[name](home, random.Random(seed)), 0
    try:
        while not over:
            part.step()
            steps += 1
        part.look()
    except (OSError, Wrong, sqlite3.Error) as e:
        where = traceback.extract_tb(e.__traceback__)[-1]
        print("%s, step %d, seed %d: %s: %s (%s)" % (name, steps, seed, type(e).__name__, e, where.line), flush=True)
        return 1
    must(steps > 0, "nothing was done")
    return 0


# ---- the one who kills ----


def runs(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children(pid):
    """Those that run, the last one first: before it there may be one that has been left behind."""
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return [int(p) for p in reversed(f.read().split()) if runs(int(p))]


def daemon_of(keeper):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = children(keeper)
        if found:
            return found[0]
        time.sleep(0.001)
    raise Wrong("there is no daemon")


def main():
    home, keeper, rounds, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    names = sys.argv[5:] or list(PARTS)
    waits = "wait" in names  # others do something to the mount, until a signal comes
    names = [n for n in names if n != "wait"]
    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(1))
    rng = random.Random(seed)
    parts = {}
    for i, name in enumerate(names):
        kind = name.rstrip("0123456789")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = part_run(kind, os.path.join(home, name), seed + i)
            finally:
                sys.stdout.flush()
                os._exit(status)
        parts[pid] = name
    failed, quick = [], 0
    for _ in range(rounds):
        time.sleep(rng.random() * 0.7 if quick < 4 else QUICK_S)
        quick = quick + 1 if quick < 4 else 0
        try:
            os.kill(daemon_of(keeper), signal.SIGKILL)
        except Wrong as e:
            failed.append(str(e))
            break
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            failed.append(parts.pop(pid))
            break
    while waits and not over and not failed:
        time.sleep(0.05)
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            failed.append(parts.pop(pid))
    time.sleep(0.5)
    for pid in parts:
        os.kill(pid, signal.SIGTERM)
    for pid, name in parts.items():
        if os.waitpid(pid, 0)[1]:
            failed.append(name)
    print("seed %d: %s" % (seed, "failed: " + " ".join(failed) if failed else "all well"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
