/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libpmem and libdaxctl, loaded when they are first needed. They bring libndctl, libkmod, libcrypto and more with them, and to load all of that takes as
 * long as to mount a pool in a plain file, which needs none of it.
 */
#ifndef UMBRA_DAX_LIBS_H
#define UMBRA_DAX_LIBS_H

#include <daxctl/libdaxctl.h>
#include <libpmem.h>

struct libpmem {
	__typeof__(pmem_map_file) *map_file;
	__typeof__(pmem_unmap) *unmap;
	__typeof__(pmem_errormsg) *errormsg;
	__typeof__(pmem_memmove) *memmove;
	__typeof__(pmem_memset) *memset;
	__typeof__(pmem_drain) *drain;
};

struct libdaxctl {
	__typeof__(daxctl_new) *new;
	__typeof__(daxctl_unref) *unref;
	__typeof__(daxctl_region_get_first) *region_get_first;
	__typeof__(daxctl_region_get_next) *region_get_next;
	__typeof__(daxctl_region_get_align) *region_get_align;
	__typeof__(daxctl_dev_get_first) *dev_get_first;
	__typeof__(daxctl_dev_get_next) *dev_get_next;
	__typeof__(daxctl_dev_get_major) *dev_get_major;
	__typeof__(daxctl_dev_get_minor) *dev_get_minor;
	__typeof__(daxctl_dev_get_size) *dev_get_size;
	__typeof__(daxctl_dev_get_align) *dev_get_align;
};

/* NULL: it cannot be loaded, which is in the log. The same at each call. */
const struct libpmem *libpmem_load(void);
const struct libdaxctl *libdaxctl_load(void);

#endif
