/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbradump: what an image of metadata must not tell: contents of small files, and if asked for names.
 *
 * A name is replaced by one of the same length. Within one run the same name always becomes the same, and two different ones never do
 * (a directory stays sound, parents agree with entries): a keyed bijection on the names of each length, a Feistel network of byte
 * strings, after Luby and Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", 1988. Names of letters,
 * digits and the usual marks become such names. What falls outside of its set is mapped again until it is inside
 * (cycle walking, Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
 */
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "dump.h"

#define ROUNDS 6

static const char plain[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-.";
#define PLAIN_COUNT (sizeof(plain) - 1)
#define OTHER_COUNT 254u /* all bytes but 0 and '/' */

static uint64_t key;

static void key_make(void)
{
	while (key == 0)
		if (getrandom(&key, sizeof(key), 0) != (ssize_t)sizeof(key))
			key = 0;
}

static bool is_plain(const uint8_t *name, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!memchr(plain, name[i], PLAIN_COUNT))
			return false;
	return true;
}

static bool is_dots(const uint8_t *name, size_t len)
{
	return len <= 2 && name[0] == '.' && (len == 1 || name[1] == '.');
}

/* Bytes and their numbers below base. */
static uint8_t digit(uint8_t byte, bool as_plain)
{
	if (as_plain)
		return (uint8_t)((const char *)memchr(plain, byte, PLAIN_COUNT) - plain);
	return (uint8_t)(byte - 1 - (byte > '/'));
}

static uint8_t byte_of(uint8_t value, bool as_plain)
{
	if (as_plain)
		return (uint8_t)plain[value];
	return (uint8_t)(value + 1 + (value + 1 >= '/'));
}

/* Adds a stream that follows from one part to the other, digit by digit. */
static void round_add(uint8_t *to, size_t to_len, const uint8_t *from, size_t from_len, unsigned round,
		      unsigned base)
{
	uint64_t seed = XXH3_64bits_withSeed(from, from_len, key + round);

	for (size_t i = 0; i < to_len; i++) {
		uint64_t at = i;

		to[i] = (uint8_t)((to[i] + XXH3_64bits_withSeed(&at, sizeof(at), seed) % base) % base);
	}
}

/* A single digit has no halves: a keyed shuffle of all digits. */
static uint8_t digit_shuffle(uint8_t value, unsigned base)
{
	uint8_t all[256];

	for (unsigned i = 0; i < base; i++)
		all[i] = (uint8_t)i;
	for (unsigned i = base - 1; i > 0; i--) {
		unsigned k = (unsigned)(XXH3_64bits_withSeed(&i, sizeof(i), key) % (i + 1));
		uint8_t was = all[i];

		all[i] = all[k];
		all[k] = was;
	}
	return all[value];
}

static void name_map(uint8_t *name, size_t len, bool as_plain)
{
	unsigned base = as_plain ? PLAIN_COUNT : OTHER_COUNT;
	size_t half = len / 2;

	for (size_t i = 0; i < len; i++)
		name[i] = digit(name[i], as_plain);
	if (len == 1)
		name[0] = digit_shuffle(name[0], base);
	for (unsigned r = 0; r < ROUNDS && half; r += 2) {
		round_add(name, half, name + half, len - half, r, base);
		round_add(name + half, len - half, name, half, r + 1, base);
	}
	for (size_t i = 0; i < len; i++)
		name[i] = byte_of(name[i], as_plain);
}

void hide_name(uint8_t *name, size_t len)
{
	bool as_plain = is_plain(name, len);

	key_make();
	do
		name_map(name, len, as_plain);
	while (is_dots(name, len) || is_plain(name, len) != as_plain);
}

static void attr_hide(struct m_attr *m)
{
	uint8_t *name = m->at_data, *dot;
	size_t value_at = m->at_namelen;

	if (m->at_type == ATTR_PARENT) {
		hide_name(m->at_data + 2 * sizeof(le64), m->at_namelen);
		return;
	}
	/* Names of the system and ACLs tell nobody's secrets, and have to stay sound. */
	if (m->at_type != ATTR_XATTR ||
	    (strncmp((char *)name, "user.", 5) && strncmp((char *)name, "trusted.", 8)))
		return;
	dot = memchr(name, '.', m->at_namelen);
	if (dot + 1 < name + m->at_namelen)
		hide_name(dot + 1, (size_t)(name + m->at_namelen - dot - 1));
	if (!(m->at_flags & ATTR_LARGE))
		memset(name + value_at, 0, le32_get(m->at_value_len));
}

static void record_hide(enum node_kind kind, void *rec)
{
	struct m_dirent *entry = rec;

	if (kind == NODE_ATTR)
		attr_hide(rec);
	else if (entry->de_namelen)
		hide_name(entry->de_name, entry->de_namelen);
}

/* A body of a directory or of attributes. Nothing clears what removed records leave behind in it. */
static bool body_hide(struct m_node_body *body, size_t size_bytes)
{
	const struct node_ops *ops = node_ops((enum node_kind)body->nb_kind);
	uint8_t was[NODE_BODY_SIZE], *bytes = (uint8_t *)body;
	size_t array_bytes;

	if (body->nb_kind != NODE_DIR && body->nb_kind != NODE_ATTR)
		return false;
	array_bytes = node_level(body) ? (ops->key_words + 1u) * sizeof(le64) : sizeof(le16);
	array_bytes = sizeof(*body) + node_count(body) * array_bytes;
	memcpy(was, body, size_bytes);
	memset(bytes + array_bytes, 0, size_bytes - array_bytes);
	for (unsigned i = 0; i < node_count(body) && node_level(body) == 0; i++) {
		size_t off = le16_get(((const le16 *)(const void *)body->nb_space)[i]);
		size_t len = ops->rec_size(was + off, size_bytes - off);

		memcpy(bytes + off, was + off, len);
		record_hide((enum node_kind)body->nb_kind, bytes + off);
	}
	return true;
}

static bool inode_hide(struct m_inode *m, bool hide_names)
{
	bool is_link = S_ISLNK(le32_get(m->di_mode));
	bool changed = false;

	if (m->di_data_format == DATA_INLINE && (!is_link || hide_names)) {
		memset(m->di_data, is_link ? 'x' : 0, le64_get(m->di_size));
		changed = true;
	}
	if (hide_names && m->di_data_format == DATA_DIR)
		changed |= body_hide((void *)m->di_data, INODE_DATA_SIZE);
	if (hide_names)
		changed |= body_hide((void *)m->di_attr, INODE_ATTR_SIZE);
	return changed;
}

bool hide_unit(const struct dump *d, void *unit, bool hide_names)
{
	struct m_super *super = unit;
	struct m_xval *xval = unit;
	struct m_ag *ag = unit;

	(void)d;
	if (unit_magic(unit) == MAGIC_INODE)
		return inode_hide(unit, hide_names);
	if (!hide_names)
		return false;
	switch (unit_magic(unit)) {
	case MAGIC_SUPER:
		super->sb_ro_compat = le64_of(le64_get(super->sb_ro_compat) | FEATURE_RO_COMPAT_NAMES_HIDDEN);
		memset(super->sb_label, 0, sizeof(super->sb_label));
		return true;
	case MAGIC_AG:
		ag->ag_super.as_ro_compat =
			le64_of(le64_get(ag->ag_super.as_ro_compat) | FEATURE_RO_COMPAT_NAMES_HIDDEN);
		memset(ag->ag_super.as_label, 0, sizeof(ag->ag_super.as_label));
		return true;
	case MAGIC_NODE:
		return body_hide((void *)((struct m_node *)unit)->nd_body, NODE_BODY_SIZE);
	case MAGIC_XVAL:
		memset(xval->xv_data, 0, sizeof(xval->xv_data));
		return true;
	default:
		return false;
	}
}
