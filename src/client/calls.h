/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The calls for addresses, signals and descriptors that the library makes for itself. Where a program's own calls of those names come to the library (preload_mapped.c), these
 * pass them by.
 */
#ifndef UMBRA_CLIENT_CALLS_H
#define UMBRA_CLIENT_CALLS_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BUSY_LOAD_NS 250000000ll

struct client_calls {
	void *(*mmap)(void *, size_t, int, int, int, off_t);
	int (*munmap)(void *, size_t);
	void *(*mremap)(void *, size_t, size_t, int, ...);
	int (*mprotect)(void *, size_t, int);
	int (*madvise)(void *, size_t, int);
	int (*msync)(void *, size_t, int);
	int (*action)(int, const struct sigaction *, struct sigaction *);
	int (*mask)(int, const sigset_t *, sigset_t *);
	/* A descriptor of the library's own, of an open file; and its end. The process may have record locks of that file. */
	int (*fd_dup)(int fd);
	void (*fd_close)(int fd);
	/* Takes over what the library has opened for itself: the number that it has from now on. */
	int (*fd_own)(int fd);
	/* Such a one gets the number of another one, and fd ends. 0, or -errno. */
	int (*fd_move)(int fd, int to);
	/* What the kernel writes to an open file by calls goes around its pages from now on. NULL: somebody else sees to that. */
	void (*fd_bypass)(int fd);
	/* How long a store to a mapping waits for others who have the file open through the kernel, before the mapping becomes the kernel's too (a load waits BUSY_LOAD_NS at most). */
	int64_t busy_ns;
	/* The file is the kernel's in this process from now on. NULL: nobody wants to know. */
	void (*file_left)(uint64_t dev, uint64_t ino);
};
/* Changed before main(), if at all. */
extern struct client_calls client_calls;

#endif
