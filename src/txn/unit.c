/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Units at home: checked when first touched, one copy healed from the other.
 *
 * Whoever reads a unit holds the lock that covers it, at least for reading, so no commit changes it meanwhile. Two readers may
 * find the same damage at once: healing is serialized and looks again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "txn/internal.h"
#include "util/log.h"

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

static bool unit_is_verified(struct chunk_place *place, uint64_t laddr)
{
	uint64_t bit = (laddr & (CHUNK_SIZE - 1)) >> INODE_SHIFT;
	_Atomic uint64_t *words = verified_words(place, false);

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

/* Loads one copy into buf and judges it. -ENOENT: there is no such copy. */
static int copy_load(struct pool *pool, uint64_t laddr, unsigned copy, uint32_t magic, void *buf,
		     uint64_t *off, const char **why)
{
	size_t size = unit_size(magic);
	int rc = pool_place(pool, laddr, copy, off);

	*why = NULL;
	if (rc) {
		*why = "no such copy";
		return rc;
	}
	rc = dax_load(pool->dax, buf, *off, size, NULL);
	if (rc) {
		*why = "bad memory";
		return rc;
	}
	*why = unit_check_header(buf, size, magic, laddr, &pool->super.uuid);
	if (!*why)
		*why = unit_check_body(buf, size);
	return *why ? -EUCLEAN : 0;
}

/* The primary is bad: take the mirror and write it over the primary. */
static int unit_heal(struct pool *pool, uint64_t laddr, uint32_t magic, const char *why)
{
	_Alignas(64) uint8_t buf[BLOCK_SIZE];
	uint64_t primary_off, mirror_off;
	const char *mirror_why;
	int rc = copy_load(pool, laddr, 1, magic, buf, &mirror_off, &mirror_why);

	if (rc) {
		pool->stats.damaged_units++;
		log_error("metadata unit 0x%" PRIx64 " is damaged in both copies: %s; mirror: %s", laddr, why,
			  mirror_why);
		return rc == -EIO ? -EIO : -EUCLEAN;
	}
	if (dax_is_readonly(pool->dax))
		return 1;
	rc = pool_place(pool, laddr, 0, &primary_off);
	if (!rc)
		rc = dax_store(pool->dax, primary_off, buf, unit_size(magic));
	dax_fence(pool->dax);
	pool->stats.heals++;
	log_warn("metadata unit 0x%" PRIx64 " healed from its mirror: %s", laddr, why);
	return rc ? 1 : 0; /* not writable: go on with the mirror */
}

/*
 * A commit that could write one copy only leaves two sound ones behind: the one of the later transaction is right. > 0: that is the
 * mirror, < 0: the mirror is older. One line of the mirror is enough to see it.
 */
static int mirror_age(struct pool *pool, uint64_t laddr, uint32_t magic, const void *primary)
{
	_Alignas(64) uint8_t buf[BLOCK_SIZE];
	const struct m_unit_hdr *have = primary, *other = (const struct m_unit_hdr *)buf;
	const char *why;
	uint64_t off;

	if (pool_place(pool, laddr, 1, &off) != 0 || dax_load(pool->dax, buf, off, sizeof(*other), NULL) != 0)
		return 0;
	if (le32_get(other->uh_magic) == magic && le64_get(other->uh_laddr) == laddr &&
	    le64_get(other->uh_seq) == le64_get(have->uh_seq))
		return 0;
	if (copy_load(pool, laddr, 1, magic, buf, &off, &why) != 0)
		return -1;
	return le64_get(other->uh_seq) > le64_get(have->uh_seq) ? 1 : -1;
}

/* The mirror is not what the sound primary in buf says. */
static void mirror_renew(struct pool *pool, uint64_t laddr, uint32_t magic, const void *buf)
{
	uint64_t off;

	if (dax_is_readonly(pool->dax) || pool_place(pool, laddr, 1, &off) != 0 ||
	    dax_store(pool->dax, off, buf, unit_size(magic)) != 0)
		return;
	dax_fence(pool->dax);
	pool->stats.heals++;
	log_warn("mirror of metadata unit 0x%" PRIx64 " written anew: it was older", laddr);
}

static int unit_verify(struct pool *pool, uint64_t laddr, uint32_t magic, uint64_t *off)
{
	_Alignas(64) uint8_t buf[BLOCK_SIZE];
	const char *why;
	int rc = copy_load(pool, laddr, 0, magic, buf, off, &why), age;

	if (rc == -ENOENT)
		return -EUCLEAN;
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
		mirror_renew(pool, laddr, magic, buf);
	if (rc == 0)
		unit_set_verified(pool, laddr, unit_size(magic), true);
	else if (rc == 1)
		rc = pool_place(pool, laddr, 1, off);
	pthread_mutex_unlock(&heal_mutex);
	return rc;
}

int unit_home(struct pool *pool, uint64_t laddr, uint32_t magic, const void **unit)
{
	struct chunk_place *place = chunk_place(pool, laddr);
	uint64_t off;
	int rc;

	if (!place || laddr & (unit_size(magic) - 1))
		return -EUCLEAN;
	if (unit_is_verified(place, laddr)) {
		rc = pool_place(pool, laddr, 0, &off);
	} else {
		rc = unit_verify(pool, laddr, magic, &off);
	}
	if (rc)
		return rc == -ENOENT ? -EUCLEAN : rc;
	*unit = dax_ptr(pool->dax, off);
	if (unit_magic(*unit) != magic) {
		log_error("metadata unit 0x%" PRIx64 ": not of the expected kind", laddr);
		return -EUCLEAN;
	}
	return 0;
}
