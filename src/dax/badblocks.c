/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the kernel keeps the list: the attribute badblocks of the region, a directory above that of the device in sysfs.
 *
 *	.../ndbus0/region1/badblocks		"SECTOR COUNT\n"..., in sectors of 512 bytes from the region's start
 *	.../ndbus0/region1/resource		physical address at which the region starts
 *	.../ndbus0/region1/dax1.1/dax1.0/resource	and the device's memory: behind the namespace's own data
 *
 * The attribute is a page of text, the last line of which may be cut. It is read through one descriptor, which can be polled.
 */
#include "dax/badblocks.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "dax/clear.h"
#include "dax/priv.h"
#include "util/log.h"

#define SECTOR_BYTES 512u
#define LIST_TEXT_MAX 65536u

struct device_list {
	int fd;
	uint64_t region_start, device_start; /* physical addresses */
	struct clear *clear;
};

/* ---- in sysfs ---- */

static int u64_read(const char *dir, const char *attribute, uint64_t *value)
{
	char path[PATH_MAX];
	FILE *f;
	int rc;

	if (snprintf(path, sizeof(path), "%s/%s", dir, attribute) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	f = fopen(path, "re");
	if (!f)
		return -errno;
	rc = fscanf(f, "%" SCNi64, (int64_t *)value) == 1 ? 0 : -EIO;
	fclose(f);
	return rc;
}

/* The region that the device's directory lies in; cut down to it. */
static bool region_find(char *dir)
{
	for (;;) {
		char *name = strrchr(dir, '/');
		unsigned number;
		int end = 0;

		if (!name)
			return false;
		if (sscanf(name, "/region%u%n", &number, &end) == 1 && name[end] == '\0')
			return true;
		*name = '\0';
	}
}

static int list_open(const char *device, struct device_list *list)
{
	char region[PATH_MAX], path[PATH_MAX];
	int rc;

	snprintf(region, sizeof(region), "%s", device);
	if (!region_find(region))
		return -ENOENT;
	/* A device of several pieces, whose offsets are not addresses from its start on. */
	if (snprintf(path, sizeof(path), "%s/mapping1", device) < (int)sizeof(path) &&
	    access(path, F_OK) == 0)
		return -ENOENT;
	if (snprintf(path, sizeof(path), "%s/badblocks", region) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	rc = u64_read(device, "resource", &list->device_start);
	if (!rc)
		rc = u64_read(region, "resource", &list->region_start);
	if (!rc && list->device_start < list->region_start)
		rc = -EIO;
	if (rc)
		return rc;
	list->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (list->fd < 0)
		return -errno;
	list->clear = clear_new(strrchr(region, '/') + 1);
	if (list->clear)
		return 0;
	close(list->fd);
	return -ENOMEM;
}

/* ---- the list ---- */

static int range_tell(const struct device_list *list, uint64_t sector, uint64_t count, dax_badblock_fn fn,
		      void *arg)
{
	uint64_t max = (UINT64_MAX - list->region_start) / SECTOR_BYTES, start, end;

	if (count == 0 || sector > max || count > max - sector)
		return 0;
	start = u64_max(list->region_start + sector * SECTOR_BYTES, list->device_start);
	end = list->region_start + (sector + count) * SECTOR_BYTES;
	if (end <= start)
		return 0; /* in front of this device */
	return fn(arg, start - list->device_start, end - start);
}

static int text_read(int fd, char *text)
{
	size_t len = 0;
	ssize_t n;

	do {
		n = pread(fd, text + len, LIST_TEXT_MAX - 1 - len, (off_t)len);
		if (n > 0)
			len += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	text[len] = '\0';
	return n < 0 ? -errno : 0;
}

static int device_list(void *ctx, dax_badblock_fn fn, void *arg)
{
	const struct device_list *list = ctx;
	char *text = malloc(LIST_TEXT_MAX), *line, *end;
	int rc = text ? text_read(list->fd, text) : -ENOMEM;

	for (line = text; !rc && (end = strchr(line, '\n')); line = end + 1) {
		uint64_t sector, count;
		int used = 0;

		*end = '\0';
		if (sscanf(line, "%" SCNu64 " %" SCNu64 "%n", &sector, &count, &used) == 2 &&
		    line + used == end)
			rc = range_tell(list, sector, count, fn, arg);
		else
			log_debug("a line of the device's list of bad blocks says '%s'", line);
	}
	free(text);
	return rc;
}

static int device_clear(void *ctx, uint64_t off, uint64_t len_bytes)
{
	const struct device_list *list = ctx;

	return clear_run(list->clear, list->device_start + off, len_bytes);
}

static int device_fd(void *ctx)
{
	return ((const struct device_list *)ctx)->fd;
}

static void device_close(void *ctx)
{
	struct device_list *list = ctx;

	clear_free(list->clear);
	close(list->fd);
	free(list);
}

static const struct dax_badblocks_ops device_ops = { device_list, device_clear, device_fd, device_close };

/* ---- for others ---- */

/* Others may see the functions only together with what they work on. */
void dax_badblocks_stand_in(struct dax *dax, const struct dax_badblocks_ops *ops, void *ctx)
{
	dax->badblocks_ctx = ctx;
	atomic_store_explicit(&dax->badblocks_ops, ops, memory_order_release);
}

static const struct dax_badblocks_ops *ops_of(const struct dax *dax)
{
	return atomic_load_explicit(&dax->badblocks_ops, memory_order_acquire);
}

int dax_badblocks_open_at(struct dax *dax, const char *sysfs, dev_t rdev)
{
	char link[PATH_MAX], device[PATH_MAX];
	struct device_list *list;
	int rc;

	if (snprintf(link, sizeof(link), "%s/dev/char/%u:%u", sysfs, major(rdev), minor(rdev)) >=
	    (int)sizeof(link))
		return -ENAMETOOLONG;
	if (!realpath(link, device))
		return -errno;
	list = calloc(1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	rc = list_open(device, list);
	if (rc) {
		free(list);
		return rc;
	}
	dax_badblocks_stand_in(dax, &device_ops, list);
	return 0;
}

int dax_badblocks_open(struct dax *dax)
{
	struct stat st;

	if (dax_badblocks_known(dax))
		return 0;
	if (!dax->device)
		return -ENOENT;
	if (fstat(dax->fd, &st))
		return -errno;
	return dax_badblocks_open_at(dax, "/sys", st.st_rdev);
}

bool dax_badblocks_known(const struct dax *dax)
{
	return ops_of(dax) != NULL;
}

int dax_badblocks_list(struct dax *dax, dax_badblock_fn fn, void *arg)
{
	const struct dax_badblocks_ops *ops = ops_of(dax);

	return ops ? ops->list(dax->badblocks_ctx, fn, arg) : -ENOENT;
}

int dax_badblocks_fd(const struct dax *dax)
{
	const struct dax_badblocks_ops *ops = ops_of(dax);

	return ops && ops->fd ? ops->fd(dax->badblocks_ctx) : -1;
}

bool dax_badblocks_can_clear(const struct dax *dax)
{
	const struct dax_badblocks_ops *ops = ops_of(dax);

	return ops && ops->clear;
}

int dax_badblocks_clear(struct dax *dax, uint64_t off, uint64_t len_bytes)
{
	if (!dax_badblocks_can_clear(dax))
		return -EOPNOTSUPP;
	return ops_of(dax)->clear(dax->badblocks_ctx, off, len_bytes);
}

void badblocks_close(struct dax *dax)
{
	const struct dax_badblocks_ops *ops = ops_of(dax);

	if (ops && ops->close)
		ops->close(dax->badblocks_ctx);
}
