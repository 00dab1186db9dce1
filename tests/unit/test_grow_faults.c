/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Growing where something is not as it should be: stores that fail, memory that is bad, a growth that is unfinished and comes under a repair,
 * a device that does not end where the pool does.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "dax/priv.h" /* a store is refused the way a failed msync() has it; a pool that becomes readonly */
#include "lib/testunit.h"
#include "media/ag.h"
#include "repair/repair.h"
#include "space/space.h"

#define MIB ((uint64_t)1 << 20)
#define PIECE 65536u

struct shape {
	const char *name;
	uint64_t made, to, ag; /* MiB */
};

static const struct shape shapes[] = {
	{ "one group", 16, 32, 16 },
	{ "a chunk", 34, 36, 18 },
	{ "two chunks", 36, 40, 20 },
	{ "short, and more", 34, 52, 18 },
};

static struct testfs t;

/* ---- faults ---- */

static struct {
	uint64_t seen;       /* stores since it was armed */
	uint64_t first, end; /* those that fail, counted from 1; 0: none */
	uint64_t blk;        /* or those to this block */
	uint64_t hits;
	void (*at_fence)(void);
} fault;

static void fault_store(void *ctx, uint64_t off, const void *src, size_t len_bytes)
{
	bool hit = fault.end != 0 && ++fault.seen >= fault.first && fault.seen < fault.end;

	(void)ctx;
	(void)src;
	(void)len_bytes;
	hit = hit || (fault.blk && off / BLOCK_SIZE == fault.blk);
	fault.hits += hit;
	if (t.dax)
		atomic_store(&t.dax->failed, hit);
}

static void fault_zero(void *ctx, uint64_t off, size_t len_bytes)
{
	fault_store(ctx, off, NULL, len_bytes);
}

static void fault_fence(void *ctx)
{
	(void)ctx;
	if (fault.at_fence)
		fault.at_fence();
}

static const struct dax_trace trace = { fault_store, fault_zero, fault_fence, NULL };

static void fault_disarm(void)
{
	memset(&fault, 0, sizeof(fault));
	atomic_store(&t.dax->failed, false);
}

/* The memory of this block is gone, as a device has it. */
static void block_lose(uint64_t blk)
{
	int fd = memfd_create("lost", 0);

	assert_true(fd >= 0);
	assert_true(mmap((void *)(uintptr_t)dax_ptr(t.dax, blk * BLOCK_SIZE), BLOCK_SIZE,
			 PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED);
	close(fd);
}

/* ---- the pool ---- */

static void floors_open(void)
{
	char why[256] = "";

	if (pool_open(t.dax, &(struct pool_opts){ 0 }, &t.pool, why, sizeof(why)) != 0)
		fail_msg("pool_open: %s", why);
	assert_int_equal(fs_open(t.pool, &t.opts.fs, &t.fs), 0);
}

static void floors_close(bool clean)
{
	fs_close(t.fs);
	pool_close(t.pool, clean);
}

static bool file_write(const char *name, uint64_t len)
{
	uint64_t ino = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
	uint8_t *buf = malloc(PIECE);
	bool ok = true;

	for (uint64_t off = 0; off < len && ok; off += PIECE) {
		for (uint64_t i = 0; i < PIECE; i++)
			buf[i] = (uint8_t)((off + i) * 31 >> 4);
		ok = fs_write(t.fs, &testfs_root, ino, buf, PIECE, off, 0) == PIECE;
	}
	free(buf);
	return ok;
}

static void file_check(const char *name, uint64_t len)
{
	struct inode_attr attr;
	uint8_t *buf = malloc(PIECE);

	assert_int_equal(testfs_lookup(&t, INODE_ROOT, name, &attr), 0);
	assert_int_equal(attr.size, len);
	for (uint64_t off = 0; off < len; off += PIECE) {
		assert_int_equal(fs_read(t.fs, attr.ino, buf, PIECE, off), PIECE);
		for (uint64_t i = 0; i < PIECE; i++)
			if (buf[i] != (uint8_t)((off + i) * 31 >> 4))
				fail_msg("%s: byte %llu is wrong", name, (unsigned long long)(off + i));
	}
	fs_forget(t.fs, attr.ino, 1);
	free(buf);
}

/* A pool with a file of 3 MiB. The device has all that it is to have, but the pool does not know. */
static void make(const struct shape *s, uint64_t device)
{
	const struct format_opts format = { .ag_size_bytes = s->ag * MIB };
	char why[256] = "";

	memset(&t, 0, sizeof(t));
	memset(&fault, 0, sizeof(fault));
	assert_int_equal(dax_open_ram_room(s->made * MIB, device * MIB, NULL, &trace, &t.dax), 0);
	if (pool_format(t.dax, &format, NULL, why, sizeof(why)) != 0)
		fail_msg("pool_format: %s", why);
	floors_open();
	assert_true(file_write("file", 3 * MIB));
	assert_int_equal(dax_grow(t.dax, device * MIB), 0);
}

static uint64_t size_mib(void)
{
	return pool_size_blk(t.pool) * BLOCK_SIZE / MIB;
}

/* Each header tells of the size that the pool has, and could serve when both superblocks are lost. */
static void headers_check(void)
{
	const struct super *super = pool_super(t.pool);

	assert_int_equal(super->grown_from_blk, 0);
	for (uint32_t agno = 0; agno < super->ag_count; agno++) {
		_Alignas(64) struct m_ag m;
		struct super copy;
		uint64_t off = (super_ag_start_blk(super, agno) + CHUNK_BLOCKS + AG_UNIT_HEADER) * BLOCK_SIZE;

		assert_int_equal(dax_load(t.dax, &m, off, sizeof(m), NULL), 0);
		assert_true(ag_super_decode(&copy, &m.ag_super, &super->uuid));
		if (copy.size_blk != super->size_blk ||
		    le64_get(m.ag_length_blk) != super_ag_length_blk(super, agno))
			fail_msg("group %u: %llu blocks of %llu, not of %llu", agno,
				 (unsigned long long)le64_get(m.ag_length_blk),
				 (unsigned long long)copy.size_blk, (unsigned long long)super->size_blk);
	}
}

/* It is sound, has one of both sizes, can be used, and has or gets the new size. */
static void all_check(const struct shape *s)
{
	int expected = size_mib() == s->to ? -EALREADY : 0;

	assert_true(size_mib() == s->made || size_mib() == s->to);
	testfs_check(&t);
	headers_check();
	file_check("file", 3 * MIB);
	assert_true(file_write("more", MIB));
	assert_int_equal(space_grow(t.pool, 0), expected);
	assert_int_equal(size_mib(), s->to);
	testfs_check(&t);
	headers_check();
	testfs_remount(&t);
	assert_int_equal(size_mib(), s->to);
	file_check("more", MIB);
}

/* ---- stores that fail ---- */

/* One store of a growth fails, or that one and all after it. False: there are no more. */
static bool stores_fail(const struct shape *s, uint64_t nth, uint64_t count)
{
	bool failed, hit;
	int rc;

	make(s, s->to);
	fault.first = nth;
	fault.end = nth + count;
	rc = space_grow(t.pool, 0);
	hit = fault.hits != 0;
	fault_disarm();
	failed = pool_failed(t.pool);
	/* An error: it is as it was, now or, if it takes no more writes, after the next mount. */
	assert_int_equal(size_mib(), rc && !failed ? s->made : rc ? size_mib() : s->to);
	if (!failed)
		file_check("file", 3 * MIB);
	floors_close(!failed);
	floors_open();
	if (!rc)
		assert_int_equal(size_mib(), s->to);
	/* Copies that could not be written are healed by whoever reads them, or by a repair; then all is well. */
	if (hit) {
		const struct repair_opts opts = { .force = true };
		struct repair_report report;
		char why[256] = "";

		floors_close(true);
		assert_int_equal(repair_pool(t.dax, &opts, &report, why, sizeof(why)), 0);
		assert_int_equal(report.after.findings, 0);
		assert_int_equal(report.acts[REPAIR_LOST] + report.acts[REPAIR_LEFT], 0);
		floors_open();
	}
	if (!rc && hit)
		file_check("file", 3 * MIB); /* a header that could not be written is left as it was */
	else
		all_check(s);
	testfs_free(&t);
	return hit;
}

static void test_stores_fail(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
		uint64_t n = 1, step = getenv("UMBRA_GROW_FAULTS") ? 1 : 61;

		while (stores_fail(&shapes[i], n, 1))
			n += n < 20 ? 1 : step;
		assert_true(n > 20);
		for (n = 1; stores_fail(&shapes[i], n, UINT64_MAX / 2); n += n < 20 ? 3 : 2 * step)
			;
	}
}

/* ---- bad memory ---- */

/* Where the pool ended there is no copy of the superblock any more: it grows, and so does the mount that has to go on with it. */
static void test_bad_former_end(void **state)
{
	const struct shape *s = &shapes[3];
	const struct shape *other = &shapes[2];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		const struct shape *shape = i ? s : other;

		make(shape, shape->to);
		block_lose(shape->made * MIB / BLOCK_SIZE - 1);
		if (i) { /* the new mirror of slot 0 has to lie there */
			assert_int_equal(space_grow(t.pool, 0), -EIO);
			assert_int_equal(size_mib(), shape->made);
			assert_null(pool_failed(t.pool));
			file_check("file", 3 * MIB);
			assert_true(file_write("more", MIB));
		} else {
			assert_int_equal(space_grow(t.pool, 0), 0);
			assert_int_equal(size_mib(), shape->to);
			assert_null(pool_failed(t.pool));
			all_check(shape);
		}
		testfs_free(&t);
	}
}

static uint64_t lose_at_fence, lose_blk;

static void at_fence_lose(void)
{
	if (lose_at_fence && --lose_at_fence == 0)
		block_lose(lose_blk);
}

/* It goes bad in the middle of it, and the power as well: the next mount comes to the end of it. */
static void test_bad_former_end_later(void **state)
{
	const struct shape *s = &shapes[2];

	(void)state;
	for (unsigned fence = 1; fence < 12; fence++) {
		make(s, s->to);
		lose_at_fence = fence;
		lose_blk = s->made * MIB / BLOCK_SIZE - 1;
		fault.at_fence = at_fence_lose;
		assert_int_equal(space_grow(t.pool, 0), 0);
		fault_disarm();
		assert_null(pool_failed(t.pool));
		all_check(s);
		testfs_free(&t);
	}
}

/* The end of what is new cannot be written: the pool stays as it is. */
static void test_bad_new_end(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
		const struct shape *s = &shapes[i];

		make(s, s->to);
		block_lose(s->to * MIB / BLOCK_SIZE - 1);
		assert_int_equal(space_grow(t.pool, 0), -EIO);
		assert_int_equal(size_mib(), s->made);
		assert_null(pool_failed(t.pool));
		testfs_check(&t);
		file_check("file", 3 * MIB);
		assert_true(file_write("more", MIB));
		floors_close(true);
		floors_open();
		assert_int_equal(size_mib(), s->made);
		testfs_check(&t);
		headers_check();
		file_check("more", MIB);
		testfs_free(&t);
	}
}

/* ---- a device that ends somewhere else ---- */

static void block0_lose(void)
{
	static const uint8_t zero[BLOCK_SIZE];
	uint64_t seq_limit = pool_super(t.pool)->seq_limit;

	floors_close(true);
	assert_int_equal(dax_store(t.dax, 0, zero, sizeof(zero)), 0);
	floors_open();
	assert_true(pool_super(t.pool)->seq_limit > seq_limit);
}

/* Enlarged, but not grown: the copy of the superblock is found, as far away from the end as it is. */
static void test_enlarged_only(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
		struct shape s = shapes[i];

		make(&s, 200);
		block0_lose();
		assert_int_equal(size_mib(), s.made);
		assert_int_equal(dax_grow(t.dax, 200 * MIB), 0);
		s.to = 200 - (200 % s.ag < 16 ? 200 % s.ag : 0);
		all_check(&s);
		block0_lose();
		assert_int_equal(size_mib(), s.to);
		testfs_check(&t);
		testfs_free(&t);
	}
}

/* mkfs is broken off: nothing leads to the pool that was there, however small it was. */
static void test_mkfs_over_small(void **state)
{
	const struct shape *s = &shapes[0];
	char why[256] = "";
	struct pool *pool;

	(void)state;
	make(s, 200);
	floors_close(true);
	fault.first = 4; /* block 0, the header, the ends of chunks ... */
	fault.end = UINT64_MAX;
	assert_int_equal(pool_format(t.dax, &(struct format_opts){ 0 }, NULL, why, sizeof(why)), -EIO);
	fault_disarm();
	assert_int_equal(pool_open(t.dax, &(struct pool_opts){ 0 }, &pool, why, sizeof(why)), -EUCLEAN);
	assert_false(pool_super_exists(t.dax));
	dax_close(t.dax);
}

/* ---- a repair of what is unfinished ---- */

static uint64_t cut_at_fence;
static uint8_t *cut;

static void at_fence_cut(void)
{
	if (cut_at_fence && --cut_at_fence == 0)
		memcpy(cut, dax_ptr(t.dax, 0), dax_size_bytes(t.dax));
}

/* The pool as it is at one fence of its growth, not open. False: there are not so many. */
static bool cut_make(const struct shape *s, uint64_t fence)
{
	bool was_there;

	make(s, s->to);
	cut = calloc(1, s->to * MIB);
	cut_at_fence = fence;
	fault.at_fence = at_fence_cut;
	assert_int_equal(space_grow(t.pool, 0), 0);
	fault_disarm();
	was_there = cut_at_fence == 0;
	testfs_free(&t);
	memset(&t, 0, sizeof(t));
	if (was_there)
		assert_int_equal(dax_open_ram(s->to * MIB, cut, &trace, &t.dax), 0);
	free(cut);
	return was_there;
}

static void junk(uint64_t blk)
{
	uint8_t buf[BLOCK_SIZE];

	memset(buf, 0xa5, sizeof(buf));
	assert_int_equal(dax_store(t.dax, blk * BLOCK_SIZE, buf, sizeof(buf)), 0);
}

/* Both copies of a group's header, wherever the mirror is by now. */
static void header_lose(const struct shape *s, uint64_t agno)
{
	uint64_t sizes[2] = { s->made, s->to };

	junk((agno * s->ag + 2) * MIB / BLOCK_SIZE + AG_UNIT_HEADER);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t end = u64_min((agno + 1) * s->ag, sizes[i]);

		if (end > agno * s->ag)
			junk((end - 4) * MIB / BLOCK_SIZE + AG_UNIT_HEADER);
	}
}

/* All of them. */
static void supers_lose(const struct shape *s)
{
	for (uint64_t blk = s->to * MIB / BLOCK_SIZE; blk >= s->made * MIB / BLOCK_SIZE;
	     blk -= CHUNK_BLOCKS) {
		struct m_super m;

		assert_int_equal(dax_load(t.dax, &m, (blk - 1) * BLOCK_SIZE, sizeof(m), NULL), 0);
		if (le32_get(m.sb_hdr.uh_magic) == MAGIC_SUPER)
			junk(blk - 1);
	}
	junk(0);
}

/* A look changes nothing, whatever there is to be seen. */
static void look(const struct shape *s)
{
	const struct pool_opts opts = { .readonly = true, .no_replay = true };
	struct check_report report;
	char why[256] = "";

	t.dax->readonly = true; /* a store is an error of ours then */
	if (pool_open(t.dax, &opts, &t.pool, why, sizeof(why)) != 0)
		fail_msg("pool_open: %s", why);
	assert_int_equal(check_pool(t.pool, &(struct check_opts){ 0 }, &report), 0);
	assert_true(size_mib() == s->made || size_mib() == s->to);
	pool_close(t.pool, false);
	t.dax->readonly = false;
}

static void found(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	print_message("#   %s: %s\n", check_kind_name(kind), text);
}

enum { JUST_LOOK, JUST_MEND, LAST_LOST, FIRST_LOST, NEW_LOST, SUPERS_LOST, DAMAGES };

static bool unfinished_mend(const struct shape *s, uint64_t fence, unsigned damage)
{
	const struct repair_opts opts = { .found = found, .limit = 4, .force = true };
	uint64_t last = (s->made - 1) / s->ag, end = (s->to - 1) / s->ag;
	struct repair_report report;
	char why[256] = "";

	if (!cut_make(s, fence))
		return false;
	if (damage == JUST_LOOK)
		look(s);
	if (damage == LAST_LOST || damage == FIRST_LOST)
		header_lose(s, damage == LAST_LOST ? last : 0);
	if (damage == NEW_LOST && end > last)
		header_lose(s, end);
	if (damage == SUPERS_LOST)
		supers_lose(s);
	for (unsigned i = 0; i < 2; i++) {
		if (repair_pool(t.dax, &opts, &report, why, sizeof(why)) != 0)
			fail_msg("repair_pool: %s", why);
		assert_int_equal(report.after.findings, 0);
		assert_int_equal(report.acts[REPAIR_LOST] + report.acts[REPAIR_LEFT], 0);
		assert_false(report.unfinished);
	}
	assert_int_equal(report.before.findings, 0);
	floors_open();
	all_check(s);
	testfs_free(&t);
	return true;
}

/* UMBRA_GROW_FAULTS=1: all of them, not a part. */
static void test_mend_unfinished(void **state)
{
	bool all = getenv("UMBRA_GROW_FAULTS") != NULL;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
		bool more = true;

		for (unsigned fence = 1; more; fence++) {
			for (unsigned damage = 0; damage < DAMAGES; damage++) {
				if (!all && (fence + damage) % 3 != i % 3)
					continue;
				print_message("# %s, fence %u, damage %u\n", shapes[i].name, fence, damage);
				more = unfinished_mend(&shapes[i], fence, damage) && more;
			}
		}
	}
}

/* What a header says of the superblock is wrong, as if a growth had left it out: a repair finds that, and mends it. */
static void test_header_lies(void **state)
{
	const struct repair_opts opts = { .force = true };
	struct repair_report report;
	_Alignas(64) struct m_ag m;
	char why[256] = "";

	(void)state;
	make(&shapes[1], shapes[1].to);
	assert_int_equal(space_grow(t.pool, 0), 0);
	testunit_load(&t, pool_ag_unit(t.pool, 0, AG_UNIT_HEADER), &m, sizeof(m));
	m.ag_super.as_size_blk = le64_of(shapes[1].made * MIB / BLOCK_SIZE);
	testunit_store(&t, pool_ag_unit(t.pool, 0, AG_UNIT_HEADER), &m, sizeof(m), TESTUNIT_BOTH);
	floors_close(true);
	assert_int_equal(repair_pool(t.dax, &opts, &report, why, sizeof(why)), 0);
	assert_int_equal(report.before.by_kind[CHECK_GROUP], 1);
	assert_int_equal(report.after.findings, 0);
	floors_open();
	all_check(&shapes[1]);
	testfs_free(&t);
}

/* ---- large and full ---- */

/* A group of 16 MiB becomes one of 16 GiB in one transaction. */
static void test_long(void **state)
{
	const struct shape s = { "long", 16384 + 16, 32768, 16384 };

	(void)state;
	make(&s, s.to);
	assert_int_equal(space_grow(t.pool, 0), 0);
	all_check(&s);
	testfs_free(&t);
}

/* Not a block is left, for metadata neither. */
static void test_full_of_files(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
		const struct shape *s = &shapes[i];
		char name[32];
		int rc = 0;

		make(s, s->to);
		for (unsigned n = 0; rc == 0; n++) {
			struct inode_attr attr;

			snprintf(name, sizeof(name), "%u", n);
			rc = testfs_mknod(&t, INODE_ROOT, name, S_IFREG | 0644, &attr);
			if (rc)
				break;
			/* Every second block: many extents. */
			for (uint64_t at = 0; at < 64; at += 2)
				if (fs_write(t.fs, &testfs_root, attr.ino, name, 8, at * BLOCK_SIZE, 0) < 0)
					break;
			fs_forget(t.fs, attr.ino, 1);
		}
		assert_int_equal(rc, -ENOSPC);
		print_message("# %s\n", s->name);
		assert_int_equal(space_grow(t.pool, 0), 0);
		/* More metadata needs two chunks, and then there is none for data. */
		if (s->to - s->made > 4) {
			all_check(s);
		} else {
			testfs_check(&t);
			file_check("file", 3 * MIB);
		}
		testfs_free(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stores_fail),          cmocka_unit_test(test_bad_former_end),
		cmocka_unit_test(test_bad_former_end_later), cmocka_unit_test(test_bad_new_end),
		cmocka_unit_test(test_enlarged_only),        cmocka_unit_test(test_mkfs_over_small),
		cmocka_unit_test(test_mend_unfinished),      cmocka_unit_test(test_long),
		cmocka_unit_test(test_full_of_files),        cmocka_unit_test(test_header_lies),
	};

	return cmocka_run_group_tests_name("grow_faults", tests, NULL, NULL);
}
