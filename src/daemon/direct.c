/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See direct.h. struct session is the mount in here; those of the registry are the server's.
 */
#include "daemon/direct.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/direct_server.h"
#include "daemon/direct_socket.h"
#include "dax/dax.h"
#include "fuse/direct.h"
#include "registry/registry.h"
#include "txn/pool.h"
#include "util/log.h"

#define PAGE_OF_LIST 64u

struct direct {
	struct direct_rights rights;
	bool readonly;
	struct registry *registry;
	struct server *server;
	struct direct_socket socket;
	struct session_direct ops;
};

/* ---- what the mount asks ---- */

static bool is_stored(void *arg, uint64_t ino)
{
	struct direct *d = arg;

	return server_is_stored(d->server, ino);
}

static void unready(void *arg, uint64_t ino)
{
	struct direct *d = arg;

	server_unready(d->server, ino);
}

static void look(void *arg, uint64_t ino)
{
	struct direct *d = arg;

	server_look(d->server, ino);
}

static void about(void *arg, const struct fs_cred *cred, struct umbra_direct *about)
{
	struct direct *d = arg;

	about->rights = direct_rights_of(&d->rights, cred->uid, cred->has_group, cred->group_arg);
	if (d->readonly)
		about->rights &= ~UMBRA_DIRECT_WRITE;
	memcpy(about->socket, d->socket.path, sizeof(about->socket));
}

/* As many as fit. */
static int shadows(void *arg, struct umbra_shadows *page)
{
	struct direct *d = arg;
	struct shadow_filter filter = {
		.pid = (pid_t)page->pid,
		.ino = page->ino,
		.dev_lo = page->dev_off / BLOCK_SIZE,
		.dev_hi = u64_div_up(page->dev_off + page->len, BLOCK_SIZE),
	};
	struct shadow_pos pos = { page->cursor[0], (uint32_t)page->cursor[1], page->cursor[2] };
	struct shadow_info infos[PAGE_OF_LIST];
	unsigned count = PAGE_OF_LIST;
	int rc = 0;

	while (!rc && count > 0 && page->count + PAGE_OF_LIST <= UMBRA_SHADOWS_MAX) {
		rc = registry_list(d->registry, &filter, &pos, infos, PAGE_OF_LIST, &count);
		for (unsigned i = 0; !rc && i < count; i++) {
			const struct shadow_info *info = &infos[i];

			page->shadows[page->count++] = (struct umbra_shadow){
				.session = info->session,
				.ino = info->ino,
				.file_off = info->file_blk * BLOCK_SIZE,
				.dev_off = info->dev_blk * BLOCK_SIZE,
				.len = info->count_blk * BLOCK_SIZE,
				.pid = (uint32_t)info->pid,
				.flags = (info->write ? UMBRA_SHADOW_WRITE : 0) |
					 (info->dev_blk ? 0 : UMBRA_SHADOW_HOLE) |
					 (info->orphan ? UMBRA_SHADOW_ORPHAN : 0),
			};
		}
	}
	page->cursor[0] = pos.session;
	page->cursor[1] = pos.handle;
	page->cursor[2] = pos.file_blk;
	return rc;
}

static void count(void *arg, struct umbra_stats *stats)
{
	struct direct *d = arg;
	struct registry_stats now;

	registry_get_stats(d->registry, &now);
	stats->sessions = now.sessions;
	stats->orphan_sessions = now.orphans;
	stats->shadows = now.shadows;
	stats->masters = now.masters;
	stats->quarantine_blocks = now.quarantine_blk;
	stats->shadow_bytes = now.bytes;
	stats->revokes = now.revokes;
	stats->late_revokes = now.late;
}

/* ---- what the server asks ---- */

static int take_token(void *arg, const struct umbra_token *token, pid_t pid, struct token_file *file)
{
	return session_take_token(arg, token, pid, file);
}

static bool excuse_open(void *arg, uint64_t open)
{
	return session_excuse_open(arg, open);
}

static bool accuse_open(void *arg, uint64_t open)
{
	return session_accuse_open(arg, open);
}

static uint32_t cached_opens(void *arg, uint64_t ino)
{
	return session_cached_opens(arg, ino);
}

static uint32_t through_opens(void *arg, uint64_t ino)
{
	return session_through_opens(arg, ino);
}

static int drop_pages(void *arg, uint64_t ino)
{
	return session_drop_pages(arg, ino);
}

/* ---- begin and end ---- */

static int socket_open(struct direct *d, struct fs *fs, const struct session *mount, const char *given)
{
	char path[sizeof(d->socket.path)];
	int rc;

	d->socket.fd = -1;
	if (given)
		snprintf(path, sizeof(path), "%s", given);
	else
		direct_socket_path(pool_super(fs_pool(fs))->uuid.b, session_dev_minor(mount), path,
				   sizeof(path));
	rc = given && strlen(given) >= sizeof(path) ? -ENAMETOOLONG : path[0] ? 0 : -ENOENT;
	if (!rc)
		rc = direct_socket_open(path, &d->socket);
	if (rc)
		log_debug("socket %s: %s", path, strerror(-rc));
	return rc;
}

int direct_open(struct fs *fs, struct session *mount, const struct daemon_opts *opts, bool readonly,
		struct direct **out)
{
	const struct registry_opts registry_opts = { 0 };
	struct dax *dax = pool_dax(fs_pool(fs));
	struct server_opts server = {
		.fs = fs,
		.mount = { mount, take_token, excuse_open, accuse_open, cached_opens, through_opens,
			   drop_pages },
		.rights = opts->direct,
		.device_fd = dax_fd(dax),
		/* What processes store reaches a file's disk by msync() alone, and they have no part in ours: it would not be durable when they are told so. */
		.readonly = readonly || dax_is_readonly(dax) || dax_durability(dax) == DAX_MSYNC,
		.unit = opts->direct_unit,
		.revoke_ms = REGISTRY_REVOKE_MS,
	};
	struct direct *d;
	int rc;

	*out = NULL;
	if ((!opts->direct.owners && !opts->direct.count) || opts->dax == SESSION_DAX_NEVER)
		return 0;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->rights = opts->direct;
	d->readonly = server.readonly;
	rc = socket_open(d, fs, mount, opts->socket);
	server.listen_fd = d->socket.fd;
	if (!rc)
		rc = registry_open(fs, &registry_opts, &d->registry);
	server.registry = d->registry;
	if (!rc)
		rc = server_open(&server, &d->server);
	if (rc) {
		direct_close(d);
		return rc;
	}
	d->ops = (struct session_direct){ d, is_stored, unready, look, about, shadows, count };
	session_set_direct(mount, &d->ops);
	*out = d;
	return 0;
}

int direct_run(struct direct *d)
{
	return server_run(d->server);
}

void direct_stop(struct direct *d)
{
	if (!d)
		return;
	direct_socket_close(&d->socket);
	server_stop(d->server);
}

void direct_close(struct direct *d)
{
	if (!d)
		return;
	direct_socket_close(&d->socket);
	if (d->server)
		server_close(d->server);
	if (d->registry)
		registry_close(d->registry);
	free(d);
}
