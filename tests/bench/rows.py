# SPDX-License-Identifier: BSD-3-Clause
"""The rows of the table: what is run, how the figure is made from it, and what we want to reach."""

import json
import os
import subprocess
import time

from targets import Skip

COPY_LIMIT = ('clone_tree',)    # rows that make no sense where a clone is a copy


class Row:
    """kind: rate (operations a second), mbs, ms (of one call), cpu (us of an operation).

    goal: (comparison, factor, target) or (comparison, value).
    """

    def __init__(self, name, title, kind='rate', work=None, goal=None):
        self.name = name
        self.title = title
        self.kind = kind
        self.work = work or name
        self.goal = goal

    @property
    def unit(self):
        return {'rate': '/s', 'mbs': 'MB/s', 'ms': 'ms', 'cpu': 'us'}[self.kind]

    @property
    def is_more_better(self):
        return self.kind in ('rate', 'mbs')

    def value(self, result):
        wall_ns = max(result['wall_ns'], 1)
        if self.kind == 'rate':
            return result['count'] * 1e9 / wall_ns
        if self.kind == 'mbs':
            return result['bytes'] * 1e3 / wall_ns
        if self.kind == 'ms':
            return wall_ns / 1e6
        return cpu_us(result)


def cpu_us(result):
    """CPU of client and server for one operation."""
    return (result['client_cpu_ns'] + result['server_cpu_ns']) / 1e3 / max(result['count'], 1)


ROWS = [
    Row('create', 'create + close', goal=('>=', 0.8, 'null')),
    Row('create_cpu', 'create + close, CPU client + server', 'cpu', work='create',
        goal=('<=', 1.3, 'null')),
    Row('create_write', 'create + write 4K + close', goal=('>=', 0.8, 'null')),
    Row('stat_cold', 'stat cold', goal=('>=', 0.9, 'null')),
    Row('unlink', 'unlink', goal=('>=', 0.8, 'null')),
    Row('seq_write', 'sequential write 1M, new file', 'mbs', goal=('>=', 1.5, 'null')),
    Row('seq_overwrite', 'sequential overwrite 1M', 'mbs'),
    Row('seq_read_cold', 'sequential read 1M cold', 'mbs', goal=('>=', 0.9, 'null')),
    Row('rand_write', 'random write 4K', goal=('>=', 0.9, 'null')),
    Row('rand_read_cold', 'random read 4K cold'),
    Row('write_fsync', 'write 4K + fsync', goal=('>=', 0.9, 'null')),
    Row('append', 'append 4K'),
    Row('clone_1g', 'clone of 1 GiB, one extent, the call', 'ms', goal=('<=', 0.5)),
    Row('clone_20k', 'clone of 20,000 extents, the call', 'ms', goal=('<=', 40)),
    Row('clone_tree', 'clone of a tree, files of 16 MiB', goal=('>=', 60000)),
    Row('mount_clean', 'mount with 100,000 files', 'ms', work='fill', goal=('<=', 7)),
    Row('mount_crash', 'mount with 100,000 files after a crash', 'ms', work='fill',
        goal=('<=', 10)),
    Row('fsck_small', 'fsck -n of 100,000 files of 4 KiB', 'ms', work='create_write', goal=('<=', 120)),
    Row('fsck_large', 'fsck -n of 4 GiB in one file', 'ms', work='seq_write', goal=('<=', 20)),
    Row('getattr', 'getattr, one round trip'),
    Row('mkdir', 'mkdir'),
    Row('rename', 'rename'),
    Row('open_close', 'open + close'),
    Row('open_read_cold', 'open + read 4K cold + close'),
    Row('xattr_set', 'set xattr of 32 bytes'),
    Row('xattr_get', 'get xattr of 32 bytes'),
    Row('ls_l', 'ls -l cold, entries'),
]

# By row, or by its work.
DEFAULTS = {'clone_20k': 20000, 'clone_tree': 2000, 'fill': 100000, 'fsck_small': 100000}
SIZES_MIB = {'seq_write': 512, 'seq_overwrite': 512, 'seq_read_cold': 512, 'clone_1g': 1024,
             'fsck_large': 4096}
AT_REST = ('mount', 'fsck')     # rows whose work is not what is timed
FILES_COUNT = 20000


def work_args(row, scale):
    """Counts and sizes of a row; scale < 1 makes a quick run of the rates."""
    if row.kind == 'ms' and scale >= 0.1 and not row.name.startswith(AT_REST):
        scale = 1.0
    if row.work in SIZES_MIB:
        mib = max(int(SIZES_MIB.get(row.name, SIZES_MIB[row.work]) * scale), 16)
        return ['--size', str(mib << 20)]
    count = DEFAULTS.get(row.name, DEFAULTS.get(row.work, FILES_COUNT))
    return ['--count', str(max(int(count * scale), 50))]


def run_work(row, target, prefix, program, scale, args=None):
    """Runs the workload program of a row on a mounted target; returns its result."""
    argv = list(prefix) + [program, row.work, target.dir] + (args or work_args(row, scale))
    if target.server_pid:
        argv += ['--server', str(target.server_pid)]
    if row.name == 'clone_tree' and getattr(target, 'umbractl', None):
        argv += ['--umbractl', target.umbractl]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          stdin=subprocess.DEVNULL, check=False)
    if done.returncode == 3:
        raise Skip(done.stderr.strip()[-300:])
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:] or 'exit %d' % done.returncode)
    result = json.loads(done.stdout)
    if done.stderr:
        result['note'] = done.stderr.strip()
    return result


def check_row(row, target):
    if row.name.startswith('mount') and not target.is_persistent:
        raise Skip('keeps nothing across mounts')
    if row.name.startswith('fsck') and not target.fsck:
        raise Skip('no fsck of it')
    if row.name == 'mount_crash' and not target.can_crash:
        raise Skip('no way to crash it')
    if row.name in COPY_LIMIT and not target.can_clone:
        raise Skip('a clone is a copy here')


def measure(row, target, prefix, program, scale):
    """One measurement of one row on a mounted, empty target; returns the result."""
    result = run_work(row, target, prefix, program, scale)
    if row.name == 'mount_clean':
        result['wall_ns'] = int(target.remount() * 1e9)
    elif row.name == 'mount_crash':
        target.crash()
        result['wall_ns'] = int(target.mount() * 1e9)
    elif row.name.startswith('fsck'):
        target.unmount()
        result['wall_ns'] = int(timed(list(prefix) + target.fsck + [target.pool]) * 1e9)
    if row.name.startswith('mount'):
        check_tree(target.dir, result)
    return result


def timed(argv):
    """Seconds that a program takes, its start included."""
    begin = time.perf_counter()
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          stdin=subprocess.DEVNULL, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError('%s: exit %d: %s' % (' '.join(argv), done.returncode, done.stdout.strip()[-300:]))
    return seconds


def check_tree(path, result):
    """Notes what a mount has lost of the tree that "fill" made."""
    want = result['count']
    tops = [os.path.join(path, name) for name in os.listdir(path) if name.startswith('fill.')]
    have = sum(len(os.listdir(os.path.join(top, sub))) for top in tops for sub in os.listdir(top))
    if have != want:
        result['note'] = 'after the mount %d of %d files are there' % (have, want)
