/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * UMBRA_IOC_GROW: the pool takes in what its device or file has gained.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <umbra/ioctl.h>

#include "fuse/ops.h"
#include "space/space.h"
#include "util/log.h"

void ops_grow(fuse_req_t req, const void *in)
{
	struct pool *pool = fs_pool(req_session(req)->fs);
	uid_t uid = fuse_req_ctx(req)->uid;
	struct umbra_grow arg;
	int rc = -EPERM;

	memcpy(&arg, in, sizeof(arg));
	if (uid == 0 || uid == getuid())
		rc = arg.pad[0] || arg.pad[1] ? -EINVAL : 0;
	if (!rc) {
		arg.old_size = pool_size_blk(pool) * BLOCK_SIZE;
		rc = space_grow(pool, arg.size);
	}
	if (rc) {
		ops_reply(req, rc);
		return;
	}
	arg.size = pool_size_blk(pool) * BLOCK_SIZE;
	log_info("grown from %llu to %llu bytes", (unsigned long long)arg.old_size,
		 (unsigned long long)arg.size);
	fuse_reply_ioctl(req, 0, &arg, sizeof(arg));
}
