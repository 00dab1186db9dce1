/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libumbra: data of files on a umbrafs mount, straight from the device. Link with -lumbra (pkg-config umbra).
 *
 * A file is opened with open(2), which decides about rights, and then handed to umbra_attach(). What cannot be done directly is done by the
 * kernel, with the same result: only speed tells. All functions may be called from any thread at any time, but not from signal handlers. After fork() a child
 * attaches its files anew when it first uses them, by the descriptors that it has. When the daemon ends all wait for the next one (UMBRA_RESTART). More in libumbra(3). Functions return what the system call of that name would, or -errno (errno itself is not set).
 */
#ifndef UMBRA_UMBRA_H
#define UMBRA_UMBRA_H

#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct umbra_file;

/*
 * fd: an open regular file; it stays the caller's and has to stay open until umbra_detach(). It is not used with O_APPEND set later. If it is open for
 * writing its description (which dup(2) and fork(2) share) is O_DIRECT from then on, for good: on umbrafs that wants no alignment, and only says that the kernel's calls pass its page cache by.
 * Nobody clears that while anybody has the file attached. What the kernel's own calls do with it is seen here, and the other way round, at the price of some waiting each time.
 * While the daemon gives this user no session, since one of his processes has let others wait, the file is attached all the same: all is done by the kernel, and it is tried again now and then.
 *	-EOPNOTSUPP	not on a umbrafs mount, or the mount gives this user no direct access (option direct); there is nothing to detach
 *	-EBADF, -EINVAL	not an open regular file
 */
int umbra_attach(int fd, struct umbra_file **file);
/* NULL: nothing happens. Nobody uses the file any more. */
void umbra_detach(struct umbra_file *file);

/*
 * As pread(2) and pwrite(2). What umbra_pwrite() has written is durable when it returns. A bad buf is not -EFAULT, but SIGSEGV (unless it lies in a mapping by umbra_mmap()). Calls beside each other are not atomic: a read may see
 * some of a write, two writes to the same bytes may leave any mixture.
 */
ssize_t umbra_pread(struct umbra_file *file, void *buf, size_t size, off_t off);
ssize_t umbra_pwrite(struct umbra_file *file, const void *buf, size_t size, off_t off);

/*
 * As mmap(2) of the file's descriptor, for which it need not stay open, nor attached. On failure the result is -errno as a pointer: see umbra_mmap_error(). Nothing has changed then:
 *	-EOPNOTSUPP	not directly: a private mapping to be written, PROT_EXEC, a file without blocks of its own, a device with pages of more than 2 MiB ...; use mmap(2)
 *	else		as mmap(2)
 * Addresses of such mappings are given to the functions of this library and to no system call: libumbra(3).
 */
void *umbra_mmap(void *addr, size_t len, int prot, int flags, struct umbra_file *file, off_t off);
/* 0, or the -errno that umbra_mmap() has returned. */
static inline int umbra_mmap_error(const void *addr)
{
	return (unsigned long)addr >= (unsigned long)-4095L ? (int)(long)addr : 0;
}
/*
 * As the system calls, of any addresses, on a device of large pages too. umbra_msync(): whatever the flags are it is done when it returns. umbra_mprotect() to what umbra_mmap()
 * does not give makes the mapping the kernel's. umbra_mremap(): -errno as umbra_mmap(); new_addr is read with MREMAP_FIXED only.
 */
int umbra_munmap(void *addr, size_t len);
int umbra_msync(void *addr, size_t len, int flags);
int umbra_mprotect(void *addr, size_t len, int prot);
int umbra_madvise(void *addr, size_t len, int advice);
void *umbra_mremap(void *addr, size_t old_len, size_t new_len, int flags, void *new_addr);

/* What has been done directly and what has gone to the kernel, by this process. */
struct umbra_counts {
	unsigned long long reads, read_bytes, writes, written_bytes; /* directly */
	unsigned long long kernel_reads, kernel_writes;              /* by the kernel */
	unsigned long long maps, revokes, lost_sessions;             /* messages */
};
void umbra_get_counts(struct umbra_counts *counts);

/* Version of the library, as text. */
const char *umbra_version(void);

#ifdef __cplusplus
}
#endif
#endif
