/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages: what has to be right of them, what they do, answers.
 *
 * What is in a message is another process's word: it is copied before it gets here, its size checked against its type, each field before its use.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/direct_priv.h"
#include "daemon/process.h"
#include "util/sabotage.h"
#include "dax/dax.h"

#define DROPS_MAX 8u               /* for one MAP */
#define STORE_SHORT_MAX (2u << 20) /* of MAP with WRITE, when space is short */

/* What a process may send. */
static const uint32_t sizes[] = {
	[UMBRA_MSG_HELLO] = sizeof(struct umbra_msg_hello),
	[UMBRA_MSG_ATTACH] = sizeof(struct umbra_msg_attach),
	[UMBRA_MSG_DETACH] = sizeof(struct umbra_msg_detach),
	[UMBRA_MSG_MAP] = sizeof(struct umbra_msg_map),
	[UMBRA_MSG_RELEASE] = sizeof(struct umbra_msg_release),
	[UMBRA_MSG_ACK] = sizeof(struct umbra_msg),
	[UMBRA_MSG_BAD] = sizeof(struct umbra_msg_bad),
	[UMBRA_MSG_BYE] = sizeof(struct umbra_msg),
};

const char *message_check(const void *in, uint32_t size)
{
	struct umbra_msg msg;

	if (size < sizeof(msg))
		return "a message without a head";
	memcpy(&msg, in, sizeof(msg));
	if (msg.type >= ARRAY_SIZE(sizes) || sizes[msg.type] == 0)
		return "a message of no type that a process may send";
	if (msg.size != size || size != sizes[msg.type])
		return "a message of the wrong size";
	return msg.pad ? "a message with a field that is not zero" : NULL;
}

/* Bytes, to blocks [*lo_blk, *hi_blk). */
static int range_get(uint64_t off, uint64_t len, uint64_t *lo_blk, uint64_t *hi_blk)
{
	if ((off | len) % BLOCK_SIZE || len == 0 || off > FS_SIZE_MAX || len > FS_SIZE_MAX - off)
		return -EINVAL;
	*lo_blk = off >> BLOCK_SHIFT;
	*hi_blk = (off + len) >> BLOCK_SHIFT;
	return 0;
}

/* ---- answers ---- */

static struct umbra_msg head(enum umbra_msg_type type, size_t size, uint64_t id)
{
	return (struct umbra_msg){ .size = (uint32_t)size, .type = (uint16_t)type, .id = id };
}

void message_error(struct peer *peer, uint64_t id, int rc)
{
	struct umbra_msg_error out = {
		.msg = head(UMBRA_MSG_ERROR, sizeof(out), id),
		.error = (uint32_t)-rc,
	};

	(void)peer_send(peer, &out, sizeof(out), NULL, 0);
}

static void message_done(struct peer *peer, uint64_t id)
{
	struct umbra_msg out = head(UMBRA_MSG_DONE, sizeof(out), id);

	(void)peer_send(peer, &out, sizeof(out), NULL, 0);
}

/* ---- HELLO ---- */

/* From the registry, under the session's order lock. */
static int peer_revoke(void *arg, const struct revoke *revoke)
{
	struct peer *peer = arg;
	uint64_t hi_blk =
		u64_min(revoke->hi_blk, FS_SIZE_MAX >> BLOCK_SHIFT); /* in bytes it has to be a number */
	struct umbra_msg_revoke out = {
		.msg = head(UMBRA_MSG_REVOKE, sizeof(out), revoke->id),
		.handle = revoke->handle,
		.flags = revoke->write_only ? UMBRA_REVOKE_WRITE : 0,
		.off = revoke->lo_blk << BLOCK_SHIFT,
		.len = (hi_blk - revoke->lo_blk) << BLOCK_SHIFT,
	};

	/* One that cannot be reached is on its way out, and perhaps has nothing mapped any more: its end tells. */
	(void)peer_send(peer, &out, sizeof(out), NULL, 0);
	return 0;
}

static bool peer_unread(void *arg)
{
	const struct peer *peer = arg;
	uint8_t byte;

	/* 0: its end. */
	return recv(peer->fd, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* A process that dies gives up its memory, or has it written as a core, before its descriptors. */
static bool peer_gone(void *arg)
{
	const struct peer *peer = arg;
	uint8_t byte;

	return recv(peer->fd, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT) == 0 ||
	       process_is_over(peer->pid);
}

static void peer_lost(void *arg)
{
	struct peer *peer = arg;

	if (!atomic_load(&peer->is_over))
		server_refuse(peer->server, peer, "does not let go in time, and is left alone");
	peer_end(peer);
}

/* slots_fd: closed. */
static int welcome(struct peer *peer, uint64_t id, struct session *session, int slots_fd)
{
	const struct server_opts *opts = &peer->server->opts;
	const struct dax *dax = pool_dax(fs_pool(opts->fs));
	struct umbra_msg_welcome out = {
		.msg = head(UMBRA_MSG_WELCOME, sizeof(out), id),
		.version = UMBRA_DIRECT_VERSION,
		.rights = peer->rights,
		.session = session_id(session),
		.device_bytes = dax_size_bytes(dax),
		.align_bytes = u64_max(u64_max(dax_align_bytes(dax), opts->unit), BLOCK_SIZE),
		.revoke_ms = opts->revoke_ms,
		.slots = UMBRA_SLOTS,
	};
	int fds[2] = { dax_lend(opts->device_fd, peer->rights & UMBRA_DIRECT_WRITE, peer->number), slots_fd };
	int rc = fds[0] < 0 ? fds[0] : peer_send(peer, &out, sizeof(out), fds, 2);

	if (fds[0] >= 0)
		close(fds[0]);
	close(fds[1]);
	return rc;
}

static void serve_hello(struct peer *peer, const struct umbra_msg_hello *in)
{
	static const struct session_ops ops = { .revoke = peer_revoke,
						.listen = peer_listen,
						.hear = peer_hear,
						.unread = peer_unread,
						.gone = peer_gone,
						.lost = peer_lost };
	struct session_who who = { .pid = peer->pid, .uid = peer->uid };
	struct session *session = NULL;
	int rc = 0, slots_fd = -1;

	if (atomic_exchange(&peer->is_told, true))
		rc = -EALREADY;
	else if (in->version != UMBRA_DIRECT_VERSION)
		rc = -EPROTONOSUPPORT;
	else if (!in->rights || in->rights & ~(UMBRA_DIRECT_READ | UMBRA_DIRECT_WRITE))
		rc = -EINVAL;
	else if (!(in->rights & peer->rights))
		rc = -EACCES;
	if (rc == 0) {
		peer->rights &= in->rights;
		who.write = peer->rights & UMBRA_DIRECT_WRITE;
		peer->slots = dax_shared_alloc(UMBRA_SLOTS * sizeof(*peer->slots), &slots_fd);
		rc = peer->slots ? session_new(peer->server->opts.registry, &who, &ops, peer, &session) :
				   -ENOMEM;
	}
	if (rc == 0) {
		/* Before the answer, which the next request may follow at once; with all that requests need: some do not wait for it. */
		atomic_store(&peer->session, session);
		rc = welcome(peer, in->msg.id, session, slots_fd);
	} else if (slots_fd >= 0) {
		close(slots_fd);
	}
	if (rc == 0)
		return;
	message_error(peer, in->msg.id, rc);
	if (rc != -EALREADY)
		peer_end(peer);
}

/* ---- files ---- */

static void serve_attach(struct peer *peer, const struct umbra_msg_attach *in)
{
	struct umbra_msg_attached out = { .msg = head(UMBRA_MSG_ATTACHED, sizeof(out), in->msg.id) };
	struct inode_attr attr;
	struct file *file;
	int rc = peer_file_attach(peer, &in->token, &file);

	if (rc) {
		message_error(peer, in->msg.id, rc);
		return;
	}
	rc = fs_getattr(peer->server->opts.fs, file->ino, &attr);
	if (rc) {
		(void)!peer_file_detach(peer, file->handle);
		message_error(peer, in->msg.id, rc);
	} else {
		out.handle = file->handle;
		out.rights = file->rights;
		out.ino = attr.ino;
		out.generation = attr.gen;
		out.size_bytes = attr.size;
		out.slot = file->slot;
		(void)peer_send(peer, &out, sizeof(out), NULL, 0);
	}
	peer_file_put(file);
}

static void serve_detach(struct peer *peer, const struct umbra_msg_detach *in)
{
	int rc = in->pad ? -EINVAL : peer_file_detach(peer, in->handle);

	if (rc)
		message_error(peer, in->msg.id, rc);
	else
		message_done(peer, in->msg.id);
}

/* ---- pieces ---- */

static_assert(UMBRA_WHOLE_BYTES == CHUNK_SIZE, "what is whole is a chunk");
static_assert(FS_GRANT_PIECES <= UMBRA_PIECES_MAX, "an answer holds what is granted at once");
static_assert(FS_PIECE_WRITE == UMBRA_PIECE_WRITE && FS_PIECE_HOLE == UMBRA_PIECE_HOLE &&
		      FS_PIECE_SHARED == UMBRA_PIECE_SHARED && FS_PIECE_LOST == UMBRA_PIECE_LOST &&
		      FS_PIECE_PAST == UMBRA_PIECE_PAST,
	      "flags are passed on");

struct answer {
	struct peer *peer;
	uint64_t id;
};

/* From the registry, under the session's order lock. */
static int pieces_answer(void *arg, const struct fs_piece *pieces, unsigned count, uint64_t size_bytes)
{
	const struct answer *a = arg;
	union {
		struct umbra_msg_pieces msg;
		uint8_t bytes[UMBRA_MSG_MAX];
	} out;
	size_t size = sizeof(out.msg) + count * sizeof(out.msg.pieces[0]);

	out.msg = (struct umbra_msg_pieces){
		.msg = head(UMBRA_MSG_PIECES, size, a->id),
		.size_bytes = size_bytes,
		.count = count,
	};
	for (unsigned i = 0; i < count; i++)
		out.msg.pieces[i] = (struct umbra_piece){
			.file_off = pieces[i].file_blk << BLOCK_SHIFT,
			.dev_off = pieces[i].dev_blk << BLOCK_SHIFT,
			.len = pieces[i].count_blk << BLOCK_SHIFT,
			.flags = pieces[i].flags,
		};
	return peer_send(a->peer, &out, (uint32_t)size, NULL, 0);
}

/*
 * As long as the kernel takes pages of it as fast as it drops them, it is its. And while somebody writes through them: what is on its way from a page to us is not there for whoever reads
 * the page again when it has been dropped.
 */
static int grant_pieces(struct peer *peer, uint64_t ino, const struct grant *grant)
{
	const struct server_mount *mount = &peer->server->opts.mount;
	int rc = session_grant(atomic_load(&peer->session), grant);

	for (unsigned i = 0; i < DROPS_MAX && rc == -ERESTART; i++) {
		if (mount->through_opens(mount->arg, ino) > 0 && !sabotage_point("grant-through"))
			break;
		rc = mount->drop_pages(mount->arg, ino);
		if (rc == 0)
			rc = session_grant(atomic_load(&peer->session), grant);
	}
	return rc == -ERESTART ? -EBUSY : rc;
}

/* Made storable at once, at most: who asks for much does so in the hope that it will be used. */
static uint64_t store_max(const struct server *s, uint64_t len)
{
	return len > STORE_SHORT_MAX && server_space_is_short(s) ? STORE_SHORT_MAX : UMBRA_MAP_WRITE_MAX;
}

static int map(struct peer *peer, struct file *file, const struct umbra_msg_map *in)
{
	struct fs_cred cred = peer_cred(peer);
	struct answer answer = { .peer = peer, .id = in->msg.id };
	struct grant grant = {
		.handle = in->handle,
		.write = in->flags & UMBRA_MAP_WRITE,
		.release = in->flags & UMBRA_MAP_RELEASE,
		.whole = in->flags & UMBRA_MAP_WHOLE,
		.cred = &cred,
		.answer = pieces_answer,
		.arg = &answer,
	};
	int rc = range_get(in->off, in->len, &grant.lo_blk, &grant.hi_blk);

	if (rc || in->flags & ~(UMBRA_MAP_WRITE | UMBRA_MAP_RELEASE | UMBRA_MAP_WHOLE))
		return -EINVAL;
	if (grant.whole && (in->off % UMBRA_WHOLE_BYTES || in->len != UMBRA_WHOLE_BYTES))
		return -EINVAL;
	if (!(file->rights & (grant.write ? UMBRA_DIRECT_WRITE : UMBRA_DIRECT_READ)))
		return -EACCES;
	if (!grant.write)
		return grant_pieces(peer, file->ino, &grant);
	grant.hi_blk =
		u64_min(grant.hi_blk, grant.lo_blk + (store_max(peer->server, in->len) >> BLOCK_SHIFT));
	rc = peer_store_begin(peer, file);
	if (rc == 0) {
		rc = grant_pieces(peer, file->ino, &grant);
		peer_store_end(peer, file);
	}
	return rc;
}

/* ---- bad memory ---- */

static int bad(struct peer *peer, const struct file *file, uint64_t off, uint64_t *lost_lines)
{
	struct fs *fs = peer->server->opts.fs;
	struct fs_extent extent;
	int n;

	if (off % BLOCK_SIZE || off > FS_SIZE_MAX)
		return -EINVAL;
	n = fs_map(fs, file->ino, off, &extent, 1);
	if (n < 0)
		return n;
	if (n > 0 && extent.file_off <= off && !(extent.flags & (FS_EXTENT_UNWRITTEN | FS_EXTENT_INLINE)))
		fs_poison_look(fs, extent.dev_off + (off - extent.file_off), BLOCK_SIZE);
	return fs_lost_lines(fs, file->ino, off, lost_lines);
}

/* MAP and BAD: on a file that is attached. */
static void serve_file(struct peer *peer, const struct umbra_msg *msg, uint32_t handle)
{
	struct file *file = peer_file_get(peer, handle);
	int rc = -EBADF;

	if (file && msg->type == UMBRA_MSG_MAP) {
		rc = map(peer, file, (const void *)msg);
	} else if (file) {
		const struct umbra_msg_bad *in = (const void *)msg;
		struct umbra_msg_lost out = { .msg = head(UMBRA_MSG_LOST, sizeof(out), msg->id) };
		uint64_t lines = 0;

		rc = in->pad ? -EINVAL : bad(peer, file, in->off, &lines);
		out.lost_lines = lines;
		if (rc == 0)
			(void)peer_send(peer, &out, sizeof(out), NULL, 0);
	}
	if (rc)
		message_error(peer, msg->id, rc);
	peer_file_put(file);
}

/* ---- all ---- */

bool message_at_once(struct peer *peer, const struct umbra_msg *msg)
{
	struct session *session = atomic_load(&peer->session);
	const struct umbra_msg_release *in = (const void *)msg;
	uint64_t lo_blk, hi_blk;

	switch (msg->type) {
	case UMBRA_MSG_ACK:
		if (session)
			session_ack(session, msg->id);
		return true;
	case UMBRA_MSG_BYE:
		atomic_store(&peer->is_bye, true);
		return true;
	case UMBRA_MSG_RELEASE:
		/* Nobody waits for an answer: what makes no sense is passed over. */
		if (session && !in->pad && range_get(in->off, in->len, &lo_blk, &hi_blk) == 0)
			(void)!session_release(session, in->handle, lo_blk, hi_blk);
		return true;
	default:
		return false;
	}
}

void message_serve(struct peer *peer, const struct umbra_msg *msg)
{
	const struct umbra_msg_map *map_in = (const void *)msg;

	if (msg->type != UMBRA_MSG_HELLO && !atomic_load(&peer->session)) {
		message_error(peer, msg->id, -ENOTCONN);
		return;
	}
	switch (msg->type) {
	case UMBRA_MSG_HELLO:
		serve_hello(peer, (const void *)msg);
		break;
	case UMBRA_MSG_ATTACH:
		serve_attach(peer, (const void *)msg);
		break;
	case UMBRA_MSG_DETACH:
		serve_detach(peer, (const void *)msg);
		break;
	case UMBRA_MSG_MAP:
		serve_file(peer, msg, map_in->handle);
		break;
	default:
		serve_file(peer, msg, ((const struct umbra_msg_bad *)msg)->handle);
		break;
	}
}
