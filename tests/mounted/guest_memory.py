#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""guest_memory.py DIR CLONES COMMAND...

A virtual machine whose memory is DIR/ram, and whose disk is DIR/disk: both are made here, COMMAND starts it. What is in its boot sector reads the bytes that
were put into the file before, again and again, stores a number to all of some others, reads those too, and takes the next number; until it is told to
end. It says the number that is everywhere when it is asked. Meanwhile the file is cloned CLONES times by cp: each clone has the bytes of before where nothing was
stored, and numbers of its own time elsewhere. At the end the file is exactly as it was left, and a clone from before the machine started as it was.
"""
import os
import random
import struct
import subprocess
import sys

MIB = 1 << 20
SIZE = 32 * MIB
GIVEN = (2 * MIB, 4 * MIB)  # what the machine reads: each address, with MARK
STORED = (4 * MIB, 8 * MIB)  # what it stores: each address, plus the number
QUIET = (1 * MIB, 24 * MIB)  # nobody else stores there
STEP = 512  # four bytes of so many
MARK = 0x5A5A5A5A
GOOD = 0x10 << 1 | 1  # what isa-debug-exit makes of it

# At 0x7c00, where it is put by the BIOS.
CODE = """
fa                   cli
31 c0                xor %ax,%ax
8e d8                mov %ax,%ds
0f 01 16 ba 7c       lgdt 0x7cba
e4 92                in $0x92,%al          (address line 20)
0c 02                or $2,%al
e6 92                out %al,$0x92
0f 20 c0             mov %cr0,%eax         (protected mode)
0c 01                or $1,%al
0f 22 c0             mov %eax,%cr0
ea 1d 7c 08 00       ljmp $8,$0x7c1d
66 b8 10 00          mov $16,%ax           (32 bits from here on)
8e d8                mov %eax,%ds
31 f6                xor %esi,%esi         esi: the number
bf 00 00 20 00       mov $0x200000,%edi    25: what was given
89 f8                mov %edi,%eax         2a:
35 5a 5a 5a 5a       xor $0x5a5a5a5a,%eax
39 07                cmp %eax,(%edi)
75 7c                jne b1
81 c7 00 02 00 00    add $512,%edi
81 ff 00 00 40 00    cmp $0x400000,%edi
72 e7                jb 2a
46                   inc %esi
bf 00 00 40 00       mov $0x400000,%edi    to be stored
8d 04 37             lea (%edi,%esi),%eax  49:
89 07                mov %eax,(%edi)
81 c7 00 02 00 00    add $512,%edi
81 ff 00 00 80 00    cmp $0x800000,%edi
72 ed                jb 49
bf 00 00 40 00       mov $0x400000,%edi    has been stored
8d 04 37             lea (%edi,%esi),%eax  61:
39 07                cmp %eax,(%edi)
75 4d                jne b5
81 c7 00 02 00 00    add $512,%edi
81 ff 00 00 80 00    cmp $0x800000,%edi
72 eb                jb 61
66 ba fd 03          mov $0x3fd,%dx        is anything said?
ec                   in (%dx),%al
a8 01                test $1,%al
74 a6                je 25
66 ba f8 03          mov $0x3f8,%dx
ec                   in (%dx),%al
88 c1                mov %al,%cl           cl: that
89 f3                mov %esi,%ebx         four bytes of an answer
b5 04                mov $4,%ch
66 ba fd 03          mov $0x3fd,%dx        8a:
ec                   in (%dx),%al
a8 20                test $0x20,%al
74 f7                je 8a
66 ba f8 03          mov $0x3f8,%dx
88 d8                mov %bl,%al
ee                   out %al,(%dx)
c1 eb 08             shr $8,%ebx
fe cd                dec %ch
75 e9                jne 8a
80 f9 71             cmp $'q',%cl
0f 85 7b ff ff ff    jne 25
b0 10                mov $0x10,%al         the end, good
e6 f4                out %al,$0xf4         ac:
f4                   hlt
eb fb                jmp ac
b0 11                mov $0x11,%al         b1: what was given is not so
eb f7                jmp ac
b0 12                mov $0x12,%al         b5: what was stored is not so
eb f3                jmp ac
90                   nop
17 00 c0 7c 00 00    ba: where segments are described
00 00 00 00 00 00 00 00
ff ff 00 00 00 9a cf 00
ff ff 00 00 00 92 cf 00
"""


def boot_sector():
    code = b"".join(bytes.fromhex(line.split("  ")[0]) for line in CODE.splitlines())
    assert len(code) == 0xd8
    return code.ljust(510, b"\0") + b"\x55\xaa"


def part(name, lo, hi):
    with open(name, "rb") as file:
        file.seek(lo)
        return file.read(hi - lo)


def clone(name, to):
    subprocess.run(["cp", name, to], check=True)


class Machine:
    def __init__(self, command):
        self.run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def ask(self, how):
        """The number that is everywhere now, or was before the next one was begun."""
        answer = b""
        try:
            self.run.stdin.write(how)
            while len(answer) < 4:
                got = self.run.stdout.read(4 - len(answer))
                if not got:
                    break
                answer += got
        except BrokenPipeError:
            pass
        if len(answer) < 4:
            sys.exit("the machine ended with %d" % self.run.wait())
        return struct.unpack("<I", answer)[0]

    def end(self):
        number = self.ask(b"q")
        status = self.run.wait()
        if status != GOOD:
            sys.exit("the machine ended with %d, not %d" % (status, GOOD))
        return number


def look(name, first, last, before):
    """The memory when the machine was somewhere between two numbers."""
    got, wanted = bytearray(part(name, *QUIET)), before[QUIET[0]:QUIET[1]]
    for at in range(*STORED, STEP):
        i = at - QUIET[0]
        number = struct.unpack_from("<I", got, i)[0] - at
        if not first <= number <= last:
            sys.exit("%s: %d at 0x%x, which is none of %d to %d" % (name, number, at, first, last))
        got[i:i + 4] = wanted[i:i + 4]
    if got != wanted:
        sys.exit("%s: byte 0x%x" % (name, QUIET[0] + next(i for i, byte in enumerate(got) if byte != wanted[i])))


def main():
    where, clones, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    ram = where + "/ram"
    before = bytearray(random.randbytes(SIZE))
    for at in range(*GIVEN, STEP):
        struct.pack_into("<I", before, at, at ^ MARK)
    with open(ram, "wb") as file:
        file.write(before)
    with open(where + "/disk", "wb") as file:
        file.write(boot_sector().ljust(MIB, b"\0"))
    clone(ram, where + "/before")
    machine = Machine(command)
    first = machine.ask(b"?")
    made = []
    for i in range(clones):
        clone(ram, "%s/clone%d" % (where, i))
        last = machine.ask(b"?")
        made.append(("%s/clone%d" % (where, i), first, last))
        first = last
    number = machine.end()
    assert os.stat(ram).st_size == SIZE
    look(ram, number, number, before)
    for one in made:
        look(*one, before)
    assert part(where + "/before", 0, SIZE) == before, "the clone from before"


main()
