#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A tree with something of everything, and a picture of a tree to compare with another.

    tree.py make DIR [SEED]            makes the tree (DIR must not be there)
    tree.py snap DIR [WHAT]            prints the picture as JSON
    tree.py same DIR FILE [WHAT]       compares DIR with a picture, prints what differs
    tree.py equal DIR DIR [WHAT]       compares two trees

WHAT is 'all' (a file system before and after a mount: inode numbers, ctimes and blocks too), 'kept' (the same
without blocks), 'copy' (what a good copy keeps) or 'content' (names, types and bytes).
"""
import hashlib
import json
import os
import random
import socket
import stat
import struct
import sys

ACCESS = "system.posix_acl_access"
DEFAULT = "system.posix_acl_default"


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, perm, ident) for tag, perm, ident in entries)


ACL_FILE = acl((1, 7, 2**32 - 1), (2, 5, 1000), (4, 4, 2**32 - 1), (8, 6, 2000), (16, 6, 2**32 - 1), (32, 0, 2**32 - 1))


def write(path, data, mode=0o644):
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, mode)


def make_files(top, rnd):
    sizes = [0, 1, 10, 59, 100, 200, 511, 512, 1000, 4095, 4096, 4097, 10000, 65536, 70001, 1 << 20, 3000000]
    os.mkdir(top + "/files")
    for number, size in enumerate(sizes):
        write(f"{top}/files/size-{size}", rnd.randbytes(size), [0o644, 0o600, 0o755, 0o4755, 0o2711, 0o444][number % 6])
    for name in ("a b", "tab\there", "new\nline", "ä", "-rf", "n" * 255, ".hidden"):
        write(f"{top}/files/{name}", name.encode())
    write(os.fsencode(top) + b"/files/\xff\xfe\x01", b"bytes")
    with open(top + "/files/sparse", "wb") as f:
        for at in (0, 1 << 20, 10 << 20):
            f.seek(at)
            f.write(rnd.randbytes(5000))
        f.truncate(16 << 20)
    os.truncate(top + "/files/size-65536", 100000)
    write(top + "/files/preallocated", b"x")
    with open(top + "/files/preallocated", "r+b") as f:
        os.posix_fallocate(f.fileno(), 0, 300000)


def make_special(top):
    os.mkdir(top + "/special")
    os.mkfifo(top + "/special/fifo", 0o640)
    os.mknod(top + "/special/char", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(top + "/special/block", 0o660 | stat.S_IFBLK, os.makedev(7, 200))
    here = os.getcwd()
    os.chdir(top + "/special")
    s = socket.socket(socket.AF_UNIX)
    s.bind("socket")
    s.close()
    os.chdir(here)
    os.symlink("target", top + "/special/symlink")
    os.symlink("t" * 1000, top + "/special/symlink-long")
    os.symlink("/etc/passwd", top + "/special/symlink-absolute")


def make_attributes(top, rnd):
    os.mkdir(top + "/attributes")
    for name in ("one", "many", "large"):
        write(f"{top}/attributes/{name}", name.encode())
    os.setxattr(top + "/attributes/one", "user.a", b"value")
    os.setxattr(top + "/attributes/one", "trusted.b", b"\0\1\2")
    os.setxattr(top + "/attributes", "user.dir", b"d")
    for number in range(20):
        os.setxattr(top + "/attributes/many", f"user.name-{number}", rnd.randbytes(number * 5))
    os.setxattr(top + "/attributes/large", "user.large", rnd.randbytes(3000))
    write(top + "/attributes/acl", b"acl")
    os.setxattr(top + "/attributes/acl", ACCESS, ACL_FILE)
    os.mkdir(top + "/attributes/default")
    os.setxattr(top + "/attributes/default", DEFAULT, ACL_FILE)
    write(top + "/attributes/default/inherits", b"i", 0o640)
    for number, name in enumerate(("one", "many", "large")):
        os.chown(f"{top}/attributes/{name}", number * 7, 60000 + number)
        when = [-(10**9), 1, 2**31 + 5][number] * 10**9 + 123456789
        os.utime(f"{top}/attributes/{name}", ns=(when, when + 5))


def make_links(top):
    os.mkdir(top + "/links")
    write(top + "/links/origin", b"linked")
    for number in range(30):
        os.link(top + "/links/origin", f"{top}/links/link-{number}")
    os.mkdir(top + "/links/deeper")
    os.link(top + "/links/origin", top + "/links/deeper/far")


def make_dirs(top):
    path = top + "/deep"
    for number in range(40):
        os.mkdir(path)
        path += f"/d{number}"
    os.mkdir(top + "/wide")
    for number in range(1500):
        write(f"{top}/wide/entry-{number:05}", str(number).encode())
    os.mkdir(top + "/sticky")
    os.chmod(top + "/sticky", 0o1777)
    os.mkdir(top + "/setgid")
    os.chown(top + "/setgid", 5, 6)
    os.chmod(top + "/setgid", 0o2755)
    os.mkdir(top + "/empty")
    os.utime(top + "/empty", ns=(10**18, 10**18 + 1))


def make(top, seed):
    rnd = random.Random(seed)
    os.umask(0o022)
    os.mkdir(top)
    make_files(top, rnd)
    make_special(top)
    make_attributes(top, rnd)
    make_links(top)
    make_dirs(top)


def content_of(path):
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def picture_of(path, st, what, inodes):
    """What one file is, as far as this kind of comparison cares."""
    info = {"type": stat.S_IFMT(st.st_mode)}
    if stat.S_ISREG(st.st_mode):
        info["size"] = st.st_size
        info["content"] = content_of(path)
    if stat.S_ISLNK(st.st_mode):
        info["target"] = os.fsdecode(os.readlink(path))
    if what == "content":
        return info
    info["mode"] = stat.S_IMODE(st.st_mode)
    info["owner"] = [st.st_uid, st.st_gid]
    info["rdev"] = st.st_rdev
    if not stat.S_ISLNK(st.st_mode):
        info["mtime"] = st.st_mtime_ns
    if not stat.S_ISDIR(st.st_mode):
        info["nlink"] = st.st_nlink
        info["same"] = inodes.setdefault(st.st_ino, os.fsdecode(path))
    info["xattrs"] = {name: os.getxattr(path, name, follow_symlinks=False).hex()
                      for name in sorted(os.listxattr(path, follow_symlinks=False))}
    if what in ("all", "kept"):
        info.update(ino=st.st_ino, ctime=st.st_ctime_ns, dir_nlink=st.st_nlink)
    if what == "all":
        info["blocks"] = st.st_blocks
    return info


def snap(top, what):
    """Path (relative) to picture; files that are one file name the first path of it."""
    found = {}
    inodes = {}
    here = os.getcwd()
    os.chdir(top)
    try:
        pending = [b"."]
        while pending:
            folder = pending.pop()
            for name in sorted(os.listdir(folder)):
                path = os.path.join(folder, name)
                st = os.lstat(path)
                found[os.fsdecode(path)] = picture_of(path, st, what, inodes)
                if stat.S_ISDIR(st.st_mode):
                    pending.append(path)
    finally:
        os.chdir(here)
    return found


def compare(old, new):
    """Prints the differences, returns how many."""
    count = 0
    for path in sorted(set(old) | set(new)):
        a, b = old.get(path), new.get(path)
        if a == b:
            continue
        count += 1
        if count > 20:
            continue
        if a is None or b is None:
            print(f"{path!r} is only in the {'second' if a is None else 'first'}")
        else:
            print(f"{path!r}: " + ", ".join(f"{key} {a.get(key)} became {b.get(key)}"
                                            for key in sorted(set(a) | set(b)) if a.get(key) != b.get(key)))
    if count:
        print(f"{count} differences")
    return count


def main(argv):
    command, top = argv[1], argv[2]
    if command == "make":
        make(top, int(argv[3]) if len(argv) > 3 else 1)
        return 0
    if command == "snap":
        json.dump(snap(top, argv[3] if len(argv) > 3 else "all"), sys.stdout)
        return 0
    what = argv[4] if len(argv) > 4 else "all"
    if command == "equal":
        return 1 if compare(snap(top, what), snap(argv[3], what)) else 0
    with open(argv[3], encoding="utf-8", errors="surrogateescape") as f:
        old = json.load(f)
    return 1 if compare(old, json.loads(json.dumps(snap(top, what)))) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
