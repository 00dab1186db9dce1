/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The explorer. Three memories of the size of the pool:
 *	live   the operation runs here, recorded
 *	base   all that is durable at the fence that is being looked at
 *	work   images are made and opened here; the same as base but for the pages in the dirty list, so that
 *	       going back costs a few pages
 */
#include "crash/explore.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <malloc.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <urcu/urcu-memb.h>
#include <urcu/rculfhash.h>

#include "crash/record.h"
#include "dax/priv.h" /* a device that can grow in the memory of the explorer */
#include "repair/check.h"
#include "space/space.h"
#include "util/log.h"

#define DEFAULT_SIZE ((uint64_t)16 << 20)
#define DEFAULT_IMAGES 100u
#define PAGE 4096u
#define AGAIN_FENCES_MAX 40u /* of one opening: of more a part is taken, another one each time */
#define AGAIN_FENCES_DEEP 3u /* the same, where every image crashes again */
#define LOST_EVERY 7u        /* images between two that lose one copy of the lanes */
#define FINDINGS_SHOWN 6u

struct crash {
	struct crash_opts opts;
	struct testfs live;
	uint8_t *memory[3];  /* live, base, work */
	struct record log;   /* of the live pool */
	struct record again; /* of an image that is being opened */
	struct record third; /* of one that has crashed again */
	struct record *keep; /* one of them, or NULL */
	bool had_intent; /* this image, or the one that was crashed again: something was finished after the crash */
	uint32_t *dirty; /* pages of work */
	uint8_t *is_dirty;
	size_t dirty_count;
	uint64_t random;
	uint64_t again_debt; /* images that are due before the next one crashes again: half of all images do */
	struct crash_stats stats;
	struct snapshot before, after;
	struct snapshot_mix mix;
	char why[2000]; /* what is wrong with an image */
};

#define LIVE(c) ((c)->memory[0])
#define BASE(c) ((c)->memory[1])
#define WORK(c) ((c)->memory[2])

/* Each commit takes the next lane: a record that was not retired in time then meets a newer one. */
int sched_getcpu(void)
{
	static int cpu;

	return cpu++;
}

/* There is one thread and nobody to wait for: the library's own would sleep 10 ms each time a file system is closed. */
void urcu_memb_call_rcu(struct rcu_head *head, void (*fn)(struct rcu_head *head))
{
	fn(head);
}

void urcu_memb_barrier(void)
{
}

/*
 * A hash table for a few inodes: making and taking down a large one for each image would take most of the time. One that does not
 * grow by itself is taken down by its owner and not by a thread.
 */
struct cds_lfht *_cds_lfht_new(unsigned long init_size, unsigned long min_size, unsigned long max_size,
			       int flags, const struct cds_lfht_mm_type *mm,
			       const struct rcu_flavor_struct *flavor, pthread_attr_t *attr)
{
	static __typeof__(&_cds_lfht_new) real;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "_cds_lfht_new");
	return real(init_size < 64 ? init_size : 64, min_size < 64 ? min_size : 64, max_size,
		    flags & ~CDS_LFHT_AUTO_RESIZE, mm, flavor, attr);
}

/* ---- memory ---- */

static void work_touch(struct crash *c, uint64_t off, size_t len)
{
	for (uint64_t page = off / PAGE; page <= (off + len - 1) / PAGE; page++) {
		if (c->is_dirty[page])
			continue;
		c->is_dirty[page] = 1;
		c->dirty[c->dirty_count++] = (uint32_t)page;
	}
}

static void work_reset(struct crash *c)
{
	for (size_t i = 0; i < c->dirty_count; i++) {
		size_t at = (size_t)c->dirty[i] * PAGE;

		memcpy(WORK(c) + at, BASE(c) + at, PAGE);
		c->is_dirty[c->dirty[i]] = 0;
	}
	c->dirty_count = 0;
}

static void apply(uint8_t *memory, const struct record *log, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++) {
		if (log->events[i].len)
			memcpy(memory + log->events[i].off, log->bytes + log->events[i].at,
			       log->events[i].len);
	}
}

/* ---- traces ---- */

static void live_store(void *ctx, uint64_t off, const void *src, size_t len)
{
	record_store(&((struct crash *)ctx)->log, off, src, len);
}

static void live_zero(void *ctx, uint64_t off, size_t len)
{
	record_store(&((struct crash *)ctx)->log, off, NULL, len);
}

static void live_fence(void *ctx)
{
	record_fence(&((struct crash *)ctx)->log);
}

static void work_store(void *ctx, uint64_t off, const void *src, size_t len)
{
	struct crash *c = ctx;

	work_touch(c, off, len);
	if (c->keep)
		record_store(c->keep, off, src, len);
}

static void work_zero(void *ctx, uint64_t off, size_t len)
{
	work_store(ctx, off, NULL, len);
}

static void work_fence(void *ctx)
{
	struct crash *c = ctx;

	if (c->keep)
		record_fence(c->keep);
}

/* ---- one image ---- */

static void wrong(struct crash *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void wrong(struct crash *c, const char *fmt, ...)
{
	size_t used = strlen(c->why);
	va_list args;

	va_start(args, fmt);
	vsnprintf(c->why + used, sizeof(c->why) - used, fmt, args);
	va_end(args);
}

static void finding(void *arg, enum check_kind kind, const char *text)
{
	wrong(arg, "\n#   %s: %s", check_kind_name(kind), text);
}

static bool image_check(struct crash *c, struct pool *pool, const char *when, struct check_report *report)
{
	struct check_opts opts = { .found = finding, .arg = c, .limit = FINDINGS_SHOWN, .threads = 1 };
	int rc;

	wrong(c, "check %s:", when);
	rc = check_pool(pool, &opts, report);
	if (rc || report->findings) {
		if (rc)
			wrong(c, " %s", strerror(-rc));
		return false;
	}
	c->why[0] = 0;
	return true;
}

static bool image_compare(struct crash *c, struct fs *fs, bool was_cut, bool is_final)
{
	struct snapshot_mix none = { 0 };
	const struct snapshot_mix *mix = is_final && !c->mix.stays ? &none : &c->mix;
	char before[500] = "it has returned", after[500];
	struct snapshot seen;
	bool same;

	snapshot_take(fs, &seen);
	same = !seen.error &&
	       (snapshot_same(&seen, &c->after, &c->before, mix, was_cut, after, sizeof(after)) ||
		(!is_final &&
		 snapshot_same(&seen, &c->before, &c->after, mix, false, before, sizeof(before))));
	if (seen.error)
		wrong(c, "%s", seen.error_at);
	else if (!same)
		wrong(c, "neither the state before (%s) nor after (%s)", before, after);
	snapshot_free(&seen);
	return same;
}

static bool image_look(struct crash *c, struct pool *pool, bool is_final)
{
	const char *bad = c->opts.look ? c->opts.look(pool, is_final) : NULL;

	if (bad)
		wrong(c, "%s", bad);
	return !bad;
}

static bool image_use(struct crash *c, struct pool *pool, bool is_final)
{
	struct fs_opts opts = { .noatime = true };
	struct check_report report;
	struct fs *fs;
	bool ok;
	int rc;

	if (!image_check(c, pool, "after replay", &report) || !image_look(c, pool, is_final))
		return false;
	rc = fs_open(pool, &opts, &fs);
	if (rc) {
		wrong(c, "fs_open: %s", strerror(-rc));
		return false;
	}
	c->had_intent |= report.intents != 0;
	c->stats.intents += report.intents != 0;
	ok = image_compare(c, fs, c->had_intent, is_final);
	fs_work(fs);
	fs_close(fs);
	if (!ok || !image_check(c, pool, "at the end", &report))
		return false;
	if (report.orphans || report.intents)
		wrong(c, "%" PRIu64 " orphans and %" PRIu64 " intents are left", report.orphans,
		      report.intents);
	return !report.orphans && !report.intents;
}

/* Opens what is in work and looks at it. */
static bool image_try(struct crash *c, bool is_final)
{
	struct dax_trace trace = { work_store, work_zero, work_fence, c };
	struct pool *pool;
	struct dax *dax;
	char text[256] = "";
	bool ok = false;
	int rc;

	c->why[0] = 0;
	c->stats.images++;
	rc = dax_open_memory(WORK(c), c->opts.size_bytes, &trace, &dax);
	if (rc)
		abort();
	rc = pool_open(dax, &(struct pool_opts){ 0 }, &pool, text, sizeof(text));
	if (rc) {
		wrong(c, "pool_open: %s", text);
		goto out;
	}
	c->stats.replayed += pool_stats(pool)->replayed_records != 0;
	ok = image_use(c, pool, is_final);
	if (ok && pool_failed(pool)) {
		wrong(c, "the pool takes no more writes: %s", pool_failed(pool));
		ok = false;
	}
	pool_close(pool, ok);
out:
	dax_close(dax);
	return ok;
}

/* One of the two copies of every lane cannot be trusted any more. */
static void lose_lanes(struct crash *c, bool mirror)
{
	const struct super *super = pool_super(c->live.pool);

	for (uint32_t i = 0; i < super->lane_count; i++) {
		uint64_t off = (mirror ? super->lanes[i].mirror_blk : super->lanes[i].primary_blk) * PAGE;

		work_touch(c, off, 64);
		memset(WORK(c) + off, 0xa5, 64);
	}
	c->stats.lane_lost++;
}

/* ---- images of a fence ---- */

struct variant {
	struct pending *pending;
	uint64_t number; /* below picks: one of all images; then a sample, 0: nothing arrived, 1: everything did */
	uint64_t picks;
	bool torn; /* the picks are torn between words, too */
	bool is_final;
};

static void pending_touch(struct crash *c, const struct pending *p)
{
	for (size_t i = 0; i < p->line_count; i++)
		work_touch(c, p->lines[i].line * 64, 64);
}

static void pending_land(struct crash *c, const struct pending *p)
{
	pending_touch(c, p);
	pending_apply(p, WORK(c));
}

static void image_make(struct crash *c, const struct variant *v)
{
	if (v->number < v->picks)
		pending_pick(v->pending, v->torn, v->number);
	else
		pending_sample(v->pending, (unsigned)(v->number - v->picks), &c->random);
	pending_land(c, v->pending);
}

/* What one opening had stored up to a fence, and some of what came after that. */
struct cut {
	const struct record *record;
	size_t from;
	struct pending later;
};

static void cut_make(struct crash *c, struct cut *cut, const struct record *record, size_t from, size_t to)
{
	cut->record = record;
	cut->from = from;
	pending_init(&cut->later, record, from, to, WORK(c));
	pending_sample(&cut->later, 1 + (unsigned)testfs_below(&c->random, 5), &c->random);
}

static void cut_before(struct crash *c, const struct record *record, size_t from)
{
	for (size_t i = 0; i < from; i++) {
		if (record->events[i].len)
			work_touch(c, record->events[i].off, record->events[i].len);
	}
	apply(WORK(c), record, 0, from);
}

/* An image that has crashed again does it once more, at a fence by chance. */
static bool image_third(struct crash *c, const struct variant *v, const struct cut *second)
{
	size_t fences = 0, from = 0, to = 0;
	struct cut cut;
	uint64_t nth;
	bool ok;

	for (size_t i = 0; i < c->third.count; i++)
		fences += c->third.events[i].len == 0;
	if (fences == 0)
		return true;
	nth = testfs_below(&c->random, fences);
	while (c->third.events[to].len || nth-- > 0) {
		if (c->third.events[to].len == 0)
			from = to + 1;
		to++;
	}
	work_reset(c);
	pending_land(c, v->pending);
	cut_before(c, second->record, second->from);
	pending_land(c, &second->later);
	cut_before(c, &c->third, from);
	cut_make(c, &cut, &c->third, from, to);
	pending_land(c, &cut.later);
	pending_free(&cut.later);
	c->stats.third++;
	ok = image_try(c, v->is_final);
	if (!ok)
		wrong(c, "\n#   (and again, stores %zu to %zu)", from, to);
	return ok;
}

/* The image again, then what opening it had stored up to a fence, and some of what came after that. */
static bool image_again(struct crash *c, const struct variant *v, size_t from, size_t to)
{
	struct cut cut;
	bool ok;

	work_reset(c);
	pending_land(c, v->pending);
	cut_before(c, &c->again, from);
	cut_make(c, &cut, &c->again, from, to);
	pending_land(c, &cut.later);
	c->stats.again++;
	record_clear(&c->third);
	c->keep = c->opts.deep ? &c->third : NULL;
	ok = image_try(c, v->is_final);
	c->keep = NULL;
	if (ok && c->opts.deep)
		ok = image_third(c, v, &cut);
	pending_free(&cut.later);
	if (!ok)
		wrong(c, "\n#   (crashed again while it was opened, stores %zu to %zu)", from, to);
	return ok;
}

/* At each fence that was passed while it was opened. */
static bool image_again_all(struct crash *c, const struct variant *v)
{
	bool had_intent = c->had_intent, ok = true;
	size_t fences = 0, from = 0;
	uint64_t part;

	for (size_t i = 0; i < c->again.count; i++)
		fences += c->again.events[i].len == 0;
	part = fences / (c->opts.deep && v->number > 1 ? AGAIN_FENCES_DEEP : AGAIN_FENCES_MAX) + 1;
	for (size_t i = 0; i < c->again.count && ok; i++) {
		if (c->again.events[i].len)
			continue;
		if (part == 1 || testfs_below(&c->random, part) == 0) {
			c->had_intent = had_intent;
			ok = image_again(c, v, from, i);
			c->again_debt++;
		}
		from = i + 1;
	}
	return ok;
}

static bool variant_try(struct crash *c, const struct variant *v)
{
	bool lost = c->stats.images % LOST_EVERY == 0, mirror = false, again, ok;

	again = !lost && (c->again_debt == 0 || c->opts.deep);

	if (c->again_debt)
		c->again_debt--;
	image_make(c, v);
	c->had_intent = false;
	if (lost) {
		mirror = testfs_below(&c->random, 2);
		lose_lanes(c, mirror);
	}
	record_clear(&c->again);
	c->keep = again ? &c->again : NULL;
	ok = image_try(c, v->is_final);
	c->keep = NULL;
	if (!ok && lost)
		wrong(c, "\n#   (%s of the lanes lost)", mirror ? "mirrors" : "primaries");
	if (ok && again)
		ok = image_again_all(c, v);
	work_reset(c);
	return ok;
}

/* All images if they are few, torn ones too if they still are; a sample else. */
static uint64_t fence_plan(struct crash *c, struct variant *v)
{
	uint64_t all = u64_max(c->opts.all, c->opts.images), possible;

	possible = pending_possible(v->pending, true, all);
	v->torn = possible <= all;
	if (!v->torn)
		possible = pending_possible(v->pending, false, all);
	if (possible > all)
		return c->opts.images;
	v->picks = possible;
	c->stats.full_fences += v->torn;
	return v->torn ? possible : possible + c->opts.images / 2;
}

static bool fence_explore(struct crash *c, const char *name, size_t from, size_t to, bool is_final)
{
	struct pending pending;
	struct variant v = { .pending = &pending, .is_final = is_final };
	uint64_t count;
	bool ok = true;

	pending_init(&pending, &c->log, from, to, BASE(c));
	count = fence_plan(c, &v);
	for (v.number = 0; v.number < count && ok; v.number++)
		ok = variant_try(c, &v);
	pending_free(&pending);
	c->stats.fences++;
	if (!ok && !c->opts.quiet)
		printf("# %s: fence %" PRIu64 "%s, image %" PRIu64 ", stores %zu to %zu of %zu: %s\n", name,
		       c->stats.fences, is_final ? " (returned)" : "", v.number - 1, from, to, c->log.count,
		       c->why);
	return ok;
}

/* Walks along the log; afterwards base and work have all that is fenced, and the log what is not. */
static bool log_explore(struct crash *c, const char *name)
{
	size_t from = 0;
	bool ok = true;

	for (size_t i = 0; i < c->log.count; i++) {
		if (c->log.events[i].len)
			continue;
		if (ok)
			ok = fence_explore(c, name, from, i, false);
		apply(BASE(c), &c->log, from, i);
		apply(WORK(c), &c->log, from, i);
		from = i + 1;
	}
	if (ok)
		ok = fence_explore(c, name, from, c->log.count, true);
	record_drop(&c->log, from);
	return ok;
}

/* Takes over what is fenced of what was done outside of an operation. */
static void settle(struct crash *c)
{
	size_t end = c->log.count;

	while (end > 0 && c->log.events[end - 1].len)
		end--;
	apply(BASE(c), &c->log, 0, end);
	apply(WORK(c), &c->log, 0, end);
	record_drop(&c->log, end);
}

/* Each operation has numbers of its own, so that it comes out the same whatever runs before it. */
static uint64_t name_seed(const char *name)
{
	uint64_t seed = 0;

	for (; *name; name++)
		seed = seed * 0x100000001b3ull + (uint8_t)*name;
	return seed;
}

bool crash_run(struct crash *c, const char *name, void (*op)(struct testfs *t, void *arg), void *arg,
	       const struct snapshot_mix *mix)
{
	bool ok;

	settle(c);
	c->random = c->opts.seed ^ name_seed(name);
	snapshot_take(c->live.fs, &c->before);
	op(&c->live, arg);
	c->mix = mix ? *mix : (struct snapshot_mix){ 0 };
	snapshot_take(c->live.fs, &c->after);
	if (pool_failed(c->live.pool)) { /* nothing more can be done with it */
		printf("# %s: the live pool takes no more writes: %s\n", name, pool_failed(c->live.pool));
		abort();
	}
	if (c->before.error || c->after.error) {
		if (!c->opts.quiet)
			printf("# %s: the live file system: %s%s\n", name, c->before.error_at,
			       c->after.error_at);
		ok = false;
		settle(c);
	} else {
		ok = log_explore(c, name);
	}
	snapshot_free(&c->before);
	snapshot_free(&c->after);
	c->stats.ops++;
	return ok;
}

/* ---- life ---- */

static void format(struct crash *c, uint64_t size_bytes, const struct format_opts *opts)
{
	struct dax_trace trace = { live_store, live_zero, live_fence, c };
	char why[256];
	struct dax *dax;

	if (dax_open_memory(LIVE(c), size_bytes, &trace, &dax) != 0 ||
	    pool_format(dax, opts, NULL, why, sizeof(why)) != 0)
		abort();
	dax_close(dax);
}

static void live_open(struct crash *c)
{
	struct dax_trace trace = { live_store, live_zero, live_fence, c };
	struct fs_opts opts = { .noatime = true };
	char why[256];

	if (dax_open_memory(LIVE(c), c->opts.made_bytes, &trace, &c->live.dax) != 0)
		abort();
	c->live.dax->max_bytes = c->opts.size_bytes;
	if (pool_open(c->live.dax, &(struct pool_opts){ 0 }, &c->live.pool, why, sizeof(why)) != 0 ||
	    fs_open(c->live.pool, &opts, &c->live.fs) != 0)
		abort();
}

struct crash *crash_new(const struct crash_opts *opts)
{
	const char *images = getenv("UMBRA_CRASH_IMAGES");
	struct crash *c = calloc(1, sizeof(*c));

	if (!c)
		abort();
	c->opts = *opts;
	if (!c->opts.size_bytes)
		c->opts.size_bytes = DEFAULT_SIZE;
	if (!c->opts.made_bytes)
		c->opts.made_bytes = c->opts.size_bytes;
	if (images)
		c->opts.images = (unsigned)strtoul(images, NULL, 0);
	if (!c->opts.images)
		c->opts.images = DEFAULT_IMAGES;
	for (unsigned i = 0; i < 3; i++) {
		c->memory[i] = mmap(NULL, c->opts.size_bytes, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (c->memory[i] == MAP_FAILED)
			abort();
	}
	c->dirty = calloc(c->opts.size_bytes / PAGE, sizeof(*c->dirty));
	c->is_dirty = calloc(c->opts.size_bytes / PAGE, 1);
	if (!c->dirty || !c->is_dirty)
		abort();
	/* Opening an image takes large buffers and hardly touches them: they must not come from the kernel each time. */
	mallopt(M_MMAP_THRESHOLD, 256 << 20);
	mallopt(M_TRIM_THRESHOLD, 512 << 20);
	/* Thousands of replays are nothing to talk about. */
	log_setup("crash", LOG_LEVEL_ERROR, false);
	/* Where it is to grow an older pool of the same name lies, which ends with the device. */
	if (c->opts.made_bytes < c->opts.size_bytes)
		format(c, c->opts.size_bytes, &(struct format_opts){ .uuid = opts->format.uuid });
	format(c, c->opts.made_bytes, &c->opts.format);
	live_open(c);
	return c;
}

void crash_free(struct crash *c)
{
	fs_close(c->live.fs);
	pool_close(c->live.pool, true);
	dax_close(c->live.dax);
	for (unsigned i = 0; i < 3; i++)
		munmap(c->memory[i], c->opts.size_bytes);
	record_free(&c->log);
	record_free(&c->again);
	record_free(&c->third);
	free(c->dirty);
	free(c->is_dirty);
	free(c);
}

struct testfs *crash_live(struct crash *c)
{
	return &c->live;
}

void crash_set_images(struct crash *c, unsigned images, unsigned all)
{
	c->opts.images = images ? images : c->opts.images;
	c->opts.all = all ? all : c->opts.all;
}

const struct crash_stats *crash_stats(const struct crash *c)
{
	return &c->stats;
}
