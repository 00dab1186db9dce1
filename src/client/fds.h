/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The descriptors of an unmodified program: which of them are files whose data can be read and written directly. Nobody tells of open(): a descriptor is looked at
 * when enough positional calls have been made on it, and is attached then (<umbra/umbra.h>). All that ends a descriptor has to be told here before
 * it happens: no entry outlives its descriptor.
 *
 * A description that has been attached stays O_DIRECT for good, so that whatever the kernel reads through it, in whichever process, is what is there: the daemon
 * does not count it among the opens that have a page cache any more. The program sees the flag as it has set it.
 */
#ifndef UMBRA_CLIENT_FDS_H
#define UMBRA_CLIENT_FDS_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "util/util.h"

/* Around what is not fast: no handler of the program's, and no cancellation, comes in between; errno stays. */
struct slow {
	sigset_t signals;
	int cancel, error;
};
struct slow slow_begin(void);
void slow_end(const struct slow *s);
/* Not within slow_begin(), nor in a data call: this is no handler that has come in between. */
bool fds_is_quiet(void);

/* What the kernel has done, and why: for UMBRA_STATS. */
enum fds_why {
	BY_FEW_CALLS,
	BY_OTHER_FILE,
	BY_MAPPED,
	BY_LIMIT,
	BY_SMALL_MAPPING,
	BY_OTHER_MAPPING,
	BY_OFFSET,
	BY_SIZE,
	WHY_COUNT
};
void fds_tell(enum fds_why why);

/* Before main(). False: no direct calls in this process. */
bool fds_init(void);

bool fds_are_on(void);
/* False: in a child by vfork(), whose memory is its parent's, but whose descriptors and signals are not. */
bool fds_are_own(void);

/* True: it is done, with *rc as the system call has it, and errno. False: it is the kernel's. */
must_check bool fds_call(int fd, void *buf, size_t size, off_t off, bool store, ssize_t *rc);

/* The same at the offset of the description (offset.h), for the parts of a list: in all no more than the kernel does in one call. flags: as of preadv2(). */
must_check bool fds_call_here(int fd, const struct iovec *parts, int count, bool store, int flags,
			      ssize_t *rc);
/* lseek(). False: it is the kernel's. */
must_check bool fds_seek(int fd, off_t off, int whence, off_t *to);

/* It is not known to be the kernel's. */
bool fds_maybe(int fd);
/* guard_copy_user() can be used. */
bool fds_guard(void);

/*
 * Around what closes fd, or gives it to another file. Calls that are under way are waited for. False: it is a descriptor of this library's, which the program
 * does not have; fds_ended() is not to be called.
 */
must_check bool fds_end(int fd);
void fds_ended(int fd);
/* Around what closes many: first to last, of which none is a descriptor of ours (own_from()). */
void fds_end_range(unsigned first, unsigned last);
void fds_ended_range(unsigned first, unsigned last);

/* The file of fd is mapped by the kernel from now on, or is to be: it is the kernel's in this process, with all its mappings. False: it
 * is no file of ours. */
bool fds_mapped(int fd);
/*
 * For a mapping of it by mmap_own(), with a descriptor of the library's; worth: for that one it pays to begin with direct calls. Between slow_begin() and slow_end(). NULL: the kernel's.
 */
struct umbra_file *fds_attach(int fd, bool worth, bool store);
/* One has been made. */
void fds_maps_directly(void);
/* F_GETFL's answer, and F_SETFL's argument, as the program, and the kernel, are to see it. */
int fds_flags_seen(int fd, int flags);
int fds_flags_set(int fd, int flags);
/* Direct writes know nothing of RLIMIT_FSIZE: none from now on. */
void fds_no_writes(void);
/* No direct calls from now on. */
void fds_off(void);
/* Before main(), if the process is to say at its end what it has done; and that end, once. */
void fds_counts_begin(void);
void fds_say_counts(void);

#endif
