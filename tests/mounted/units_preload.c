/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings of the pool UMBRA_UNITS_POOL, an ordinary file, as of a device of 2 MiB pages: they cannot be made, cut, protected or replaced elsewhere than at multiples
 * of that (EINVAL). To be loaded after what is looked at. Each refusal is a line in UMBRA_UNITS_LOG.
 */
#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS /* both names of a call are wanted */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#define UNIT ((uintptr_t)2 << 20)

/* Not by names that the library before this one has too. */
static long (*call)(long, ...);
static unsigned long pool_ino;
static dev_t pool_dev;
static const char *log_name;

__attribute__((constructor(101))) static void begin(void)
{
	const char *pool = getenv("UMBRA_UNITS_POOL");
	struct stat st;

	*(void **)&call = dlsym(RTLD_NEXT, "syscall");
	log_name = getenv("UMBRA_UNITS_LOG");
	if (pool && stat(pool, &st) == 0) {
		pool_ino = st.st_ino;
		pool_dev = st.st_dev;
	}
}

static int refuse(const char *what, uintptr_t at)
{
	char line[100];
	int fd, n = snprintf(line, sizeof(line), "%s at %#lx\n", what, (unsigned long)at);

	fd = log_name ? (int)call(SYS_openat, AT_FDCWD, log_name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC,
				  0666) :
			-1;
	if (fd >= 0) {
		(void)call(SYS_write, fd, line, (size_t)n);
		(void)call(SYS_close, fd);
	}
	errno = EINVAL;
	return -1;
}

/* Whether a mapping of the pool has at within itself, or (from) has it at all. */
static bool is_within(const char *line, uintptr_t at, bool from)
{
	unsigned long lo, hi, ino;
	unsigned major, minor;

	return sscanf(line, "%lx-%lx %*s %*s %x:%x %lu", &lo, &hi, &major, &minor, &ino) == 5 &&
	       ino == pool_ino && makedev(major, minor) == pool_dev && (lo < at || (from && lo == at)) &&
	       at < hi;
}

static bool pool_has(uintptr_t at, bool from)
{
	static __thread char text[1 << 16];
	size_t have = 0;
	bool found = false;
	long n;
	int fd = (int)call(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);

	while (!found && (n = call(SYS_read, fd, text + have, sizeof(text) - 1 - have)) > 0) {
		char *line = text, *end;

		have += (size_t)n;
		text[have] = '\0';
		for (; !found && (end = strchr(line, '\n')); line = end + 1)
			found = is_within(line, at, from);
		have -= (size_t)(line - text);
		memmove(text, line, have);
	}
	(void)call(SYS_close, fd);
	return found;
}

/* Whether [lo, hi) can be cut out. */
static bool can_cut(const char *what, const void *addr, size_t len)
{
	uintptr_t ends[2] = { (uintptr_t)addr, (uintptr_t)addr + len };

	for (unsigned i = 0; pool_ino && i < 2; i++)
		if (ends[i] % UNIT && pool_has(ends[i], false)) {
			refuse(what, ends[i]);
			return false;
		}
	return true;
}

static void *map_pool(void *at, size_t len, int prot, int flags, int fd, long off)
{
	uintptr_t room;

	if ((uintptr_t)at % UNIT || len % UNIT || off % (long)UNIT) {
		refuse("mmap of the pool", (uintptr_t)at);
		return MAP_FAILED;
	}
	if (at)
		return (void *)call(SYS_mmap, at, len, prot, flags, fd, off);
	/* The device finds an address that fits. */
	room = (uintptr_t)call(SYS_mmap, NULL, len + UNIT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
	at = (void *)((room + UNIT - 1) / UNIT * UNIT); /* NOLINT(performance-no-int-to-ptr) */
	call(SYS_munmap, room, len + UNIT);
	return (void *)call(SYS_mmap, at, len, prot, flags | MAP_FIXED_NOREPLACE, fd, off);
}

static void *map(void *at, size_t len, int prot, int flags, int fd, long off)
{
	struct stat st;

	if ((flags & MAP_FIXED) && !can_cut("mmap", at, len))
		return MAP_FAILED;
	if (fd >= 0 && !(flags & MAP_ANONYMOUS) && pool_ino && call(SYS_fstat, fd, &st) == 0 &&
	    st.st_ino == pool_ino && st.st_dev == pool_dev)
		return map_pool(at, len, prot, flags, fd, off);
	return (void *)call(SYS_mmap, at, len, prot, flags, fd, off);
}

void *mmap(void *at, size_t len, int prot, int flags, int fd, off_t off)
{
	return map(at, len, prot, flags, fd, off);
}

void *mmap64(void *at, size_t len, int prot, int flags, int fd, off64_t off)
{
	return map(at, len, prot, flags, fd, off);
}

int munmap(void *addr, size_t len)
{
	return can_cut("munmap", addr, len) ? (int)call(SYS_munmap, addr, len) : -1;
}

int mprotect(void *addr, size_t len, int prot)
{
	return can_cut("mprotect", addr, len) ? (int)call(SYS_mprotect, addr, len, prot) : -1;
}

int madvise(void *addr, size_t len, int advice)
{
	bool changes = advice == MADV_DONTFORK || advice == MADV_DOFORK || advice == MADV_NORMAL ||
		       advice == MADV_RANDOM || advice == MADV_SEQUENTIAL || advice == MADV_DONTDUMP ||
		       advice == MADV_DODUMP;

	return !changes || can_cut("madvise", addr, len) ? (int)call(SYS_madvise, addr, len, advice) : -1;
}

void *mremap(void *addr, size_t old_len, size_t new_len, int flags, ...)
{
	void *to = NULL;
	va_list args;

	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) {
		va_start(args, flags);
		to = va_arg(args, void *);
		va_end(args);
	}
	if (!can_cut("mremap", addr, old_len) ||
	    ((flags & MREMAP_FIXED) && !can_cut("mremap to", to, new_len)))
		return MAP_FAILED;
	if (pool_ino && ((uintptr_t)to % UNIT || new_len % UNIT || (uintptr_t)addr % UNIT) &&
	    pool_has((uintptr_t)addr, true)) {
		refuse("mremap of the pool", (uintptr_t)to);
		return MAP_FAILED;
	}
	return (void *)call(SYS_mremap, addr, old_len, new_len, flags, to);
}
