# SPDX-License-Identifier: BSD-3-Clause
"""Fills a small umbrafs again and again, and empties it: all space has to come back, and what was written stays readable.

    python3 space.py DIR UMBRACTL clones|inodes|trees CYCLES SEED

clones: files, clones of them that are overwritten until nothing fits any more, deleted in part, filled again.
inodes: empty files until no more can be made, deleted, again.
trees: snapshots (umbractl clone -r) of a tree that changes, until there is no room; the oldest go.
"""
import ctypes
import errno
import hashlib
import os
import random
import shutil
import subprocess
import sys
import time

BLOCK = 4096
WAIT_MAX_S = 60


def stop(why):
    sys.exit(why)


def statfs():
    st = os.statvfs(".")
    if not 0 <= st.f_bavail <= st.f_bfree <= st.f_blocks or not 0 <= st.f_ffree <= st.f_files:
        stop(f"statfs makes no sense: {st}")
    return st


def wait_for_free(want):
    """Until the files that were deleted have been freed: so many blocks, not one more or less."""
    end = time.monotonic() + WAIT_MAX_S
    while statfs().f_bfree != want:
        if time.monotonic() > end:
            stop(f"{statfs().f_bfree} blocks free after everything was deleted, {want} at the start")
        time.sleep(0.02)


def no_space(error, what):
    if error.errno != errno.ENOSPC:
        stop(f"{what}: {error}, which is not ENOSPC")


class Files:
    """Files with known content."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.sums = {}
        self.count = 0

    def name_new(self):
        self.count += 1
        return f"d{self.count % 7}/f{self.count}"

    def note(self, name):
        with open(name, "rb") as f:
            self.sums[name] = hashlib.blake2b(f.read()).digest()

    def write(self):
        """A new file; ENOSPC leaves what could be written."""
        name = self.name_new()
        size = self.random.choice((100, 5000, 70000, 1 << 20))
        data = self.random.randbytes(1000) * (size // 1000 + 1)
        with open(name, "xb", buffering=0) as f:
            done = 0
            try:
                while done < size:
                    done += f.write(data[done:size])
            except OSError as error:
                no_space(error, "write")
                raise
            finally:
                self.sums[name] = hashlib.blake2b(data[:done]).digest()

    def clone(self):
        """A clone, and a part of it written anew."""
        source, name = self.random.choice(list(self.sums)), self.name_new()
        src = os.open(source, os.O_RDONLY)
        dst = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self.sums[name] = hashlib.blake2b(b"").digest()
        try:
            size = os.fstat(src).st_size
            at = 0
            while at < size:
                at += os.copy_file_range(src, dst, size - at)
            for _ in range(self.random.randrange(20)):
                off = self.random.randrange(size) if size else 0
                os.pwrite(dst, self.random.randbytes(self.random.randrange(1, 9000)), off)
        except OSError as error:
            no_space(error, "clone")
            raise
        finally:
            os.close(src)
            os.close(dst)
            self.note(name)

    def fill(self):
        """Until it is full: three calls in turn have to say so."""
        full = 0
        while full < 3:
            try:
                if self.sums and self.random.random() < 0.6:
                    self.clone()
                else:
                    self.write()
                full = 0
            except OSError as error:
                no_space(error, "open")
                full += 1

    def verify(self):
        for name, want in self.sums.items():
            with open(name, "rb") as f:
                if hashlib.blake2b(f.read()).digest() != want:
                    stop(f"{name}: content is not what was written")

    def delete(self, share):
        for name in list(self.sums):
            if self.random.random() < share:
                os.unlink(name)
                del self.sums[name]


def punch_some(files):
    """Overwriting and punching on a full file system; clones of the file stay as they are."""
    libc = ctypes.CDLL(None, use_errno=True)
    name = max(files.sums, key=lambda n: os.stat(n).st_size)
    fd = os.open(name, os.O_RDWR)
    try:
        if libc.fallocate(fd, 3, ctypes.c_long(BLOCK), ctypes.c_long(8 * BLOCK)) != 0:
            stop(f"punch: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(fd)
    files.note(name)


def clones(cycles, seed):
    files = Files(seed)
    for i in range(7):
        os.mkdir(f"d{i}")
    start = statfs().f_bfree
    for _ in range(cycles):
        files.fill()
        punch_some(files)
        files.verify()
        files.delete(0.6)
        files.fill()
        files.verify()
        files.delete(1)
        wait_for_free(start)
    for i in range(7):
        os.rmdir(f"d{i}")


def inodes(cycles, _seed):
    counts = []
    start = statfs()
    for _ in range(cycles):
        made = 0
        os.mkdir("many")
        try:
            while True:
                os.close(os.open(f"many/{made}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                made += 1
        except OSError as error:
            no_space(error, "create")
        if sum(1 for _ in os.scandir("many")) != made:
            stop("a file that could not be made is there, or one that was made is not")
        statfs()
        for i in range(made):
            os.unlink(f"many/{i}")
        os.rmdir("many")
        wait_for_free(start.f_bfree)
        counts.append(made)
    if min(counts) * 10 < max(counts) * 9:
        stop(f"not as many inodes each time: {counts}")
    print(f"# {counts} files")


def tree_sum(top):
    total = hashlib.blake2b()
    for folder, folders, names in sorted(os.walk(top)):
        folders.sort()
        for name in sorted(names):
            with open(os.path.join(folder, name), "rb") as f:
                total.update(os.path.relpath(os.path.join(folder, name), top).encode() + f.read())
    return total.digest()


def tree_change(rand, number):
    for i in range(40):
        folder = f"tree/{rand.randrange(12)}"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/{rand.randrange(30)}", "w+b") as f:
            f.write(rand.randbytes(rand.randrange(20000)) * 3)
    with open(f"tree/number-{number}", "w", encoding="ascii") as f:
        f.write(str(number))


def trees(cycles, seed, umbractl):
    rand = random.Random(seed)
    start = statfs().f_bfree
    for _ in range(cycles):
        snaps, number, full = {}, 0, 0
        os.mkdir("tree")
        while full < 4:
            number += 1
            try:
                tree_change(rand, number)
                result = subprocess.run([umbractl, "clone", "-r", "tree", f"snap-{number}"], capture_output=True,
                                        text=True, check=False)
                if result.returncode == 0:
                    snaps[f"snap-{number}"] = tree_sum("tree")
                    continue
                if "No space left" not in result.stderr:
                    stop(f"umbractl clone: {result.stderr}")
            except OSError as error:
                no_space(error, "changing the tree")
            full += 1
            shutil.rmtree(f"snap-{number}", ignore_errors=True)
            for name in list(snaps)[::2]:
                shutil.rmtree(name)
                del snaps[name]
        for name, want in snaps.items():
            if tree_sum(name) != want:
                stop(f"{name} has changed")
        for name in os.listdir("."):
            shutil.rmtree(name)
        wait_for_free(start)


def main():
    folder, umbractl, what, cycles, seed = sys.argv[1:]
    umbractl = os.path.abspath(umbractl)
    os.chdir(folder)
    if what == "clones":
        clones(int(cycles), int(seed))
    elif what == "inodes":
        inodes(int(cycles), int(seed))
    else:
        trees(int(cycles), int(seed), umbractl)


main()
