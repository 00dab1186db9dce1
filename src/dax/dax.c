/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening and closing a pool, and what can be asked about it.
 *
 * A path is looked at before it is opened (opening a strange device can have effects), and what was opened
 * is compared with what was looked at. The lock is taken before anything is changed or believed.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dax/libs.h"
#include "dax/priv.h"

int dax_why(const struct dax_opening *o, int rc, const char *fmt, ...)
{
	va_list args;
	int len;

	if (!o->why || o->why_size == 0)
		return rc;
	len = snprintf(o->why, o->why_size, "%s: ", o->path);
	if (len < 0 || (size_t)len >= o->why_size)
		return rc;
	va_start(args, fmt);
	vsnprintf(o->why + len, o->why_size - (size_t)len, fmt, args);
	va_end(args);
	return rc;
}

void dax_size_set(const struct dax_opening *o, struct dax *dax, uint64_t whole_bytes)
{
	uint64_t limit_bytes = o->opts->limit_bytes;

	dax->size_bytes = whole_bytes;
	if (limit_bytes && limit_bytes < whole_bytes)
		dax->size_bytes = limit_bytes;
	/* whole_bytes is a multiple of align_bytes */
	dax->map_bytes = u64_min(u64_align_up(dax->size_bytes, dax->align_bytes), whole_bytes);
}

static int missing_why(const struct dax_opening *o, int error)
{
	if (error == ENOENT && device_is_known(o->path))
		return dax_why(o, -ENXIO,
			       "the device is disabled or in system-ram mode "
			       "(`daxctl reconfigure-device --mode=devdax`)");
	return dax_why(o, -error, "%s", strerror(error));
}

/* st->st_mode 0: nothing there, to be created */
static int path_check(const struct dax_opening *o, struct stat *st)
{
	if (stat(o->path, st)) {
		if (errno != ENOENT || !o->opts->create || o->opts->size_bytes == 0 ||
		    device_is_known(o->path))
			return missing_why(o, errno);
		memset(st, 0, sizeof(*st));
		return 0;
	}
	switch (st->st_mode & S_IFMT) {
	case S_IFREG:
		return 0;
	case S_IFCHR:
		return device_check(o, st->st_rdev);
	case S_IFDIR:
		return dax_why(o, -EINVAL, "is a directory; a pool is a device-DAX node or a plain file");
	case S_IFBLK:
		return dax_why(o, -EINVAL,
			       "is a block device; a pool is a device-DAX node or a plain file "
			       "(for persistent memory: `ndctl create-namespace --mode=devdax`)");
	default:
		return dax_why(o, -EINVAL, "is neither a device-DAX node nor a plain file");
	}
}

static int open_why(const struct dax_opening *o, int error)
{
	switch (error) {
	case ENXIO:
	case ENODEV:
		return dax_why(o, -error,
			       "the device is disabled or gone (`daxctl list --devices` shows its state)");
	case EACCES:
	case EPERM:
	case EROFS:
		return dax_why(o, -error, "cannot be opened for %s: %s",
			       o->opts->readonly ? "reading" : "reading and writing", strerror(error));
	default:
		return dax_why(o, -error, "cannot be opened: %s", strerror(error));
	}
}

/* What a process before this has opened: the lock came with it. */
static int taken_open(const struct dax_opening *o, struct dax *dax, struct stat *st)
{
	dax->fd = o->opts->taken_fd;
	if (fstat(dax->fd, st))
		return dax_why(o, -errno, "cannot be taken over: %s", strerror(errno));
	if (flock(dax->fd, (o->opts->readonly ? LOCK_SH : LOCK_EX) | LOCK_NB))
		return dax_why(o, -errno, "cannot be taken over: %s", strerror(errno));
	return S_ISCHR(st->st_mode) ? device_check(o, st->st_rdev) : 0;
}

static int path_open(const struct dax_opening *o, const struct stat *looked, struct dax *dax, bool *created)
{
	int flags = (o->opts->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	struct stat st;

	*created = looked->st_mode == 0;
	/* The owner alone: a pool holds the files of everybody. */
	dax->fd = open(o->path, *created ? flags | O_CREAT | O_EXCL : flags, S_IRUSR | S_IWUSR);
	if (dax->fd < 0) {
		*created = false;
		return open_why(o, errno);
	}
	if (fstat(dax->fd, &st))
		return dax_why(o, -errno, "%s", strerror(errno));
	if (!*created &&
	    ((st.st_mode & S_IFMT) != (looked->st_mode & S_IFMT) || st.st_rdev != looked->st_rdev))
		return dax_why(o, -EAGAIN, "changed while it was opened");
	if (flock(dax->fd, (o->opts->readonly ? LOCK_SH : LOCK_EX) | LOCK_NB)) {
		if (errno == EWOULDBLOCK)
			return dax_why(o, -EBUSY, "in use by another umbrafs process");
		return dax_why(o, -errno, "cannot be locked: %s", strerror(errno));
	}
	if (!o->opts->readonly && !o->opts->lent_ok && dax_is_any_lent(dax->fd))
		return dax_why(o, -EBUSY, "processes of an earlier mount still have its memory mapped");
	return 0;
}

int dax_open(const char *path, const struct dax_opts *opts, struct dax **out, char *why, size_t why_size)
{
	const struct dax_opening o = { .path = path, .opts = opts, .why = why, .why_size = why_size };
	static atomic_uint_least64_t last_id;
	bool created = false;
	struct dax *dax;
	struct stat st;
	int rc;

	assert(!(opts->create && opts->readonly));
	rc = opts->taken_fd ? 0 : path_check(&o, &st);
	if (rc)
		return rc;
	dax = calloc(1, sizeof(*dax));
	if (!dax)
		return dax_why(&o, -ENOMEM, "out of memory");
	dax->fd = -1;
	rc = opts->taken_fd ? taken_open(&o, dax, &st) : 0;
	if (rc)
		goto out_close;
	dax->id = atomic_fetch_add(&last_id, 1) + 1;
	dax->readonly = opts->readonly;
	dax->device = S_ISCHR(st.st_mode);
	dax->path = strdup(path);
	if (!dax->path) {
		rc = dax_why(&o, -ENOMEM, "out of memory");
		goto out_close;
	}
	if (!opts->taken_fd)
		rc = path_open(&o, &st, dax, &created);
	if (rc)
		goto out_close;
	rc = dax->device ? device_map(&o, dax, st.st_rdev) : file_map(&o, dax);
	if (!rc && dax->durability == DAX_FLUSH) {
		dax->pmem = libpmem_load();
		if (!dax->pmem)
			rc = dax_why(&o, -ELIBACC,
				     "libpmem.so.1 cannot be loaded, without which nothing can be flushed");
	}
	if (rc)
		goto out_close;
	/* A core dump of the daemon is of the daemon. */
	(void)madvise(dax->base, dax->map_bytes, MADV_DONTDUMP);
	rc = guard_mapping_add(dax);
	if (rc) {
		dax_why(&o, rc, "cannot be guarded: %s", strerror(-rc));
		goto out_close;
	}
	*out = dax;
	return 0;
out_close:
	if (created)
		unlink(path);
	dax_close(dax);
	return rc;
}

void dax_close(struct dax *dax)
{
	if (!dax)
		return;
	guard_mapping_remove(dax);
	badblocks_close(dax);
	store_forget(dax);
	filling_end(dax);
	if (dax->base && dax->by_libpmem)
		libpmem_load()->unmap(dax->base, dax->map_bytes);
	else if (dax->room)
		munmap(dax->room, dax->room_bytes);
	else if (dax->base && !dax->by_caller)
		munmap(dax->base, dax->map_bytes);
	if (dax->fd >= 0)
		close(dax->fd); /* and with it the lock */
	free(dax->path);
	free(dax);
}

uint64_t dax_size_bytes(const struct dax *dax)
{
	return dax->size_bytes;
}

uint64_t dax_size_max(const struct dax *dax)
{
	return u64_max(dax->max_bytes, dax->size_bytes);
}

int dax_grow(struct dax *dax, uint64_t size_bytes)
{
	if (dax->readonly || size_bytes % DAX_BLOCK_BYTES)
		return -EINVAL;
	if (dax->fd >= 0 && !dax->device)
		return file_grow(dax, size_bytes);
	if (size_bytes == 0 || size_bytes == dax->size_bytes)
		return 0;
	if (dax->device || size_bytes < dax->size_bytes)
		return -EINVAL;
	if (size_bytes > dax->max_bytes)
		return -EOVERFLOW;
	dax->map_bytes = size_bytes;
	dax->size_bytes = size_bytes;
	return 0;
}

uint64_t dax_align_bytes(const struct dax *dax)
{
	return dax->align_bytes;
}

bool dax_is_device(const struct dax *dax)
{
	return dax->device;
}

bool dax_is_readonly(const struct dax *dax)
{
	return dax->readonly;
}

enum dax_durability dax_durability(const struct dax *dax)
{
	return dax->durability;
}

const char *dax_durability_name(enum dax_durability durability)
{
	static const char *const names[] = {
		[DAX_AUTO] = "auto",
		[DAX_FLUSH] = "flush",
		[DAX_MSYNC] = "msync",
		[DAX_PROCESS] = "process",
	};

	return names[durability];
}

int dax_fd(const struct dax *dax)
{
	return dax->fd;
}

const void *dax_ptr(const struct dax *dax, uint64_t off)
{
	assert(off <= dax->size_bytes);
	return dax->base + off;
}
