/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Signatures: ours, and those that libblkid knows. A device-DAX node cannot be read, only mapped: its two ends, where all signatures
 * lie, are copied into a sparse file in memory of the same size for libblkid to look at.
 */
#include "mkfs_probe.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#undef BLOCK_SIZE
#include "dax/dax.h"
#include "media/ag.h"

#define HEAD_BYTES (4u << 20)
#define TAIL_BYTES (1u << 20)

static bool has_magic(int fd, uint64_t off, uint32_t wanted)
{
	le32 magic;

	return pread(fd, &magic, sizeof(magic), (off_t)off) == sizeof(magic) && le32_get(magic) == wanted;
}

/* 1: found and named. */
static int probe_foreign(int fd, char *what, size_t what_size)
{
	blkid_probe pr = blkid_new_probe();
	const char *type = NULL, *label = NULL, *table = NULL;
	int rc;

	if (!pr) {
		snprintf(what, what_size, "out of memory");
		return -ENOMEM;
	}
	if (blkid_probe_set_device(pr, fd, 0, 0)) {
		blkid_free_probe(pr);
		return 0; /* too small for anything */
	}
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL);
	blkid_probe_enable_partitions(pr, 1);
	rc = blkid_do_safeprobe(pr);
	if (rc == -2) {
		snprintf(what, what_size, "several file systems at once");
		rc = 1;
	} else if (rc == 0) {
		blkid_probe_lookup_value(pr, "TYPE", &type, NULL);
		blkid_probe_lookup_value(pr, "LABEL", &label, NULL);
		blkid_probe_lookup_value(pr, "PTTYPE", &table, NULL);
		if (type)
			snprintf(what, what_size, "a %s file system%s%s%s", type, label ? " (label '" : "",
				 label ? label : "", label ? "')" : "");
		else
			snprintf(what, what_size, "a %s partition table", table ? table : "unknown");
		rc = 1;
	} else {
		rc = 0;
	}
	blkid_free_probe(pr);
	return rc;
}

static int probe_fd(int fd, uint64_t size_bytes, char *what, size_t what_size)
{
	if (has_magic(fd, 0, MAGIC_SUPER) ||
	    (size_bytes >= BLOCK_SIZE && has_magic(fd, size_bytes - BLOCK_SIZE, MAGIC_SUPER))) {
		snprintf(what, what_size, "an umbrafs pool");
		return 1;
	}
	if (has_magic(fd, CHUNK_SIZE + AG_UNIT_HEADER * BLOCK_SIZE, MAGIC_AG)) {
		snprintf(what, what_size,
			 "an umbrafs pool without a superblock (fsck.umbrafs may make it anew)");
		return 1;
	}
	return probe_foreign(fd, what, what_size);
}

/* Copies [off, off + len) of the device to the same place of the file fd. */
static int copy_out(const struct dax *dax, int fd, uint64_t off, size_t len)
{
	char *buf = malloc(len);
	int rc = buf ? 0 : -ENOMEM;

	/* Bad memory: what cannot be read is no signature. */
	for (size_t at = 0; rc == 0 && at < len; at += BLOCK_SIZE)
		if (dax_load(dax, buf + at, off + at, BLOCK_SIZE, NULL))
			memset(buf + at, 0, BLOCK_SIZE);
	if (rc == 0 && pwrite(fd, buf, len, (off_t)off) != (ssize_t)len)
		rc = -EIO;
	free(buf);
	return rc;
}

static int probe_device(const char *path, char *what, size_t what_size)
{
	struct dax_opts opts = { .readonly = true };
	struct dax *dax;
	uint64_t size;
	int rc = dax_open(path, &opts, &dax, what, what_size), fd;

	if (rc)
		return rc;
	size = dax_size_bytes(dax);
	fd = (int)syscall(SYS_memfd_create, "mkfs", 1u);
	if (fd < 0 || ftruncate(fd, (off_t)size))
		rc = -errno;
	if (rc == 0)
		rc = copy_out(dax, fd, 0, u64_min(size, HEAD_BYTES));
	if (rc == 0 && size > HEAD_BYTES + TAIL_BYTES)
		rc = copy_out(dax, fd, size - TAIL_BYTES, TAIL_BYTES);
	if (rc)
		snprintf(what, what_size, "%s: cannot be looked at: %s", path, strerror(-rc));
	else
		rc = probe_fd(fd, size, what, what_size);
	if (fd >= 0)
		close(fd);
	dax_close(dax);
	return rc;
}

int probe_content(const char *path, char *what, size_t what_size)
{
	struct stat st;
	int fd, rc;

	if (stat(path, &st))
		return errno == ENOENT ? 0 :
					 (snprintf(what, what_size, "%s: %s", path, strerror(errno)), -errno);
	if (S_ISCHR(st.st_mode))
		return probe_device(path, what, what_size);
	if (!S_ISREG(st.st_mode))
		return 0; /* opening the pool says why not */
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		rc = -errno;
		snprintf(what, what_size, "%s: %s", path, strerror(-rc));
		return rc;
	}
	rc = probe_fd(fd, (uint64_t)st.st_size, what, what_size);
	close(fd);
	return rc;
}
