/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See again.h.
 */
#include "fuse/again.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>

#include <umbra/ioctl.h>

#include "fuse/ops.h"
#include "fuse/resend_wire.h"
#include "util/log.h"

/* Those of the private ioctls that may not be done twice and are not known to be done. They are the administrator's, who can see for himself. */
static bool ioctl_is_lost(unsigned cmd)
{
	return cmd == UMBRA_IOC_REPAIR || cmd == UMBRA_IOC_GROW || cmd == UMBRA_IOC_POISON ||
	       cmd == UMBRA_IOC_POISON_CLEAR || cmd == UMBRA_IOC_EVACUATE;
}

static bool ioctl_wants(unsigned cmd)
{
	return cmd == UMBRA_IOC_CLONE_RANGE || cmd == UMBRA_IOC_DEDUPE_RANGE || cmd == UMBRA_IOC_FALLOCATE ||
	       cmd == UMBRA_IOC_CLONE_FILES;
}

static bool is_append(const void *body, size_t size)
{
	const struct fuse_write_in *in = body;

	return size >= sizeof(*in) && in->flags & O_APPEND && !(in->write_flags & FUSE_WRITE_CACHE);
}

static bool sets_size(const void *body, size_t size)
{
	const struct fuse_setattr_in *in = body;

	return size >= sizeof(*in) && in->valid & FATTR_SIZE;
}

static unsigned ioctl_cmd(const void *body, size_t size)
{
	return size >= sizeof(struct fuse_ioctl_in) ? ((const struct fuse_ioctl_in *)body)->cmd : 0;
}

/* What cannot be carried out twice with the same outcome. */
static bool request_wants(const struct fuse_in_header *in, size_t size)
{
	switch (in->opcode) {
	case FUSE_LOOKUP:
	case FUSE_CREATE:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_SYMLINK:
	case FUSE_LINK:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_OPEN:
	case FUSE_RELEASE:
	case FUSE_SETXATTR:
	case FUSE_REMOVEXATTR:
		return true;
	case FUSE_SETATTR:
		return sets_size(in + 1, size - sizeof(*in));
	case FUSE_WRITE:
		return is_append(in + 1, size - sizeof(*in));
	case FUSE_IOCTL:
		return ioctl_wants(ioctl_cmd(in + 1, size - sizeof(*in)));
	default:
		return false;
	}
}

static void reply_eio(struct session *session, const struct fuse_in_header *in)
{
	struct fuse_out_header out = { sizeof(out), -EIO, in->unique };
	struct iovec iov = { &out, sizeof(out) };

	(void)!session_send(session, &iov, 1);
}

static bool refuse(struct session *session, const struct fuse_in_header *in)
{
	log_warn("request %u of process %u was under way when the daemon ended; it is answered with EIO",
		 in->opcode, in->pid);
	reply_eio(session, in);
	return false;
}

/* False: nobody could tell the next daemon what it was, so there is no mount with a keeper. */
static bool init_begin(struct session *session, const char *request, size_t size)
{
	if (kept_init(session->kept, request, size))
		return true;
	log_error("the kernel's first request is too long to be kept: %zu bytes", size);
	reply_eio(session, (const void *)request);
	session_init_over(session, -EIO);
	return false;
}

bool again_begin(struct session *session, char *request, size_t size)
{
	const struct fuse_in_header *in = (const void *)request;
	struct txn_receipt *r;

	kept_now = NULL;
	if (size < sizeof(*in))
		return true;
	if (in->opcode == FUSE_INIT && !atomic_load(&kept_head(session->kept)->is_agreed))
		return init_begin(session, request, size);
	if (wire_now.is_again && in->opcode == FUSE_IOCTL &&
	    ioctl_is_lost(ioctl_cmd(in + 1, size - sizeof(*in))))
		return refuse(session, in);
	if (!request_wants(in, size))
		return true;
	r = wire_now.is_again ? kept_find(session->kept, wire_now.unique) : NULL;
	if (!r && wire_now.is_again && atomic_load(&kept_head(session->kept)->receipts_short))
		return refuse(session, in);
	if (!r)
		r = kept_claim(session->kept, wire_now.unique);
	kept_now = r;
	fs_receipt_set(r);
	return true;
}

void again_end(void)
{
	if (!kept_now)
		return;
	/* Another thread answers it. */
	kept_now = NULL;
	fs_receipt_set(NULL);
}

bool again_is_done(int *result)
{
	if (!receipt_is_done(kept_now))
		return false;
	*result = kept_now->result;
	return true;
}

bool again_is_made(struct fs *fs, struct inode_attr *attr, int *rc)
{
	int result;

	if (!again_is_done(&result) || !receipt_has(kept_now, RECEIPT_MAKES))
		return false;
	if (receipt_has(kept_now, RECEIPT_REF)) {
		*rc = fs_getattr(fs, (uint64_t)kept_now->value, attr);
	} else {
		*rc = fs_ref(fs, (uint64_t)kept_now->value, 0, attr);
		if (*rc == 0)
			receipt_note(kept_now, RECEIPT_REF);
	}
	return true;
}

uint64_t again_so_far(void)
{
	return receipt_is_done(kept_now) ? (uint64_t)kept_now->value : 0;
}

void again_looked_up(uint64_t ino)
{
	if (!kept_now)
		return;
	kept_now->value = (int64_t)ino;
	receipt_note(kept_now, RECEIPT_REF);
}

void again_lookup(struct fs *fs)
{
	if (!receipt_has(kept_now, RECEIPT_REF))
		return;
	atomic_fetch_and(&kept_now->flags, ~RECEIPT_REF);
	fs_forget(fs, (uint64_t)kept_now->value, 1);
}

void again_opened(unsigned flags)
{
	if (!kept_now)
		return;
	atomic_store(&kept_now->flags, (atomic_load(&kept_now->flags) & (RECEIPT_MAKES | RECEIPT_REF)) |
					       RECEIPT_OPENED | flags << RECEIPT_OPEN_SHIFT);
}

bool again_is_opened(unsigned *flags)
{
	if (!receipt_has(kept_now, RECEIPT_OPENED))
		return false;
	*flags = atomic_load(&kept_now->flags) >> RECEIPT_OPEN_SHIFT;
	/* It is counted down after this: once, whoever is killed. */
	atomic_fetch_and(&kept_now->flags, ~RECEIPT_OPENED);
	return true;
}

bool again_release(void)
{
	if (receipt_has(kept_now, RECEIPT_RELEASED))
		return false;
	receipt_note(kept_now, RECEIPT_RELEASED);
	return true;
}

uint64_t again_source(void)
{
	return kept_now ? kept_now->source : 0;
}

void again_took_token(uint64_t ino)
{
	if (kept_now)
		kept_now->source = ino;
}
