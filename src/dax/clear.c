/* SPDX-License-Identifier: BSD-3-Clause */
#include "dax/clear.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "dax/libs.h"
#include "util/log.h"

struct clear {
	pthread_mutex_t lock; /* a context of the library is for one thread at a time */
	char region[32];
	const struct libndctl *lib;
	struct ndctl_ctx *ctx;
	struct ndctl_bus *bus; /* NULL: not looked for, or not found */
};

struct clear *clear_new(const char *region)
{
	struct clear *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	pthread_mutex_init(&c->lock, NULL);
	memcpy(c->region, region, u64_min(strlen(region), sizeof(c->region) - 1));
	return c;
}

void clear_free(struct clear *c)
{
	if (!c)
		return;
	if (c->ctx)
		c->lib->unref(c->ctx);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static bool bus_has(const struct clear *c, struct ndctl_bus *bus)
{
	struct ndctl_region *region = c->lib->region_get_first(bus);

	while (region && strcmp(c->lib->region_get_devname(region), c->region) != 0)
		region = c->lib->region_get_next(region);
	return region;
}

static int bus_find(struct clear *c)
{
	struct ndctl_bus *bus;

	if (c->bus)
		return 0;
	c->lib = libndctl_load();
	if (!c->lib || (!c->ctx && c->lib->new (&c->ctx)))
		return -EOPNOTSUPP;
	bus = c->lib->bus_get_first(c->ctx);
	while (bus && !bus_has(c, bus))
		bus = c->lib->bus_get_next(bus);
	c->bus = bus;
	if (!bus)
		log_debug("libndctl knows no bus with %s", c->region);
	return bus ? 0 : -EOPNOTSUPP;
}

static int range_clear(const struct clear *c, uint64_t address, uint64_t len_bytes)
{
	const struct libndctl *lib = c->lib;
	/* What the bus can do with this range; the command to clear is made from the answer. */
	struct ndctl_cmd *cap = lib->bus_cmd_new_ars_cap(c->bus, address, len_bytes), *cmd = NULL;
	int rc = -EOPNOTSUPP;

	if (!cap || lib->cmd_submit_xlat(cap) < 0)
		goto out;
	cmd = lib->bus_cmd_new_clear_error(address, len_bytes, cap);
	if (!cmd)
		goto out;
	rc = lib->cmd_submit_xlat(cmd) < 0 || lib->cmd_clear_error_get_cleared(cmd) < len_bytes ? -EIO : 0;
	lib->cmd_unref(cmd);
out:
	if (cap)
		lib->cmd_unref(cap);
	return rc;
}

int clear_run(struct clear *c, uint64_t address, uint64_t len_bytes)
{
	int rc;

	pthread_mutex_lock(&c->lock);
	rc = bus_find(c);
	if (!rc)
		rc = range_clear(c, address, len_bytes);
	pthread_mutex_unlock(&c->lock);
	if (rc)
		log_debug("%s: %llu bytes at 0x%llx cannot be cleared: %s", c->region,
			  (unsigned long long)len_bytes, (unsigned long long)address, strerror(-rc));
	return rc;
}
