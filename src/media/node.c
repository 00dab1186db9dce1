/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Kinds of B+tree records: keys, sizes, checks (FORMAT.md 6). Pure functions over bytes; nothing here trusts them.
 */
#include "media/node.h"

#include <dirent.h>
#include <string.h>

#include "media/ag.h"

#define INO_LIMIT (1ull << 55)
#define FILE_BLK_LIMIT (1ull << 51) /* a file is shorter than 2^63 bytes */
#define XATTR_VALUE_MAX 65536u

/* start .. start + count - 1 could be blocks of one group, which no record leaves: so sums of a few counts fit a record too. */
static bool range_is_sane(uint64_t start, uint64_t count)
{
	return count != 0 && count <= AG_MAX_CHUNKS * CHUNK_BLOCKS && start <= UINT64_MAX - count;
}

static bool is_zero(const uint8_t *bytes, size_t len_bytes)
{
	for (size_t i = 0; i < len_bytes; i++) {
		if (bytes[i])
			return false;
	}
	return true;
}

static void key_load(const void *rec, struct bt_key *key, unsigned words)
{
	const le64 *w = rec;

	*key = (struct bt_key){ 0 };
	for (unsigned i = 0; i < words; i++)
		key->w[i] = le64_get(w[i]);
}

static void key_one(const void *rec, struct bt_key *key)
{
	key_load(rec, key, 1);
}

static void key_two(const void *rec, struct bt_key *key)
{
	key_load(rec, key, 2);
}

static void key_three(const void *rec, struct bt_key *key)
{
	key_load(rec, key, 3);
}

static uint64_t extent_high(const void *rec)
{
	const struct m_extent *m = rec;

	return le64_get(m->ex_file_blk) + le32_get(m->ex_count_blk) - 1;
}

static const char *extent_rec_check(const void *rec, size_t size_bytes)
{
	struct extent e;

	(void)size_bytes;
	extent_decode(&e, rec);
	if (e.count_blk == 0)
		return "extent: empty";
	if (e.file_blk >= FILE_BLK_LIMIT || e.count_blk > FILE_BLK_LIMIT - e.file_blk)
		return "extent: past the longest file";
	if (e.dev_blk == 0 || !range_is_sane(e.dev_blk, e.count_blk))
		return "extent: device blocks make no sense";
	if (e.flags & ~EXTENT_FLAGS_KNOWN)
		return "extent: unknown flags";
	return NULL;
}

static size_t dirent_size(const void *rec, size_t limit_bytes)
{
	const struct m_dirent *m = rec;
	size_t len_bytes;

	if (limit_bytes < sizeof(*m))
		return 0;
	len_bytes = le16_get(m->de_len_bytes);
	if (len_bytes < sizeof(*m) || len_bytes > NODE_REC_MAX || len_bytes > limit_bytes || len_bytes % 8)
		return 0;
	return len_bytes;
}

static bool dirent_type_is_known(unsigned type)
{
	switch (type) {
	case DT_FIFO:
	case DT_CHR:
	case DT_DIR:
	case DT_BLK:
	case DT_REG:
	case DT_LNK:
	case DT_SOCK:
		return true;
	default:
		return false;
	}
}

static const char *dirent_rec_check(const void *rec, size_t size_bytes)
{
	const struct m_dirent *m = rec;
	size_t used = sizeof(*m) + m->de_namelen;
	uint64_t ino = le64_get(m->de_ino);

	if (m->de_namelen == 0)
		return NULL; /* tombstone */
	if (u64_align_up(used, 8) != size_bytes)
		return "dirent: length does not fit the name";
	if (!is_zero((const uint8_t *)rec + used, size_bytes - used))
		return "dirent: padding is not zero";
	if (!dirent_type_is_known(m->de_type))
		return "dirent: unknown type";
	if (le32_get(m->de_flags))
		return "dirent: unknown flags";
	if (ino == 0 || ino >= INO_LIMIT)
		return "dirent: no inode number";
	if (memchr(m->de_name, '/', m->de_namelen) || memchr(m->de_name, 0, m->de_namelen))
		return "dirent: name holds a slash or a zero byte";
	return NULL;
}

static size_t attr_size(const void *rec, size_t limit_bytes)
{
	const struct m_attr *m = rec;
	size_t len_bytes;

	if (limit_bytes < sizeof(*m))
		return 0;
	len_bytes = le16_get(m->at_len_bytes);
	if (len_bytes < sizeof(*m) || len_bytes > NODE_REC_MAX || len_bytes > limit_bytes || len_bytes % 8)
		return 0;
	return len_bytes;
}

static const char *xattr_check(const struct m_attr *m, size_t size_bytes)
{
	size_t value_len = le32_get(m->at_value_len);
	size_t used = sizeof(*m) + m->at_namelen;

	if (le64_get(m->at_key) & ATTR_KEY_PARENT)
		return "xattr: key of a parent";
	if (m->at_namelen == 0)
		return "xattr: no name";
	if (m->at_flags & ~ATTR_LARGE)
		return "xattr: unknown flags";
	if (value_len > XATTR_VALUE_MAX)
		return "xattr: value too long";
	if (m->at_flags & ATTR_LARGE) {
		if (value_len == 0)
			return "xattr: large without a value";
		used = u64_align_up(used, 8) + u64_div_up(value_len, XVAL_DATA_SIZE) * sizeof(le64);
	} else {
		used += value_len;
	}
	if (u64_align_up(used, 8) != size_bytes)
		return "xattr: length does not fit name and value";
	if (!is_zero((const uint8_t *)m + used, size_bytes - used))
		return "xattr: padding is not zero";
	return NULL;
}

static const char *parent_check(const struct m_attr *m, size_t size_bytes)
{
	size_t used = sizeof(*m) + 2 * sizeof(le64) + m->at_namelen;

	if (!(le64_get(m->at_key) & ATTR_KEY_PARENT))
		return "parent: key of an attribute";
	if (m->at_namelen == 0)
		return "parent: no name";
	if (m->at_flags || le32_get(m->at_value_len))
		return "parent: flags or value length are not zero";
	if (u64_align_up(used, 8) != size_bytes)
		return "parent: length does not fit the name";
	if (!is_zero((const uint8_t *)m + used, size_bytes - used))
		return "parent: padding is not zero";
	return NULL;
}

static const char *attr_rec_check(const void *rec, size_t size_bytes)
{
	const struct m_attr *m = rec;

	if (m->at_type == ATTR_TOMB)
		return NULL;
	if (!is_zero(m->at_pad, sizeof(m->at_pad)))
		return "attr: padding is not zero";
	switch (m->at_type) {
	case ATTR_XATTR:
		return xattr_check(m, size_bytes);
	case ATTR_PARENT:
		return parent_check(m, size_bytes);
	default:
		return "attr: unknown type";
	}
}

static uint64_t refcount_high(const void *rec)
{
	const struct m_refcount *m = rec;

	return le64_get(m->rc_start_blk) + le32_get(m->rc_count_blk) - 1;
}

static const char *refcount_rec_check(const void *rec, size_t size_bytes)
{
	struct refcount r;

	(void)size_bytes;
	refcount_decode(&r, rec);
	if (!range_is_sane(r.start_blk, r.count_blk))
		return "refcount: blocks make no sense";
	if (r.refs < 2)
		return "refcount: fewer than two owners";
	return NULL;
}

static uint64_t rmap_high(const void *rec)
{
	const struct m_rmap *m = rec;

	return le64_get(m->rm_start_blk) + le32_get(m->rm_count_blk) - 1;
}

static const char *rmap_rec_check(const void *rec, size_t size_bytes)
{
	struct rmap r;

	(void)size_bytes;
	rmap_decode(&r, rec);
	if (!range_is_sane(r.start_blk, r.count_blk))
		return "rmap: blocks make no sense";
	if (r.owner == 0 || (!(r.owner & OWNER_SPECIAL) && r.owner >= INO_LIMIT))
		return "rmap: no owner";
	if (r.flags)
		return "rmap: unknown flags";
	return NULL;
}

static const char *cluster_rec_check(const void *rec, size_t size_bytes)
{
	const struct m_inode_cluster *m = rec;
	uint64_t first = le64_get(m->ic_first_ino);

	(void)size_bytes;
	if (first % CLUSTER_INODES || first >= INO_LIMIT)
		return "inode cluster: first number makes no sense";
	return NULL;
}

static const char *orphan_rec_check(const void *rec, size_t size_bytes)
{
	const struct m_orphan *m = rec;
	uint64_t ino = le64_get(m->or_ino);

	(void)size_bytes;
	return ino == 0 || ino >= INO_LIMIT ? "orphan: no inode number" : NULL;
}

static uint64_t forward_high(const void *rec)
{
	const struct m_forward *m = rec;

	return le64_get(m->fw_old_blk) + le32_get(m->fw_count_blk) - 1;
}

static const char *forward_rec_check(const void *rec, size_t size_bytes)
{
	const struct m_forward *m = rec;
	uint64_t count = le32_get(m->fw_count_blk);

	(void)size_bytes;
	if (!range_is_sane(le64_get(m->fw_old_blk), count) || !range_is_sane(le64_get(m->fw_new_blk), count))
		return "forward: blocks make no sense";
	if (le64_get(m->fw_lost_lines) && count != 1)
		return "forward: lost lines in more than one block";
	if (le32_get(m->fw_flags) & ~FORWARD_GOOD)
		return "forward: unknown flags";
	return NULL;
}

static const char *loss_rec_check(const void *rec, size_t size_bytes)
{
	const struct m_loss *m = rec;
	uint64_t ino = le64_get(m->ls_ino);

	(void)size_bytes;
	if (ino == 0 || ino >= INO_LIMIT)
		return "loss: no inode number";
	if (le64_get(m->ls_file_blk) >= FILE_BLK_LIMIT)
		return "loss: past the longest file";
	if (!le64_get(m->ls_lost_lines))
		return "loss: no line is lost";
	return NULL;
}

static const struct node_ops ops_table[NODE_KINDS] = {
	[NODE_EXTENT] = { .name = "extent",
			  .key_words = 1,
			  .rec_size_bytes = sizeof(struct m_extent),
			  .rec_key = key_one,
			  .rec_high = extent_high,
			  .rec_check = extent_rec_check },
	[NODE_DIR] = { .name = "dirent",
		       .key_words = 1,
		       .rec_size = dirent_size,
		       .rec_key = key_one,
		       .rec_check = dirent_rec_check },
	[NODE_ATTR] = { .name = "attr",
			.key_words = 1,
			.rec_size = attr_size,
			.rec_key = key_one,
			.rec_check = attr_rec_check },
	[NODE_REFCOUNT] = { .name = "refcount",
			    .key_words = 1,
			    .rec_size_bytes = sizeof(struct m_refcount),
			    .rec_key = key_one,
			    .rec_high = refcount_high,
			    .rec_check = refcount_rec_check },
	[NODE_RMAP] = { .name = "rmap",
			.key_words = 3,
			.is_range = true,
			.rec_size_bytes = sizeof(struct m_rmap),
			.rec_key = key_three,
			.rec_high = rmap_high,
			.rec_check = rmap_rec_check },
	[NODE_INODES] = { .name = "inode cluster",
			  .key_words = 1,
			  .rec_size_bytes = sizeof(struct m_inode_cluster),
			  .rec_key = key_one,
			  .rec_check = cluster_rec_check },
	[NODE_ORPHAN] = { .name = "orphan",
			  .key_words = 1,
			  .rec_size_bytes = sizeof(struct m_orphan),
			  .rec_key = key_one,
			  .rec_check = orphan_rec_check },
	[NODE_FORWARD] = { .name = "forward",
			   .key_words = 1,
			   .rec_size_bytes = sizeof(struct m_forward),
			   .rec_key = key_one,
			   .rec_high = forward_high,
			   .rec_check = forward_rec_check },
	[NODE_LOSS] = { .name = "loss",
			.key_words = 2,
			.rec_size_bytes = sizeof(struct m_loss),
			.rec_key = key_two,
			.rec_check = loss_rec_check },
};

const struct node_ops *node_ops(enum node_kind kind)
{
	return kind >= NODE_EXTENT && kind < NODE_KINDS ? &ops_table[kind] : NULL;
}

int bt_key_compare(const struct bt_key *a, const struct bt_key *b, unsigned words)
{
	for (unsigned i = 0; i < words; i++) {
		if (a->w[i] != b->w[i])
			return a->w[i] < b->w[i] ? -1 : 1;
	}
	return 0;
}

void extent_decode(struct extent *e, const struct m_extent *m)
{
	e->file_blk = le64_get(m->ex_file_blk);
	e->dev_blk = le64_get(m->ex_dev_blk);
	e->count_blk = le32_get(m->ex_count_blk);
	e->flags = le32_get(m->ex_flags);
}

void extent_encode(struct m_extent *m, const struct extent *e)
{
	assert(e->count_blk <= UINT32_MAX);
	m->ex_file_blk = le64_of(e->file_blk);
	m->ex_dev_blk = le64_of(e->dev_blk);
	m->ex_count_blk = le32_of((uint32_t)e->count_blk);
	m->ex_flags = le32_of(e->flags);
}

void refcount_decode(struct refcount *r, const struct m_refcount *m)
{
	r->start_blk = le64_get(m->rc_start_blk);
	r->count_blk = le32_get(m->rc_count_blk);
	r->refs = le32_get(m->rc_refs);
}

void refcount_encode(struct m_refcount *m, const struct refcount *r)
{
	assert(r->count_blk <= UINT32_MAX && r->refs <= UINT32_MAX);
	m->rc_start_blk = le64_of(r->start_blk);
	m->rc_count_blk = le32_of((uint32_t)r->count_blk);
	m->rc_refs = le32_of((uint32_t)r->refs);
}

void rmap_decode(struct rmap *r, const struct m_rmap *m)
{
	r->start_blk = le64_get(m->rm_start_blk);
	r->owner = le64_get(m->rm_owner);
	r->offset_blk = le64_get(m->rm_offset_blk);
	r->count_blk = le32_get(m->rm_count_blk);
	r->flags = le32_get(m->rm_flags);
}

void rmap_encode(struct m_rmap *m, const struct rmap *r)
{
	assert(r->count_blk <= UINT32_MAX);
	m->rm_start_blk = le64_of(r->start_blk);
	m->rm_owner = le64_of(r->owner);
	m->rm_offset_blk = le64_of(r->offset_blk);
	m->rm_count_blk = le32_of((uint32_t)r->count_blk);
	m->rm_flags = le32_of(r->flags);
}
