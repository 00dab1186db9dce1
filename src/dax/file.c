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

static int try_map(struct dax *dax, int flags)
{
	int prot = dax->readonly ? PROT_READ : PROT_READ | PROT_WRITE;
	void *base = mmap(NULL, dax->map_bytes, prot, flags, dax->fd, 0);

	if (base == MAP_FAILED)
		return -errno;
	dax->base = base;
	return 0;
}

/* AUTO -> what the file can do. Leaves the file mapped if it took MAP_SYNC to find out. */
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
	if (try_map(dax, MAP_SHARED_VALIDATE | MAP_SYNC) == 0) {
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
static bool pwrite_is_safe(const struct dax *dax)
{
	struct rlimit limit;

	return !dax->readonly && getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur >= dax->size_bytes;
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
	dax->align_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	dax_size_set(o, dax, size_bytes);
	rc = durability_choose(o, dax, in_memory);
	if (rc)
		return rc;
	if (!dax->base) {
		rc = try_map(dax, MAP_SHARED);
		if (rc)
			return dax_why(o, rc, "cannot be mapped: %s", strerror(-rc));
	}
	if (in_memory)
		(void)madvise(dax->base, dax->map_bytes, MADV_HUGEPAGE);
	dax->by_pwrite = dax->durability != DAX_FLUSH && pwrite_is_safe(dax);
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
