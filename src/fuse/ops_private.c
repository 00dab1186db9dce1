/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The private ioctls of <umbra/ioctl.h> that only look: tokens, extents, figures, owners. Those that change files are in
 * ops_change.c.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <umbra/ioctl.h>

#undef BLOCK_SIZE /* another one of <sys/mount.h> */
#include "fs/owners.h"
#include "fuse/events.h"
#include "fuse/ops.h"
#include "media/journal.h"
#include "space/space.h"

static_assert(sizeof(struct umbra_extents) < 16384, "an ioctl argument");
static_assert(sizeof(struct umbra_owners) < 16384, "an ioctl argument");
static_assert(sizeof(struct umbra_clone_files) < 16384, "an ioctl argument");
static_assert(sizeof(struct umbra_shadows) < 16384, "an ioctl argument");

/* mode: OPS_FH_*, one of which the open must have. */
static void give_token(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi, unsigned mode)
{
	struct session *session = req_session(req);
	struct token_file file = {
		.ino = ino,
		.mode = (unsigned)fi->fh & OPS_FH_FLAGS,
		.open = fi->fh & OPS_FH_DIRECT ? 0 : fi->fh >> OPS_FH_OPEN_SHIFT,
		.uid = fuse_req_ctx(req)->uid,
	};
	struct umbra_token token;
	struct inode_attr attr;
	int rc = fi->fh & mode ? 0 : -EBADF;

	if (rc == 0)
		rc = fs_getattr(session->fs, ino, &attr);
	if (rc == 0) {
		file.gen = attr.gen;
		file.pid = token_process(fuse_req_ctx(req)->pid);
		if (session->direct && file.open)
			opens_add(session->opens, ino, file.open, file.mode & OPS_FH_WRITE);
		rc = token_make(session->tokens, &file, &token);
	}
	if (rc)
		ops_reply(req, rc);
	else
		fuse_reply_ioctl(req, 0, &token, sizeof(token));
}

static uint32_t extent_flags(uint32_t flags)
{
	uint32_t out = 0;

	if (flags & FS_EXTENT_UNWRITTEN)
		out |= UMBRA_EXTENT_UNWRITTEN;
	if (flags & FS_EXTENT_SHARED)
		out |= UMBRA_EXTENT_SHARED;
	if (flags & FS_EXTENT_INLINE)
		out |= UMBRA_EXTENT_INLINE;
	if (flags & FS_EXTENT_LAST)
		out |= UMBRA_EXTENT_LAST;
	if (flags & FS_EXTENT_BAD)
		out |= UMBRA_EXTENT_BAD;
	return out;
}

static void give_extents(fuse_req_t req, fuse_ino_t ino, const void *in)
{
	struct umbra_extents *reply = (void *)worker_now->buf;
	struct fs_extent *extents = (void *)(worker_now->buf + sizeof(*reply));
	uint32_t max;
	int n;

	memcpy(reply, in, offsetof(struct umbra_extents, extents));
	max = reply->count;
	if (max == 0 || max > UMBRA_EXTENTS_MAX)
		max = UMBRA_EXTENTS_MAX;
	n = reply->flags ? -EINVAL : fs_map_files(req_session(req)->fs, ino, reply->off, extents, max);
	if (n < 0) {
		ops_reply(req, n);
		return;
	}
	memset(reply->extents, 0, sizeof(reply->extents));
	reply->count = (uint32_t)n;
	for (int i = 0; i < n; i++)
		reply->extents[i] = (struct umbra_extent){
			.file_off = extents[i].file_off,
			.dev_off = extents[i].dev_off,
			.len = extents[i].len,
			.flags = extent_flags(extents[i].flags),
			.owners = extents[i].owners,
		};
	fuse_reply_ioctl(req, 0, reply, sizeof(*reply));
}

static void give_info(fuse_req_t req)
{
	struct session *session = req_session(req);
	struct pool *pool = fs_pool(session->fs);
	const struct super *super = pool_super(pool);
	const struct dax *dax = pool_dax(pool);
	const char *failed = pool_failed(pool);
	struct umbra_info info = {
		.major = super->major,
		.minor = super->minor,
		.block_size = BLOCK_SIZE,
		.ag_count = pool_ag_count(pool),
		.size = pool_size_blk(pool) * BLOCK_SIZE,
		.ag_size = super->ag_size_blk * BLOCK_SIZE,
		.compat = super->compat,
		.ro_compat = super->ro_compat,
		.incompat = super->incompat,
		.created_ns = super->created_ns,
		.mounted_ns = super->mounted_ns,
		.align = dax_align_bytes(dax),
		.mount_count = super->mount_count,
		.lane_count = super->lane_count,
		.lane_size = super->lane_size_bytes,
		.threads = session->opts.threads,
		.pid = (uint32_t)getpid(),
	};

	if (session->opts.mount_flags & MS_RDONLY)
		info.flags |= UMBRA_INFO_READONLY;
	if (super->incompat & FEATURE_INCOMPAT_META_DUP)
		info.flags |= UMBRA_INFO_META_DUP;
	if (dax_is_device(dax))
		info.flags |= UMBRA_INFO_DEVICE;
	if (failed)
		info.flags |= UMBRA_INFO_FAILED;
	memcpy(info.uuid, super->uuid.b, sizeof(info.uuid));
	snprintf(info.label, sizeof(info.label), "%s", super->label);
	snprintf(info.durability, sizeof(info.durability), "%s", dax_durability_name(dax_durability(dax)));
	snprintf(info.version, sizeof(info.version), "%s", UMBRA_VERSION);
	snprintf(info.failed, sizeof(info.failed), "%s", failed ? failed : "");
	snprintf(info.pool, sizeof(info.pool), "%s", session->opts.source);
	fuse_reply_ioctl(req, 0, &info, sizeof(info));
}

static void give_stats(fuse_req_t req)
{
	struct session *session = req_session(req);
	struct pool *pool = fs_pool(session->fs);
	const struct pool_stats *p = pool_stats(pool);
	struct space_totals totals;
	struct session_counts counts;
	struct event_counts bad;
	int rc = space_totals(pool, &totals);

	if (rc) {
		ops_reply(req, rc);
		return;
	}
	session_counts(session, &counts);
	events_count(session->events, &bad);
	struct umbra_stats stats = {
		.total_blocks = totals.total_blk,
		.free_blocks = totals.free_blk,
		.reserve_blocks = totals.reserve_blk,
		.inodes = totals.inode_count - totals.inode_free,
		.free_inodes = totals.inode_free,
		.meta_chunks = totals.meta_chunks,
		.meta_free_units = totals.meta_free_units,
		.commits = p->commits,
		.aborts = p->aborts,
		.retries = p->retries,
		.lines_logged = p->lines_logged,
		.heals = p->heals,
		.damaged_units = p->damaged_units,
		.replayed_records = p->replayed_records,
		.cached_inodes = fs_cached_inodes(session->fs),
		.requests = counts.requests,
		.read_bytes = counts.read_bytes,
		.written_bytes = counts.written_bytes,
		.cloned_bytes = counts.cloned_bytes,
		.bad_reads = p->bad_reads,
		.bad_blocks = bad.bad_blocks,
		.lost_blocks = bad.lost_blocks,
		.lost_bytes = bad.lost_bytes,
		.zeroed_blocks = bad.zeroed_blocks,
		.zeroed_bytes = bad.zeroed_bytes,
	};
	if (session->direct)
		session->direct->count(session->direct->arg, &stats);
	fuse_reply_ioctl(req, 0, &stats, sizeof(stats));
}

static uint16_t owner_kind(uint64_t owner, uint64_t offset)
{
	if (!(owner & OWNER_SPECIAL))
		return UMBRA_OWNER_FILE;
	switch (owner) {
	case OWNER_SUPER:
		return UMBRA_OWNER_SUPER;
	case OWNER_JOURNAL:
		return offset & JOURNAL_SPARE ? UMBRA_OWNER_SPARE : UMBRA_OWNER_JOURNAL;
	case OWNER_META:
		return UMBRA_OWNER_META;
	case OWNER_MIRROR:
		return UMBRA_OWNER_MIRROR;
	case OWNER_BAD:
		return UMBRA_OWNER_BAD;
	case OWNER_REMAP:
		return UMBRA_OWNER_REMAP;
	case OWNER_FORWARD:
		return UMBRA_OWNER_FORWARD;
	default:
		return UMBRA_OWNER_GROUP;
	}
}

/* Appends a record with the owner's path; false: no room. */
static bool owner_put(struct fs *fs, const struct fs_owner *owner, struct umbra_owners *reply, size_t *used)
{
	struct umbra_owner record = {
		.dev_off = owner->dev_off,
		.len = owner->len,
		.kind = owner_kind(owner->owner, owner->file_off),
	};
	char path[OPS_PATH_MAX];
	size_t path_len = 0, size;
	int rc;

	if (record.kind == UMBRA_OWNER_FILE) {
		record.ino = owner->owner;
		record.file_off = owner->file_off;
	}
	if (record.kind == UMBRA_OWNER_FILE && !(reply->flags & UMBRA_OWNERS_NO_PATHS)) {
		rc = fs_path(fs, owner->owner, path, sizeof(path));
		if (rc == 0)
			path_len = strlen(path);
		record.path_len = rc == -ENAMETOOLONG ? UMBRA_OWNER_PATH_LONG : (uint32_t)path_len;
	}
	size = u64_align_up(sizeof(record) + path_len, 8);
	if (size > sizeof(reply->data) - *used)
		return false;
	record.record_size = (uint16_t)size;
	memcpy(reply->data + *used, &record, sizeof(record));
	memcpy(reply->data + *used + sizeof(record), path, path_len);
	*used += size;
	reply->count++;
	return true;
}

#define OWNERS_BATCH 128u

static int list_owners(struct fs *fs, struct umbra_owners *reply)
{
	struct fs_owners_pos pos = { reply->cursor[0], reply->cursor[1], reply->cursor[2] };
	struct fs_owner owners[OWNERS_BATCH];
	unsigned count, i;
	size_t used = 0;
	int rc;

	do {
		rc = fs_owners(fs, reply->dev_off, reply->len, &pos, owners, OWNERS_BATCH, &count);
		if (rc)
			return rc;
		for (i = 0; i < count && owner_put(fs, &owners[i], reply, &used); i++)
			pos = owners[i].after;
	} while (i == OWNERS_BATCH);
	reply->cursor[0] = pos.start_blk;
	reply->cursor[1] = pos.owner;
	reply->cursor[2] = pos.offset_blk;
	return 0;
}

static void give_owners(fuse_req_t req, const void *in)
{
	struct umbra_owners *reply = (void *)worker_now->buf;
	uid_t uid = fuse_req_ctx(req)->uid;
	const struct umbra_owners *arg = in;
	int rc;

	memset(reply, 0, sizeof(*reply));
	memcpy(reply, in, offsetof(struct umbra_owners, count));
	reply->flags = arg->flags;
	if (uid != 0 && uid != getuid())
		rc = -EPERM;
	else if (arg->flags & ~UMBRA_OWNERS_NO_PATHS)
		rc = -EINVAL;
	else
		rc = list_owners(req_session(req)->fs, reply);
	if (rc)
		ops_reply(req, rc);
	else
		fuse_reply_ioctl(req, 0, reply, sizeof(*reply));
}

bool ops_private(fuse_req_t req, fuse_ino_t ino, unsigned cmd, const struct fuse_file_info *fi,
		 const void *in, size_t in_size, size_t out_size)
{
	if (_IOC_TYPE(cmd) != UMBRA_IOC_TYPE)
		return false;
	/* The kernel goes by the size and direction in cmd; this is its word against ours. */
	if ((_IOC_DIR(cmd) & _IOC_WRITE && in_size != _IOC_SIZE(cmd)) ||
	    (_IOC_DIR(cmd) & _IOC_READ && out_size != _IOC_SIZE(cmd)))
		return false;
	switch (cmd) {
	case UMBRA_IOC_TOKEN:
		give_token(req, ino, fi, OPS_FH_READ);
		return true;
	case UMBRA_IOC_MAP_TOKEN:
		give_token(req, ino, fi, OPS_FH_READ | OPS_FH_WRITE);
		return true;
	case UMBRA_IOC_DIRECT:
		ops_direct(req);
		return true;
	case UMBRA_IOC_SHADOWS:
		ops_shadows(req, in);
		return true;
	case UMBRA_IOC_EXTENTS:
		give_extents(req, ino, in);
		return true;
	case UMBRA_IOC_INFO:
		give_info(req);
		return true;
	case UMBRA_IOC_STATS:
		give_stats(req);
		return true;
	case UMBRA_IOC_OWNERS:
		give_owners(req, in);
		return true;
	case UMBRA_IOC_GROW:
		ops_grow(req, in);
		return true;
	case UMBRA_IOC_UPGRADE:
		ops_upgrade(req, in);
		return true;
	case UMBRA_IOC_SCRUB:
		ops_scrub(req, in);
		return true;
	case UMBRA_IOC_LOSSES:
		ops_losses(req, in);
		return true;
	case UMBRA_IOC_EVENTS:
		ops_events(req, in);
		return true;
	case UMBRA_IOC_DAMAGE:
		ops_damage(req);
		return true;
	case UMBRA_IOC_POISON:
		ops_poison(req, in);
		return true;
	case UMBRA_IOC_POISON_CLEAR:
		ops_poison_clear(req, in);
		return true;
	case UMBRA_IOC_CLONE_RANGE:
	case UMBRA_IOC_DEDUPE_RANGE:
	case UMBRA_IOC_FALLOCATE:
	case UMBRA_IOC_CLONE_FILES:
	case UMBRA_IOC_REPAIR:
	case UMBRA_IOC_EVACUATE:
		change_start(req, ino, cmd, fi, in);
		return true;
	default:
		return false;
	}
}
