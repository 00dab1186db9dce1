# SPDX-License-Identifier: BSD-3-Clause
"""Finds the programs to measure, and builds those that nobody has built yet.

Products come from the meson build directory $UMBRA_BUILD. The benchmark's own two programs come from
there too, or are compiled into the scratch directory. passthrough_hp is an example in libfuse's source:
it is fetched with apt-get (only when asked for), compiled, and kept outside the tree.
"""

import os
import shlex
import shutil
import subprocess
import tempfile

from targets import HERE, PEERS, Skip, call

OWN = {
    'null_fuse': ['null_fuse.c', 'null_ops.c', 'null_io.c', 'null_store.c', 'null_data.c',
                  'null_loop.c', 'null_caller.c'],
    'bench_work': ['work.c', 'work_meta.c', 'work_data.c', 'work_clone.c', 'work_scale.c', 'work_evacuate.c',
                   'work_beside.c', 'work_run.c'],
}


class Builder:
    def __init__(self, scratch, build_dir, is_fetch_ok):
        self.scratch = scratch
        self.build_dir = build_dir
        self.is_fetch_ok = is_fetch_ok
        self.found = {}

    def product(self, name):
        """A program of the build directory, by its name."""
        if name in self.found:
            return self.found[name]
        if not self.build_dir:
            raise Skip('UMBRA_BUILD is not set')
        for top, _, files in os.walk(self.build_dir):
            path = os.path.join(top, name)
            if name in files and os.access(path, os.X_OK):
                self.found[name] = path
                return path
        raise Skip('no %s in %s' % (name, self.build_dir))

    def program(self, name):
        """One of the benchmark's own programs."""
        try:
            return self.product(name)
        except Skip:
            pass
        path = os.path.join(self.scratch, name)
        flags = ['-std=gnu11', '-O2', '-g']
        libs = ['-pthread']
        if name == 'null_fuse':
            libs += shlex.split(call('pkg-config', '--cflags', '--libs', 'fuse3'))
        call(os.environ.get('CC', 'cc'), *flags,
             *[os.path.join(HERE, src) for src in OWN[name]], *libs, '-o', path)
        self.found[name] = path
        return path

    def passthrough_hp(self):
        path = os.path.join(PEERS, 'passthrough_hp')
        if os.access(path, os.X_OK):
            return path
        src = os.environ.get('PASSTHROUGH_HP_SRC')
        if src:
            return self.passthrough_build(src, path)
        if not self.is_fetch_ok:
            raise Skip('not built; run once with --fetch, or set PASSTHROUGH_HP_SRC to libfuse\'s '
                       'example directory')
        with tempfile.TemporaryDirectory() as tmp:
            return self.passthrough_build(fetch_libfuse(tmp), path)

    def passthrough_build(self, src, path):
        compiler = shutil.which('g++') or shutil.which('clang++')
        if not compiler:
            raise Skip('no C++ compiler')
        os.makedirs(PEERS, exist_ok=True)
        libs = shlex.split(call('pkg-config', '--cflags', '--libs', 'fuse3'))
        call(compiler, '-std=c++17', '-O2', '-w', '-D_FILE_OFFSET_BITS=64',
             os.path.join(src, 'passthrough_hp.cc'), '-I', src, *libs, '-pthread', '-o', path)
        return path


def fetch_libfuse(tmp):
    """Gets the distribution's source package of libfuse; returns its example directory."""
    sources = os.path.join(tmp, 'deb-src.list')
    lists = os.path.join(tmp, 'lists')
    with open('/etc/os-release') as f:
        release = dict(line.strip().split('=', 1) for line in f if '=' in line)
    if release.get('ID', '').strip('"') != 'debian':
        raise Skip('fetching libfuse\'s source works on Debian only')
    with open(sources, 'w') as f:
        f.write('deb-src http://deb.debian.org/debian %s main\n'
                % release['VERSION_CODENAME'].strip('"'))
    os.makedirs(os.path.join(lists, 'partial'))
    opts = ['-o', 'Dir::Etc::sourcelist=' + sources, '-o', 'Dir::Etc::sourceparts=/dev/null',
            '-o', 'Dir::State::lists=' + lists, '-o', 'APT::Sandbox::User=root']
    try:
        call('apt-get', *opts, 'update')
        call('apt-get', *opts, 'source', '--download-only', 'fuse3', cwd=tmp)
        tar = next(n for n in os.listdir(tmp) if '.orig.tar.' in n and not n.endswith('.asc'))
        call('tar', '-xf', tar, cwd=tmp)
    except (RuntimeError, StopIteration) as e:
        raise Skip('libfuse\'s source could not be fetched: %s' % e)
    for entry in os.listdir(tmp):
        path = os.path.join(tmp, entry, 'example')
        if os.path.exists(os.path.join(path, 'passthrough_hp.cc')):
            return path
    raise Skip('libfuse\'s source has no passthrough_hp')
