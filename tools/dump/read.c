/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbradump: reading one copy of a unit, or the better one.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "dump.h"

/* NULL: sound. *there: something was read. */
static const char *copy_read(const struct dump *d, uint64_t laddr, unsigned copy, uint32_t magic, void *buf,
			     bool *there)
{
	bool is_inode = magic == MAGIC_INODE || laddr % BLOCK_SIZE;
	const char *why;
	size_t size;
	uint64_t off;
	int rc = pool_place(d->pool, laddr, copy, &off);

	*there = false;
	if (rc)
		return rc == -ENOENT ? "there is no metadata chunk, or no such copy" :
				       "its place is not known";
	if (dax_load(d->dax, buf, off, is_inode ? INODE_SIZE : BLOCK_SIZE, NULL))
		return "bad memory";
	*there = true;
	size = is_inode || (magic == 0 && unit_magic(buf) == MAGIC_INODE) ? INODE_SIZE : BLOCK_SIZE;
	why = unit_check_header(buf, size, magic, laddr, &d->super->uuid);
	return why ? why : unit_check_body(buf, size);
}

int dump_unit_read(const struct dump *d, uint64_t laddr, uint32_t magic, void *buf, const char **why)
{
	unsigned first = d->copy == DUMP_COPY_BEST ? 0 : d->copy;
	const char *mirror_why;
	bool there, mirror_there;

	if (laddr % (magic == MAGIC_INODE || magic == 0 ? INODE_SIZE : BLOCK_SIZE)) {
		*why = "no unit lies at such an address";
		return -1;
	}
	*why = copy_read(d, laddr, first, magic, buf, &there);
	if (*why && d->copy == DUMP_COPY_BEST) {
		mirror_why = copy_read(d, laddr, 1, magic, buf, &mirror_there);
		if (!mirror_why || (mirror_there && !there)) {
			*why = mirror_why;
			return 1;
		}
		/* Neither is sound: show the primary. */
		*why = copy_read(d, laddr, 0, magic, buf, &there);
	}
	return there ? (int)first : -1;
}

const char *dump_owner_text(uint64_t owner, char *text)
{
	static const char *const special[] = { "?",     "superblock",     "journal",
					       "group", "metadata chunk", "mirror",
					       "bad",   "remapped unit",  "forward" };
	uint64_t index = owner & ~OWNER_SPECIAL;

	if (!(owner & OWNER_SPECIAL))
		snprintf(text, DUMP_OWNER_TEXT, "inode %" PRIu64, owner);
	else
		snprintf(text, DUMP_OWNER_TEXT, "%s", special[index < ARRAY_SIZE(special) ? index : 0]);
	return text;
}
