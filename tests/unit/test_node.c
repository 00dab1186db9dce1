/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Records and bodies: what the checks let pass and what not, decode and encode, keys.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "lib/tree_records.h"
#include "media/inode.h"

#define ROUNDS 400

static void test_sound_records_pass(void **state)
{
	struct rng rng = rng_start("records");

	(void)state;
	for (enum node_kind kind = NODE_EXTENT; kind < NODE_KINDS; kind++) {
		const struct node_ops *ops = node_ops(kind);
		struct bt_key last = { 0 };

		for (unsigned i = 0; i < ROUNDS; i++) {
			union tree_record rec;
			struct bt_key key;
			size_t size_bytes = tree_record_make(kind, i, &rng, &rec);
			const char *why = ops->rec_check(&rec, size_bytes);

			if (why)
				fail_msg("%s %u: %s", ops->name, i, why);
			if (ops->rec_size) {
				assert_int_equal(ops->rec_size(&rec, size_bytes), size_bytes);
				assert_int_equal(ops->rec_size(&rec, size_bytes - 1), 0);
				assert_int_equal(ops->rec_size(&rec, 16), 0);
			} else {
				assert_int_equal(ops->rec_size_bytes, size_bytes);
			}
			ops->rec_key(&rec, &key);
			if (i > 0)
				assert_true(bt_key_compare(&last, &key, ops->key_words) < 0);
			last = key;
		}
	}
	assert_null(node_ops(0));
	assert_null(node_ops(NODE_KINDS));
}

static void test_key_compare(void **state)
{
	struct bt_key a = { { 1, 2, 3 } }, b = { { 1, 2, 4 } }, c = { { UINT64_MAX, 0, 0 } };

	(void)state;
	assert_int_equal(bt_key_compare(&a, &b, 3), -1);
	assert_int_equal(bt_key_compare(&b, &a, 3), 1);
	assert_int_equal(bt_key_compare(&a, &b, 2), 0);
	assert_int_equal(bt_key_compare(&a, &c, 1), -1);
	assert_int_equal(bt_key_compare(&a, &a, 3), 0);
}

static const char *check(enum node_kind kind, const void *rec, size_t size_bytes)
{
	return node_ops(kind)->rec_check(rec, size_bytes);
}

static void test_decode_encode(void **state)
{
	struct extent e = { 5, 77, 0xffffffff, EXTENT_UNWRITTEN }, e2;
	struct refcount r = { 9, 3, 0xfffffffe }, r2;
	struct rmap p = { 1ull << 50, OWNER_AG, 1ull << 40, 12, 3 }, p2;
	struct m_extent me;
	struct m_refcount mr;
	struct m_rmap mp;

	(void)state;
	extent_encode(&me, &e);
	extent_decode(&e2, &me);
	assert_int_equal(e2.file_blk, e.file_blk);
	assert_int_equal(e2.dev_blk, e.dev_blk);
	assert_int_equal(e2.count_blk, e.count_blk);
	assert_int_equal(e2.flags, e.flags);
	refcount_encode(&mr, &r);
	refcount_decode(&r2, &mr);
	assert_memory_equal(&r, &r2, sizeof(r));
	rmap_encode(&mp, &p);
	rmap_decode(&p2, &mp);
	assert_int_equal(p2.start_blk, p.start_blk);
	assert_int_equal(p2.owner, p.owner);
	assert_int_equal(p2.offset_blk, p.offset_blk);
	assert_int_equal(p2.count_blk, p.count_blk);
	assert_int_equal(p2.flags, p.flags);
	assert_int_equal(((uint8_t *)&mp)[6], 4); /* 2^50, lowest byte first */
	assert_int_equal(node_ops(NODE_RMAP)->rec_high(&mp), (1ull << 50) + 11);
	assert_int_equal(node_ops(NODE_EXTENT)->rec_high(&me), 5 + 0xfffffffeull);
}

static const char *extent_why(uint64_t file_blk, uint64_t dev_blk, uint64_t count_blk, uint32_t flags)
{
	struct extent e = { file_blk, dev_blk, count_blk, flags };
	struct m_extent m;

	extent_encode(&m, &e);
	return check(NODE_EXTENT, &m, sizeof(m));
}

static const char *rmap_why(uint64_t start_blk, uint64_t owner, uint64_t count_blk)
{
	struct rmap r = { start_blk, owner, 0, count_blk, 0 };
	struct m_rmap m;

	rmap_encode(&m, &r);
	return check(NODE_RMAP, &m, sizeof(m));
}

static void test_fixed_records_that_lie(void **state)
{
	struct m_refcount rc = { le64_of(8), le32_of(1), le32_of(1) };
	struct m_inode_cluster ic = { le64_of(63), le64_of(0) };
	struct m_orphan orphan = { le64_of(0), le64_of(1) };
	struct m_forward fw = { le64_of(1), le64_of(2), le64_of(1), le32_of(2), le32_of(0) };
	struct m_loss ls = { le64_of(3), le64_of(1), le64_of(0), le64_of(0) };

	(void)state;
	assert_null(extent_why(0, 1, 1, 0));
	assert_non_null(extent_why(0, 1, 0, 0));
	assert_non_null(extent_why(0, 0, 1, 0));
	assert_non_null(extent_why(0, 1, 1, 2));
	assert_non_null(extent_why(0, UINT64_MAX, 1, 0));
	assert_null(extent_why(0, 1, 8192 * CHUNK_BLOCKS, 0));
	assert_non_null(extent_why(0, 1, 8192 * CHUNK_BLOCKS + 1, 0)); /* longer than any group */
	assert_non_null(extent_why((1ull << 51) - 1, 1, 2, 0));
	assert_null(extent_why((1ull << 51) - 2, 1, 2, 0));
	assert_null(rmap_why(0, OWNER_SUPER, 1));
	assert_non_null(rmap_why(0, 0, 1));
	assert_non_null(rmap_why(0, 1ull << 55, 1));
	assert_non_null(rmap_why(0, 5, 0));
	assert_non_null(rmap_why(UINT64_MAX - 3, 5, 4));
	assert_non_null(rmap_why(1, 5, UINT32_MAX));
	assert_non_null(check(NODE_REFCOUNT, &rc, sizeof(rc)));
	rc.rc_refs = le32_of(2);
	assert_null(check(NODE_REFCOUNT, &rc, sizeof(rc)));
	rc.rc_count_blk = le32_of(UINT32_MAX);
	assert_non_null(check(NODE_REFCOUNT, &rc, sizeof(rc)));
	assert_non_null(check(NODE_INODES, &ic, sizeof(ic)));
	assert_non_null(check(NODE_ORPHAN, &orphan, sizeof(orphan)));
	assert_non_null(check(NODE_FORWARD, &fw, sizeof(fw)));
	assert_non_null(check(NODE_LOSS, &ls, sizeof(ls)));
}

static void test_inodes_that_lie(void **state)
{
	const struct m_uuid uuid = { { 1 } };
	struct m_inode m = { 0 };

	(void)state;
	unit_init(&m, MAGIC_INODE, 70 << INODE_SHIFT, 70, &uuid);
	inode_attr_encode(&m, &(struct inode_attr){ .mode = S_IFREG | 0644 });
	assert_null(unit_check_body(&m, sizeof(m)));
	m.di_hdr.uh_owner = le64_of(71);
	assert_non_null(unit_check_body(&m, sizeof(m)));
	m.di_hdr.uh_owner = le64_of(70 | 1ull << 55); /* bits that a shift would lose */
	assert_non_null(unit_check_body(&m, sizeof(m)));
}

static struct m_dirent *dirent_make(void *space, const char *name)
{
	struct m_dirent *m = space;

	memset(m, 0, 64);
	m->de_key = le64_of(1);
	m->de_type = DT_REG;
	m->de_namelen = (uint8_t)strlen(name);
	m->de_ino = le64_of(2);
	memcpy(m->de_name, name, strlen(name));
	m->de_len_bytes = le16_of((uint16_t)u64_align_up(sizeof(*m) + strlen(name), 8));
	return m;
}

static void test_dirents_that_lie(void **state)
{
	union tree_record space;
	struct m_dirent *m = dirent_make(&space, "abc");

	(void)state;
	assert_null(check(NODE_DIR, m, 32));
	assert_non_null(check(NODE_DIR, m, 40));
	m->de_name[3] = 'x'; /* past the name */
	assert_non_null(check(NODE_DIR, m, 32));
	m = dirent_make(&space, "a/c");
	assert_non_null(check(NODE_DIR, m, 32));
	m = dirent_make(&space, "abc");
	m->de_name[1] = 0;
	assert_non_null(check(NODE_DIR, m, 32));
	m = dirent_make(&space, "abc");
	m->de_type = 3;
	assert_non_null(check(NODE_DIR, m, 32));
	m = dirent_make(&space, "abc");
	m->de_ino = le64_of(0);
	assert_non_null(check(NODE_DIR, m, 32));
	m = dirent_make(&space, "abc");
	m->de_len_bytes = le16_of(33);
	assert_int_equal(node_ops(NODE_DIR)->rec_size(m, 64), 0);
	m->de_len_bytes = le16_of(16);
	assert_int_equal(node_ops(NODE_DIR)->rec_size(m, 64), 0);
	m = dirent_make(&space, "");
	assert_null(check(NODE_DIR, m, 24)); /* tombstone */
}

static void test_attrs_that_lie(void **state)
{
	union tree_record space = { { 0 } };
	struct m_attr *m = (void *)&space;

	(void)state;
	m->at_key = le64_of(1);
	m->at_type = ATTR_XATTR;
	m->at_namelen = 6;
	m->at_value_len = le32_of(10);
	memcpy(m->at_data, "user.a0123456789", 16);
	assert_null(check(NODE_ATTR, m, 40));
	assert_non_null(check(NODE_ATTR, m, 48));
	m->at_pad[6] = 1;
	assert_non_null(check(NODE_ATTR, m, 40));
	m->at_pad[6] = 0;
	m->at_flags = 2;
	assert_non_null(check(NODE_ATTR, m, 40));
	m->at_flags = ATTR_LARGE;
	m->at_value_len = le32_of(XVAL_DATA_SIZE + 1); /* two units */
	assert_null(check(NODE_ATTR, m, 48));
	m->at_value_len = le32_of(65537);
	assert_non_null(check(NODE_ATTR, m, 168));
	m->at_flags = 0;
	m->at_value_len = le32_of(10);
	m->at_key = le64_of(ATTR_KEY_PARENT | 1);
	assert_non_null(check(NODE_ATTR, m, 40));
	m->at_type = ATTR_PARENT;
	m->at_value_len = le32_of(0);
	assert_null(check(NODE_ATTR, m, 48));
	m->at_namelen = 0;
	assert_non_null(check(NODE_ATTR, m, 40));
	m->at_type = ATTR_TYPES;
	assert_non_null(check(NODE_ATTR, m, 40));
	m->at_type = ATTR_TOMB;
	assert_null(check(NODE_ATTR, m, 40));
}

/* A leaf of rmap records 0 .. count - 1. */
static struct m_node_body *leaf_make(void *space, unsigned count)
{
	struct m_node_body *b = space;

	memset(b, 0, NODE_BODY_SIZE);
	b->nb_kind = NODE_RMAP;
	b->nb_count = le16_of((uint16_t)count);
	for (unsigned i = 0; i < count; i++) {
		struct rmap r = { 10 + i, 5, i, 3, 0 };

		rmap_encode((struct m_rmap *)(void *)b->nb_space + i, &r);
	}
	return b;
}

static void test_fixed_bodies(void **state)
{
	uint8_t space[NODE_BODY_SIZE] __attribute__((aligned(8)));
	struct m_node_body *b = leaf_make(space, 126);
	struct m_refcount rc[2] = { { le64_of(8), le32_of(2), le32_of(2) },
				    { le64_of(9), le32_of(1), le32_of(2) } };

	(void)state;
	assert_null(node_body_check(b, NODE_BODY_SIZE));
	assert_non_null(node_body_check(b, NODE_BODY_SIZE - 8)); /* 126 do not fit */
	b->nb_heap = le16_of(100);
	assert_non_null(node_body_check(b, NODE_BODY_SIZE));
	b = leaf_make(space, 126);
	b->nb_pad = le16_of(1);
	assert_non_null(node_body_check(b, NODE_BODY_SIZE));
	b = leaf_make(space, 126);
	memcpy(b->nb_space + 32, b->nb_space, 32); /* the same key twice */
	assert_non_null(node_body_check(b, NODE_BODY_SIZE));
	b = leaf_make(space, 126);
	b->nb_kind = NODE_KINDS;
	assert_non_null(node_body_check(b, NODE_BODY_SIZE));
	b->nb_kind = NODE_RMAP;
	b->nb_count = le16_of(0);
	assert_non_null(node_body_check(b, NODE_BODY_SIZE));
	assert_null(node_body_check(b, 256));
	memset(space, 0, sizeof(space));
	assert_null(node_body_check(b, 256));
	assert_non_null(node_body_check(b, NODE_BODY_SIZE));
	b->nb_count = le16_of(1);
	assert_non_null(node_body_check(b, 256));
	b->nb_kind = NODE_REFCOUNT;
	b->nb_count = le16_of(2);
	memcpy(b->nb_space, rc, sizeof(rc));
	assert_non_null(node_body_check(b, 256)); /* they overlap */
	rc[0].rc_count_blk = le32_of(1);
	memcpy(b->nb_space, rc, sizeof(rc));
	assert_null(node_body_check(b, 256));
}

static void test_inner_bodies(void **state)
{
	le64 space[32] = { { 0 } };
	struct m_node_body *b = (void *)space;
	le64 *w = space + 1; /* entries of two words: key, child */

	(void)state;
	b->nb_kind = NODE_EXTENT;
	b->nb_level = 1;
	assert_non_null(node_body_check(b, 224)); /* no entries */
	b->nb_count = le16_of(2);
	w[1] = le64_of(4096);
	w[2] = le64_of(100);
	w[3] = le64_of(8192);
	assert_null(node_body_check(b, 224));
	w[3] = le64_of(8192 + 512);
	assert_non_null(node_body_check(b, 224));
	w[3] = le64_of(0);
	assert_non_null(node_body_check(b, 224));
	w[3] = le64_of(8192);
	w[2] = le64_of(0);
	assert_non_null(node_body_check(b, 224));
	w[2] = le64_of(1);
	assert_non_null(node_body_check(b, 32)); /* no room */
	b->nb_level = NODE_LEVELS_MAX;
	assert_non_null(node_body_check(b, 224));
}

static void test_slotted_bodies(void **state)
{
	union tree_record rec;
	le64 space[28] = { { 0 } };
	struct m_node_body *b = (void *)space;
	le16 *slots = (void *)b->nb_space;

	(void)state;
	b->nb_kind = NODE_DIR;
	b->nb_count = le16_of(2);
	b->nb_heap = le16_of(224 - 64);
	dirent_make(&rec, "abc");
	memcpy((uint8_t *)b + 192, &rec, 32);
	((struct m_dirent *)(void *)&rec)->de_key = le64_of(2);
	memcpy((uint8_t *)b + 160, &rec, 32);
	slots[0] = le16_of(192);
	slots[1] = le16_of(160);
	assert_null(node_body_check(b, 224));
	slots[1] = le16_of(192); /* twice */
	assert_non_null(node_body_check(b, 224));
	slots[1] = le16_of(200); /* not a record */
	assert_non_null(node_body_check(b, 224));
	slots[1] = le16_of(161);
	assert_non_null(node_body_check(b, 224));
	slots[1] = le16_of(224);
	assert_non_null(node_body_check(b, 224));
	slots[1] = le16_of(192);
	slots[0] = le16_of(160); /* order */
	assert_non_null(node_body_check(b, 224));
	slots[0] = le16_of(192);
	slots[1] = le16_of(160);
	b->nb_heap = le16_of(168); /* a record below */
	assert_non_null(node_body_check(b, 224));
	b->nb_heap = le16_of(10); /* slots in the heap */
	assert_non_null(node_body_check(b, 224));
	b->nb_heap = le16_of(232);
	assert_non_null(node_body_check(b, 224));
}

/* Whatever the bytes say, the check stays inside the body (the sanitizer watches). */
static void test_any_bytes(void **state)
{
	struct rng rng = rng_start("any bytes");
	unsigned passed = 0;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		size_t size_bytes = i % 4 ? 128 + 8 * rng_below(&rng, 17) : NODE_BODY_SIZE;
		le64 *bytes = malloc(size_bytes);
		struct m_node_body *b = (void *)bytes;

		for (size_t w = 0; w < size_bytes / 8; w++)
			bytes[w] = le64_of(rng_below(&rng, 3) ? rng_next(&rng) >> rng_below(&rng, 64) : 0);
		b->nb_kind = (uint8_t)rng_below(&rng, NODE_KINDS + 1);
		b->nb_level = rng_below(&rng, 3) == 0;
		b->nb_count = le16_of((uint16_t)rng_below(&rng, rng_below(&rng, 2) ? 5 : 300));
		b->nb_heap = le16_of(rng_below(&rng, 2) ? 0 : (uint16_t)rng_below(&rng, size_bytes));
		b->nb_pad = le16_of(0);
		passed += !node_body_check(b, size_bytes);
		free(bytes);
	}
	assert_true(passed > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sound_records_pass), cmocka_unit_test(test_key_compare),
		cmocka_unit_test(test_decode_encode),      cmocka_unit_test(test_fixed_records_that_lie),
		cmocka_unit_test(test_inodes_that_lie),    cmocka_unit_test(test_dirents_that_lie),
		cmocka_unit_test(test_attrs_that_lie),     cmocka_unit_test(test_fixed_bodies),
		cmocka_unit_test(test_inner_bodies),       cmocka_unit_test(test_slotted_bodies),
		cmocka_unit_test(test_any_bytes),
	};

	return cmocka_run_group_tests_name("node", tests, NULL, NULL);
}
