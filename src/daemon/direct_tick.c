/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the server of direct mappings does now and then: who has not said HELLO is shown out, times of files follow the stores to them, sessions
 * that have ended without a word are given up when nobody has their descriptor of the device any more, and what was copied for nothing is given back when space is short.
 */
#include <stdlib.h>
#include <sys/timerfd.h>

#include "daemon/direct_priv.h"
#include "dax/dax.h"
#include "util/sabotage.h"

#define TICK_MS 1000u
#define ORPHAN_FIRST_MS \
	10u /* a process that is killed closes its socket first, and lets go of its memory a moment later */

/* Under the lock. */
void tick_set(struct server *s)
{
	unsigned ms = s->orphans ? s->orphans_ms : s->peers || !s->is_listening ? TICK_MS : 0;
	struct itimerspec when = { .it_value = { ms / 1000, (long)(ms % 1000) * 1000000 } };
	uint64_t due = clock_ms() + ms;

	/* What comes in between never puts it off. */
	if (ms == 0 || (s->tick_due_ms && s->tick_due_ms <= due))
		return;
	s->tick_due_ms = due;
	(void)timerfd_settime(s->timer_fd, 0, &when, NULL);
}

static void hellos_see(struct server *s)
{
	uint64_t now = clock_ms();

	pthread_mutex_lock(&s->lock);
	for (struct peer *peer = s->peers; peer; peer = peer->next)
		if (!atomic_load(&peer->is_told) && now >= peer->until_ms)
			peer_end(peer);
	pthread_mutex_unlock(&s->lock);
}

/* Whether nothing of a process is left. Once it is so it stays so. */
static bool orphan_is_gone(void *arg, pid_t pid)
{
	struct server *s = arg;
	bool gone = true;

	pthread_mutex_lock(&s->lock);
	for (struct orphan *o = s->orphans; o && gone; o = o->next)
		gone = o->pid != pid || !dax_is_lent(s->opts.device_fd, o->number);
	for (struct orphan *o = s->orphans; o; o = o->next)
		o->is_held |= o->pid == pid && !gone;
	pthread_mutex_unlock(&s->lock);
	return gone;
}

/* It may have stored until just now, beside opens that read through the page cache: what they have read is dropped. */
static void orphan_has_stored(void *arg, uint64_t ino)
{
	struct server *s = arg;
	const struct server_mount *mount = &s->opts.mount;

	if (!sabotage_point("orphan-drop"))
		(void)!mount->drop_pages(mount->arg, ino);
}

/* Those that the registry has been asked about, and does not keep. */
static struct orphan *orphans_take(struct server *s)
{
	struct orphan **at, *taken = NULL;

	pthread_mutex_lock(&s->lock);
	for (at = &s->orphans; *at;) {
		struct orphan *o = *at;

		if (!o->is_in_round || o->is_held) {
			at = &o->next;
			continue;
		}
		*at = o->next;
		o->next = taken;
		taken = o;
	}
	s->orphans_ms = s->orphans_ms < TICK_MS / 2 ? s->orphans_ms * 2 : TICK_MS;
	pthread_mutex_unlock(&s->lock);
	return taken;
}

static void orphans_see(struct server *s)
{
	struct orphan *gone;
	bool any = false;

	pthread_mutex_lock(&s->lock);
	for (struct orphan *o = s->orphans; o; o = o->next) {
		o->is_in_round = o->is_ended;
		o->is_held = false;
		any = true;
	}
	pthread_mutex_unlock(&s->lock);
	if (!any)
		return;
	(void)registry_reap(s->opts.registry, orphan_is_gone, orphan_has_stored, s);
	gone = orphans_take(s);
	while (gone) {
		struct orphan *o = gone;

		gone = o->next;
		free(o);
	}
}

bool server_space_is_short(const struct server *s)
{
	struct fs_statfs st;

	return fs_statfs(s->opts.fs, &st) == 0 && st.free_blk < st.total_blk / SPACE_SHORT;
}

/* Copies are for speed as long as there is space: then those that nobody stores to are looked for in files that are mapped still. */
static void space_see(struct server *s)
{
	if (stored_is_any(s->stored) && server_space_is_short(s))
		fs_give_back(s->opts.fs, 0);
}

void tick(struct server *s)
{
	hellos_see(s);
	space_see(s);
	stored_look_all(s->stored);
	orphans_see(s);
}

void server_orphan_add(struct server *s, struct orphan *orphan)
{
	pthread_mutex_lock(&s->lock);
	orphan->next = s->orphans;
	s->orphans = orphan;
	pthread_mutex_unlock(&s->lock);
}

void server_orphan_ended(struct server *s, struct orphan *orphan)
{
	pthread_mutex_lock(&s->lock);
	orphan->is_ended = true;
	s->orphans_ms = ORPHAN_FIRST_MS;
	tick_set(s);
	pthread_mutex_unlock(&s->lock);
}
