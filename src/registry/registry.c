/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registry as a whole: its beginning and end, lists, figures.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "registry/priv.h"

#define FILES_MIN 1024u /* buckets */

struct timespec clock_after(unsigned ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

int cond_new(pthread_cond_t *cond)
{
	pthread_condattr_t attr;
	int rc = pthread_condattr_init(&attr);

	if (rc)
		return -rc;
	rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	if (!rc)
		rc = pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
	return -rc;
}

static int parts_new(struct registry *r)
{
	struct ranges *masters;
	int rc = ranges_new(&masters);

	if (rc)
		return rc;
	r->masters = masters;
	rc = ranges_new(&r->quarantine);
	if (rc)
		return rc;
	r->files = cds_lfht_new_flavor(FILES_MIN, FILES_MIN, 0, CDS_LFHT_AUTO_RESIZE | CDS_LFHT_ACCOUNTING,
				       &urcu_memb_flavor, NULL);
	if (!r->files)
		return -ENOMEM;
	return cond_new(&r->idle);
}

static void parts_free(struct registry *r)
{
	if (r->files)
		cds_lfht_destroy(r->files, NULL);
	ranges_free(r->masters);
	ranges_free(r->quarantine);
	free(r);
}

int registry_open(struct fs *fs, const struct registry_opts *opts, struct registry **out)
{
	struct registry *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return -ENOMEM;
	thread_register();
	rc = parts_new(r);
	if (rc) {
		parts_free(r);
		return rc;
	}
	r->fs = fs;
	r->opts = *opts;
	if (r->opts.revoke_ms == 0)
		r->opts.revoke_ms = REGISTRY_REVOKE_MS;
	if (r->opts.shadows_max == 0)
		r->opts.shadows_max = REGISTRY_SHADOWS_MAX;
	if (r->opts.holdings_max == 0)
		r->opts.holdings_max = REGISTRY_HOLDINGS_MAX;
	if (r->opts.user_times == 0)
		r->opts.user_times = REGISTRY_USER_TIMES;
	pthread_mutex_init(&r->lock, NULL);
	pthread_mutex_init(&r->reap_lock, NULL);
	CDS_INIT_LIST_HEAD(&r->sessions);
	CDS_INIT_LIST_HEAD(&r->users);
	r->holders = (struct fs_holders){
		.arg = r, .begin = change_begin, .end = change_end, .held = change_held, .keep = masters_keep
	};
	fs_set_holders(fs, &r->holders);
	*out = r;
	return 0;
}

void registry_close(struct registry *r)
{
	struct session *s, *next;

	thread_register();
	/* Orphans that are left: nothing is handed out any more. */
	cds_list_for_each_entry_safe(s, next, &r->sessions, link) {
		assert(s->ended && s->lost);
		session_remove(s);
	}
	users_free(r);
	fs_set_holders(r->fs, NULL);
	/* For readers; what is still to be freed by call_rcu has nothing to do with the rest (a barrier would take 10 ms). */
	if (r->session_next > 0)
		urcu_memb_synchronize_rcu();
	pthread_mutex_destroy(&r->lock);
	pthread_mutex_destroy(&r->reap_lock);
	pthread_cond_destroy(&r->idle);
	parts_free(r);
}

/* ---- lists ---- */

static bool passes(const struct shadow_filter *f, const struct session *s, const struct holding *h,
		   const struct range *shadow)
{
	if (f->pid != 0 && f->pid != s->who.pid)
		return false;
	if (f->ino != 0 && f->ino != h->file->ino)
		return false;
	if (f->dev_lo == 0 && f->dev_hi == 0)
		return true;
	return !(shadow->tag & SHADOW_HOLE) && shadow->value < f->dev_hi &&
	       f->dev_lo < shadow->value + shadow->count_blk;
}

/* The first holding at pos or behind it; pos moves there. (l) */
static struct holding *holding_at(struct registry *r, struct shadow_pos *pos)
{
	struct session *s;

	cds_list_for_each_entry(s, &r->sessions, link) {
		if (s->id < pos->session)
			continue;
		if (s->id > pos->session)
			*pos = (struct shadow_pos){ .session = s->id };
		for (uint32_t i = pos->handle > 0 ? pos->handle - 1 : 0; i < s->handle_room; i++) {
			if (!s->handles[i])
				continue;
			if (i + 1 != pos->handle)
				*pos = (struct shadow_pos){ .session = s->id, .handle = i + 1 };
			return s->handles[i];
		}
		pos->session = s->id + 1;
		pos->handle = 0;
		pos->file_blk = 0;
	}
	return NULL;
}

/* Some of the holding at pos, at most STEP_SHADOWS are looked at; false: there are no more. (l) */
static bool list_some(struct registry *r, const struct shadow_filter *filter, struct shadow_pos *pos,
		      struct shadow_info *infos, unsigned max, unsigned *count)
{
	struct holding *h = holding_at(r, pos);
	struct session *s = h ? h->session : NULL;
	struct range shadow;

	for (unsigned seen = 0; h && seen < STEP_SHADOWS && *count < max; seen++) {
		if ((filter->ino != 0 && filter->ino != h->file->ino) ||
		    !ranges_find(h->shadows, pos->file_blk, &shadow)) {
			pos->handle++;
			pos->file_blk = 0;
			return true;
		}
		pos->file_blk = shadow.blk + shadow.count_blk;
		if (!passes(filter, s, h, &shadow))
			continue;
		infos[(*count)++] = (struct shadow_info){ .session = s->id,
							  .pid = s->who.pid,
							  .ino = h->file->ino,
							  .file_blk = shadow.blk,
							  .dev_blk = shadow.value,
							  .count_blk = shadow.count_blk,
							  .write = shadow.tag & SHADOW_WRITE,
							  .orphan = s->lost };
	}
	return h;
}

int registry_list(struct registry *r, const struct shadow_filter *filter, struct shadow_pos *pos,
		  struct shadow_info *infos, unsigned max, unsigned *count)
{
	bool more = true;

	thread_register();
	*count = 0;
	while (more && *count < max) {
		pthread_mutex_lock(&r->lock);
		more = list_some(r, filter, pos, infos, max, count);
		pthread_mutex_unlock(&r->lock);
	}
	return 0;
}

void registry_get_stats(struct registry *r, struct registry_stats *stats)
{
	pthread_mutex_lock(&r->lock);
	*stats = r->stats;
	stats->masters = ranges_count(r->masters);
	stats->quarantine_blk = r->quarantine_blk;
	stats->bytes += ranges_bytes(r->masters) + ranges_bytes(r->quarantine);
	pthread_mutex_unlock(&r->lock);
}
