# SPDX-License-Identifier: BSD-3-Clause
"""The rows of the table: what is run, how the figure is made from it, and what we want to reach."""

import json
import os
import re
import subprocess
import time

from targets import FOR_DIRECT, Skip

OWNERS = {'poison_1': 1, 'poison_10k': 10000}
COPY_LIMIT = ('clone_tree',)    # rows that make no sense where a clone is a copy
COPY_ON_WRITE = ('map_dense', 'map_dense_sync', 'map_sparse')
PREPARED_BY = {'scrub': 'create_write'}     # workloads that make what is then looked at by something else


class Row:
    """kind: rate (operations a second), mbs, cpu_mbs (for each second of a core), ms (of one call), cpu (us of an operation), p99 (us that the
    slowest hundredth of the calls take at least), times (that of reads, by what it was before), limit (speed, by that of the same work on memory
    that is mapped, in the same run), space (that was taken, by that which was stored), mib (of memory for each process).

    goal: (comparison, factor, target) or (comparison, value); target: a name, or 'kernel', the best of those that are the kernel's.
    program: the one that does the work; rows of bench_map are for libumbra, or the kernel's calls.
    is_run: on umbrafs it runs under umbra-run.
    """

    def __init__(self, name, title, kind='rate', work=None, goal=None, program='bench_work', is_run=False):
        self.name = name
        self.title = title
        self.kind = kind
        self.work = work or name
        self.goal = goal
        self.program = program
        self.is_run = is_run

    @property
    def unit(self):
        return {'rate': '/s', 'mbs': 'MB/s', 'cpu_mbs': 'MB/s', 'ms': 'ms', 'cpu': 'us', 'p99': 'us', 'times': 'x',
                'limit': 'x', 'space': 'x', 'mib': 'MiB'}[self.kind]

    @property
    def is_more_better(self):
        return self.kind in ('rate', 'mbs', 'cpu_mbs', 'limit')

    def value(self, result):
        wall_ns = max(result['wall_ns'], 1)
        if self.kind == 'rate':
            return result['count'] * 1e9 / wall_ns
        if self.kind == 'mbs':
            return result['bytes'] * 1e3 / wall_ns
        if self.kind == 'cpu_mbs':
            return result['bytes'] * 1e3 / max(result['server_cpu_ns'], 1)
        if self.kind == 'ms':
            return wall_ns / 1e6
        if self.kind == 'p99':
            return result['busy_p99_ns'] / 1e3
        if self.kind == 'times':
            return result['busy_p99_ns'] / max(result['quiet_p99_ns'], 1)
        if self.kind == 'limit':
            return result['raw_ns'] / wall_ns if result['raw_ns'] else None
        if self.kind == 'space':
            return result['extra_bytes'] / max(result['stored_bytes'], 1)
        if self.kind == 'mib':
            return result['extra_bytes'] / max(result['count'], 1) / (1 << 20)
        return cpu_us(result)

    @property
    def is_direct(self):
        """Past the kernel on umbrafs, by the kernel alone elsewhere."""
        return self.program == 'bench_map' or self.is_run

    @property
    def is_ours_alone(self):
        """There is nothing to be compared with."""
        return self.kind in ('limit', 'space', 'mib') or self.work.startswith('map_revoke')


def map_row(name, title, *args, **kwargs):
    return Row(name, title, *args, program='bench_map', **kwargs)


def run_row(name, title, *args, **kwargs):
    return Row(name, title, *args, is_run=True, **kwargs)


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
    Row('scrub', 'scrub of 100,000 files of 4 KiB, both copies', 'mbs', goal=('>=', 3000)),
    Row('scrub_cpu', 'the same, for each second of a core', 'cpu_mbs', work='scrub', goal=('>=', 3000)),
    Row('poison_1', 'bad memory, one owner, until he is told', 'ms', goal=('<=', 1)),
    Row('poison_10k', 'bad memory, 10,000 owners, until all are told', 'ms', goal=('<=', 100)),
    Row('evacuate', 'evacuate 1 GiB of one file', 'mbs', goal=('>=', 1000)),
    Row('evacuate_p99', 'random read 4K cold meanwhile, p99 over before', 'times', work='evacuate',
        goal=('<=', 5)),
    Row('getattr', 'getattr, one round trip'),
    Row('getattr_p99', 'getattr beside a stream, p99', 'p99', goal=('<=', 0.5, 'null')),
    Row('getattr_p99_mbs', 'the stream meanwhile, 1M written and read', 'mbs', work='getattr_p99'),
    Row('mkdir', 'mkdir'),
    Row('rename', 'rename'),
    Row('open_close', 'open + close'),
    Row('open_read_cold', 'open + read 4K cold + close'),
    Row('xattr_set', 'set xattr of 32 bytes'),
    Row('xattr_get', 'get xattr of 32 bytes'),
    Row('ls_l', 'ls -l cold, entries'),
    map_row('lib_read_hot', 'libumbra: read 4K, the same', goal=('>=', 3, 'kernel')),
    map_row('lib_read_random', 'libumbra: random read 4K of 1 GiB', goal=('>=', 1.6, 'kernel')),
    map_row('lib_read_limit', 'the same, by a copy from memory', 'limit', work='lib_read_random', goal=('>=', 0.9)),
    map_row('lib_write_random', 'libumbra: random write 4K, durable', goal=('>=', 3, 'tmpfs')),
    map_row('lib_write_sync', 'libumbra: random write 4K; others: and fsync', goal=('>=', 4, 'tmpfs')),
    map_row('lib_read_large', 'libumbra: read 1M, by a copy from memory', 'limit', goal=('>=', 0.9)),
    map_row('lib_write_large', 'libumbra: overwrite 1M, by copies around the cache', 'limit', goal=('>=', 0.9)),
    run_row('run_read_hot', 'umbra-run: read 4K, the same', goal=('>=', 3, 'kernel')),
    run_row('run_read_random', 'umbra-run: random read 4K of 1 GiB', goal=('>=', 1.6, 'kernel')),
    run_row('run_write_random', 'umbra-run: random write 4K', goal=('>=', 3, 'tmpfs')),
    run_row('run_write_sync', 'umbra-run: random write 4K and fsync', goal=('>=', 4, 'tmpfs')),
    map_row('map_dense', 'first stores to a mapped clone, all pages of 256 MiB', goal=('>=', 450000)),
    map_row('map_dense_sync', 'the same and msync', goal=('>=', 300000)),
    map_row('map_sparse', 'first stores to a mapped clone, 4,096 pages in 256 MiB', goal=('>=', 90000)),
    map_row('map_sparse_space', 'the same: space in the end, by what was stored', 'space', work='map_sparse',
            goal=('<=', 2)),
    map_row('map_store_warm', 'random stores of 4K to a mapping, by any memory', 'limit', goal=('>=', 0.95)),
    map_row('map_read_in', 'map and read each page of 1 GiB, by any memory', 'limit', goal=('>=', 0.91)),
    map_row('map_revoke_1', 'a mapped page is taken from 1 process', 'ms', goal=('<=', 0.06)),
    map_row('map_revoke_10', 'from 10 processes', 'ms', goal=('<=', 0.35)),
    map_row('map_revoke_100', 'from 100 processes', 'ms', goal=('<=', 3)),
    map_row('map_clones', 'memory of a process that maps and reads one of 1,000 clones', 'mib', goal=('<=', 2.56)),
]

# By row, or by its work.
DEFAULTS = {'clone_20k': 20000, 'clone_tree': 2000, 'fill': 100000, 'fsck_small': 100000, 'scrub': 100000,
            'run_read_hot': 500000, 'run_read_random': 250000, 'run_write_random': 250000, 'run_write_sync': 100000}
SIZES_MIB = {'seq_write': 512, 'seq_overwrite': 512, 'seq_read_cold': 512, 'clone_1g': 1024,
             'evacuate': 1024, 'getattr_p99': 256, 'fsck_large': 4096}
BY_KERNEL_MAX = 4096    # under umbra-run, while the file is filled and until its descriptor has had some calls
AT_REST = ('mount', 'fsck')     # rows whose work is not what is timed
FILES_COUNT = 20000
SETTLE_SECONDS = 0.5


def work_args(row, scale):
    """Counts and sizes of a row; scale < 1 makes a quick run of the rates."""
    if row.program == 'bench_map':
        return ['--count', '100'] if row.work == 'map_clones' and scale < 1 else []
    if row.kind == 'ms' and scale >= 0.1 and not row.name.startswith(AT_REST):
        scale = 1.0
    if row.work in SIZES_MIB:
        mib = max(int(SIZES_MIB.get(row.name, SIZES_MIB[row.work]) * scale), 16)
        return ['--size', str(mib << 20)]
    count = DEFAULTS.get(row.name, DEFAULTS.get(row.work, FILES_COUNT))
    return ['--count', str(max(int(count * scale), 50))]


def run_work(row, target, prefix, program, scale, args=None):
    """Runs the workload program of a row on a mounted target; returns its result."""
    under = [target.umbra_run] if row.is_run and target.is_direct else []
    argv = list(prefix) + under + [program, PREPARED_BY.get(row.work, row.work), target.dir] + (args or work_args(row, scale))
    if row.program == 'bench_map':
        argv += ['--raw', os.path.join(target.scratch, 'raw')]
    if target.server_pid:
        argv += ['--server', str(target.server_pid)]
    if row.work in ('clone_tree', 'evacuate') and getattr(target, 'umbractl', None):
        argv += ['--umbractl', target.umbractl]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          stdin=subprocess.DEVNULL, check=False,
                          env=dict(os.environ, UMBRA_STATS='1') if under else None)
    if done.returncode == 3:
        raise Skip(done.stderr.strip()[-300:])
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:] or 'exit %d' % done.returncode)
    result = json.loads(done.stdout)
    note = check_under(done.stderr, result) if under else done.stderr
    if note:
        result['note'] = note.strip()
    return result


def check_under(said, result):
    """What umbra-run has said at the end has to be that the calls were direct; returns the rest."""
    direct = re.search(r'^umbra: directly (\d+) reads of \d+ bytes, (\d+) writes', said, re.M)
    kernel = sum(int(n) for line in re.findall(r'^umbra: by the kernel .*', said, re.M)
                 for n in re.findall(r'(\d+) (?:reads|writes|calls)', line))
    if not direct or sum(map(int, direct.groups())) < result['count'] or kernel > BY_KERNEL_MAX:
        raise RuntimeError('umbra-run did not do it directly: ' + said.strip()[-300:])
    return re.sub(r'^umbra: .*\n?', '', said, flags=re.M)


def run_poison(row, target, prefix):
    """Not on the mount: a program that has the floors in it."""
    done = subprocess.run(list(prefix) + [target.poison, str(OWNERS[row.name])], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode == 3:
        raise Skip('no bad memory can be made here')
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:] or 'exit %d' % done.returncode)
    return json.loads(done.stdout)


def check_row(row, target):
    if row.name.startswith('mount') and not target.is_persistent:
        raise Skip('keeps nothing across mounts')
    if row.name.startswith('fsck') and not target.fsck:
        raise Skip('no fsck of it')
    if row.work == 'scrub' and not getattr(target, 'umbractl', None):
        raise Skip('no scrub of it')
    if row.name == 'mount_crash' and not target.can_crash:
        raise Skip('no way to crash it')
    if row.name in OWNERS and not getattr(target, 'poison', None):
        raise Skip('does not look after bad memory')
    if row.work == 'evacuate' and not getattr(target, 'umbractl', None):
        raise Skip('cannot empty a range')
    if isinstance(target, FOR_DIRECT) and not row.is_direct:
        raise Skip('is compared where the kernel is passed by')
    if row.is_direct and target.is_fuse and not target.is_direct:
        raise Skip('past the kernel, or by it alone')
    if row.is_run and target.is_direct and not target.umbra_run:
        raise Skip('no umbra-run')
    if row.is_ours_alone and not target.is_direct:
        raise Skip('is measured against memory')
    if row.name in COPY_ON_WRITE and not target.can_clone:
        raise Skip('has no clones')
    if row.name in COPY_LIMIT and not target.can_clone:
        raise Skip('a clone is a copy here')


def measure(row, target, prefix, program, scale):
    """One measurement of one row on a mounted, empty target; returns the result."""
    if row.name in OWNERS:
        return run_poison(row, target, prefix)
    if row.work == 'evacuate' and prefix:
        raise Skip('who reads and who moves need a core each')
    if row.program == 'bench_map':
        program = target.builder.product('bench_map')
    result = run_work(row, target, prefix, program, scale)
    if row.name in ('mount_clean', 'mount_crash'):
        target.unmount() if row.name == 'mount_clean' else target.crash()
        # The kernel frees the inodes of the mount before, some 100,000, after a while: no part of the next mount.
        time.sleep(SETTLE_SECONDS)
        result['wall_ns'] = int(target.mount() * 1e9)
    elif row.name.startswith('fsck'):
        target.unmount()
        result['wall_ns'] = int(timed(list(prefix) + target.fsck + [target.pool]) * 1e9)
    elif row.work == 'scrub':
        result = run_scrub(target, prefix)
    if row.name.startswith('mount'):
        check_tree(target.dir, result)
    return result


def run_scrub(target, prefix):
    """The second one: the first meets pages of the pool that the daemon has not mapped yet. Times are the daemon's own."""
    for _ in range(2):
        done = subprocess.run(list(prefix) + [target.umbractl, 'scrub', 'start', '--wait', '--json', target.dir],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise RuntimeError('scrub: exit %d: %s' % (done.returncode, done.stdout.strip()[-300:]))
    status = json.loads(done.stdout)
    return {'count': 1, 'bytes': status['done_bytes'], 'wall_ns': status['run_ns'], 'client_cpu_ns': 0,
            'server_cpu_ns': status['cpu_ns']}


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
