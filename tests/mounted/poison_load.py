#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What poison_load.sh is made of.

    fill DIR BACKUP                     files that nobody writes any more, clones of them, a database; BACKUP gets the same
    poison MOUNT POOL PIPE ANSWERS SEED OUT
                                        makes pages bad until OUT.stop is there: one JSON line in OUT for each
    rows DIR STOP                       commits rows until STOP is there, then all of them have to be in the database
    look DIR STOP                       reads rows of the database made by fill: they are right, or cannot be read
    touch MOUNT                         reads every block of every file around the page cache
    check MOUNT LOSSES POISONED BACKUP  each 64 bytes of each file can be read unless LOSSES has them; prints what was seen

Ends with a line and status 1 if something is not as it has to be.
"""
import errno
import hashlib
import json
import mmap
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time

BLOCK, LINE = 4096, 64
STILL_FILES, STILL_BLOCKS, ROWS = 12, 48, 4000
UNITS_TAKEN = 100  # of each chunk of metadata, the first ones: most of those in use
POOL_MIB = 256
CTL = os.path.join(os.environ.get("UMBRA_BUILD", ""), "tools/umbractl")


def text_of(number):
    return hashlib.sha256(b"%d" % number).hexdigest() * 3


def fill(folder, backup):
    os.makedirs(f"{folder}/still")
    for i in range(STILL_FILES):
        name = f"{folder}/still/{i}"
        with open(name, "wb") as f:
            f.write(b"".join(b"%07d %07d\n" % (i, k) * (BLOCK // 16) for k in range(STILL_BLOCKS)))
        with open(name, "rb") as src, open(f"{name}.twin", "wb") as dst:
            os.copy_file_range(src.fileno(), dst.fileno(), STILL_BLOCKS * BLOCK)
    db = sqlite3.connect(f"{folder}/still/db")
    db.execute("create table t (n integer primary key, text text)")
    db.executemany("insert into t values (?, ?)", ((n, text_of(n)) for n in range(ROWS)))
    db.commit()
    db.close()
    shutil.copytree(f"{folder}/still", backup)


# ---- bad memory ----

class Pages:
    """The daemon makes them bad (poison_preload.c)."""

    def __init__(self, pipe, answers):
        self.pipe, self.answers = open(pipe, "w"), open(answers)
        self.bad = set()

    def make_bad(self, off):
        print(f"bad {off}", file=self.pipe, flush=True)
        line = ""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            line += self.answers.readline()
            if line.endswith("\n"):
                break
            time.sleep(0.002)
        if line != "done\n":
            sys.exit(f"the page at {off:#x} could not be made bad: {line!r}")
        self.bad.add(off)


def ctl(*args):
    return json.loads(subprocess.run([CTL, *args], check=True, stdout=subprocess.PIPE).stdout)


def place_in(path, rng):
    """A block of the file: (where it lies, its offset), or None."""
    extents = [e for e in ctl("map", "--json", path) if "unwritten" not in e.get("flags", [])]
    blocks = [(e["dev_off"] + at, e["file_off"] + at) for e in extents for at in range(0, e["len"], BLOCK)]
    return rng.choice(blocks) if blocks else None


def has_memory(pool, off):
    """A page of the pool's file that was never written is none that has failed, to the daemon."""
    try:
        return os.lseek(pool, off, os.SEEK_DATA) == off
    except OSError:
        return False


def poison(mount, pool_name, pipe, answers, seed, out_name):
    rng, pages, pool = random.Random(int(seed)), Pages(pipe, answers), os.open(pool_name, os.O_RDONLY)
    units = [e["dev_off"] + at for e in ctl("owners", "--json", "--range", f"0+{POOL_MIB}M", mount) if e["kind"] == "metadata"
             for at in range(0, min(e["len"], UNITS_TAKEN * BLOCK), BLOCK)]
    files = [f"still/{i}" for i in range(STILL_FILES)] + ["still/db"] * 4 + ["fio/all"] * 8
    with open(out_name, "w") as out:
        while not os.path.exists(out_name + ".stop"):
            name = rng.choice(files)
            if rng.random() < 0.25:
                name, where = None, (rng.choice(units), 0)
            else:
                where = place_in(f"{mount}/{name}", rng)
            if where and where[0] not in pages.bad and has_memory(pool, where[0]):
                pages.make_bad(where[0])
                print(json.dumps({"file": name, "dev_off": where[0], "off": where[1]}), file=out, flush=True)
            time.sleep(0.01)


# ---- loads ----

def rows(folder, stop):
    name, number = f"{folder}/rows.db", 0
    db = sqlite3.connect(name, timeout=60)
    db.execute("pragma journal_mode=wal")
    db.execute("create table t (n integer primary key, text text)")
    while not os.path.exists(stop):
        with db:
            for _ in range(20):
                db.execute("insert into t values (?, ?)", (number, text_of(number)))
                number += 1
            db.execute("delete from t where n = ?", (number - 500,))
    db.close()
    db = sqlite3.connect(name)
    said = db.execute("pragma integrity_check").fetchall()
    if said != [("ok",)]:
        sys.exit(f"integrity_check: {said[:3]}")
    there = dict(db.execute("select n, text from t"))
    gone = set(range(19 - 499, number - 499, 20)) | {n - 500 for n in range(20, number + 1, 20)}
    for n in range(number):
        if n in gone:
            continue
        if there.get(n) != text_of(n):
            sys.exit(f"row {n} of {number} is {there.get(n)!r}")
    print(f"{number} rows")


def look(folder, stop):
    rng, right, failed = random.Random(1), 0, 0
    while not os.path.exists(stop):
        n = rng.randrange(ROWS)
        try:
            db = sqlite3.connect(f"file:{folder}/still/db?mode=ro", uri=True)
            found = db.execute("select text from t where n = ?", (n,)).fetchall()
            db.close()
        except sqlite3.DatabaseError as error:
            # Both are names that it has for EIO.
            if "disk I/O error" not in str(error) and "malformed" not in str(error):
                sys.exit(f"row {n}: {error}")
            failed += 1
            continue
        if found != [(text_of(n),)]:
            sys.exit(f"row {n} is {found!r}")
        right += 1
    print(f"{right} rows read, {failed} could not be")


# ---- afterwards ----

def files_of(mount):
    for top, _, names in os.walk(mount):
        for name in names:
            path = os.path.join(top, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def touch(mount):
    buf = mmap.mmap(-1, BLOCK)
    for path in files_of(mount):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        for off in range(0, os.fstat(fd).st_size, BLOCK):
            try:
                os.preadv(fd, [buf], off)
            except OSError as error:
                if error.errno != errno.EIO:
                    sys.exit(f"{path} at {off}: {error}")
        os.close(fd)


def read_at(fd, length, off):
    """Bytes, or None: it cannot be read."""
    try:
        return os.pread(fd, length, off)
    except OSError as error:
        if error.errno == errno.EIO:
            return None
        raise


def file_check(path, lost, want):
    """lost: set of lines. want: a file with the same content, or None."""
    fd = os.open(path, os.O_RDONLY)
    size, seen = os.fstat(fd).st_size, 0
    for off in range(0, size, BLOCK):
        step = LINE if any(off + at in lost for at in range(0, BLOCK, LINE)) else BLOCK
        for at in range(off, min(off + BLOCK, size), step):
            got = read_at(fd, step, at)
            if (got is None) != (step == LINE and at in lost):
                sys.exit(f"{path} at {at}: {'an error without a loss' if got is None else 'lost, and can be read'}")
            if got is None:
                seen += 1
            elif len(got) != min(step, size - at):
                sys.exit(f"{path} at {at}: {len(got)} bytes")
            elif want and got != os.pread(want, step, at):
                sys.exit(f"{path} at {at}: other bytes")
    os.close(fd)
    return seen


def lines_of(losses, mount):
    lost = {}
    for loss in losses:
        if loss["path"] is None:
            sys.exit(f"a loss without a path: {loss}")
        lines = lost.setdefault(mount + loss["path"], set())
        lines.update(range(loss["from"], loss["up_to"], LINE))
    return lost


def still_check(lost, poisoned, mount):
    """What nobody writes has lost exactly the pages that were made bad under it."""
    want = {}
    for entry in poisoned:
        if entry["file"] and entry["file"].startswith("still/"):
            for name in (entry["file"], entry["file"] + ".twin"):
                if name != "still/db.twin":
                    want.setdefault(f"{mount}/{name}", set()).update(
                        range(entry["off"], entry["off"] + BLOCK, LINE))
    for path in set(want) | {p for p in lost if "/still/" in p}:
        if want.get(path, set()) != lost.get(path, set()):
            wrong = want.get(path, set()) ^ lost.get(path, set())
            sys.exit(f"{path}: lost is not what was made bad, first at {min(wrong)}")


def check(mount, losses_name, poisoned_name, backup):
    with open(losses_name) as f:
        lost = lines_of(json.load(f), mount)
    with open(poisoned_name) as f:
        poisoned = [json.loads(line) for line in f]
    still_check(lost, poisoned, mount)
    seen = files = 0
    for path in files_of(mount):
        want = None
        if path.startswith(f"{mount}/still/"):
            want = os.open(f"{backup}/{os.path.relpath(path, mount + '/still')}", os.O_RDONLY)
        seen += file_check(path, lost.pop(path, set()), want)
        files += 1
        if want:
            os.close(want)
    if lost:
        sys.exit(f"losses of what is not there: {sorted(lost)[:3]}")
    print(f"{len(poisoned)} pages, {files} files, {seen} lines lost")


if __name__ == "__main__":
    {"fill": fill, "poison": poison, "rows": rows, "look": look, "touch": touch, "check": check}[sys.argv[1]](*sys.argv[2:])
