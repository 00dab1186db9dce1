/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/store.h"

#include <dlfcn.h>
#include <libpmem.h>
#include <pthread.h>

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
	copy(dst, src, len, 0);
}

void store_flush(const void *at, size_t len)
{
	persist(at, len);
}
