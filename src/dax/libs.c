/* SPDX-License-Identifier: BSD-3-Clause */
#include "dax/libs.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "util/log.h"
#include "util/util.h"

/* A function of a library, and where its address goes. */
struct symbol {
	const char *name;
	size_t at;
};

#define PMEM(name)                                            \
	{                                                     \
		"pmem_" #name, offsetof(struct libpmem, name) \
	}
#define DAXCTL(name)                                              \
	{                                                         \
		"daxctl_" #name, offsetof(struct libdaxctl, name) \
	}
#define NDCTL(name)                                             \
	{                                                       \
		"ndctl_" #name, offsetof(struct libndctl, name) \
	}

static const struct symbol pmem_symbols[] = {
	PMEM(map_file), PMEM(unmap), PMEM(errormsg), PMEM(memmove), PMEM(memset), PMEM(drain),
};
static const struct symbol daxctl_symbols[] = {
	DAXCTL(new),
	DAXCTL(unref),
	DAXCTL(region_get_first),
	DAXCTL(region_get_next),
	DAXCTL(region_get_align),
	DAXCTL(dev_get_first),
	DAXCTL(dev_get_next),
	DAXCTL(dev_get_major),
	DAXCTL(dev_get_minor),
	DAXCTL(dev_get_size),
	DAXCTL(dev_get_align),
};
static const struct symbol ndctl_symbols[] = {
	NDCTL(new),
	NDCTL(unref),
	NDCTL(bus_get_first),
	NDCTL(bus_get_next),
	NDCTL(region_get_first),
	NDCTL(region_get_next),
	NDCTL(region_get_devname),
	NDCTL(bus_cmd_new_ars_cap),
	NDCTL(bus_cmd_new_clear_error),
	NDCTL(cmd_submit_xlat),
	NDCTL(cmd_clear_error_get_cleared),
	NDCTL(cmd_unref),
};

static bool load(const char *soname, const struct symbol *symbols, size_t count, void *table)
{
	void *lib = dlopen(soname, RTLD_NOW | RTLD_LOCAL);

	if (!lib) {
		log_warn("%s", dlerror());
		return false;
	}
	for (size_t i = 0; i < count; i++) {
		void *address = dlsym(lib, symbols[i].name);

		if (!address) {
			log_warn("%s", dlerror());
			return false;
		}
		memcpy((char *)table + symbols[i].at, &address, sizeof(address));
	}
	return true;
}

static struct libpmem pmem;
static struct libdaxctl daxctl;
static struct libndctl ndctl;
static bool pmem_ok, daxctl_ok, ndctl_ok;

static void pmem_once(void)
{
	pmem_ok = load("libpmem.so.1", pmem_symbols, ARRAY_SIZE(pmem_symbols), &pmem);
}

static void daxctl_once(void)
{
	daxctl_ok = load("libdaxctl.so.1", daxctl_symbols, ARRAY_SIZE(daxctl_symbols), &daxctl);
}

static void ndctl_once(void)
{
	ndctl_ok = load("libndctl.so.6", ndctl_symbols, ARRAY_SIZE(ndctl_symbols), &ndctl);
}

const struct libpmem *libpmem_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, pmem_once);
	return pmem_ok ? &pmem : NULL;
}

const struct libdaxctl *libdaxctl_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, daxctl_once);
	return daxctl_ok ? &daxctl : NULL;
}

const struct libndctl *libndctl_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, ndctl_once);
	return ndctl_ok ? &ndctl : NULL;
}
