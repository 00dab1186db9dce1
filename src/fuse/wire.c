/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests and replies as they go over /dev/fuse. See wire.h.
 *
 * Numbers that newer kernels added are spelled out here, so that older system headers do.
 */
#include "fuse/wire.h"

#include <assert.h>
#include <linux/fuse.h>
#include <string.h>

#include "fuse/resend_wire.h"
#include "fuse/uring_wire.h"

#define OPCODE_TMPFILE 51u
#define OPCODE_STATX 52u
#define OPCODE_COPY_FILE_RANGE_64 53u

#define FEATURE_KILLPRIV_V2 (1ull << 28)
#define FEATURE_SETXATTR_EXT (1ull << 29)
#define FEATURE_INIT_EXT (1ull << 30)
#define FEATURE_DIRECT_IO_MMAP (1ull << 36)

#define DIRECT_BULK_MINOR 44u

#define SETATTR_KILL_SUIDGID (1u << 11)
#define OPEN_KILL_SUIDGID (1u << 0)
#define WRITE_KILL_SUIDGID (1u << 2)
#define SETXATTR_ACL_KILL_SGID (1u << 0)

/* INIT carries the high half of the features right after what it had in its first form. */
struct init_in {
	uint32_t major, minor, max_readahead, flags, flags2;
};

/* SETXATTR in its long form; the short one is the first half. */
struct setxattr_in {
	uint32_t size, flags, setxattr_flags, pad;
};
#define SETXATTR_SHORT 8u

static_assert(sizeof(struct wire_statx_out) == 288, "the protocol's fuse_statx_out");
static_assert(sizeof(struct wire_statx_in) == 24, "the protocol's fuse_statx_in");

_Thread_local struct wire_now wire_now;

static void take_init(struct wire *wire, const struct fuse_in_header *in, const void *body, size_t body_size)
{
	const struct init_in *init = body;

	if (body_size < offsetof(struct init_in, flags2))
		return;
	wire->init_unique = in->unique;
	wire->minor = init->minor;
	wire->offered = init->flags;
	if ((init->flags & FEATURE_INIT_EXT) && body_size >= sizeof(*init))
		wire->offered |= (uint64_t)init->flags2 << 32;
}

/*
 *	header | size flags setxattr_flags pad | name value	==>	(8 bytes) header | size flags | name value
 */
static void compact_setxattr(char **request, size_t *size_bytes)
{
	struct fuse_in_header *in = (struct fuse_in_header *)*request;
	struct setxattr_in *arg = (struct setxattr_in *)(in + 1);
	size_t cut = sizeof(*arg) - SETXATTR_SHORT;

	if (*size_bytes < sizeof(*in) + sizeof(*arg))
		return;
	wire_now.acl_kill_sgid = arg->setxattr_flags & SETXATTR_ACL_KILL_SGID;
	in->len -= (uint32_t)cut;
	memmove(*request + cut, *request, sizeof(*in) + SETXATTR_SHORT);
	*request += cut;
	*size_bytes -= cut;
}

enum wire_verdict wire_request(struct wire *wire, char **request, size_t *size_bytes)
{
	struct fuse_in_header *in = (struct fuse_in_header *)*request;
	const void *body = in + 1;

	if (*size_bytes < sizeof(*in))
		return WIRE_DROP;
	size_t body_size = *size_bytes - sizeof(*in);

	wire_now = (struct wire_now){
		.unique = in->unique & ~RESEND_UNIQUE,
		.is_again = in->unique & RESEND_UNIQUE,
	};
	switch (in->opcode) {
	case FUSE_INIT:
		take_init(wire, in, body, body_size);
		break;
	/*
	 * Nothing that waits is broken off: neither for who maps the file (revoke_ms at most) nor for pages of the kernel, since what has begun by then goes on. The caller, also one that is
	 * killed, has its answer when that is over; the kernel asks for no other one to this.
	 */
	case FUSE_INTERRUPT:
		return WIRE_DROP;
	case FUSE_READ: /* what goes to or from a process's memory names the owner of its locks */
		if (body_size >= sizeof(struct fuse_read_in))
			wire_now.direct = ((const struct fuse_read_in *)body)->read_flags &
					  FUSE_READ_LOCKOWNER;
		break;
	case FUSE_WRITE:
		if (body_size >= sizeof(struct fuse_write_in)) {
			uint32_t flags = ((const struct fuse_write_in *)body)->write_flags;

			wire_now.kill_suidgid = flags & WRITE_KILL_SUIDGID;
			wire_now.direct = flags & FUSE_WRITE_LOCKOWNER;
		}
		break;
	case FUSE_OPEN:
		if (body_size >= sizeof(struct fuse_open_in))
			wire_now.kill_suidgid = ((const uint32_t *)body)[1] & OPEN_KILL_SUIDGID;
		break;
	case FUSE_SETATTR:
		if (body_size >= sizeof(struct fuse_setattr_in))
			wire_now.kill_suidgid = ((const struct fuse_setattr_in *)body)->valid &
						SETATTR_KILL_SUIDGID;
		break;
	case FUSE_SETXATTR:
		if (wire->compact_setxattr)
			compact_setxattr(request, size_bytes);
		break;
	case OPCODE_TMPFILE: /* laid out as CREATE, with a name that means nothing */
		wire_now.tmpfile = true;
		in->opcode = FUSE_CREATE;
		break;
	/*
	 * The same with an answer of 64 bits. It must be known: two threads that both hear at once that it is not make the kernel take the older
	 * one for unknown too (Linux 6.18), and copy by itself from then on.
	 */
	case OPCODE_COPY_FILE_RANGE_64:
		wire_now.copy_64 = true;
		in->opcode = FUSE_COPY_FILE_RANGE;
		break;
	case OPCODE_STATX:
		return body_size >= sizeof(struct wire_statx_in) ? WIRE_STATX : WIRE_PASS;
	default:
		break;
	}
	return WIRE_PASS;
}

bool wire_reply(struct wire *wire, const struct iovec *iov, int count)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	struct fuse_init_out *init;
	uint64_t flags, wanted;

	if (atomic_load_explicit(&wire->ready, memory_order_relaxed) || out->unique != wire->init_unique)
		return false;
	if (out->error || count < 2 || iov[1].iov_len < sizeof(*init))
		return true;
	init = iov[1].iov_base;
	flags = init->flags | (uint64_t)init->flags2 << 32;
	wanted = FEATURE_KILLPRIV_V2 | FEATURE_SETXATTR_EXT | FEATURE_INIT_EXT;
	if (wire->want_direct_mmap)
		wanted |= FEATURE_DIRECT_IO_MMAP;
	if (wire->want_uring)
		wanted |= URING_FEATURE;
	wanted &= wire->offered;
	wire->compact_setxattr = (wanted & ~flags & FEATURE_SETXATTR_EXT) != 0;
	flags |= wanted;
	init->flags = (uint32_t)flags;
	init->flags2 = (uint32_t)(flags >> 32);
	wire->agreed = flags;
	atomic_store_explicit(&wire->ready, true, memory_order_release);
	return true;
}

bool wire_resends(const struct wire *wire)
{
	return wire->offered & RESEND_FEATURE;
}

bool wire_kill_flags(const struct wire *wire)
{
	return wire->agreed & FEATURE_KILLPRIV_V2;
}

bool wire_direct_mmap(const struct wire *wire)
{
	return wire->agreed & FEATURE_DIRECT_IO_MMAP;
}

bool wire_uring(const struct wire *wire)
{
	return wire->agreed & URING_FEATURE;
}

bool wire_direct_bulk(const struct wire *wire)
{
	return wire->minor >= DIRECT_BULK_MINOR;
}
