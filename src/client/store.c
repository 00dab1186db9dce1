/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/store.h"

#include <dlfcn.h>
#include <libpmem.h>
#include <pthread.h>

#include "util/sabotage.h"

static __typeof__(pmem_memmove) *copy;
static __typeof__(pmem_persist) *persist;

static void load_once(void)
{
	void *lib = dlopen("libpmem.so.1", RTLD_NOW | RTLD_LOCAL);

	if (!lib)
		return;
	*(void **)&copy = dlsym(lib, "pmem_memmove");
	*(void **)&persist = dlsym(lib, "pmem_persist");
}

bool store_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load_once);
	return copy && persist;
}

void store_bytes(void *dst, const void *src, size_t len)
{
	unsigned flags = 0;

	if (sabotage_point("store-flush"))
		flags = PMEM_F_MEM_NOFLUSH;
	if (sabotage_point("store-drain"))
		flags = PMEM_F_MEM_NODRAIN;
	copy(dst, src, len, flags);
}

void store_flush(const void *at, size_t len)
{
	if (!sabotage_point("msync-flush"))
		persist(at, len);
}
