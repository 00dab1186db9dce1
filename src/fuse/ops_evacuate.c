/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * UMBRA_IOC_EVACUATE: a range of the device is emptied, a piece with each call.
 */
#include <errno.h>
#include <unistd.h>

#include <umbra/ioctl.h>

#include "fuse/ops.h"
#include "util/log.h"

#define STEP_BYTES ((uint64_t)16 << 20) /* some ms */

static void result_fill(struct umbra_evacuate *arg, const struct fs_evacuation *e)
{
	arg->id = e->id;
	arg->off = e->dev_off;
	arg->len = e->len;
	arg->needed_bytes = e->needed_bytes;
	arg->free_bytes = e->free_bytes;
	arg->needed_chunks = e->needed_chunks;
	arg->free_chunks = e->free_chunks;
	arg->total_bytes = e->total_bytes;
	arg->data_bytes = e->data_bytes;
	arg->shared_bytes = e->shared_bytes;
	arg->meta_bytes = e->meta_bytes;
	arg->left_bytes = e->left_bytes;
}

static int start(struct fs *fs, struct umbra_evacuate *arg)
{
	struct fs_evacuation e = {
		.dev_off = arg->off,
		.len = arg->len,
		.mark_bad = arg->flags & UMBRA_EVACUATE_MARK_BAD,
	};
	int rc;

	if (arg->flags & ~UMBRA_EVACUATE_MARK_BAD)
		return -EINVAL;
	rc = fs_evacuate(fs, &e);
	if (rc && rc != -ENOSPC)
		return rc;
	result_fill(arg, &e);
	arg->state = UMBRA_EVACUATE_RUNS;
	arg->error = (uint32_t)-rc;
	return 0;
}

static int step(struct fs *fs, struct umbra_evacuate *arg)
{
	struct fs_evacuation e;
	int rc = fs_evacuate_step(fs, arg->id, STEP_BYTES, &e);

	if (rc == -ECANCELED)
		return rc;
	result_fill(arg, &e);
	arg->state = rc == 0 ? UMBRA_EVACUATE_DONE : UMBRA_EVACUATE_RUNS;
	arg->error = (uint32_t)(rc < 0 ? -rc : 0);
	if (rc == 0)
		log_info("the device from %llu to %llu is empty, but for %llu bytes that stay",
			 (unsigned long long)e.dev_off, (unsigned long long)(e.dev_off + e.len),
			 (unsigned long long)e.left_bytes);
	return 0;
}

int evacuate_change(struct fs *fs, uid_t uid, struct umbra_evacuate *arg)
{
	if (uid != 0 && uid != getuid())
		return -EPERM;
	for (size_t i = 0; i < ARRAY_SIZE(arg->pad); i++)
		if (arg->pad[i])
			return -EINVAL;
	arg->state = arg->error = 0;
	switch (arg->op) {
	case UMBRA_EVACUATE_START:
		return start(fs, arg);
	case UMBRA_EVACUATE_STEP:
		return step(fs, arg);
	case UMBRA_EVACUATE_STOP:
		fs_evacuate_stop(fs, arg->id);
		return 0;
	default:
		return -EINVAL;
	}
}
