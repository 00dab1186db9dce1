# SPDX-License-Identifier: BSD-3-Clause
"""File systems under measurement: make, mount, unmount, kill, remove each of them.

A target lives in one scratch directory in /dev/shm and leaves nothing behind: stop() works from
any state. Servers are ended by unmounting, and by pid when that fails.
"""

import mmap
import os
import resource
import shutil
import signal
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = os.environ.get('UMBRA_PEERS') or os.path.join(
    os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'umbra-bench')


class Skip(Exception):
    """The target or the row cannot be had here; the text says why."""


def call(*argv, **kwargs):
    """Runs a program; its output is shown only in the error."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          stdin=subprocess.DEVNULL, check=False, **kwargs)
    if done.returncode:
        raise RuntimeError('%s: exit %d: %s' % (' '.join(argv), done.returncode,
                                                done.stdout.strip()[-500:]))
    return done.stdout


def need_program(name):
    path = shutil.which(name) or shutil.which(name, path='/usr/sbin:/sbin')
    if not path:
        raise Skip('no program ' + name)
    return path


def is_kernel_fs(name):
    with open('/proc/filesystems') as f:
        if any(line.split()[-1] == name for line in f):
            return True
    return subprocess.run(['modprobe', name], stderr=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL).returncode == 0


def is_mounted(path):
    """By the mount table: a dead file system answers no stat."""
    with open('/proc/self/mounts') as f:
        return any(line.split()[1] == path for line in f)


class Target:
    """One file system. prefix is put before server command lines (taskset)."""

    name = ''
    is_fuse = True
    can_clone = False       # copy_file_range shares blocks
    is_persistent = True    # content is there after unmount and mount
    can_crash = False
    is_direct = False       # libumbra goes past its calls, and umbra-run
    is_mapped = False       # of this measurement: its memory is there before, and may be mapped
    files_max = 0           # descriptors that the server may have; 0: as many as we
    fsck = None             # command that looks at the unmounted pool and changes nothing

    def __init__(self, scratch, builder, opts='', pool_mib=6144):
        self.scratch = scratch
        self.builder = builder
        self.opts = opts
        self.pool_mib = pool_mib
        self.prefix = []
        self.server = None
        self.server_pid = 0
        self.dir = os.path.join(scratch, 'mnt')
        self.pool = os.path.join(scratch, 'pool')

    def check(self):
        """Raises Skip if this cannot run here; builds what it needs."""

    def make(self):
        """Makes an empty file system, not mounted."""

    def command(self):
        """FUSE: the command line of the server, in the foreground if it can."""
        raise NotImplementedError

    def start(self, prefix=()):
        self.prefix = list(prefix)
        os.makedirs(self.dir, exist_ok=True)
        self.make()
        if self.is_mapped and os.path.exists(self.pool):
            populate(self.pool)
        self.mount()

    def opt_string(self, *more):
        return ','.join([o for o in list(more) + [self.opts] if o])

    def mount(self):
        """Mounts; returns the seconds until the mount point answered a stat of its root."""
        before = os.stat(self.dir).st_dev
        log = open(os.path.join(self.scratch, 'log'), 'ab')
        argv = self.prefix + self.command()
        begin = time.perf_counter()
        self.server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       preexec_fn=self.limits_set)
        while os.stat(self.dir).st_dev == before:
            code = self.server.poll()
            if code or time.perf_counter() - begin > 60:
                with open(log.name) as f:
                    text = f.read()[-500:]
                raise RuntimeError('%s: no mount (exit %s): %s' % (' '.join(argv), code, text))
            time.sleep(0.0002)
        os.statvfs(self.dir)
        seconds = time.perf_counter() - begin
        log.close()
        self.server_pid = self.find_pid()
        return seconds

    def limits_set(self):
        """In the process that becomes the server."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard == resource.RLIM_INFINITY or hard >= self.files_max:
            return
        with open('/proc/sys/fs/nr_open') as f:
            most = min(self.files_max, int(f.read()))
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        except (OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def find_pid(self):
        """The server: our child, or, if it went to the background, the process with its pool."""
        time.sleep(0.05)
        if self.server.poll() is None:
            return self.server.pid
        for entry in os.listdir('/proc'):
            if entry.isdigit() and int(entry) != os.getpid():
                try:
                    with open('/proc/%s/cmdline' % entry, 'rb') as f:
                        words = f.read().split(b'\0')
                except OSError:
                    continue
                if self.pool.encode() in words:
                    return int(entry)
        raise RuntimeError(self.name + ': server not found after it went to the background')

    def wait_server(self):
        """Waits until the server is gone, however it was started."""
        if self.server and self.server.poll() is None:
            try:
                self.server.wait(20)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
        for _ in range(2000):
            if not self.server_pid or not os.path.exists('/proc/%d' % self.server_pid):
                break
            time.sleep(0.01)
        self.server = None
        self.server_pid = 0

    def unmount(self):
        for _ in range(100):
            if not is_mounted(self.dir):
                break
            if subprocess.run(['umount', self.dir], stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.05)
        self.wait_server()

    def crash(self):
        """Ends the server without warning, as a crash would."""
        os.kill(self.server_pid, signal.SIGKILL)
        subprocess.run(['umount', '-l', self.dir], stderr=subprocess.DEVNULL)
        self.wait_server()

    def remount(self):
        self.unmount()
        return self.mount()

    def detach(self):
        """Gives back loop devices and the like."""

    def stop(self):
        """Removes everything, whatever state it is in."""
        if is_mounted(self.dir):
            if subprocess.run(['umount', self.dir], stderr=subprocess.DEVNULL).returncode:
                if self.server_pid:
                    os.kill(self.server_pid, signal.SIGKILL)
                subprocess.run(['umount', '-l', self.dir], stderr=subprocess.DEVNULL)
        if self.server and self.server.poll() is None:
            try:
                self.server.wait(5)
            except subprocess.TimeoutExpired:
                self.server.kill()
        self.wait_server()
        self.detach()
        shutil.rmtree(self.scratch, ignore_errors=True)


class Null(Target):
    name = 'null'
    can_clone = True
    is_persistent = False

    def check(self):
        self.program = self.builder.program('null_fuse')

    def command(self):
        return [self.program, '-f', '-o', self.opt_string('allow_other,default_permissions'),
                self.dir]


class NullDio(Null):
    name = 'null-dio'

    def opt_string(self, *more):
        return super().opt_string('dio', *more)


class PassthroughHp(Target):
    name = 'passthrough_hp'
    is_persistent = False   # its cache of descriptors makes a second mount another story
    files_max = 1 << 20     # one for each inode that the kernel knows

    def check(self):
        self.program = self.builder.passthrough_hp()

    def make(self):
        os.makedirs(self.pool, exist_ok=True)

    def command(self):
        return [self.program, '--foreground', self.pool, self.dir]


def populate(path):
    """Gives a file on tmpfs all its memory, as a device has it."""
    with open(path, 'r+b') as f, mmap.mmap(f.fileno(), 0) as m:
        for off in range(0, len(m), mmap.PAGESIZE):
            m[off] = m[off]


def make_image(path, mib):
    with open(path, 'wb') as f:
        f.truncate(mib << 20)


class Fuse2fs(Target):
    name = 'fuse2fs'
    can_crash = True

    def check(self):
        self.program = need_program('fuse2fs')
        self.mkfs = need_program('mkfs.ext4')

    def make(self):
        make_image(self.pool, self.pool_mib)
        call(self.mkfs, '-q', '-F', '-m', '0', '-N', '400000', self.pool)

    def command(self):
        return [self.program, '-f', self.pool, self.dir, '-o',
                self.opt_string('rw,allow_other,default_permissions')]


class Loop(Target):
    """A kernel file system on a loop device over a file in /dev/shm."""

    is_fuse = False
    can_clone = True
    mkfs_opts = ()
    mount_opts = ''
    loop = None

    def check(self):
        self.mkfs = need_program('mkfs.' + self.name)
        need_program('losetup')
        if not is_kernel_fs(self.name):
            raise Skip('the kernel has no ' + self.name)
        if not os.path.exists('/dev/loop-control'):
            raise Skip('no loop devices')

    def make(self):
        make_image(self.pool, self.pool_mib)
        call(self.mkfs, *self.mkfs_opts, self.pool)
        self.loop = call('losetup', '--find', '--show', self.pool).strip()

    def mount(self):
        argv = ['mount', '-t', self.name]
        if self.opt_string(self.mount_opts):
            argv += ['-o', self.opt_string(self.mount_opts)]
        begin = time.perf_counter()
        call(*argv, self.loop, self.dir)
        os.statvfs(self.dir)
        return time.perf_counter() - begin

    def crash(self):
        raise Skip('no way to crash it')

    def detach(self):
        if self.loop:
            subprocess.run(['losetup', '-d', self.loop], stderr=subprocess.DEVNULL)
            self.loop = None


class Tmpfs(Target):
    name = 'tmpfs'
    is_fuse = False
    is_persistent = False

    def mount(self):
        begin = time.perf_counter()
        call('mount', '-t', 'tmpfs', '-o', self.opt_string('size=%dM' % self.pool_mib), 'tmpfs', self.dir)
        return time.perf_counter() - begin


class Ext4(Loop):
    name = 'ext4'
    can_clone = False
    mkfs_opts = ('-q', '-F', '-E', 'nodiscard')


class Xfs(Loop):
    name = 'xfs'
    mkfs_opts = ('-q', '-f', '-K', '-m', 'reflink=1')
    can_crash = True

    def crash(self):
        """Shut down with the log written, but not what it says."""
        call('xfs_io', '-x', '-c', 'shutdown -f', self.dir)
        self.unmount()


class Btrfs(Loop):
    name = 'btrfs'
    mkfs_opts = ('-q', '-f', '-K')


class Umbrafs(Target):
    name = 'umbrafs'
    can_clone = True
    can_crash = True
    is_direct = True

    def check(self):
        self.mkfs = self.builder.product('mkfs.umbrafs')
        self.program = self.builder.product('umbrafs')
        try:
            self.umbractl = self.builder.product('umbractl')
        except Skip:
            self.umbractl = None
        try:
            self.fsck = [self.builder.product('fsck.umbrafs'), '-n', '-f']
        except Skip:
            self.fsck = None
        try:
            self.umbra_run = self.builder.product('umbra-run')
        except Skip:
            self.umbra_run = None
        try:
            self.poison = self.builder.product('bench_poison')
        except Skip:
            self.poison = None

    def make(self):
        call(self.mkfs, '--size', '%dM' % self.pool_mib, self.pool)

    def command(self):
        # In the foreground like the null server: a session of its own is a scheduling group of its own (sched(7), autogroup).
        return [self.program, '-f', self.pool, self.dir, '-o',
                self.opt_string('allow_other,default_permissions', *(['direct=rw'] if self.is_mapped else []))]


ALL = [Null, NullDio, PassthroughHp, Fuse2fs, Tmpfs, Ext4, Xfs, Btrfs, Umbrafs]
KERNEL = [cls.name for cls in ALL if not cls.is_fuse]
FOR_DIRECT = (Tmpfs, Ext4)  # peers of rows that go past the kernel alone


def by_name(text):
    """'null' or 'null:threads=1' -> (class, mount options)."""
    name, _, opts = text.partition(':')
    for cls in ALL:
        if cls.name == name:
            return cls, opts
    raise SystemExit('unknown target %s; there are: %s' % (name, ' '.join(c.name for c in ALL)))
