/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pool in a plain file, and what happens to its holes.
 *
 * The file system below decides about durability. tmpfs and ramfs: the memory is the medium. A file that can be
 * mapped with MAP_SYNC (a file system on persistent memory): a flushed line is durable, even where the
 * store made the file system allocate. Everything else needs msync().
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "dax/priv.h"

#define ROOM_MIN_BYTES ((uint64_t)1 << 40) /* how much address space a growing pool may need */
#define ROOM_MAX_BYTES ((uint64_t)1 << 46)
#define ROOM_ALIGN_BYTES ((uint64_t)2 << 20) /* huge pages */

static int file_size(const struct dax_opening *o, struct dax *dax, uint64_t *size_bytes)
{
	uint64_t wanted_bytes = o->opts->create ? o->opts->size_bytes : 0;
	struct stat st;

	if (fstat(dax->fd, &st))
		return dax_why(o, -errno, "%s", strerror(errno));
	*size_bytes = (uint64_t)st.st_size;
	if (wanted_bytes && wanted_bytes % DAX_BLOCK_BYTES)
		return dax_why(o, -EINVAL, "a size of %" PRIu64 " bytes is not a multiple of %u",
			       wanted_bytes, DAX_BLOCK_BYTES);
	if (wanted_bytes && wanted_bytes != *size_bytes) {
		if (wanted_bytes > INT64_MAX)
			return dax_why(o, -EFBIG, "a size of %" PRIu64 " bytes is too large", wanted_bytes);
		if (ftruncate(dax->fd, (off_t)wanted_bytes))
			return dax_why(o, -errno, "cannot be made %" PRIu64 " bytes large: %s", wanted_bytes,
				       strerror(errno));
		*size_bytes = wanted_bytes;
	}
	if (*size_bytes == 0)
		return dax_why(o, -EINVAL, "the file is empty");
	if (*size_bytes % DAX_BLOCK_BYTES)
		return dax_why(o, -EINVAL,
			       "the file's size, %" PRIu64 " bytes, is not a multiple of %u: "
			       "it is not a pool, or has been cut",
			       *size_bytes, DAX_BLOCK_BYTES);
	return 0;
}

/*
 * Address space for the file as it is, and behind it for what it may grow to. Only addresses: no memory, no page tables. Where there are
 * not so many (a sanitizer) it is less; where they are counted (RLIMIT_AS) it is none.
 */
static void room_take(struct dax *dax, uint64_t size_bytes)
{
	uint64_t max_bytes = u64_max(ROOM_MIN_BYTES, u64_min(size_bytes, ROOM_MAX_BYTES / 64) * 64);

	struct rlimit limit;

	if (dax->readonly || size_bytes != dax->size_bytes)
		return; /* cannot grow, or its end is not mapped */
	if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		return; /* what there is, others need */
	for (; max_bytes > dax->map_bytes; max_bytes /= 2) {
		size_t room_bytes = max_bytes + ROOM_ALIGN_BYTES;
		void *room =
			mmap(NULL, room_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (room == MAP_FAILED)
			continue;
		dax->room = room;
		dax->room_bytes = room_bytes;
		dax->max_bytes = max_bytes;
		return;
	}
}

static int file_mmap(struct dax *dax)
{
	int prot = dax->readonly ? PROT_READ : PROT_READ | PROT_WRITE;
	void *at = NULL, *base;

	if (dax->room)
		at = (void *)u64_align_up((uintptr_t)dax->room, ROOM_ALIGN_BYTES);
	base = mmap(at, dax->map_bytes, prot, dax->map_flags | (at ? MAP_FIXED : 0), dax->fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	dax->base = base;
	return 0;
}

static bool map_sync_works(const struct dax *dax)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *base = mmap(NULL, page, dax->readonly ? PROT_READ : PROT_READ | PROT_WRITE,
			  MAP_SHARED_VALIDATE | MAP_SYNC, dax->fd, 0);

	if (base == MAP_FAILED)
		return false;
	munmap(base, page);
	return true;
}

/* AUTO -> what the file can do. */
static int durability_choose(const struct dax_opening *o, struct dax *dax, bool in_memory)
{
	enum dax_durability wanted = o->opts->durability;

	dax->durability = wanted;
	if (wanted == DAX_AUTO && in_memory)
		dax->durability = DAX_PROCESS;
	if (dax->durability != DAX_AUTO && dax->durability != DAX_FLUSH)
		return 0;
	if (in_memory)
		return 0; /* flushing to memory that is lost with the machine: as asked for */
	if (map_sync_works(dax)) {
		dax->map_flags = MAP_SHARED_VALIDATE | MAP_SYNC;
		dax->durability = DAX_FLUSH;
		return 0;
	}
	if (wanted == DAX_FLUSH)
		return dax_why(o, -EOPNOTSUPP,
			       "durability=flush needs a device-DAX node, or a file system with DAX "
			       "under the file; this one can do durability=msync");
	dax->durability = DAX_MSYNC;
	return 0;
}

/* A pwrite() beyond the limit would raise SIGXFSZ, which stores to a mapping never do. */
static bool size_is_safe(uint64_t size_bytes)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur >= size_bytes;
}

int file_map(const struct dax_opening *o, struct dax *dax)
{
	struct statfs sfs;
	uint64_t size_bytes = 0;
	bool in_memory;
	int rc;

	if (fstatfs(dax->fd, &sfs))
		return dax_why(o, -errno, "%s", strerror(errno));
	in_memory = sfs.f_type == TMPFS_MAGIC || sfs.f_type == RAMFS_MAGIC;
	rc = file_size(o, dax, &size_bytes);
	if (rc)
		return rc;
	dax->whole_blocks = sfs.f_bsize >= (long)DAX_BLOCK_BYTES && sfs.f_frsize >= (long)DAX_BLOCK_BYTES;
	dax->align_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	dax_size_set(o, dax, size_bytes);
	dax->map_flags = MAP_SHARED;
	rc = durability_choose(o, dax, in_memory);
	if (rc)
		return rc;
	room_take(dax, size_bytes);
	rc = file_mmap(dax);
	if (rc)
		return dax_why(o, rc, "cannot be mapped: %s", strerror(-rc));
	if (in_memory)
		(void)madvise(dax->base, dax->map_bytes, MADV_HUGEPAGE);
	dax->by_pwrite = dax->durability != DAX_FLUSH && !dax->readonly && size_is_safe(size_bytes);
	return 0;
}

/* What the file is to be large, and makes it so. */
static int file_enlarge(struct dax *dax, uint64_t wanted_bytes, uint64_t *size_bytes)
{
	struct stat st;

	if (fstat(dax->fd, &st))
		return -errno;
	/* A file whose size is not one of a pool would not be taken by the next mount. */
	*size_bytes = wanted_bytes ? wanted_bytes : u64_align_up((uint64_t)st.st_size, DAX_BLOCK_BYTES);
	if (*size_bytes < (uint64_t)st.st_size || *size_bytes < dax->size_bytes)
		return -EINVAL;
	if (*size_bytes > dax_size_max(dax))
		return -EOVERFLOW;
	if (*size_bytes == (uint64_t)st.st_size)
		return fsync(dax->fd) ? -errno : 0;
	if (*size_bytes > INT64_MAX || !size_is_safe(*size_bytes))
		return -EFBIG;
	/* No superblock may tell of a size that the file does not have after a crash. */
	return ftruncate(dax->fd, (off_t)*size_bytes) || fsync(dax->fd) ? -errno : 0;
}

int file_grow(struct dax *dax, uint64_t wanted_bytes)
{
	uint64_t size_bytes = 0, map_bytes;
	size_t old_bytes = dax->map_bytes;
	uint8_t *end = dax->base + old_bytes;
	int rc = file_enlarge(dax, wanted_bytes, &size_bytes);

	if (rc || size_bytes == dax->size_bytes)
		return rc;
	map_bytes = u64_align_up(size_bytes, dax->align_bytes);
	if (map_bytes > old_bytes) {
		if (mmap(end, map_bytes - old_bytes, PROT_READ | PROT_WRITE, dax->map_flags | MAP_FIXED,
			 dax->fd, (off_t)old_bytes) == MAP_FAILED) {
			rc = -errno;
			/* Whether the failed call has given the addresses away is not known. */
			if (dax->room)
				dax->room_bytes = (size_t)(end - (uint8_t *)dax->room);
			dax->max_bytes = old_bytes;
			return rc;
		}
		(void)madvise(end, map_bytes - old_bytes, MADV_DONTDUMP);
		if (dax->durability == DAX_PROCESS)
			(void)madvise(end, map_bytes - old_bytes, MADV_HUGEPAGE);
	}
	if (!size_is_safe(size_bytes))
		dax->by_pwrite = false;
	dax->map_bytes = map_bytes;
	dax->size_bytes = size_bytes;
	return 0;
}

void dax_discard(struct dax *dax, uint64_t off, uint64_t len_bytes)
{
	uint64_t start = u64_align_up(off, dax->align_bytes);
	uint64_t end = u64_align_down(off + len_bytes, dax->align_bytes);

	assert(off <= dax->size_bytes && len_bytes <= dax->size_bytes - off);
	if (dax->device || dax->readonly || start >= end)
		return;
	if (dax->fd >= 0)
		(void)fallocate(dax->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start,
				(off_t)(end - start));
	else if (dax_zero(dax, start, end - start))
		return; /* in RAM a hole is zeros, seen by the trace, so that crash tests notice a discard too early */
}
