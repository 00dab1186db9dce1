/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbradump: units and records as text, one field or record a line, with the names of FORMAT.md without their prefixes.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "dump.h"

static void uuid_print(const struct m_uuid *uuid)
{
	for (unsigned i = 0; i < sizeof(uuid->b); i++)
		printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid->b[i]);
}

static void text_print(const uint8_t *bytes, size_t len)
{
	putchar('"');
	for (size_t i = 0; i < len; i++) {
		if (isprint(bytes[i]) && bytes[i] != '"' && bytes[i] != '\\')
			putchar(bytes[i]);
		else
			printf("\\x%02x", bytes[i]);
	}
	putchar('"');
}

void dump_hex_print(const void *bytes, size_t len_bytes)
{
	const uint8_t *b = bytes;

	for (size_t at = 0; at < len_bytes; at += 16) {
		printf("  %04zx ", at);
		for (size_t i = at; i < at + 16 && i < len_bytes; i++)
			printf(" %02x", b[i]);
		printf("  ");
		for (size_t i = at; i < at + 16 && i < len_bytes; i++)
			putchar(isprint(b[i]) ? b[i] : '.');
		putchar('\n');
	}
}

/* As FORMAT.md 4 calls them. */
static void features_print(const struct super *s)
{
	static const struct {
		uint64_t bit;
		const char *name;
	} ro[] = {
		{ FEATURE_RO_COMPAT_NAMES_HIDDEN, "NAMES_HIDDEN" },
		{ FEATURE_RO_COMPAT_LANES_MOVED, "LANES_MOVED" },
		{ FEATURE_RO_COMPAT_BAD_IN_USE, "BAD_IN_USE" },
	};

	printf("  compat 0x%" PRIx64 ", ro_compat 0x%" PRIx64, s->compat, s->ro_compat);
	for (size_t i = 0; i < ARRAY_SIZE(ro); i++)
		if (s->ro_compat & ro[i].bit)
			printf(" %s", ro[i].name);
	printf(", incompat 0x%" PRIx64 "%s%s\n", s->incompat,
	       s->incompat & FEATURE_INCOMPAT_META_DUP ? " META_DUP" : "",
	       s->incompat & FEATURE_INCOMPAT_GROWING ? " GROWING" : "");
}

void dump_super_print(const struct super *s)
{
	printf("  version %u.%u, written %" PRIu64 " times\n  uuid ", s->major, s->minor, s->version_count);
	uuid_print(&s->uuid);
	printf("\n  label ");
	text_print((const uint8_t *)s->label, strlen(s->label));
	printf("\n  state 0x%x%s%s\n", s->state, s->state & SUPER_STATE_CLEAN ? " clean" : "",
	       s->state & SUPER_STATE_REPAIR ? " repair" : "");
	features_print(s);
	printf("  size %" PRIu64 " blocks, %u groups of %" PRIu64 " blocks\n", s->size_blk, s->ag_count,
	       s->ag_size_blk);
	if (s->grown_from_blk)
		printf("  growing from %" PRIu64 " blocks\n", s->grown_from_blk);
	printf("  dir_hash_bits %u, seq_limit %" PRIu64 ", replayed_seq %" PRIu64 "\n", s->dir_hash_bits,
	       s->seq_limit, s->replayed_seq);
	printf("  created_ns %" PRIu64 ", mounted_ns %" PRIu64 ", mount_count %u\n", s->created_ns,
	       s->mounted_ns, s->mount_count);
	printf("  %u lanes of %u bytes\n", s->lane_count, s->lane_size_bytes);
	for (uint32_t i = 0; i < s->lane_count && i < SUPER_LANES_MAX; i++)
		printf("    lane %u: primary block %" PRIu64 ", mirror block %" PRIu64 "\n", i,
		       s->lanes[i].primary_blk, s->lanes[i].mirror_blk);
	for (uint32_t i = 0; i < s->remap_count && i < SUPER_REMAPS_MAX; i++)
		printf("    unit 0x%" PRIx64 " copy %u lies in block %" PRIu64 "\n", s->remaps[i].laddr,
		       s->remaps[i].copy, s->remaps[i].place_blk);
}

static void mask_print(const char *what, uint64_t mask)
{
	printf(", %s", what);
	for (unsigned i = 0; i < 64; i++)
		if (mask >> i & 1)
			printf(" %u", i);
}

static void dirent_print(const struct m_dirent *m)
{
	if (m->de_namelen == 0) {
		printf("  key 0x%" PRIx64 ": tombstone\n", le64_get(m->de_key));
		return;
	}
	printf("  key 0x%" PRIx64 ": inode %" PRIu64 ", type %u, ", le64_get(m->de_key), le64_get(m->de_ino),
	       m->de_type);
	text_print(m->de_name, m->de_namelen);
	putchar('\n');
}

static void attr_print(const struct m_attr *m)
{
	const le64 *words = (const void *)m->at_data;

	printf("  key 0x%" PRIx64 ": ", le64_get(m->at_key));
	if (m->at_type == ATTR_TOMB) {
		printf("tombstone\n");
	} else if (m->at_type == ATTR_PARENT) {
		printf("parent %" PRIu64 ", its key 0x%" PRIx64 ", ", le64_get(words[0]), le64_get(words[1]));
		text_print(m->at_data + 2 * sizeof(le64), m->at_namelen);
		putchar('\n');
	} else {
		printf("xattr ");
		text_print(m->at_data, m->at_namelen);
		printf(", %u bytes%s\n", le32_get(m->at_value_len),
		       m->at_flags & ATTR_LARGE ? ", in units of their own" : "");
	}
}

static void rmap_print(const struct m_rmap *m)
{
	char owner[DUMP_OWNER_TEXT];
	struct rmap r;

	rmap_decode(&r, m);
	printf("  blocks %" PRIu64 " + %" PRIu64 ": %s, offset %" PRIu64 "\n", r.start_blk, r.count_blk,
	       dump_owner_text(r.owner, owner), r.offset_blk);
}

static void cluster_print(const struct m_inode_cluster *m)
{
	printf("  inodes from %" PRIu64, le64_get(m->ic_first_ino));
	mask_print("free:", le64_get(m->ic_free_mask));
	putchar('\n');
}

static void forward_print(const struct m_forward *m)
{
	printf("  blocks %" PRIu64 " + %u -> %" PRIu64, le64_get(m->fw_old_blk), le32_get(m->fw_count_blk),
	       le64_get(m->fw_new_blk));
	mask_print("lost lines:", le64_get(m->fw_lost_lines));
	putchar('\n');
}

static void loss_print(const struct m_loss *m)
{
	printf("  inode %" PRIu64 ", block %" PRIu64, le64_get(m->ls_ino), le64_get(m->ls_file_blk));
	mask_print("lost lines:", le64_get(m->ls_lost_lines));
	printf(", since %" PRIu64 "\n", le64_get(m->ls_since_s));
}

void dump_record_print(enum node_kind kind, const void *rec)
{
	const struct m_orphan *orphan = rec;
	struct refcount refs;
	struct extent e;

	switch (kind) {
	case NODE_EXTENT:
		extent_decode(&e, rec);
		printf("  file blocks %" PRIu64 " + %" PRIu64 ": device block %" PRIu64 "%s\n", e.file_blk,
		       e.count_blk, e.dev_blk, e.flags & EXTENT_UNWRITTEN ? ", unwritten" : "");
		break;
	case NODE_DIR:
		dirent_print(rec);
		break;
	case NODE_ATTR:
		attr_print(rec);
		break;
	case NODE_REFCOUNT:
		refcount_decode(&refs, rec);
		printf("  blocks %" PRIu64 " + %" PRIu64 ": %" PRIu64 " owners\n", refs.start_blk,
		       refs.count_blk, refs.refs);
		break;
	case NODE_RMAP:
		rmap_print(rec);
		break;
	case NODE_INODES:
		cluster_print(rec);
		break;
	case NODE_ORPHAN:
		printf("  inode %" PRIu64 ", generation %" PRIu64 "\n", le64_get(orphan->or_ino),
		       le64_get(orphan->or_gen));
		break;
	case NODE_FORWARD:
		forward_print(rec);
		break;
	case NODE_LOSS:
		loss_print(rec);
		break;
	default:
		break;
	}
}

/* ---- units ---- */

static void body_print(const void *root, size_t size_bytes, const char *name)
{
	const struct m_node_body *body = root;
	const struct node_ops *ops = node_ops((enum node_kind)body->nb_kind);
	const char *why = node_body_check(root, size_bytes);
	const le64 *entry = (const le64 *)(const void *)body->nb_space;

	printf("  %s: %s, level %u, %u entries%s%s\n", name, ops ? ops->name : "empty", node_level(body),
	       node_count(body), why ? ": NOT SOUND: " : "", why ? why : "");
	if (why || !ops)
		return;
	for (unsigned i = 0; i < node_count(body); i++) {
		if (node_level(body) == 0) {
			size_t off = sizeof(*body) + (size_t)i * ops->rec_size_bytes;

			if (ops->rec_size_bytes == 0)
				off = le16_get(((const le16 *)(const void *)body->nb_space)[i]);
			dump_record_print((enum node_kind)body->nb_kind, (const uint8_t *)root + off);
			continue;
		}
		printf("  key 0x%" PRIx64 " -> node 0x%" PRIx64 "\n", le64_get(entry[0]),
		       le64_get(entry[ops->key_words]));
		entry += ops->key_words + 1u + ops->is_range;
	}
}

static void ag_print(const struct m_ag *m)
{
	static const char *const names[AG_TREES] = { "refcounts", "rmap",     "inodes",
						     "orphans",   "forwards", "losses" };

	printf("  group %u, %" PRIu64 " blocks, %" PRIu64 " free\n", le32_get(m->ag_index),
	       le64_get(m->ag_length_blk), le64_get(m->ag_free_blk));
	printf("  inodes %" PRIu64 ", %" PRIu64 " free; metadata chunks %u, units free %u\n",
	       le64_get(m->ag_inode_count), le64_get(m->ag_inode_free), le32_get(m->ag_meta_chunks),
	       le32_get(m->ag_meta_free_units));
	for (unsigned i = 0; i < AG_TREES; i++)
		body_print(m->ag_roots[i], AG_ROOT_SIZE, names[i]);
}

static void chunks_print(const struct m_chunks *m, uint64_t laddr)
{
	uint32_t first = (uint32_t)((laddr % CHUNK_SIZE / BLOCK_SIZE - AG_UNIT_TABLE) * CHUNKS_PER_UNIT);

	for (uint32_t i = 0; i < CHUNKS_PER_UNIT; i++) {
		const struct m_chunk *c = &m->ct_chunks[i];

		if (le32_get(c->ck_primary))
			printf("  slot %u: chunk %u, mirror %u, %u units used\n", first + i,
			       le32_get(c->ck_primary), le32_get(c->ck_mirror), le32_get(c->ck_used_count));
	}
}

static void bitmap_print(const struct m_bitmap *m)
{
	for (uint32_t i = 0; i < BITMAP_CHUNKS_PER_UNIT; i++) {
		unsigned used = 0;

		for (unsigned k = 0; k < CHUNK_BLOCKS / 8; k++)
			used += (unsigned)__builtin_popcount(m->bm_bits[i][k]);
		if (used)
			printf("  line %u: %u blocks owned\n", i, used);
	}
}

static void intents_print(const struct m_intents *m)
{
	static const char *const names[INTENT_TYPES] = { "none", "truncate", "free range", "clone",
							 "drop", "shift",    "relocate",   "lane" };

	for (unsigned i = 0; i < INTENTS_PER_UNIT; i++) {
		const struct m_intent *it = &m->in_slots[i];
		uint32_t type = le32_get(it->it_type);

		if (type == INTENT_NONE)
			continue;
		printf("  slot %u: %s, inode %" PRIu64 ", args", i, type < INTENT_TYPES ? names[type] : "?",
		       le64_get(it->it_ino));
		for (unsigned k = 0; k < ARRAY_SIZE(it->it_args); k++)
			printf(" %" PRIu64, le64_get(it->it_args[k]));
		putchar('\n');
		if (type == INTENT_CLONE || type == INTENT_DROP)
			body_print(it->it_body, sizeof(it->it_body), "tree");
	}
}

static void inode_print(const struct m_inode *m)
{
	static const char *const formats[INODE_DATA_FORMATS] = { "none", "inline", "extents", "directory" };
	struct inode_attr a;

	inode_attr_decode(&a, m);
	printf("  inode %" PRIu64 ", generation %" PRIu64 ", mode 0%o, links %u, uid %u, gid %u\n", a.ino,
	       a.gen, a.mode, a.nlink, a.uid, a.gid);
	printf("  size %" PRIu64 ", blocks %" PRIu64 ", flags 0x%x, rdev %u:%u, projid %u, change %" PRIu64
	       "\n",
	       a.size, a.blocks, a.flags, a.rdev >> 20, a.rdev & 0xfffff, a.projid, a.change);
	printf("  atime %" PRId64 ".%09u, mtime %" PRId64 ".%09u, ctime %" PRId64 ".%09u, btime %" PRId64
	       ".%09u\n",
	       a.atime.s, a.atime.ns, a.mtime.s, a.mtime.ns, a.ctime.s, a.ctime.ns, a.btime.s, a.btime.ns);
	printf("  data: %s\n", a.data_format < INODE_DATA_FORMATS ? formats[a.data_format] : "?");
	if (a.data_format == DATA_INLINE) {
		printf("  ");
		text_print(m->di_data, u64_min(a.size, INODE_DATA_SIZE));
		putchar('\n');
	} else if (a.data_format == DATA_EXTENTS || a.data_format == DATA_DIR) {
		body_print(m->di_data, INODE_DATA_SIZE, "root");
	}
	body_print(m->di_attr, INODE_ATTR_SIZE, "attributes and parents");
}

static void record_print(const struct m_record *m)
{
	const struct m_record_entry *e = (const void *)(m + 1);

	printf("  lane %u, transaction %" PRIu64 ", %u units, %u lines, request %" PRIu64 "\n",
	       le32_get(m->rc_lane), le64_get(m->rc_seq), le32_get(m->rc_entry_count),
	       le32_get(m->rc_line_count), le64_get(m->rc_request_id));
	for (uint32_t i = 0; i < le32_get(m->rc_entry_count); i++) {
		uint64_t word = le64_get(e[i].re_laddr);

		printf("    %s 0x%" PRIx64 "%s", word & ENTRY_INODE ? "inode" : "unit",
		       word & ~(uint64_t)ENTRY_FLAGS, word & ENTRY_FRESH ? ", fresh" : "");
		mask_print("lines", le64_get(e[i].re_mask));
		putchar('\n');
	}
}

void dump_unit_print(const struct dump *d, uint64_t laddr, const void *unit)
{
	const struct m_unit_hdr *h = unit;
	const struct m_remaps *remaps = unit;
	char owner[DUMP_OWNER_TEXT];
	struct super super;

	(void)d;
	if (unit_magic(unit) == MAGIC_RECORD) {
		record_print(unit);
		return;
	}
	printf("  magic %.4s, crc 0x%08x, laddr 0x%" PRIx64 ", owner %s, transaction %" PRIu64 "\n",
	       unit_size(unit_magic(unit)) ? (const char *)unit : "?", le32_get(h->uh_crc),
	       le64_get(h->uh_laddr), dump_owner_text(le64_get(h->uh_owner), owner), le64_get(h->uh_seq));
	switch (unit_magic(unit)) {
	case MAGIC_SUPER:
		super_decode(&super, unit);
		dump_super_print(&super);
		break;
	case MAGIC_AG:
		ag_print(unit);
		break;
	case MAGIC_INTENTS:
		intents_print(unit);
		break;
	case MAGIC_REMAP:
		for (unsigned i = 0; i < le32_get(remaps->rl_count) && i < REMAPS_PER_UNIT; i++)
			printf("  unit 0x%" PRIx64 " copy %u lies in block %" PRIu64 "\n",
			       le64_get(remaps->rl_entries[i].rp_laddr),
			       le32_get(remaps->rl_entries[i].rp_copy),
			       le64_get(remaps->rl_entries[i].rp_place_blk));
		break;
	case MAGIC_CHUNKS:
		chunks_print(unit, laddr);
		break;
	case MAGIC_BITMAP:
		bitmap_print(unit);
		break;
	case MAGIC_INODE:
		inode_print(unit);
		break;
	case MAGIC_NODE:
		body_print(((const struct m_node *)unit)->nd_body, NODE_BODY_SIZE, "body");
		break;
	case MAGIC_XVAL:
		printf("  %u bytes of a value\n", le32_get(((const struct m_xval *)unit)->xv_len_bytes));
		break;
	default:
		printf("  no kind of unit that is known\n");
	}
}
