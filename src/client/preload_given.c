/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory that a program gives to the kernel for longer: KVM's, as memory of a virtual machine. The machine's touches, and what KVM itself reads and stores there, are no faults of the program's: where a
 * page is not in place KVM_RUN ends with EFAULT, which does not say where, and what KVM wants for itself is not done. So such mappings are the kernel's before it gets them.
 */
#include <linux/kvm.h>
#include <stdatomic.h>

#include "client/fds.h"
#include "client/preload_mapped.h"
#include "client/user_memory.h"

/* Its first members are those of the older one, and have the range. */
#define REGION2_BYTES 160
#define SET_USER_MEMORY_REGION2 _IOC(_IOC_WRITE, KVMIO, 0x49, REGION2_BYTES)

static atomic_bool given;

bool preload_has_given(void)
{
	return atomic_load_explicit(&given, memory_order_relaxed);
}

/* False: what is there cannot be read, which the kernel says. */
static bool region_get(const void *arg, struct kvm_userspace_memory_region *region)
{
	struct slow s = slow_begin();
	bool good = user_memory_get(region, arg, sizeof(*region));

	slow_end(&s);
	return good;
}

bool preload_give(unsigned long request, const void *arg)
{
	struct kvm_userspace_memory_region region;

	if (request != KVM_SET_USER_MEMORY_REGION && request != SET_USER_MEMORY_REGION2)
		return true;
	/* Before the mappings are looked at: whoever makes one later knows. */
	atomic_store(&given, true);
	if (!user_memory_exists() || !fds_is_quiet() || !region_get(arg, &region) || region.memory_size == 0)
		return true;
	/* An address as the kernel takes it. */
	return preload_mapped_leave((void *)(uintptr_t)region.userspace_addr, region.memory_size);
}
