/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libpmem, libdaxctl and libndctl, loaded when they are first needed. They bring libkmod, libcrypto and more with them, and to load all of that takes as
 * long as to mount a pool in a plain file, which needs none of it.
 */
#ifndef UMBRA_DAX_LIBS_H
#define UMBRA_DAX_LIBS_H

#include <daxctl/libdaxctl.h>
#include <libpmem.h>
#include <ndctl/libndctl.h>

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

struct libndctl {
	__typeof__(ndctl_new) *new;
	__typeof__(ndctl_unref) *unref;
	__typeof__(ndctl_bus_get_first) *bus_get_first;
	__typeof__(ndctl_bus_get_next) *bus_get_next;
	__typeof__(ndctl_region_get_first) *region_get_first;
	__typeof__(ndctl_region_get_next) *region_get_next;
	__typeof__(ndctl_region_get_devname) *region_get_devname;
	__typeof__(ndctl_bus_cmd_new_ars_cap) *bus_cmd_new_ars_cap;
	__typeof__(ndctl_bus_cmd_new_clear_error) *bus_cmd_new_clear_error;
	__typeof__(ndctl_cmd_submit_xlat) *cmd_submit_xlat;
	__typeof__(ndctl_cmd_clear_error_get_cleared) *cmd_clear_error_get_cleared;
	__typeof__(ndctl_cmd_unref) *cmd_unref;
};

/* NULL: it cannot be loaded, which is in the log. The same at each call. */
const struct libpmem *libpmem_load(void);
const struct libdaxctl *libdaxctl_load(void);
const struct libndctl *libndctl_load(void);

#endif
