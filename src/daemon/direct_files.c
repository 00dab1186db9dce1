/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The files that a process has attached.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "daemon/direct_priv.h"
#include "util/log.h"
#include "util/sabotage.h"

static struct file **bucket_of(struct peer *peer, uint32_t handle)
{
	return &peer->files[handle % PEER_BUCKETS];
}

static void peer_file_hold(struct file *file)
{
	atomic_fetch_add(&file->count, 1);
}

struct file *peer_file_get(struct peer *peer, uint32_t handle)
{
	struct file *file;

	pthread_mutex_lock(&peer->lock);
	for (file = *bucket_of(peer, handle); file && file->handle != handle; file = file->next)
		;
	if (file)
		peer_file_hold(file);
	pthread_mutex_unlock(&peer->lock);
	return file;
}

void peer_file_put(struct file *file)
{
	if (file && atomic_fetch_sub(&file->count, 1) == 1)
		free(file);
}

/* ---- slots ---- */

/* All under the peer's lock. -EMFILE */
static int slot_take(struct peer *peer, struct file *file)
{
	for (uint32_t i = 0; i < UMBRA_SLOTS / 64; i++) {
		unsigned bit;

		if (peer->slots_used[i] == UINT64_MAX)
			continue;
		bit = (unsigned)__builtin_ctzll(~peer->slots_used[i]);
		peer->slots_used[i] |= 1ull << bit;
		file->slot = i * 64 + bit;
		file->stored.slot = &peer->slots[file->slot];
		__atomic_store_n(&file->stored.slot->stored, 0, __ATOMIC_RELEASE);
		return 0;
	}
	return -EMFILE;
}

static void slot_give(struct peer *peer, const struct file *file)
{
	if (file->slot != UMBRA_SLOT_NONE)
		peer->slots_used[file->slot / 64] &= ~(1ull << (file->slot % 64));
}

/* ---- attach ---- */

/* As the file was opened, cut to what the session and the file allow. */
static int rights_get(struct peer *peer, const struct token_file *of, uint32_t *rights)
{
	struct inode_attr attr;
	int rc = fs_getattr(peer->server->opts.fs, of->ino, &attr);

	*rights = 0;
	if (rc)
		return rc;
	if ((attr.mode & S_IFMT) != S_IFREG)
		return -EINVAL;
	if (of->mode & OPS_FH_READ)
		*rights |= UMBRA_DIRECT_READ;
	if (of->mode & OPS_FH_WRITE && !(attr.flags & (INODE_APPEND | INODE_IMMUTABLE)))
		*rights |= UMBRA_DIRECT_WRITE;
	*rights &= peer->rights;
	return *rights ? 0 : -EACCES;
}

static bool is_stopping(struct server *s)
{
	bool is;

	pthread_mutex_lock(&s->lock);
	is = s->is_stopping;
	pthread_mutex_unlock(&s->lock);
	return is;
}

/*
 * The process has the file no more. An open of its own that is still there reads through the page cache, as others may from now on if nobody else stores: no
 * page is left that was read before, and beside such an open nobody stores.
 */
static void stores_stop(struct peer *peer, struct file *file, bool counts)
{
	struct server *s = peer->server;
	const struct server_mount *mount = &s->opts.mount;
	int rc = 0;

	if (is_stopping(s) || !stored_stop(s->stored, file->ino, counts ? NULL : &file->stored))
		return;
	if (counts && !sabotage_point("stores-stop"))
		rc = registry_invalidate(s->opts.registry, file->ino, 0, UINT64_MAX);
	/* Beside somebody who writes through them they are left: nothing is in the pages but what is in the file (fs/lend.c). */
	if (rc == 0 &&
	    (mount->through_opens(mount->arg, file->ino) == 0 || sabotage_point("stores-through")) &&
	    !sabotage_point("stores-drop"))
		rc = mount->drop_pages(mount->arg, file->ino);
	if (rc && rc != -ESHUTDOWN)
		log_debug("end of stores to inode %llu: error %d", (unsigned long long)file->ino, -rc);
}

/* It has been unlinked. */
static void file_end(struct peer *peer, struct file *file)
{
	const struct server_mount *mount = &peer->server->opts.mount;
	bool counts = false;

	while (file->excuses) {
		struct excuse *excuse = file->excuses;

		file->excuses = excuse->next;
		counts |= mount->accuse_open(mount->arg, excuse->open);
		free(excuse);
	}
	stores_stop(peer, file, counts);
	stored_remove(peer->server->stored, file->ino, &file->stored);
	pthread_mutex_lock(&peer->lock);
	slot_give(peer, file);
	pthread_mutex_unlock(&peer->lock);
	peer_file_put(file);
}

/* The one that has the handle, or fresh (which is then NULL). Under the peer's lock. */
static struct file *file_link(struct peer *peer, uint32_t handle, uint64_t ino, struct file **fresh)
{
	struct file **at = bucket_of(peer, handle), *file;

	for (file = *at; file && file->handle != handle; file = file->next)
		;
	if (!file) {
		file = *fresh;
		*fresh = NULL;
		file->handle = handle;
		file->ino = ino;
		file->slot = UMBRA_SLOT_NONE;
		file->stored.is_root = peer->uid == 0;
		file->next = *at;
		*at = file;
		peer_file_hold(file);
	}
	file->attached++;
	peer_file_hold(file);
	return file;
}

/* A file that the registry knows by the handle. */
static int file_add(struct peer *peer, uint32_t handle, const struct token_file *of, uint32_t rights,
		    struct file **out)
{
	const struct server_mount *mount = &peer->server->opts.mount;
	struct file *fresh = calloc(1, sizeof(*fresh));
	struct excuse *excuse = calloc(1, sizeof(*excuse));
	int rc = 0;

	if (!fresh || !excuse) {
		free(fresh);
		free(excuse);
		return -ENOMEM;
	}
	if (of->open && mount->excuse_open(mount->arg, of->open))
		excuse->open = of->open;
	pthread_mutex_lock(&peer->lock);
	*out = file_link(peer, handle, of->ino, &fresh);
	if (rights & UMBRA_DIRECT_WRITE && (*out)->slot == UMBRA_SLOT_NONE)
		rc = slot_take(peer, *out);
	if (!rc)
		atomic_fetch_or(&(*out)->rights, rights);
	if (!rc && excuse->open) {
		excuse->next = (*out)->excuses;
		(*out)->excuses = excuse;
		excuse = NULL;
	}
	pthread_mutex_unlock(&peer->lock);
	if (rc && excuse->open && mount->accuse_open(mount->arg, excuse->open))
		stores_stop(peer, *out, true);
	free(fresh);
	free(excuse);
	if (rc) {
		(void)!peer_file_detach(peer, handle);
		peer_file_put(*out);
	}
	return rc;
}

int peer_file_attach(struct peer *peer, const struct umbra_token *token, struct file **out)
{
	const struct server_mount *mount = &peer->server->opts.mount;
	struct session *session = atomic_load(&peer->session);
	struct token_file of;
	uint32_t rights, handle;
	int rc = mount->take_token(mount->arg, token, peer->pid, &of);

	if (rc == 0)
		rc = rights_get(peer, &of, &rights);
	if (rc == 0)
		rc = session_attach(session, of.ino, rights & UMBRA_DIRECT_WRITE, &handle);
	if (rc)
		return rc;
	rc = file_add(peer, handle, &of, rights, out);
	if (rc == -ENOMEM)
		(void)!session_detach(session, handle);
	return rc;
}

int peer_file_detach(struct peer *peer, uint32_t handle)
{
	struct file **at, *file;
	bool last = false;
	uint64_t ino = 0;
	int rc;

	pthread_mutex_lock(&peer->lock);
	for (at = bucket_of(peer, handle); *at && (*at)->handle != handle; at = &(*at)->next)
		;
	file = *at;
	ino = file ? file->ino : 0;
	if (file && --file->attached == 0) {
		*at = file->next;
		last = true;
	}
	pthread_mutex_unlock(&peer->lock);
	if (!file)
		return -EBADF;
	rc = session_detach(atomic_load(&peer->session), handle);
	if (last)
		file_end(peer, file);
	fs_give_back(peer->server->opts.fs, ino);
	return rc;
}

void peer_files_end(struct peer *peer)
{
	uint64_t ino;

	for (unsigned i = 0; i < PEER_BUCKETS; i++) {
		while (peer->files[i]) {
			struct file *file = peer->files[i];

			peer->files[i] = file->next;
			ino = file->ino;
			file_end(peer, file);
			fs_give_back(peer->server->opts.fs, ino);
		}
	}
}

/* ---- stores ---- */

int peer_store_begin(struct peer *peer, struct file *file)
{
	struct server *s = peer->server;
	const struct server_mount *mount = &s->opts.mount;
	struct stored_begun begun = { 0 };
	int rc;

	pthread_mutex_lock(&peer->lock);
	rc = file->attached == 0 ? -EBADF : stored_add(s->stored, file->ino, &file->stored, &begun);
	pthread_mutex_unlock(&peer->lock);
	if (rc || begun.is_ready)
		return rc;
	/* From here on opens bypass the page cache. Those that did not see it are counted. */
	rc = mount->cached_opens(mount->arg, file->ino) > 0 && !sabotage_point("stores-cached") ?
		     -EBUSY :
		     mount->drop_pages(mount->arg, file->ino);
	if (rc == 0 && !stored_ready(s->stored, &file->stored, &begun))
		rc = -EBUSY;
	if (rc)
		stored_refused(s->stored, &file->stored, &begun);
	return rc;
}

void peer_store_end(struct peer *peer, const struct file *file)
{
	stored_granted(peer->server->stored, file->ino);
}
