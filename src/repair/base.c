/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Telling, and units written and read by hand.
 */
#include "repair/base.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "repair/salvage.h"

void repair_told(struct repair *rp, enum repair_act act, const char *fmt, ...)
{
	char text[5120]; /* a path and what is to say about it */
	va_list args;

	rp->report->acts[act]++;
	if (!rp->opts->told)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	rp->opts->told(rp->opts->arg, act, text);
}

void repair_text_clean(char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
	}
}

bool repair_step(struct repair *rp, const char *what, uint64_t done, uint64_t total)
{
	if (!rp->error && rp->opts->step && !rp->opts->step(rp->opts->arg, what, done, total))
		rp->error = -ECANCELED;
	return rp->error == 0;
}

void repair_path(struct repair *rp, uint64_t ino, char path[REPAIR_PATH_SIZE])
{
	struct salvage s = { .rp = rp, .ck = rp->facts };

	snprintf(path, REPAIR_PATH_SIZE, "%s", salvage_path(&s, ino));
}

int repair_begin(struct repair *rp)
{
	int rc = rp->begun ? 0 : pool_repair_begin(rp->pool);

	rp->begun = rp->begun || rc == 0;
	rp->report->changed = rp->report->changed || rc == 0;
	return rc;
}

static bool copy_read(struct repair *rp, uint64_t laddr, unsigned copy, uint32_t magic, void *buf)
{
	size_t size = unit_size(magic);
	uint64_t off;

	return pool_place(rp->pool, laddr, copy, &off) == 0 && dax_load(rp->dax, buf, off, size, NULL) == 0 &&
	       !unit_check_header(buf, size, magic, laddr, &rp->super->uuid) && !unit_check_body(buf, size);
}

static int copy_write(struct repair *rp, uint64_t laddr, unsigned copy, uint32_t magic, const void *buf)
{
	uint64_t off;
	int rc = pool_place(rp->pool, laddr, copy, &off);

	if (!rc)
		rc = dax_store(rp->dax, off, buf, unit_size(magic));
	/* The other copy is not touched before this one is whole. */
	dax_fence(rp->dax);
	return rc;
}

int repair_unit_write(struct repair *rp, uint64_t laddr, uint32_t magic, void *buf)
{
	_Alignas(64) uint8_t old[BLOCK_SIZE];
	struct m_unit_hdr *h = buf;
	size_t size = unit_size(magic);
	unsigned first;
	uint64_t seq;
	int rc = repair_begin(rp), rc_first, rc_second;

	if (!rc)
		rc = pool_repair_seq(rp->pool, &seq);
	if (rc)
		return rc;
	unit_init(buf, magic, laddr, le64_get(h->uh_owner), &rp->super->uuid);
	if (unit_check_body(buf, size) != NULL)
		return -EUCLEAN;
	unit_seal(buf, size, seq);
	/* Where one copy alone is sound it goes last. */
	first = copy_read(rp, laddr, 1, magic, old) ? 0 : 1;
	rc_first = copy_write(rp, laddr, first, magic, buf);
	rc_second = copy_write(rp, laddr, !first, magic, buf);
	if (rc_first == -EIO && rc_second != 0) {
		rc = repair_unit_leave(rp, laddr);
		if (rc)
			return rc;
		rc_first = copy_write(rp, laddr, first, magic, buf);
		rc_second = copy_write(rp, laddr, !first, magic, buf);
	}
	pool_unverify(rp->pool, laddr, size);
	rp->wrote |= rc_first == 0 || rc_second == 0;
	if (rc_first == 0 || rc_second == 0)
		return 0;
	return rc_first == -ENOMEM ? -ENOMEM : -EIO;
}

bool repair_unit_read(struct repair *rp, uint64_t laddr, uint32_t magic, uint64_t owner, void *buf)
{
	_Alignas(64) uint8_t mirror[BLOCK_SIZE];
	const struct m_unit_hdr *a = buf, *b = (const struct m_unit_hdr *)mirror;
	bool has_primary = copy_read(rp, laddr, 0, magic, buf);
	bool has_mirror = copy_read(rp, laddr, 1, magic, mirror);

	if (has_mirror && (!has_primary || le64_get(b->uh_seq) > le64_get(a->uh_seq)))
		memcpy(buf, mirror, unit_size(magic));
	return (has_primary || has_mirror) && (owner == 0 || unit_owner(buf) == owner);
}
