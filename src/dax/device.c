/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pool on a device-DAX node: /dev/daxX.Y, all of whose memory is mapped; there is no page cache and nothing to read() or
 * msync(). Its size and the alignment that a mapping must respect come from libdaxctl, or else from sysfs.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "dax/libs.h"
#include "dax/priv.h"
#include "util/log.h"

#define SYS_PATH_MAX 128

int device_check(const struct dax_opening *o, dev_t rdev)
{
	char link[SYS_PATH_MAX];
	char target[PATH_MAX];
	const char *name;
	ssize_t len;

	snprintf(link, sizeof(link), "/sys/dev/char/%u:%u/subsystem", major(rdev), minor(rdev));
	len = readlink(link, target, sizeof(target) - 1);
	if (len > 0) {
		target[len] = '\0';
		name = strrchr(target, '/');
		if (strcmp(name ? name + 1 : target, "dax") == 0)
			return 0;
	}
	return dax_why(o, -EINVAL, "character device %u:%u is not a device-DAX node", major(rdev),
		       minor(rdev));
}

bool device_is_known(const char *path)
{
	const char *name = strrchr(path, '/');
	char entry[SYS_PATH_MAX];
	int len;

	name = name ? name + 1 : path;
	if (strncmp(name, "dax", 3) != 0)
		return false;
	len = snprintf(entry, sizeof(entry), "/sys/bus/dax/devices/%s", name);
	return len < (int)sizeof(entry) && access(entry, F_OK) == 0;
}

static bool geometry_by_libdaxctl(dev_t rdev, uint64_t *size_bytes, uint64_t *align_bytes)
{
	const struct libdaxctl *lib = libdaxctl_load();
	struct daxctl_region *region;
	struct daxctl_dev *dev;
	struct daxctl_ctx *ctx;
	bool found = false;

	if (!lib || lib->new (&ctx))
		return false;
	for (region = lib->region_get_first(ctx); region; region = lib->region_get_next(region)) {
		for (dev = lib->dev_get_first(region); dev; dev = lib->dev_get_next(dev)) {
			if (lib->dev_get_major(dev) != (int)major(rdev) ||
			    lib->dev_get_minor(dev) != (int)minor(rdev))
				continue;
			*size_bytes = lib->dev_get_size(dev);
			*align_bytes = lib->dev_get_align(dev);
			if (*align_bytes == 0)
				*align_bytes = lib->region_get_align(region);
			found = true;
		}
	}
	lib->unref(ctx);
	return found;
}

static uint64_t sysfs_u64(dev_t rdev, const char *attribute)
{
	char path[SYS_PATH_MAX];
	uint64_t value = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/%s", major(rdev), minor(rdev), attribute);
	f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%" SCNu64, &value) != 1)
		value = 0;
	fclose(f);
	return value;
}

static int device_geometry(const struct dax_opening *o, struct dax *dax, dev_t rdev, uint64_t *size_bytes)
{
	uint64_t align_bytes = 0;

	*size_bytes = 0;
	if (!geometry_by_libdaxctl(rdev, size_bytes, &align_bytes)) {
		*size_bytes = sysfs_u64(rdev, "size");
		align_bytes = sysfs_u64(rdev, "align");
	}
	if (align_bytes < DAX_BLOCK_BYTES || (align_bytes & (align_bytes - 1)))
		return dax_why(o, -ENXIO, "the device has no usable alignment (%" PRIu64 ")", align_bytes);
	dax->align_bytes = align_bytes;
	*size_bytes = u64_align_down(*size_bytes, align_bytes);
	if (*size_bytes == 0)
		return dax_why(o, -ENXIO,
			       "the device has no memory (`daxctl list --devices` shows its size)");
	if (o->opts->create && o->opts->size_bytes > *size_bytes)
		return dax_why(o, -ENXIO, "the device is too small: %" PRIu64 " bytes, %" PRIu64 " wanted",
			       *size_bytes, o->opts->size_bytes);
	return 0;
}

/* All of the device, to be written: as libpmem wants it. */
static bool map_by_libpmem(struct dax *dax)
{
	const struct libpmem *lib = libpmem_load();
	size_t mapped_bytes;
	int is_pmem;
	void *base = lib ? lib->map_file(dax->path, 0, 0, 0, &mapped_bytes, &is_pmem) : NULL;

	if (!base) {
		log_debug("%s: libpmem does not map it: %s", dax->path, lib ? lib->errormsg() : "not there");
		return false;
	}
	if (mapped_bytes != dax->map_bytes) {
		lib->unmap(base, mapped_bytes);
		return false;
	}
	dax->base = base;
	dax->by_libpmem = true;
	return true;
}

int device_map(const struct dax_opening *o, struct dax *dax, dev_t rdev)
{
	int prot = dax->readonly ? PROT_READ : PROT_READ | PROT_WRITE;
	uint64_t whole_bytes;
	void *base;
	int rc;

	if (o->opts->durability == DAX_MSYNC)
		return dax_why(o, -EINVAL,
			       "durability=msync is for plain files; a device-DAX node has no page cache");
	dax->durability = o->opts->durability == DAX_AUTO ? DAX_FLUSH : o->opts->durability;
	rc = device_geometry(o, dax, rdev, &whole_bytes);
	if (rc)
		return rc;
	dax_size_set(o, dax, whole_bytes);
	if (!dax->readonly && dax->map_bytes == whole_bytes && map_by_libpmem(dax))
		return 0;
	base = mmap(NULL, dax->map_bytes, prot, MAP_SHARED, dax->fd, 0);
	if (base == MAP_FAILED)
		return dax_why(o, -errno, "cannot be mapped: %s", strerror(errno));
	dax->base = base;
	return 0;
}
