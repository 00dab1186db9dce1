/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The library that umbra-run loads into a program: its calls of ioctl() and fallocate() go to the kernel, and what the kernel does not pass
 * to umbrafs is done by other means (unpassed.h). Programs that are linked statically or make system calls by themselves are not reached.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/preload_mapped.h"
#include "client/unpassed.h"

#define exported __attribute__((visibility("default")))

typedef int (*ioctl_fn)(int fd, unsigned long request, ...);
typedef int (*fallocate_fn)(int fd, int mode, off_t off, off_t len);

/* The next library's; another preloaded one may stand before libc. POSIX lets data and function pointers be converted for dlsym(). */
static int next_ioctl(int fd, unsigned long request, void *arg)
{
	static _Atomic(ioctl_fn) next;
	ioctl_fn fn = next;

	if (!fn) {
		*(void **)&fn = dlsym(RTLD_NEXT, "ioctl");
		next = fn;
	}
	return fn ? fn(fd, request, arg) : (int)syscall(SYS_ioctl, fd, request, arg);
}

static int next_fallocate(int fd, int mode, off_t off, off_t len)
{
	static _Atomic(fallocate_fn) next;
	fallocate_fn fn = next;

	if (!fn) {
		*(void **)&fn = dlsym(RTLD_NEXT, "fallocate64");
		next = fn;
	}
	return fn ? fn(fd, mode, off, len) : (int)syscall(SYS_fallocate, fd, mode, off, len);
}

/* What a call that the kernel has refused comes to; before: errno as the caller had it, which success leaves alone. */
static int result(int rc, int before)
{
	errno = rc < 0 ? -rc : before;
	return rc < 0 ? -1 : rc;
}

static int refused(int fd, unsigned long request, void *arg)
{
	const struct file_clone_range *range = arg;

	switch (request) {
	case FICLONE:
		return unpassed_clone(fd, (int)(intptr_t)arg, 0, 0, 0);
	case FICLONERANGE:
		return unpassed_clone(fd, (int)range->src_fd, range->src_offset, range->src_length,
				      range->dest_offset);
	case FIDEDUPERANGE:
		return unpassed_dedupe(fd, arg);
	case FS_IOC_FIEMAP:
		return unpassed_fiemap(fd, arg);
	default:
		return -EOPNOTSUPP;
	}
}

exported int ioctl(int fd, unsigned long request, ...)
{
	int before = errno, rc;
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (!preload_give(request, arg))
		return -1;
	rc = next_ioctl(fd, request, arg);
	if (rc == 0 || errno != EOPNOTSUPP)
		return rc;
	return result(refused(fd, request, arg), before);
}

static int allocate(int fd, int mode, off_t off, off_t len)
{
	int before = errno, rc = next_fallocate(fd, mode, off, len);

	if (rc == 0 || errno != EOPNOTSUPP)
		return rc;
	return result(unpassed_fallocate(fd, mode, off, len), before);
}

/* Both names of it, whichever the headers make of the plain one here. */
exported int fallocate_plain(int fd, int mode, off_t off, off_t len) __asm__("fallocate");
exported int fallocate_large(int fd, int mode, off_t off, off_t len) __asm__("fallocate64");

int fallocate_plain(int fd, int mode, off_t off, off_t len)
{
	return allocate(fd, mode, off, len);
}

int fallocate_large(int fd, int mode, off_t off, off_t len)
{
	return allocate(fd, mode, off, len);
}
