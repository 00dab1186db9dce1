/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests about extended attributes. POSIX ACLs come as system.posix_acl_access and system.posix_acl_default.
 */
#include <errno.h>
#include <string.h>

#include "fuse/again.h"
#include "fuse/ops.h"

void ops_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	int rc;

	if (size > OPS_WRITE_MAX) {
		ops_reply(req, -E2BIG);
		return;
	}
	/* It stands behind the name, at any address; ACLs are looked at as structures. */
	memcpy(worker_now->buf, value, size);
	/* Capabilities of the file go with what was stored directly before, not after. */
	direct_look(req_session(req), ino);
	if (!again_is_done(&rc))
		rc = fs_setxattr(req_session(req)->fs, ino, name, worker_now->buf, size, flags,
				 wire_now.acl_kill_sgid);
	ops_reply(req, rc);
}

/* n: what the file system said for a buffer of size bytes; 0 asks for the length. */
static void reply_value(fuse_req_t req, ssize_t n, size_t size)
{
	if (n < 0)
		ops_reply(req, (int)n);
	else if (size == 0)
		fuse_reply_xattr(req, (size_t)n);
	else
		fuse_reply_buf(req, worker_now->buf, (size_t)n);
}

void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	size = u64_min(size, OPS_WRITE_MAX);
	reply_value(req, fs_getxattr(req_session(req)->fs, ino, name, worker_now->buf, size), size);
}

/* Names of trusted attributes are for root alone: takes them out of the list. */
static ssize_t hide_trusted(char *list, ssize_t n)
{
	static const char prefix[] = "trusted.";
	ssize_t kept = 0;

	for (ssize_t at = 0; at < n;) {
		ssize_t len = (ssize_t)strlen(list + at) + 1;

		if (strncmp(list + at, prefix, sizeof(prefix) - 1) != 0) {
			memmove(list + kept, list + at, (size_t)len);
			kept += len;
		}
		at += len;
	}
	return kept;
}

void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	ssize_t n = fs_listxattr(req_session(req)->fs, ino, worker_now->buf, OPS_WRITE_MAX);

	if (n > 0 && fuse_req_ctx(req)->uid != 0)
		n = hide_trusted(worker_now->buf, n);
	if (n > 0 && size != 0 && (size_t)n > size)
		n = -ERANGE;
	reply_value(req, n, size);
}

void ops_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	int rc;

	if (!again_is_done(&rc))
		rc = fs_removexattr(req_session(req)->fs, ino, name);
	ops_reply(req, rc);
}
