/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings of an unmodified program: those of files on umbrafs are libumbra's (mapping.h) where they can be. All calls about addresses come here; what is not about
 * addresses of ours, which is told without a lock, goes on to the kernel untouched, also from signal handlers and from within allocators.
 *
 * A file that the kernel maps, in whatever way, is the kernel's in this process, with all mappings that there are of it already: fds_mapped().
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <umbra/umbra.h>

#include "client/calls.h"
#include "client/fds.h"
#include "client/mapping.h"
#include "client/next.h"
#include "client/preload_mapped.h"
#include "client/user_memory.h"

NEXT(mmap64, void *, (void *, size_t, int, int, int, off_t))
NEXT(munmap, int, (void *, size_t))
NEXT(mprotect, int, (void *, size_t, int))
NEXT(mremap, void *, (void *, size_t, size_t, int, ...))
NEXT(madvise, int, (void *, size_t, int))
NEXT(posix_madvise, int, (void *, size_t, int))
NEXT(msync, int, (void *, size_t, int))
NEXT(mincore, int, (void *, size_t, unsigned char *))
NEXT(mlock, int, (const void *, size_t))
NEXT(mlock2, int, (const void *, size_t, unsigned))
NEXT(munlock, int, (const void *, size_t))
NEXT(remap_file_pages, int, (void *, size_t, int, size_t, int))
NEXT(shmat, void *, (int, const void *, int))
NEXT(pkey_mprotect, int, (void *, size_t, int, int))

#define BLOCK 4096u
/* A session costs as much as some hundreds of pages from the kernel: one is not begun for less that is to be read. */
#define WORTH_BYTES (64u << 10)
/* Who has the file open may be waiting for this program: with a lock of the file, for one. */
#define BUSY_NS 250000000

__attribute__((constructor(102))) static void begin(void)
{
	client_calls.mmap = next_of_mmap64();
	client_calls.munmap = next_of_munmap();
	client_calls.mprotect = next_of_mprotect();
	client_calls.mremap = next_of_mremap();
	client_calls.madvise = next_of_madvise();
	client_calls.msync = next_of_msync();
	client_calls.busy_ns = BUSY_NS;
}

/* What is said as a pointer, or a number, becomes errno. */
static void *pointer(void *at)
{
	int rc = umbra_mmap_error(at);

	if (!rc)
		return at;
	errno = -rc;
	return MAP_FAILED;
}

static int number(int rc)
{
	if (rc == 0)
		return 0;
	errno = -rc;
	return -1;
}

/* Not within a call of ours, which a handler has interrupted. */
static bool is_ours(const void *addr, size_t len)
{
	uintptr_t lo = (uintptr_t)addr, hi;

	if (__builtin_add_overflow(lo, len ? len : 1, &hi))
		hi = UINTPTR_MAX;
	return fds_is_quiet() && mappings_touch(lo, hi);
}

/* ---- mmap ---- */

static bool fits(int prot, int flags)
{
	int type = flags & MAP_TYPE;
	bool shared = type == MAP_SHARED;

	if (!shared && (type != MAP_PRIVATE || (prot & PROT_WRITE)))
		return false;
	return !(prot & ~(PROT_READ | PROT_WRITE)) &&
	       !(flags & ~(MAP_TYPE | MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_NORESERVE | MAP_NONBLOCK |
			   MAP_POPULATE | MAP_DENYWRITE | MAP_EXECUTABLE | MAP_STACK));
}

/* True: it is done, or there is no such thing. */
static bool map_directly(void *at, size_t size, int prot, int flags, int fd, off_t off, void **result)
{
	bool store = (flags & MAP_TYPE) == MAP_SHARED && (prot & PROT_WRITE);
	bool worth = (flags & MAP_TYPE) == MAP_SHARED || size >= WORTH_BYTES;
	struct slow s;
	struct umbra_file *file;

	if (!fits(prot, flags) || size == 0 || off < 0 || off % BLOCK || !fds_is_quiet())
		return false;
	if (flags & MAP_FIXED && preload_has_given())
		return false;
	s = slow_begin();
	file = fds_attach(fd, worth, store);
	*result = file ? mmap_own(at, size, prot, flags, file, off) : MAP_FAILED;
	slow_end(&s);
	if (!file || umbra_mmap_error(*result))
		return false;
	fds_maps_directly();
	return true;
}

static void *map_by_kernel(void *at, size_t size, int prot, int flags, int fd, off_t off)
{
	struct slow s;

	if (!(flags & MAP_FIXED) || !is_ours(at, size))
		return next_of_mmap64()(at, size, prot, flags, fd, off);
	s = slow_begin();
	at = mappings_replace(at, size, prot, flags, fd, off);
	slow_end(&s);
	return pointer(at);
}

static void *map(void *at, size_t size, int prot, int flags, int fd, off_t off)
{
	void *result;
	int before = errno;

	if (fd < 0 || (flags & MAP_ANONYMOUS))
		return map_by_kernel(at, size, prot, flags, fd, off);
	if (map_directly(at, size, prot, flags, fd, off, &result)) {
		errno = before;
		return result;
	}
	/* Pages may be read in before the call returns. */
	if (flags & (MAP_POPULATE | MAP_LOCKED))
		fds_mapped(fd);
	result = map_by_kernel(at, size, prot, flags, fd, off);
	if (result != MAP_FAILED && fds_mapped(fd) && !fits(prot, flags))
		fds_tell(BY_OTHER_MAPPING);
	return result;
}

exported void *mmap_plain(void *at, size_t size, int prot, int flags, int fd, off_t off) __asm__("mmap");
exported void *mmap_large(void *at, size_t size, int prot, int flags, int fd, off_t off) __asm__("mmap64");

void *mmap_plain(void *at, size_t size, int prot, int flags, int fd, off_t off)
{
	return map(at, size, prot, flags, fd, off);
}

void *mmap_large(void *at, size_t size, int prot, int flags, int fd, off_t off)
{
	return map(at, size, prot, flags, fd, off);
}

/* ---- what happens to them ---- */

#define SLOWLY(type, call)                    \
	({                                    \
		struct slow s = slow_begin(); \
		type result_ = call;          \
                                              \
		slow_end(&s);                 \
		result_;                      \
	})

exported int munmap(void *addr, size_t len)
{
	if (!is_ours(addr, len))
		return next_of_munmap()(addr, len);
	return number(SLOWLY(int, umbra_munmap(addr, len)));
}

exported int mprotect(void *addr, size_t len, int prot)
{
	if (!is_ours(addr, len))
		return next_of_mprotect()(addr, len, prot);
	return number(SLOWLY(int, umbra_mprotect(addr, len, prot)));
}

exported void *mremap(void *addr, size_t old_len, size_t new_len, int flags, ...)
{
	void *to = NULL;
	va_list args;

	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) {
		va_start(args, flags);
		to = va_arg(args, void *);
		va_end(args);
	}
	if (!is_ours(addr, old_len) && (!(flags & MREMAP_FIXED) || !is_ours(to, new_len)))
		return next_of_mremap()(addr, old_len, new_len, flags, to);
	if (flags & MREMAP_FIXED && preload_has_given() && !preload_mapped_leave(addr, old_len))
		return MAP_FAILED;
	return pointer(SLOWLY(void *, umbra_mremap(addr, old_len, new_len, flags, to)));
}

exported int madvise(void *addr, size_t len, int advice)
{
	if (!is_ours(addr, len))
		return next_of_madvise()(addr, len, advice);
	return number(SLOWLY(int, umbra_madvise(addr, len, advice)));
}

exported int posix_madvise(void *addr, size_t len, int advice)
{
	if (!is_ours(addr, len) || advice == POSIX_MADV_DONTNEED)
		return next_of_posix_madvise()(addr, len, advice);
	return -SLOWLY(int, umbra_madvise(addr, len, advice));
}

exported int msync(void *addr, size_t len, int flags)
{
	pthread_testcancel();
	if (!is_ours(addr, len))
		return next_of_msync()(addr, len, flags);
	return number(SLOWLY(int, umbra_msync(addr, len, flags)));
}

/* The device is memory: what is mapped of it is there. */
static int mincore_all(unsigned char *vec, size_t count)
{
	static const unsigned char there[256] = { [0 ... 255] = 1 };
	size_t n;

	for (; count > 0; vec += n, count -= n) {
		n = count < sizeof(there) ? count : sizeof(there);
		if (!user_memory_put(vec, there, n))
			return -EFAULT;
	}
	return 0;
}

static int mincore_parts(uintptr_t lo, uintptr_t hi, unsigned char *vec)
{
	struct mapping_part part;
	int rc = 0;

	while (rc == 0 && lo < hi) {
		mapping_part_get(lo, hi, NULL, &part);
		if (part.mapped)
			rc = mincore_all(vec, (part.hi - lo) / BLOCK);
		else if (next_of_mincore()((void *)lo, part.hi - lo, vec))
			rc = -errno;
		mapping_part_put(&part);
		vec += (part.hi - lo) / BLOCK;
		lo = part.hi;
	}
	return rc;
}

exported int mincore(void *addr, size_t len, unsigned char *vec)
{
	uintptr_t lo, hi;

	if (!is_ours(addr, len) || mapping_range(addr, len, &lo, &hi))
		return next_of_mincore()(addr, len, vec);
	return number(SLOWLY(int, mincore_parts(lo, hi, vec)));
}

static int lock_other(const void *addr, size_t len, unsigned flags)
{
	(void)flags;
	return next_of_mlock()(addr, len);
}

/* For the same reason there is nothing to be kept in memory, but it is to be in place. */
static int lock_parts(const void *addr, size_t len, int (*other)(const void *, size_t, unsigned),
		      unsigned flags)
{
	uintptr_t lo = (uintptr_t)addr & ~(uintptr_t)(BLOCK - 1), hi;
	struct mapping_part part;
	int rc = mapping_range((void *)lo, len + ((uintptr_t)addr - lo), &lo, &hi);

	while (rc == 0 && lo < hi) {
		mapping_part_get(lo, hi, NULL, &part);
		if (!part.mapped)
			rc = other((void *)lo, part.hi - lo, flags) ? -errno : 0;
		else if (other == lock_other)
			(void)!mapping_prefault(lo, part.hi, false);
		mapping_part_put(&part);
		lo = part.hi;
	}
	return rc;
}

static int lock2_other(const void *addr, size_t len, unsigned flags)
{
	return next_of_mlock2()(addr, len, flags);
}

static int unlock_other(const void *addr, size_t len, unsigned flags)
{
	(void)flags;
	return next_of_munlock()(addr, len);
}

exported int mlock(const void *addr, size_t len)
{
	if (!is_ours(addr, len))
		return next_of_mlock()(addr, len);
	return number(SLOWLY(int, lock_parts(addr, len, lock_other, 0)));
}

exported int mlock2(const void *addr, size_t len, unsigned flags)
{
	if (!is_ours(addr, len) || flags & ~MLOCK_ONFAULT)
		return next_of_mlock2()(addr, len, flags);
	return number(SLOWLY(int, lock_parts(addr, len, lock2_other, flags)));
}

exported int munlock(const void *addr, size_t len)
{
	if (!is_ours(addr, len))
		return next_of_munlock()(addr, len);
	return number(SLOWLY(int, lock_parts(addr, len, unlock_other, 0)));
}

/* ---- memory of System V ---- */

struct attach {
	int id, flags;
	const void *addr;
};

static void *attach(void *arg)
{
	const struct attach *a = arg;

	return next_of_shmat()(a->id, a->addr, a->flags);
}

exported void *shmat(int id, const void *addr, int flags)
{
	struct attach a = { id, flags, addr };
	struct shmid_ds about;
	uintptr_t lo = (uintptr_t)addr, hi;

	if (flags & SHM_RND)
		lo -= lo % SHMLBA;
	/* What is wrong with it the kernel says. */
	if (!(flags & SHM_REMAP) || !addr || lo % BLOCK || !fds_is_quiet() || mappings_are_none() ||
	    shmctl(id, IPC_STAT, &about) || about.shm_segsz > INT64_MAX - BLOCK ||
	    __builtin_add_overflow(lo, u64_align_up(about.shm_segsz, BLOCK), &hi) || !mappings_touch(lo, hi))
		return next_of_shmat()(id, addr, flags);
	return pointer(SLOWLY(void *, mappings_replace_by(lo, hi, attach, &a)));
}

/* ---- what only the kernel can do ---- */

bool preload_mapped_leave(const void *addr, size_t len)
{
	uintptr_t lo = (uintptr_t)addr;
	int rc;

	if (!is_ours(addr, len))
		return true;
	fds_tell(BY_OTHER_MAPPING);
	rc = SLOWLY(int, mappings_leave_range(lo, lo + len));
	return number(rc) == 0;
}

exported int remap_file_pages(void *addr, size_t len, int prot, size_t off, int flags)
{
	return preload_mapped_leave(addr, len) ? next_of_remap_file_pages()(addr, len, prot, off, flags) : -1;
}

exported int pkey_mprotect(void *addr, size_t len, int prot, int pkey)
{
	if (pkey == -1)
		return mprotect(addr, len, prot);
	return preload_mapped_leave(addr, len) ? next_of_pkey_mprotect()(addr, len, prot, pkey) : -1;
}

/* ---- by number ---- */

bool preload_mapped_call(long number, const long a[6], long *rc)
{
	/* Addresses as they have been passed. */
	void *addr = (void *)a[0]; /* NOLINT(performance-no-int-to-ptr) */
	size_t len = (size_t)a[1];

	switch (number) {
	case SYS_mmap:
		*rc = (long)map(addr, len, (int)a[2], (int)a[3], (int)a[4], a[5]);
		return true;
	case SYS_munmap:
		*rc = munmap(addr, len);
		return true;
	case SYS_mprotect:
		*rc = mprotect(addr, len, (int)a[2]);
		return true;
	case SYS_mremap:
		*rc = (long)mremap(addr, len, (size_t)a[2], (int)a[3],
				   (void *)a[4]); /* NOLINT(performance-no-int-to-ptr) */
		return true;
	case SYS_madvise:
		*rc = madvise(addr, len, (int)a[2]);
		return true;
	case SYS_msync:
		*rc = msync(addr, len, (int)a[2]);
		return true;
	case SYS_shmat:
		*rc = (long)shmat((int)a[0], (void *)a[1], (int)a[2]); /* NOLINT(performance-no-int-to-ptr) */
		return true;
	case SYS_mincore:
		*rc = mincore(addr, len, (unsigned char *)a[2]); /* NOLINT(performance-no-int-to-ptr) */
		return true;
	case SYS_mlock:
		*rc = mlock(addr, len);
		return true;
	case SYS_mlock2:
		*rc = mlock2(addr, len, (unsigned)a[2]);
		return true;
	case SYS_munlock:
		*rc = munlock(addr, len);
		return true;
	case SYS_ioctl:
		*rc = -1;
		return !preload_give((unsigned long)a[1],
				     (void *)a[2]); /* NOLINT(performance-no-int-to-ptr) */
	case SYS_remap_file_pages:
		*rc = remap_file_pages(addr, len, (int)a[2], (size_t)a[3], (int)a[4]);
		return true;
	case SYS_pkey_mprotect:
		*rc = pkey_mprotect(addr, len, (int)a[2], (int)a[3]);
		return true;
	default:
		return false;
	}
}
