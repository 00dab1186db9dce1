/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Units at home: checked when first touched, one copy healed from the other.
 *
 * Whoever reads a unit holds the lock that covers it, at least for reading, so no commit changes it meanwhile. Two readers may
 * find the same damage at once: healing is serialized and looks again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "txn/internal.h"
#include "util/log.h"

#define OWNER_TEXT 4400

static pthread_mutex_t heal_mutex = PTHREAD_MUTEX_INITIALIZER;

static _Atomic uint64_t *verified_words(struct chunk_place *place, bool make)
{
	_Atomic uint64_t *words = atomic_load_explicit(&place->verified, memory_order_acquire);
	_Atomic uint64_t *none = NULL;

	if (words || !make)
		return words;
	words = calloc(VERIFIED_WORDS, sizeof(*words));
	if (!words)
		return NULL; /* then units of this chunk are checked each time */
	if (!atomic_compare_exchange_strong(&place->verified, &none, words)) {
		free(words);
		words = none;
	}
	return words;
}

bool unit_is_verified(struct pool *pool, uint64_t laddr)
{
	struct chunk_place *place = chunk_place(pool, laddr);
	uint64_t bit = (laddr & (CHUNK_SIZE - 1)) >> INODE_SHIFT;
	_Atomic uint64_t *words = place ? verified_words(place, false) : NULL;

	return words && (atomic_load_explicit(&words[bit / 64], memory_order_acquire) >> bit % 64 & 1);
}

void unit_set_verified(struct pool *pool, uint64_t laddr, size_t size_bytes, bool verified)
{
	struct chunk_place *place = chunk_place(pool, laddr);
	_Atomic uint64_t *words = verified_words(place, verified);
	uint64_t first = (laddr & (CHUNK_SIZE - 1)) >> INODE_SHIFT;
	uint64_t count = verified ? 1 : u64_max(size_bytes >> INODE_SHIFT, 1);

	if (!words)
		return;
	for (uint64_t bit = first; bit < first + count; bit++) {
		if (verified)
			atomic_fetch_or_explicit(&words[bit / 64], 1ull << bit % 64, memory_order_release);
		else
			atomic_fetch_and_explicit(&words[bit / 64], ~(1ull << bit % 64),
						  memory_order_release);
	}
}

int unit_store(struct pool *pool, uint64_t off, const void *unit, size_t size_bytes)
{
	int rc = dax_store(pool->dax, off + LINE_SIZE, (const uint8_t *)unit + LINE_SIZE,
			   size_bytes - LINE_SIZE);

	return rc ? rc : dax_store(pool->dax, off, unit, LINE_SIZE);
}

/* ---- events ---- */

void pool_on_event(struct pool *pool, void (*fn)(void *arg, const struct pool_event *event), void *arg)
{
	pool->event_fn = fn;
	pool->event_arg = arg;
}

static void owner_text(uint64_t owner, const char *path, char *text, size_t size)
{
	if (path)
		snprintf(text, size, " of %s (inode %" PRIu64 ")", path, owner);
	else if (owner == OWNER_AG)
		snprintf(text, size, " of a group");
	else if (owner != 0 && !(owner & OWNER_SPECIAL))
		snprintf(text, size, " of inode %" PRIu64, owner);
	else
		text[0] = '\0';
}

void pool_event_log(const struct pool_event *event, const char *path)
{
	char owner[OWNER_TEXT];

	owner_text(event->owner, path, owner, sizeof(owner));
	log_line(event->lost ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN, "metadata unit 0x%" PRIx64 "%s: %s",
		 event->laddr, owner, event->what);
}

static void tell(struct pool *pool, uint64_t laddr, uint64_t owner, bool lost, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

static void tell(struct pool *pool, uint64_t laddr, uint64_t owner, bool lost, const char *fmt, ...)
{
	char what[256];
	struct pool_event event = { laddr, owner, lost, what };
	va_list args;

	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	if (pool->event_fn)
		pool->event_fn(pool->event_arg, &event);
	else
		pool_event_log(&event, NULL);
}

/* No copy is sound. What is left of one may still say whose it is. */
static void tell_lost(struct pool *pool, uint64_t laddr, uint32_t magic, const void *rest, const char *why,
		      const char *mirror_why)
{
	const struct m_unit_hdr *hdr = rest;
	uint64_t owner = 0;

	pool->stats.damaged_units++;
	if (!log_is_first(laddr))
		return;
	if (magic == MAGIC_INODE)
		owner = laddr >> INODE_SHIFT;
	else if (rest && le64_get(hdr->uh_laddr) == laddr && le32_get(hdr->uh_magic) == magic)
		owner = le64_get(hdr->uh_owner);
	tell(pool, laddr, owner, true,
	     "damaged in both copies: %s; mirror: %s; fsck.umbrafs mends what can be", why, mirror_why);
}

/* ---- reading and healing ---- */

/* Loads one copy into buf and judges it. -ENOENT: there is no such copy. */
static int copy_load(struct pool *pool, uint64_t laddr, unsigned copy, uint32_t magic, void *buf,
		     uint64_t *off, const char **why)
{
	size_t size = unit_size(magic);
	uint64_t bad_off = 0;
	int rc = pool_place(pool, laddr, copy, off);

	*why = NULL;
	if (rc) {
		*why = "no such copy";
		return rc;
	}
	rc = dax_load(pool->dax, buf, *off, size, &bad_off);
	if (rc) {
		*why = "bad memory";
		bad_met(pool, bad_off);
		return rc;
	}
	*why = unit_check_header(buf, size, magic, laddr, &pool->super.uuid);
	if (!*why)
		*why = unit_check_body(buf, size);
	return *why ? -EUCLEAN : 0;
}

/* The primary is bad: take the mirror and write it over the primary. 1: it cannot be written, go on with the mirror. */
static int unit_heal(struct pool *pool, uint64_t laddr, uint32_t magic, const char *why)
{
	_Alignas(64) uint8_t buf[BLOCK_SIZE];
	uint64_t primary_off, mirror_off;
	const char *mirror_why;
	int rc = copy_load(pool, laddr, 1, magic, buf, &mirror_off, &mirror_why);

	if (rc) {
		tell_lost(pool, laddr, magic, rc == -EUCLEAN ? buf : NULL, why, mirror_why);
		return rc == -EIO ? -EIO : -EUCLEAN;
	}
	if (dax_is_readonly(pool->dax))
		return 1;
	if (pool_place(pool, laddr, 0, &primary_off) != 0 ||
	    unit_store(pool, primary_off, buf, unit_size(magic)) != 0)
		return 1;
	dax_fence(pool->dax);
	pool->stats.heals++;
	tell(pool, laddr, unit_owner(buf), false, "healed from its mirror: %s", why);
	return 0;
}

/*
 * A commit that could write one copy only leaves two sound ones behind: the one of the later transaction is right. > 0: that is the
 * mirror, < 0: the mirror is older, or bad. One line of the mirror is enough to see it.
 */
static int mirror_age(struct pool *pool, uint64_t laddr, uint32_t magic, const void *primary)
{
	_Alignas(64) uint8_t buf[BLOCK_SIZE];
	const struct m_unit_hdr *have = primary, *other = (const struct m_unit_hdr *)buf;
	const char *why;
	uint64_t off;

	if (pool_place(pool, laddr, 1, &off) != 0)
		return 0;
	if (dax_load(pool->dax, buf, off, sizeof(*other), NULL) == 0 && le32_get(other->uh_magic) == magic &&
	    le64_get(other->uh_laddr) == laddr && le64_get(other->uh_seq) == le64_get(have->uh_seq))
		return 0;
	if (copy_load(pool, laddr, 1, magic, buf, &off, &why) != 0)
		return -1;
	return le64_get(other->uh_seq) > le64_get(have->uh_seq) ? 1 : -1;
}

/* The mirror is not what the sound primary in buf says. False: it cannot be written. */
static bool mirror_renew(struct pool *pool, uint64_t laddr, uint32_t magic, const void *buf)
{
	uint64_t off;

	if (dax_is_readonly(pool->dax))
		return true; /* nobody will write to either */
	if (pool_place(pool, laddr, 1, &off) != 0 || unit_store(pool, off, buf, unit_size(magic)) != 0)
		return false;
	dax_fence(pool->dax);
	pool->stats.heals++;
	tell(pool, laddr, unit_owner(buf), false, "its mirror was older or bad and is written anew");
	return true;
}

/* Looks at both copies. The unit counts as verified only if none has been left behind: see image_home(). */
static int unit_verify(struct pool *pool, uint64_t laddr, uint32_t magic, uint64_t *off)
{
	_Alignas(64) uint8_t buf[BLOCK_SIZE];
	bool both = true;
	const char *why;
	int rc = pool_place(pool, laddr, 0, off), age;

	/* From here on the group is loaded: under the lock nobody comes back here for its chunk table. */
	if (rc)
		return rc == -ENOENT ? -EUCLEAN : rc;
	rc = copy_load(pool, laddr, 0, magic, buf, off, &why);
	if (!rc && mirror_age(pool, laddr, magic, buf) == 0) {
		unit_set_verified(pool, laddr, unit_size(magic), true);
		return 0;
	}
	pthread_mutex_lock(&heal_mutex);
	rc = copy_load(pool, laddr, 0, magic, buf, off, &why);
	age = rc ? 1 : mirror_age(pool, laddr, magic, buf);
	if (age > 0)
		rc = unit_heal(pool, laddr, magic, rc ? why : "it is older");
	else if (age < 0)
		both = mirror_renew(pool, laddr, magic, buf);
	if (rc == 0 && both)
		unit_set_verified(pool, laddr, unit_size(magic), true);
	else if (rc == 1)
		rc = pool_place(pool, laddr, 1, off);
	pthread_mutex_unlock(&heal_mutex);
	return rc;
}

int unit_home(struct pool *pool, uint64_t laddr, uint32_t magic, const void **unit)
{
	uint64_t off;
	int rc;

	if (laddr & (unit_size(magic) - 1))
		return -EUCLEAN;
	if (unit_is_verified(pool, laddr))
		rc = pool_place(pool, laddr, 0, &off);
	else
		rc = unit_verify(pool, laddr, magic, &off);
	if (rc)
		return rc == -ENOENT ? -EUCLEAN : rc;
	*unit = dax_ptr(pool->dax, off);
	if (unit_magic(*unit) != magic) {
		if (log_is_first(laddr))
			log_error("metadata unit 0x%" PRIx64 ": not of the expected kind", laddr);
		return -EUCLEAN;
	}
	return 0;
}

/* Which copy is to be written over: 0, 1, or -1 for neither. Both are bad: -EUCLEAN or -EIO. */
static int scrub_judge(struct pool *pool, uint64_t laddr, uint32_t magic, uint8_t bufs[2][BLOCK_SIZE],
		       uint64_t offs[2], int *stale)
{
	const char *whys[2];
	int rcs[2];

	for (unsigned copy = 0; copy < 2; copy++)
		rcs[copy] = copy_load(pool, laddr, copy, magic, bufs[copy], &offs[copy], &whys[copy]);
	*stale = -1;
	if (rcs[0] && rcs[1]) {
		tell_lost(pool, laddr, magic, rcs[0] == -EUCLEAN ? bufs[0] : NULL, whys[0], whys[1]);
		return rcs[0] == -EIO || rcs[1] == -EIO ? -EIO : -EUCLEAN;
	}
	if (rcs[0])
		*stale = 0;
	else if (rcs[1])
		*stale = rcs[1] == -ENOENT ? -1 : 1;
	else if (memcmp(bufs[0], bufs[1], unit_size(magic)) != 0)
		*stale = le64_get(((const struct m_unit_hdr *)bufs[1])->uh_seq) >
					 le64_get(((const struct m_unit_hdr *)bufs[0])->uh_seq) ?
				 0 :
				 1;
	return 0;
}

int txn_unit_scrub(struct txn *tx, uint64_t laddr, uint32_t magic, bool *healed)
{
	struct pool *pool = txn_pool(tx);
	_Alignas(64) uint8_t bufs[2][BLOCK_SIZE];
	uint64_t offs[2];
	int rc, stale;

	*healed = false;
	if (magic == 0) {
		tell_lost(pool, laddr, 0, NULL, "neither header is sound", "nor what kind it is known");
		return -EUCLEAN;
	}
	if (unit_size(magic) == 0 || laddr & (unit_size(magic) - 1))
		return -EUCLEAN;
	rc = pool_place(pool, laddr, 0, &offs[0]); /* loads the group, as in unit_verify() */
	if (rc && rc != -ENOENT)
		return rc;
	pthread_mutex_lock(&heal_mutex);
	rc = scrub_judge(pool, laddr, magic, bufs, offs, &stale);
	if (!rc && stale >= 0) {
		if (dax_is_readonly(pool->dax) ||
		    unit_store(pool, offs[stale], bufs[1 - stale], unit_size(magic)) != 0) {
			rc = -EROFS;
		} else {
			dax_fence(pool->dax);
			pool->stats.heals++;
			*healed = true;
			tell(pool, laddr, unit_owner(bufs[1 - stale]), false,
			     "its %s was bad and is written anew", stale ? "mirror" : "primary");
		}
	}
	pthread_mutex_unlock(&heal_mutex);
	return rc;
}
