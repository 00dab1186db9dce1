/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What libfuse does not show of a request, taken from the request itself.
 *
 * Debian's libfuse is older than some of the kernel's protocol. A worker hands each request to wire_request() before libfuse sees
 * it: flags that libfuse drops are put into wire_now (of the thread: a request is carried out by the thread that read it), and requests
 * that libfuse cannot parse are rewritten into ones that it can. wire_reply() asks the kernel for the features that belong to
 * them, in libfuse's answer to INIT.
 */
#ifndef UMBRA_FUSE_WIRE_H
#define UMBRA_FUSE_WIRE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct wire {
	uint64_t init_unique;  /* of the INIT request */
	uint64_t offered;      /* FUSE_* feature flags of the kernel */
	uint64_t agreed;       /* those in force, ours and libfuse's */
	bool compact_setxattr; /* we asked for the long form, libfuse knows the short one */
	bool want_direct_mmap; /* the caller's wish, set before INIT */
	bool want_uring;       /* the caller's wish, set before INIT */
	uint32_t minor;        /* protocol 7.minor that the kernel speaks */
	_Atomic bool ready;    /* INIT has been answered */
};

/* Of the request that this thread is at. */
struct wire_now {
	uint64_t unique;    /* as it was when it was asked first */
	bool is_again;      /* a daemon before this one was at it */
	bool kill_suidgid;  /* write, open, setattr: clear setuid and setgid */
	bool acl_kill_sgid; /* setxattr of an access ACL: clear setgid */
	bool tmpfile;       /* create without a name */
	bool copy_64;       /* copy_file_range: the answer has 64 bits */
	bool direct;        /* read, write: around the page cache */
};
extern _Thread_local struct wire_now wire_now;

enum wire_verdict {
	WIRE_PASS,  /* *request, *size_bytes are libfuse's */
	WIRE_DROP,  /* needs neither answer nor action */
	WIRE_STATX, /* not for libfuse: call ops_statx() */
};

/* Looks at a request of *size_bytes read from the kernel; it may move its start. */
enum wire_verdict wire_request(struct wire *wire, char **request, size_t *size_bytes);

/* Looks at a reply before it is written; adds features to the answer to INIT. Whether it is that answer. */
bool wire_reply(struct wire *wire, const struct iovec *iov, int count);

/* Whether requests that were not answered can be sent again. */
bool wire_resends(const struct wire *wire);
/* Whether the kernel says by itself when setuid and setgid bits have to go. */
bool wire_kill_flags(const struct wire *wire);
/* Whether files that bypass the page cache can still be mapped shared. */
bool wire_direct_mmap(const struct wire *wire);
/* Whether requests are to go over io_uring; those that cannot wait for its queues. */
bool wire_uring(const struct wire *wire);
/*
 * Whether direct writes and the page cache can be kept coherent: pages are dropped after a direct write too (since 7.42), and
 * dropping a page waits for its write-back (since 7.44; before, a copy of it was on its way).
 */
bool wire_direct_bulk(const struct wire *wire);

/* STATX (since 7.39), in the layout of the protocol; system headers may be older. */
struct wire_statx_in {
	uint32_t getattr_flags, reserved;
	uint64_t fh;
	uint32_t sx_flags, sx_mask;
};

struct wire_sx_time {
	int64_t s;
	uint32_t ns;
	int32_t reserved;
};

struct wire_statx_out {
	uint64_t attr_valid_s;
	uint32_t attr_valid_ns, flags;
	uint64_t spare[2];
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, pad;
	uint64_t ino, size, blocks, attributes_mask;
	struct wire_sx_time atime, btime, ctime, mtime;
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t spare2[14];
};

#endif
