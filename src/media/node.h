/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bodies of B+tree nodes and the records in them (FORMAT.md 6).
 *
 * A body is an 8-byte head and space. It fills the rest of a node unit after the 48-byte unit header and 8 bytes of padding (4040 bytes
 * at offset 56), or is an embedded root inside another unit.
 *
 * Inner bodies, and leaves of fixed-size records: an array of entries right after the head, sorted by key. Leaves of
 * variable records (NODE_DIR, NODE_ATTR): an array of le16 offsets (from the start of the body, sorted by key) grows up, the
 * records grow down from the end; no record begins below nb_heap, holes are closed when space is needed.
 */
#ifndef UMBRA_MEDIA_NODE_H
#define UMBRA_MEDIA_NODE_H

#include "media/unit.h"

enum node_kind {
	NODE_EXTENT = 1,
	NODE_DIR,
	NODE_ATTR,
	NODE_REFCOUNT,
	NODE_RMAP,
	NODE_INODES,
	NODE_ORPHAN,
	NODE_FORWARD,
	NODE_LOSS,
	NODE_KINDS
};

struct m_node_body {
	le16 nb_count;
	uint8_t nb_level; /* 0 = leaf */
	uint8_t nb_kind;  /* enum node_kind; 0 in an all-zero embedded root: an empty tree */
	le16 nb_heap;     /* leaves of variable records; 0 = the end of the body (nothing there) */
	le16 nb_pad;
	uint8_t nb_space[];
};
static_assert(sizeof(struct m_node_body) == 8, "FORMAT.md 6");

struct m_node {
	struct m_unit_hdr nd_hdr; /* uh_owner: inode number or OWNER_AG */
	le64 nd_pad;
	uint8_t nd_body[BLOCK_SIZE - 56];
};
static_assert(sizeof(struct m_node) == BLOCK_SIZE, "FORMAT.md 6");
#define NODE_BODY_OFF 56u
#define NODE_BODY_SIZE (BLOCK_SIZE - NODE_BODY_OFF)

#define NODE_LEVELS_MAX 12 /* of a tree, the root included */
#define NODE_REC_MIN 24u   /* of variable records */
#define NODE_REC_MAX 1000u

/* Keys are one to three words, compared from the first. Every record, and every inner entry, begins with its key. */
struct bt_key {
	uint64_t w[3];
};

/* Inner entry: key words of that kind, then the child's laddr, then (ranges only) the highest end below it. */

struct m_extent {
	le64 ex_file_blk;
	le64 ex_dev_blk;
	le32 ex_count_blk;
	le32 ex_flags;
};
static_assert(sizeof(struct m_extent) == 24, "FORMAT.md 6.1");
#define EXTENT_UNWRITTEN 0x1u
#define EXTENT_FLAGS_KNOWN 0x1u

/* Directory entry; key = hash of the name, or the next free one after it. de_namelen 0: a tombstone that keeps a probe chain together. */
struct m_dirent {
	le64 de_key;
	le16 de_len_bytes; /* of the whole record, multiple of 8 */
	uint8_t de_type;   /* DT_* */
	uint8_t de_namelen;
	le32 de_flags;
	le64 de_ino;
	uint8_t de_name[];
};
static_assert(sizeof(struct m_dirent) == 24, "FORMAT.md 6.2");

/*
 * Attribute or parent; key = hash of the name | kind << 63, or the next free one.
 * ATTR_XATTR: name (at_namelen), then the value (at_value_len bytes); or with ATTR_LARGE the name, zeros up to a multiple of 8,
 * le64 laddrs of its MAGIC_XVAL units.
 * ATTR_PARENT: le64 directory inode, le64 directory key, then the name in that directory; at_value_len 0.
 * ATTR_TOMB: nothing, keeps a probe chain together.
 */
enum attr_type { ATTR_XATTR = 1, ATTR_PARENT, ATTR_TOMB, ATTR_TYPES };
#define ATTR_LARGE 0x1u
#define ATTR_KEY_PARENT (1ull << 63)

struct m_attr {
	le64 at_key;
	le16 at_len_bytes; /* of the whole record, multiple of 8 */
	uint8_t at_type;
	uint8_t at_namelen;
	le32 at_value_len;
	uint8_t at_flags;
	uint8_t at_pad[7];
	uint8_t at_data[];
};
static_assert(sizeof(struct m_attr) == 24, "FORMAT.md 6.3");

struct m_xval {
	struct m_unit_hdr xv_hdr; /* uh_owner = inode */
	le32 xv_len_bytes;
	le32 xv_pad;
	uint8_t xv_data[BLOCK_SIZE - 56];
};
static_assert(sizeof(struct m_xval) == BLOCK_SIZE, "FORMAT.md 6.3");
#define XVAL_DATA_SIZE (BLOCK_SIZE - 56u)

/* Only ranges with two or more owners. */
struct m_refcount {
	le64 rc_start_blk;
	le32 rc_count_blk;
	le32 rc_refs;
};
static_assert(sizeof(struct m_refcount) == 16, "FORMAT.md 6.4");

/* One owner of one run of blocks; key (start, owner, offset). */
struct m_rmap {
	le64 rm_start_blk;
	le64 rm_owner;
	le64 rm_offset_blk;
	le32 rm_count_blk;
	le32 rm_flags;
};
static_assert(sizeof(struct m_rmap) == 32, "FORMAT.md 6.5");

/* One cluster of 64 inodes; bit i of the mask: inode ic_first_ino + i is free. */
struct m_inode_cluster {
	le64 ic_first_ino;
	le64 ic_free_mask;
};
static_assert(sizeof(struct m_inode_cluster) == 16, "FORMAT.md 6.6");

/* An inode without a name that still has to be freed. */
struct m_orphan {
	le64 or_ino;
	le64 or_gen;
};
static_assert(sizeof(struct m_orphan) == 16, "FORMAT.md 6.7");

/* Readers of fw_old_blk go to fw_new_blk until all owners have switched. */
struct m_forward {
	le64 fw_old_blk;
	le64 fw_new_blk;
	le64 fw_lost_lines; /* bit i: 64-byte line i of the block could not be read */
	le32 fw_count_blk;  /* 1 where lines are lost */
	le32 fw_flags;      /* FORWARD_* */
};
#define FORWARD_GOOD 0x1u /* nothing is wrong with the old blocks: in the end they are free */
static_assert(sizeof(struct m_forward) == 32, "FORMAT.md 6.8");

/* One owner's loss in one block of a file. */
struct m_loss {
	le64 ls_ino;
	le64 ls_file_blk;
	le64 ls_lost_lines;
	le64 ls_since_s;
};
static_assert(sizeof(struct m_loss) == 32, "FORMAT.md 6.9");

/* What the tree code must know of a kind of record. */
struct node_ops {
	const char *name;
	uint8_t key_words;
	bool is_range;                                           /* inner entries carry the highest end */
	uint16_t rec_size_bytes;                                 /* 0: variable, rec_size() */
	size_t (*rec_size)(const void *rec, size_t limit_bytes); /* 0 = does not fit or makes no sense */
	void (*rec_key)(const void *rec, struct bt_key *key);
	/* Last block that the record covers, NULL where that makes no sense. Records of kinds that are not is_range do not overlap. */
	uint64_t (*rec_high)(const void *rec);
	const char *(*rec_check)(const void *rec, size_t size_bytes);
};

/* NULL for an unknown kind. */
const struct node_ops *node_ops(enum node_kind kind);

static inline unsigned node_count(const void *body)
{
	return le16_get(((const struct m_node_body *)body)->nb_count);
}

static inline unsigned node_level(const void *body)
{
	return ((const struct m_node_body *)body)->nb_level;
}

int bt_key_compare(const struct bt_key *a, const struct bt_key *b, unsigned words);

/* Sound by itself: counts, sizes, key order, each record's own check. body_size_bytes is the room it has. A root may be all zero. */
const char *node_body_check(const void *body, size_t body_size_bytes);

/* Native twins of the fixed records. */
struct extent {
	uint64_t file_blk, dev_blk, count_blk;
	uint32_t flags;
};

struct refcount {
	uint64_t start_blk, count_blk, refs;
};

struct rmap {
	uint64_t start_blk, owner, offset_blk, count_blk;
	uint32_t flags;
};

void extent_decode(struct extent *e, const struct m_extent *m);
void extent_encode(struct m_extent *m, const struct extent *e);
void refcount_decode(struct refcount *r, const struct m_refcount *m);
void refcount_encode(struct m_refcount *m, const struct refcount *r);
void rmap_decode(struct rmap *r, const struct m_rmap *m);
void rmap_encode(struct m_rmap *m, const struct rmap *r);

#endif
