/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the kernel's FUSE does not pass. See unpassed.h.
 */
#include "client/unpassed.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <umbra/ioctl.h>

#define BLOCK_BYTES 4096u
#define DEDUPE_BYTES_MAX (1u << 30) /* the kernel's own limit for one call */
#define MODES_UNPASSED (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE | FALLOC_FL_UNSHARE_RANGE)

static bool is_fuse_file(int fd)
{
	struct statfs fs;
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && fstatfs(fd, &fs) == 0 &&
	       (unsigned long)fs.f_type == FUSE_SUPER_MAGIC;
}

/* Another server's file knows nothing of these calls. */
static int private_call(int fd, unsigned long request, void *arg)
{
	if (ioctl(fd, request, arg) == 0)
		return 0;
	return errno == ENOTTY || errno == ENOSYS ? -EOPNOTSUPP : -errno;
}

/* The kernel goes by the size that it knows: sendfile, copy_file_range and its mappings ask nobody. */
static void size_learn(int fd)
{
	struct statx st;

	(void)!statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_SIZE, &st);
}

/* ---- the caller's memory: EFAULT where it is a bad address, as the kernel says it ---- */

static int user_copy(void *to, const void *from, size_t size, bool reads)
{
	struct iovec own = { .iov_base = reads ? to : (void *)(uintptr_t)from, .iov_len = size };
	struct iovec user = { .iov_base = reads ? (void *)(uintptr_t)from : to, .iov_len = size };
	ssize_t n = reads ? process_vm_readv(getpid(), &own, 1, &user, 1, 0) :
			    process_vm_writev(getpid(), &own, 1, &user, 1, 0);

	if (n == (ssize_t)size)
		return 0;
	if (n >= 0 || errno == EFAULT)
		return -EFAULT;
	memcpy(to, from, size); /* a sandbox without that call */
	return 0;
}

/* ---- clone ---- */

int unpassed_clone(int dst, int src, uint64_t src_off, uint64_t len, uint64_t dst_off)
{
	struct umbra_clone_range range = { .src_off = src_off, .len = len, .dst_off = dst_off };
	struct stat st;
	int rc;

	if (!is_fuse_file(src) || !is_fuse_file(dst))
		return -EOPNOTSUPP;
	rc = private_call(src, UMBRA_IOC_TOKEN, &range.token);
	if (!rc && fsync(src))
		rc = -errno;
	if (!rc && fstat(src, &st))
		rc = -errno;
	if (rc || (len == 0 && (uint64_t)st.st_size == src_off))
		return rc; /* nothing to clone */
	rc = private_call(dst, UMBRA_IOC_CLONE_RANGE, &range);
	size_learn(dst);
	return rc;
}

/* ---- dedupe ---- */

static int dedupe_piece(int src, int dst, uint64_t src_off, uint64_t dst_off, uint64_t len,
			struct umbra_dedupe_range *piece)
{
	int rc;

	*piece = (struct umbra_dedupe_range){ .src_off = src_off, .dst_off = dst_off, .len = len };
	rc = private_call(src, UMBRA_IOC_TOKEN, &piece->token);
	return rc ? rc : private_call(dst, UMBRA_IOC_DEDUPE_RANGE, piece);
}

/* The status of one destination, as FIDEDUPERANGE has it: FILE_DEDUPE_RANGE_* or -errno. */
static int dedupe_file(int src, uint64_t src_off, uint64_t len, int dst, uint64_t dst_off, uint64_t *bytes)
{
	struct umbra_dedupe_range piece;
	uint64_t done = 0;
	int rc = 0;

	while (done < len) {
		uint64_t n = u64_min(len - done, UMBRA_DEDUPE_MAX);

		rc = dedupe_piece(src, dst, src_off + done, dst_off + done, n, &piece);
		/* A part of a block can only be shared at the end of both files; the blocks before it can. */
		if (rc == -EINVAL && n % BLOCK_BYTES) {
			len -= n % BLOCK_BYTES;
			rc = 0;
			continue;
		}
		if (rc || piece.status != 0)
			break;
		done += n;
	}
	*bytes = done;
	if (rc && done == 0)
		return rc;
	return done == 0 && len > 0 ? FILE_DEDUPE_RANGE_DIFFERS : FILE_DEDUPE_RANGE_SAME;
}

/* Who may write a file may dedupe it, with a descriptor for reading too. */
static int dedupe_open(int fd)
{
	char path[32];
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	if ((flags & O_ACCMODE) == O_RDWR)
		return fd;
	snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd >= 0 ? fd : errno == EACCES || errno == EROFS ? -EPERM : -errno;
}

static int dedupe_one(int src, const struct stat *src_st, const struct file_dedupe_range *range, uint64_t len,
		      struct file_dedupe_range_info *info)
{
	int given = info->dest_fd > INT_MAX ? -1 : (int)info->dest_fd, dst, status;
	uint64_t bytes = 0;
	struct stat st;

	if (info->reserved)
		return -EINVAL;
	if (fstat(given, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if (st.st_dev != src_st->st_dev)
		return -EXDEV;
	dst = dedupe_open(given);
	if (dst < 0)
		return dst;
	status = dedupe_file(src, range->src_offset, len, dst, info->dest_offset, &bytes);
	info->bytes_deduped = bytes;
	if (dst != given)
		close(dst);
	return status;
}

int unpassed_dedupe(int src, struct file_dedupe_range *range)
{
	struct file_dedupe_range head;
	struct stat st;
	uint64_t len;
	int rc = user_copy(&head, range, sizeof(head), true);

	if (!is_fuse_file(src))
		return -EOPNOTSUPP;
	if (rc || fsync(src) || fstat(src, &st))
		return rc ? rc : -errno;
	if (head.src_length > (uint64_t)st.st_size ||
	    head.src_offset > (uint64_t)st.st_size - head.src_length)
		return -EINVAL;
	len = u64_min(head.src_length, DEDUPE_BYTES_MAX);
	for (unsigned i = 0; i < head.dest_count && !rc; i++) {
		struct file_dedupe_range_info info;

		rc = user_copy(&info, &range->info[i], sizeof(info), true);
		if (rc)
			break;
		info.bytes_deduped = 0;
		info.status = dedupe_one(src, &st, &head, len, &info);
		if (info.status == -EOPNOTSUPP && i == 0)
			return -EOPNOTSUPP;
		rc = user_copy(&range->info[i], &info, sizeof(info), false);
	}
	return rc;
}

/* ---- fiemap ---- */

static uint32_t fiemap_flags(uint32_t flags)
{
	return (flags & UMBRA_EXTENT_UNWRITTEN ? FIEMAP_EXTENT_UNWRITTEN : 0) |
	       (flags & UMBRA_EXTENT_SHARED ? FIEMAP_EXTENT_SHARED : 0) |
	       (flags & UMBRA_EXTENT_INLINE ? FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_NOT_ALIGNED : 0) |
	       (flags & UMBRA_EXTENT_LAST ? FIEMAP_EXTENT_LAST : 0);
}

/* Walks the extents that touch [fm_start, end); all are counted, and stored if there is room for any. */
static int fiemap_walk(int fd, struct fiemap *head, uint64_t end, struct fiemap_extent *out)
{
	struct umbra_extents found;
	uint64_t pos = head->fm_start;

	for (;;) {
		int rc;

		found.off = pos;
		found.flags = 0;
		found.count = 0;
		rc = private_call(fd, UMBRA_IOC_EXTENTS, &found);
		if (rc || found.count == 0)
			return rc;
		for (unsigned i = 0; i < found.count; i++) {
			const struct umbra_extent *e = &found.extents[i];
			const struct fiemap_extent fe = {
				.fe_logical = e->file_off,
				.fe_physical = e->dev_off,
				.fe_length = e->len,
				.fe_flags = fiemap_flags(e->flags),
			};

			if (e->file_off >= end ||
			    (head->fm_extent_count > 0 && head->fm_mapped_extents == head->fm_extent_count))
				return 0;
			rc = head->fm_extent_count > 0 ?
				     user_copy(&out[head->fm_mapped_extents], &fe, sizeof(fe), false) :
				     0;
			if (rc)
				return rc;
			head->fm_mapped_extents++;
			if (e->flags & UMBRA_EXTENT_LAST)
				return 0;
			pos = e->file_off + e->len;
		}
	}
}

int unpassed_fiemap(int fd, struct fiemap *map)
{
	struct fiemap head;
	uint64_t end;
	int rc;

	if (!is_fuse_file(fd))
		return -EOPNOTSUPP;
	rc = user_copy(&head, map, sizeof(head), true);
	if (rc)
		return rc;
	if (head.fm_length == 0 || head.fm_extent_count > UINT32_MAX / sizeof(struct fiemap_extent))
		return -EINVAL;
	if (head.fm_start > INT64_MAX)
		return -EFBIG;
	end = head.fm_start + u64_min(head.fm_length, (uint64_t)INT64_MAX - head.fm_start);
	head.fm_mapped_extents = 0;
	if (head.fm_flags & ~FIEMAP_FLAG_SYNC) {
		head.fm_flags &= ~FIEMAP_FLAG_SYNC; /* what is not known */
		rc = -EBADR;
	} else if (head.fm_flags & FIEMAP_FLAG_SYNC && fsync(fd)) {
		rc = -errno;
	} else {
		rc = fiemap_walk(fd, &head, end, map->fm_extents);
	}
	if (!rc || rc == -EBADR) {
		int copied = user_copy(map, &head, sizeof(head), false);

		rc = copied ? copied : rc;
	}
	return rc;
}

/* ---- fallocate ---- */

int unpassed_fallocate(int fd, int mode, off_t off, off_t len)
{
	struct umbra_fallocate args = { .off = (uint64_t)off, .len = (uint64_t)len, .mode = (uint32_t)mode };
	int rc;

	if (!(mode & MODES_UNPASSED) || !is_fuse_file(fd))
		return -EOPNOTSUPP;
	rc = private_call(fd, UMBRA_IOC_FALLOCATE, &args);
	size_learn(fd);
	return rc;
}
