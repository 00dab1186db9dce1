/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The private ioctls about bad memory: losses, events, blocks taken out of use by hand, or given back.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <umbra/ioctl.h>

#include "fuse/events.h"
#include "fuse/ops.h"
#include "util/log.h"

#define BATCH 64u

static bool is_operator(fuse_req_t req)
{
	uid_t uid = fuse_req_ctx(req)->uid;

	return uid == 0 || uid == getuid();
}

static uint32_t path_get(struct fs *fs, uint64_t ino, char *path, size_t size, size_t *len)
{
	int rc = fs_path(fs, ino, path, size);

	*len = rc == 0 ? strlen(path) : 0;
	return rc == -ENAMETOOLONG ? UMBRA_OWNER_PATH_LONG : (uint32_t)*len;
}

/* Appends a record with a path behind it; 0: no room, else its size, which the record is to hold. */
static size_t record_put(uint8_t *data, size_t *used, size_t record_size, const char *path, size_t path_len)
{
	size_t size = u64_align_up(record_size + path_len, 8);

	if (size > UMBRA_OWNERS_DATA - *used)
		return 0;
	memcpy(data + *used + record_size, path, path_len);
	return size;
}

static bool loss_put(struct fs *fs, const struct fs_loss *loss, struct umbra_losses *reply, size_t *used)
{
	char path[OPS_PATH_MAX];
	struct umbra_loss record = {
		.ino = loss->ino,
		.file_off = loss->file_off,
		.lost_lines = loss->lost_lines,
		.since_s = (uint64_t)loss->since_s,
	};
	size_t path_len, size;

	record.path_len = path_get(fs, loss->ino, path, sizeof(path), &path_len);
	size = record_put(reply->data, used, sizeof(record), path, path_len);
	record.record_size = (uint32_t)size;
	if (size == 0)
		return false;
	memcpy(reply->data + *used, &record, sizeof(record));
	*used += size;
	reply->count++;
	return true;
}

static int losses_list(struct fs *fs, struct umbra_losses *reply)
{
	struct fs_losses_pos pos = { (uint32_t)reply->cursor[0], reply->cursor[1], reply->cursor[2] };
	struct fs_loss losses[BATCH];
	size_t used = 0;
	unsigned count, i;

	do {
		int rc = fs_losses(fs, &pos, losses, BATCH, &count);

		if (rc)
			return rc;
		for (i = 0; i < count && loss_put(fs, &losses[i], reply, &used); i++)
			pos = losses[i].after;
	} while (count > 0 && i == count);
	reply->cursor[0] = pos.agno;
	reply->cursor[1] = pos.ino;
	reply->cursor[2] = pos.blk;
	return 0;
}

void ops_losses(fuse_req_t req, const void *in)
{
	struct umbra_losses *reply = (void *)worker_now->buf;
	int rc;

	memset(reply, 0, sizeof(*reply));
	memcpy(reply, in, offsetof(struct umbra_losses, count));
	rc = !is_operator(req) ? -EPERM : 0;
	if (!rc && (reply->cursor[0] > UINT32_MAX || ((const struct umbra_losses *)in)->pad))
		rc = -EINVAL;
	if (!rc)
		rc = losses_list(req_session(req)->fs, reply);
	if (rc)
		ops_reply(req, rc);
	else
		fuse_reply_ioctl(req, 0, reply, sizeof(*reply));
}

void ops_damage(fuse_req_t req)
{
	struct umbra_damage reply = { 0 };
	struct fs_damage damage;
	int rc = fs_damage(req_session(req)->fs, &damage);

	if (rc) {
		ops_reply(req, rc);
		return;
	}
	reply.lost_files = damage.lost_files;
	reply.lost_blocks = damage.lost_blk;
	reply.lost_bytes = damage.lost_bytes;
	reply.bad_blocks = damage.bad_blk;
	fuse_reply_ioctl(req, 0, &reply, sizeof(reply));
}

static bool event_put(struct fs *fs, const struct event *event, struct umbra_events *reply, size_t *used)
{
	const struct fs_poison *p = &event->poison;
	char path[OPS_PATH_MAX];
	struct umbra_event record = event_record(event);
	size_t path_len = 0, size;

	if (p->ino != 0)
		record.path_len = path_get(fs, p->ino, path, sizeof(path), &path_len);
	size = record_put(reply->data, used, sizeof(record), path, path_len);
	record.record_size = (uint16_t)size;
	if (size == 0)
		return false;
	memcpy(reply->data + *used, &record, sizeof(record));
	*used += size;
	reply->count++;
	reply->after = event->number;
	return true;
}

void ops_events(fuse_req_t req, const void *in)
{
	struct umbra_events *reply = (void *)worker_now->buf;
	struct session *session = req_session(req);
	struct event list[BATCH];
	size_t used = 0;
	const struct umbra_events *arg = in;
	uint64_t missed, from;
	unsigned count;

	memset(reply, 0, sizeof(*reply));
	if (!is_operator(req) || arg->pad) {
		ops_reply(req, arg->pad ? -EINVAL : -EPERM);
		return;
	}
	count = events_get(session->events, arg->after, list, BATCH, &missed, &from);
	reply->after = from;
	reply->missed = missed;
	for (unsigned i = 0; i < count && event_put(session->fs, &list[i], reply, &used); i++)
		;
	fuse_reply_ioctl(req, 0, reply, sizeof(*reply));
}

/* Whole blocks of the file system, not too many. */
static bool range_is_sound(struct fs *fs, uint64_t off, uint64_t len)
{
	uint64_t size = pool_size_blk(fs_pool(fs)) * BLOCK_SIZE;

	return (off | len) % BLOCK_SIZE == 0 && len > 0 && len <= UMBRA_POISON_MAX && off < size &&
	       len <= size - off;
}

#define PASSES 3u

enum taking { TAKEN, LATER, BUSY };

/* The first error that is neither later nor busy; *count: blocks before it. */
static int pass_take(struct fs *fs, uint64_t off, bool again, uint8_t *taking, uint64_t *count)
{
	for (uint64_t i = 0; i < *count; i++) {
		int rc;

		if (again && taking[i] != BUSY)
			continue;
		rc = fs_poison_add(fs, off + i * BLOCK_SIZE);
		taking[i] = rc == -EBUSY ? BUSY : rc == -EINPROGRESS ? LATER : TAKEN;
		if (rc && taking[i] == TAKEN) {
			*count = i;
			return rc;
		}
	}
	return 0;
}

static void range_take(struct fs *fs, struct umbra_poison *arg)
{
	uint8_t taking[UMBRA_POISON_MAX / BLOCK_SIZE];
	uint64_t count = arg->len / BLOCK_SIZE;
	int error = 0;

	for (unsigned pass = 0; pass < PASSES; pass++) {
		int rc = pass_take(fs, arg->off, pass > 0, taking, &count);

		error = rc ? rc : error;
	}
	arg->done = 0;
	arg->later = 0;
	for (uint64_t i = 0; i < count; i++) {
		if (taking[i] == BUSY) {
			error = -EBUSY;
			break;
		}
		arg->done += BLOCK_SIZE;
		arg->later += taking[i] == LATER ? BLOCK_SIZE : 0;
	}
	if (!error && arg->later > 0)
		error = -EINPROGRESS;
	arg->error = (uint32_t)-error;
}

void ops_poison(fuse_req_t req, const void *in)
{
	struct fs *fs = req_session(req)->fs;
	struct umbra_poison arg;
	int rc = 0;

	memcpy(&arg, in, sizeof(arg));
	if (!is_operator(req))
		rc = -EPERM;
	else if (arg.op != UMBRA_POISON_ADD || arg.pad || !range_is_sound(fs, arg.off, arg.len))
		rc = -EINVAL;
	if (rc) {
		ops_reply(req, rc);
		return;
	}
	events_join(req_session(req)->events, true);
	range_take(fs, &arg);
	events_join(req_session(req)->events, false);
	fuse_reply_ioctl(req, 0, &arg, sizeof(arg));
}

static int block_clear(struct fs *fs, uint64_t off, bool by_device, uint8_t *umbra_result)
{
	static const uint8_t results[] = {
		[FS_POISON_FREED] = UMBRA_POISON_FREED,
		[FS_POISON_NOT_BAD] = UMBRA_POISON_NOT_BAD,
		[FS_POISON_IN_USE] = UMBRA_POISON_IN_USE,
		[FS_POISON_STILL_BAD] = UMBRA_POISON_STILL_BAD,
		[FS_POISON_CANNOT_CLEAR] = UMBRA_POISON_CANNOT_CLEAR,
		[FS_POISON_NOT_CLEARED] = UMBRA_POISON_NOT_CLEARED,
	};
	enum fs_poison_result result;
	int rc = fs_poison_clear(fs, off, by_device, &result);

	if (!rc)
		*umbra_result = results[result];
	return rc;
}

void ops_poison_clear(fuse_req_t req, const void *in)
{
	struct fs *fs = req_session(req)->fs;
	struct umbra_poison_clear arg = { 0 };
	unsigned freed = 0;
	int rc = 0;

	memcpy(&arg, in, offsetof(struct umbra_poison_clear, done));
	if (!is_operator(req))
		rc = -EPERM;
	else if ((arg.op != UMBRA_POISON_CLEAR && arg.op != UMBRA_POISON_FORGET) || arg.pad ||
		 !range_is_sound(fs, arg.off, arg.len))
		rc = -EINVAL;
	if (rc) {
		ops_reply(req, rc);
		return;
	}
	while (!rc && arg.done < arg.len) {
		uint8_t *result = &arg.result[arg.done / BLOCK_SIZE];

		rc = block_clear(fs, arg.off + arg.done, arg.op == UMBRA_POISON_CLEAR, result);
		freed += !rc && *result == UMBRA_POISON_FREED;
		if (!rc)
			arg.done += BLOCK_SIZE;
	}
	if (freed && arg.op == UMBRA_POISON_FORGET)
		log_info("%u blocks from 0x%llx to 0x%llx of the pool were out of use and are in use again",
			 freed, (unsigned long long)arg.off, (unsigned long long)(arg.off + arg.done));
	arg.error = (uint32_t)-rc;
	fuse_reply_ioctl(req, 0, &arg, sizeof(arg));
}
