/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Several threads at the same few files, with the background thread running and too little room: names, data, clones, long operations
 * and orphans at once. Threads make a run differ from the next one with the same seed.
 *
 * What can be known in spite of that:
 *	- every 8-byte word that is written says which file, block and version it is of, and where in the block it stands. A block
 *	  that was read holds words of one write, and zeroes;
 *	- plain files are never part of a clone: they hold their own words only, at their own places;
 *	- a private file is changed by one thread only, which knows every word of it; others read it and clone from it;
 *	- errors are those that some order of the operations can give; removing names never runs out of space;
 *	- at the end the consistency walk finds nothing and no orphan is left.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/testfs.h"
#include "repair/check.h"
#include "space/space.h"

#define THREADS 4u
#define NAMES 12u       /* of each shared directory */
#define FILE_BLKS 2048u /* largest file */
#define IO_BLKS 128u
#define LEFT_BLKS 3000u /* free at the start */
#define KEPT 3u         /* files that a thread holds open over many steps */
#define WORDS (BLOCK_SIZE / 8)
#define STALL_S 180u /* without any step: something hangs */

enum { PLAIN, CLONED, DIRS }; /* the shared directories */

struct held_file {
	uint64_t ino, gen;
	bool plain, open;
};

struct job {
	pthread_t thread;
	unsigned index;
	uint64_t random;
	uint32_t version;
	struct held_file kept[KEPT];
	uint64_t own_ino; /* the private file */
	uint64_t own_size;
	uint32_t own[FILE_BLKS]; /* version of each block, 0: zeroes */
	uint8_t *buf;
};

static struct testfs t;
static uint64_t dirs[DIRS];
static struct job jobs[THREADS];
static unsigned steps;
static _Atomic uint64_t progress;
static _Atomic bool over;
static _Atomic uint64_t done_count, full_count, other_count; /* results: success, no space, other errors */

static void wrong(const char *what, int64_t value)
{
	fprintf(stderr, "%s: %lld\n", what, (long long)value);
	abort();
}

static void expect(const char *what, int64_t rc, const int *allowed)
{
	atomic_fetch_add(rc >= 0 ? &done_count : rc == -ENOSPC ? &full_count : &other_count, 1);
	for (; rc < 0 && *allowed; allowed++) {
		if (rc == *allowed)
			return;
	}
	if (rc < 0)
		wrong(what, rc);
}

#define ALLOW(...) ((const int[]){ __VA_ARGS__, 0 })

static uint64_t below(struct job *j, uint64_t limit)
{
	return testfs_below(&j->random, limit);
}

/* ---- words ---- */

/* 20 bits that name a file: never 0. Two files may share one by chance, which only hides a mistake. */
static uint64_t tag_of(uint64_t ino, uint64_t gen)
{
	return ((ino * 0x9e3779b97f4a7c15ull ^ gen * 0xbf58476d1ce4e5b9ull) >> 44) | 1;
}

static uint64_t word_of(uint64_t tag, uint64_t blk, uint32_t version, unsigned at)
{
	uint64_t word = tag << 44 | (blk & 0xfff) << 32 | (uint64_t)(version & 0xffff) << 16;

	return word | ((word >> 16) * 0x9e3779b97f4a7c15ull >> 48 ^ (at * 0x61u & 0xffff));
}

static void blocks_fill(uint8_t *buf, uint64_t tag, uint64_t blk, unsigned count, uint32_t version)
{
	for (unsigned i = 0; i < count * WORDS; i++) {
		uint64_t word = word_of(tag, blk + i / WORDS, version, i % WORDS);

		memcpy(buf + i * 8, &word, 8);
	}
}

/* One block as it was read, at most len bytes of it. tag 0: of any file, at any place. */
static void block_check(const uint8_t *buf, uint64_t len, uint64_t tag, uint64_t blk)
{
	uint64_t first = 0;

	for (unsigned at = 0; at < len / 8; at++) {
		uint64_t word;

		memcpy(&word, buf + at * 8, 8);
		if (word == 0)
			continue;
		if (word != word_of(word >> 44, word >> 32 & 0xfff, word >> 16 & 0xffff, at))
			wrong("a word that nobody wrote there", (int64_t)word);
		if (first && word >> 16 != first >> 16)
			wrong("a block with words of two writes", (int64_t)word);
		if (tag && (word >> 44 != tag || (word >> 32 & 0xfff) != blk))
			wrong("a block of another file or place", (int64_t)word);
		first = word;
	}
}

/* ---- shared files ---- */

static struct held_file file_at(struct job *j, bool make, bool plain)
{
	char name[2] = { (char)('a' + below(j, NAMES)), 0 };
	struct inode_attr attr;
	int rc = fs_lookup(t.fs, dirs[plain ? PLAIN : CLONED], name, 1, &attr);

	if (rc == -ENOENT && make)
		rc = fs_mknod(t.fs, &testfs_root, dirs[plain ? PLAIN : CLONED], name, 1, S_IFREG | 0644, 0,
			      &attr);
	expect("lookup or mknod", rc, ALLOW(-ENOENT, -EEXIST, -ENOSPC));
	if (rc)
		return (struct held_file){ 0 };
	return (struct held_file){ .ino = attr.ino, .gen = attr.gen, .plain = plain };
}

static void file_open(struct job *j, struct held_file *f)
{
	expect("open",
	       fs_opened(t.fs, f->ino, FS_OPEN_WRITE | (below(j, 20) == 0 ? FS_OPEN_TRUNCATE : 0),
			 &testfs_root),
	       ALLOW(0));
	f->open = true;
}

static void file_put(struct held_file *f)
{
	if (f->open)
		fs_closed(t.fs, f->ino, FS_OPEN_WRITE);
	if (f->ino)
		fs_forget(t.fs, f->ino, 1);
	*f = (struct held_file){ 0 };
}

static void file_read(struct job *j, const struct held_file *f)
{
	uint64_t blk = below(j, FILE_BLKS);
	ssize_t n = fs_read(t.fs, f->ino, j->buf, IO_BLKS * BLOCK_SIZE, blk * BLOCK_SIZE);

	expect("read", n, ALLOW(0));
	for (ssize_t at = 0; at < n; at += BLOCK_SIZE)
		block_check(j->buf + at, u64_min((uint64_t)(n - at), BLOCK_SIZE),
			    f->plain ? tag_of(f->ino, f->gen) : 0, blk + (uint64_t)at / BLOCK_SIZE);
}

static void file_write(struct job *j, const struct held_file *f)
{
	uint64_t blk = below(j, FILE_BLKS - IO_BLKS);
	unsigned count = 1 + (unsigned)below(j, below(j, 2) ? 4 : IO_BLKS);

	blocks_fill(j->buf, tag_of(f->ino, f->gen), blk, count, ++j->version);
	expect("write", fs_write(t.fs, &testfs_root, f->ino, j->buf, count * BLOCK_SIZE, blk * BLOCK_SIZE, 0),
	       ALLOW(-ENOSPC));
}

static void file_size(struct job *j, const struct held_file *f)
{
	struct fs_set set = { .what = FS_SET_SIZE,
			      .size = below(j, 5) ? below(j, FILE_BLKS * WORDS) * 8 : 0 };
	struct inode_attr attr;

	expect("truncate", fs_setattr(t.fs, &testfs_root, f->ino, &set, &attr),
	       set.size ? ALLOW(-ENOSPC) : ALLOW(0));
}

static void file_falloc(struct job *j, const struct held_file *f)
{
	static const int modes[] = { 0,
				     FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_ZERO_RANGE,
				     FALLOC_FL_UNSHARE_RANGE,
				     FALLOC_FL_COLLAPSE_RANGE,
				     FALLOC_FL_INSERT_RANGE };
	int mode = modes[below(j, f->plain ? 5 : 7)];
	uint64_t align = mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE) ? BLOCK_SIZE : 8;
	uint64_t off = below(j, FILE_BLKS * BLOCK_SIZE / 2 / align) * align;
	uint64_t len = (1 + below(j, FILE_BLKS * BLOCK_SIZE / 4 / align)) * align;
	struct inode_attr attr;

	if (mode == FALLOC_FL_INSERT_RANGE &&
	    (fs_getattr(t.fs, f->ino, &attr) || attr.size > FILE_BLKS * BLOCK_SIZE / 2))
		return;
	expect("fallocate", fs_fallocate(t.fs, &testfs_root, f->ino, mode, off, len),
	       ALLOW(-ENOSPC, -EINVAL));
}

static void file_clone(struct job *j, const struct held_file *f)
{
	struct held_file from = file_at(j, false, false);
	uint64_t src = below(j, 4) && from.ino ? from.ino : jobs[below(j, THREADS)].own_ino;
	uint64_t a = below(j, FILE_BLKS / 2) * BLOCK_SIZE, b = below(j, FILE_BLKS / 2) * BLOCK_SIZE;
	uint64_t len = (1 + below(j, FILE_BLKS / 2)) * BLOCK_SIZE;
	bool same;

	if (below(j, 4))
		expect("clone", fs_clone(t.fs, &testfs_root, src, a, f->ino, b, len, 0, NULL),
		       ALLOW(-ENOSPC, -EINVAL));
	else
		expect("dedupe", fs_dedupe(t.fs, src, a, f->ino, b, len, &same), ALLOW(-ENOSPC, -EINVAL));
	file_put(&from);
}

static void file_misc(struct job *j, const struct held_file *f)
{
	static const size_t sizes[] = { 10, 300, 3000, 20000, 65536 };
	struct fs_extent extents[16];
	uint64_t found;

	switch (below(j, 5)) {
	case 0:
		expect("setxattr",
		       fs_setxattr(t.fs, f->ino, below(j, 2) ? "user.a" : "user.b", j->buf,
				   sizes[below(j, 5)], 0, false),
		       ALLOW(-ENOSPC));
		break;
	case 1:
		expect("getxattr", fs_getxattr(t.fs, f->ino, "user.a", j->buf, 65536), ALLOW(-ENODATA));
		break;
	case 2:
		expect("removexattr", fs_removexattr(t.fs, f->ino, "user.a"), ALLOW(-ENODATA));
		break;
	case 3:
		expect("map", fs_map(t.fs, f->ino, below(j, FILE_BLKS) * BLOCK_SIZE, extents, 16), ALLOW(0));
		break;
	default:
		expect("seek", fs_seek(t.fs, f->ino, below(j, FILE_BLKS) * BLOCK_SIZE, SEEK_DATA, &found),
		       ALLOW(-ENXIO));
	}
}

static void step_file(struct job *j)
{
	struct held_file *kept = &j->kept[below(j, KEPT)], fresh = { 0 }, *f = kept;

	if (below(j, 20) == 0)
		file_put(kept);
	if (!kept->ino || below(j, 3)) {
		fresh = file_at(j, true, below(j, 2));
		f = &fresh;
	}
	if (!f->ino)
		return;
	if (f == &fresh)
		file_open(j, f);
	switch (below(j, 8)) {
	case 0:
	case 1:
		file_read(j, f);
		break;
	case 2:
	case 3:
		file_write(j, f);
		break;
	case 4:
		file_size(j, f);
		break;
	case 5:
		file_falloc(j, f);
		break;
	case 6:
		file_misc(j, f);
		break;
	default:
		if (!f->plain)
			file_clone(j, f);
	}
	if (f == &fresh && !kept->ino) {
		*kept = fresh;
		return;
	}
	file_put(&fresh);
}

/* ---- names ---- */

static int entry_seen(void *arg, const struct fs_dirent *e)
{
	(void)arg;
	if (e->attr)
		fs_forget(t.fs, e->ino, 1);
	return 0;
}

static void clone_many(struct job *j)
{
	struct held_file from = file_at(j, false, false);
	struct fs_clone_item items[3];
	char names[3][2];
	unsigned done = 0;

	for (unsigned i = 0; i < 3; i++) {
		names[i][0] = (char)('a' + below(j, NAMES));
		items[i] = (struct fs_clone_item){ .src = from.ino ? from.ino : j->own_ino,
						   .name = names[i],
						   .name_len = 1 };
	}
	expect("clone files", fs_clone_files(t.fs, &testfs_root, dirs[CLONED], items, 3, &done),
	       ALLOW(-EEXIST, -ENOSPC, -EXDEV));
	file_put(&from);
}

static void step_name(struct job *j)
{
	uint64_t dir = dirs[below(j, DIRS)];
	char a[2] = { (char)('a' + below(j, NAMES)), 0 }, b[2] = { (char)('a' + below(j, NAMES)), 0 };
	struct held_file f;
	struct inode_attr attr;

	switch (below(j, 7)) {
	case 0:
	case 1:
		expect("unlink", testfs_unlink(&t, dir, a), ALLOW(-ENOENT));
		break;
	case 2:
		expect("rename", testfs_rename(&t, dir, a, dir, b, below(j, 2) ? RENAME_EXCHANGE : 0),
		       ALLOW(-ENOENT, -ENOSPC));
		break;
	case 3:
		f = file_at(j, false, dir == dirs[PLAIN]);
		if (f.ino)
			expect("link", testfs_link(&t, f.ino, dir, b), ALLOW(-EEXIST, -ENOSPC));
		file_put(&f);
		break;
	case 4:
		expect("readdir", fs_readdir(t.fs, dir, 0, true, entry_seen, NULL), ALLOW(0));
		break;
	case 5:
		clone_many(j);
		break;
	default:
		if (fs_tmpfile(t.fs, &testfs_root, dir, 0600, &attr))
			break;
		f = (struct held_file){ .ino = attr.ino, .gen = attr.gen, .plain = true };
		file_write(j, &f);
		file_read(j, &f);
		file_put(&f);
	}
}

/* ---- the private file ---- */

static void own_expect(const struct job *j, uint64_t blk, uint8_t *buf)
{
	memset(buf, 0, BLOCK_SIZE);
	if (j->own[blk])
		blocks_fill(buf, j->index + 2, blk, 1, j->own[blk]);
	for (uint64_t at = blk * BLOCK_SIZE; at < (blk + 1) * BLOCK_SIZE; at++) {
		if (at >= j->own_size)
			buf[at % BLOCK_SIZE] = 0;
	}
}

static void own_check(struct job *j, unsigned count)
{
	uint64_t blk = below(j, FILE_BLKS - count + 1);
	_Alignas(8) uint8_t want[BLOCK_SIZE];
	ssize_t n;

	memset(j->buf, 0, count * BLOCK_SIZE);
	n = fs_read(t.fs, j->own_ino, j->buf, count * BLOCK_SIZE, blk * BLOCK_SIZE);
	if (n < 0)
		wrong("read of a private file", n);
	for (unsigned i = 0; i < count; i++) {
		own_expect(j, blk + i, want);
		if (memcmp(want, j->buf + i * BLOCK_SIZE, BLOCK_SIZE) != 0)
			wrong("a private file changed by itself: block", (int64_t)(blk + i));
	}
}

static void own_write(struct job *j)
{
	uint64_t blk = below(j, FILE_BLKS - IO_BLKS);
	unsigned count = 1 + (unsigned)below(j, below(j, 4) ? 3 : IO_BLKS), done;
	uint32_t version = ++j->version & 0xffff ? j->version & 0xffff : (j->version += 1) & 0xffff;
	uint64_t word;
	ssize_t n;

	blocks_fill(j->buf, j->index + 2, blk, count, version);
	n = fs_write(t.fs, &testfs_root, j->own_ino, j->buf, count * BLOCK_SIZE, blk * BLOCK_SIZE, 0);
	expect("write", n, ALLOW(-ENOSPC));
	done = n < 0 ? 0 : (unsigned)(n / BLOCK_SIZE);
	for (unsigned i = 0; i < done; i++)
		j->own[blk + i] = version;
	if (n > 0)
		j->own_size = u64_max(j->own_size, blk * BLOCK_SIZE + (uint64_t)n);
	/* Out of space: what was stored in place may be new. */
	for (unsigned i = done; i < count; i++) {
		word = 0;
		if (fs_read(t.fs, j->own_ino, &word, 8, (blk + i) * BLOCK_SIZE) == 8 && word &&
		    word == word_of(j->index + 2, blk + i, version, 0))
			j->own[blk + i] = version;
	}
}

static void own_cut(struct job *j)
{
	uint64_t blk = below(j, FILE_BLKS), end = u64_min(FILE_BLKS, blk + 1 + below(j, 200));
	struct fs_set set = { .what = FS_SET_SIZE, .size = below(j, FILE_BLKS + 1) * BLOCK_SIZE };
	struct inode_attr attr;
	int rc;

	if (below(j, 2)) {
		rc = fs_fallocate(t.fs, &testfs_root, j->own_ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  blk * BLOCK_SIZE, (end - blk) * BLOCK_SIZE);
		expect("punch", rc, ALLOW(0));
	} else {
		rc = fs_setattr(t.fs, &testfs_root, j->own_ino, &set, &attr);
		expect("truncate", rc, ALLOW(-ENOSPC));
		blk = set.size / BLOCK_SIZE;
		end = FILE_BLKS;
		if (!rc)
			j->own_size = set.size;
	}
	for (; rc == 0 && blk < end; blk++)
		j->own[blk] = 0;
}

static void step_own(struct job *j)
{
	switch (below(j, 4)) {
	case 0:
	case 1:
		own_write(j);
		break;
	case 2:
		own_cut(j);
		break;
	default:
		own_check(j, IO_BLKS);
	}
}

static void step_pool(struct job *j)
{
	struct fs_statfs st;

	switch (below(j, 3)) {
	case 0:
		expect("trim", space_trim(t.pool), ALLOW(-EDEADLK));
		break;
	case 1:
		expect("refill", space_refill(t.pool), ALLOW(-ENOSPC));
		break;
	default:
		expect("statfs", fs_statfs(t.fs, &st), ALLOW(0));
		if (st.free_blk > st.total_blk)
			wrong("more blocks free than there are", (int64_t)st.free_blk);
	}
}

/* ---- the run ---- */

static void *job_main(void *arg)
{
	struct job *j = arg;

	for (unsigned i = 0; i < steps; i++) {
		uint64_t what = below(j, 100);

		if (what < 55)
			step_file(j);
		else if (what < 75)
			step_name(j);
		else if (what < 98)
			step_own(j);
		else
			step_pool(j);
		atomic_fetch_add(&progress, 1);
	}
	for (unsigned i = 0; i < KEPT; i++)
		file_put(&j->kept[i]);
	return NULL;
}

static void *watch_main(void *arg)
{
	uint64_t seen = 0, stalled_s = 0;

	(void)arg;
	while (!atomic_load(&over)) {
		sleep(1);
		stalled_s = atomic_load(&progress) == seen ? stalled_s + 1 : 0;
		seen = atomic_load(&progress);
		if (stalled_s == STALL_S)
			wrong("nothing goes on any more, at step", (int64_t)seen);
	}
	return NULL;
}

static void found(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	fprintf(stderr, "%s: %s\n", check_kind_name(kind), text);
}

/* Nothing runs: all of the media is as it should be, and the private files too. */
static void check_quiet(bool closed)
{
	struct check_opts opts = { .found = found, .limit = 20 };
	struct check_report report;

	assert_int_equal(check_pool(t.pool, &opts, &report), 0);
	assert_int_equal(report.findings, 0);
	assert_int_equal(report.intents, 0);
	if (closed)
		assert_int_equal(report.orphans, 0);
	for (unsigned i = 0; i < THREADS; i++) {
		struct inode_attr attr;

		assert_int_equal(fs_getattr(t.fs, jobs[i].own_ino, &attr), 0);
		assert_int_equal(attr.size, jobs[i].own_size);
		for (unsigned k = 0; k < 40; k++)
			own_check(&jobs[i], IO_BLKS);
	}
}

static void job_make(struct job *j, unsigned index, uint64_t random)
{
	char name[16];
	struct inode_attr attr;

	*j = (struct job){ .index = index, .random = random, .buf = malloc(IO_BLKS * BLOCK_SIZE) };
	snprintf(name, sizeof(name), "own%u", index);
	assert_int_equal(testfs_mknod(&t, INODE_ROOT, name, S_IFREG | 0644, &attr), 0);
	j->own_ino = attr.ino;
}

/* Takes so much that little is left for all the others. */
static void ballast_make(void)
{
	struct inode_attr attr;
	struct fs_statfs st;

	assert_int_equal(testfs_mknod(&t, INODE_ROOT, "ballast", S_IFREG | 0600, &attr), 0);
	assert_int_equal(fs_statfs(t.fs, &st), 0);
	assert_int_equal(
		fs_fallocate(t.fs, &testfs_root, attr.ino, 0, 0, (st.free_blk - LEFT_BLKS) * BLOCK_SIZE), 0);
}

static void run(const struct testfs_opts *opts, unsigned step_count)
{
	uint64_t random = testfs_seed();
	struct inode_attr attr;
	pthread_t watch;

	testfs_make(&t, opts);
	steps = step_count;
	atomic_store(&over, false);
	for (unsigned i = 0; i < DIRS; i++) {
		assert_int_equal(testfs_mknod(&t, INODE_ROOT, i == PLAIN ? "plain" : "cloned", S_IFDIR | 0755,
					      &attr),
				 0);
		dirs[i] = attr.ino;
	}
	for (unsigned i = 0; i < THREADS; i++)
		job_make(&jobs[i], i, testfs_random(&random));
	ballast_make();
	assert_int_equal(pthread_create(&watch, NULL, watch_main, NULL), 0);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&jobs[i].thread, NULL, job_main, &jobs[i]), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(jobs[i].thread, NULL);
	atomic_store(&over, true);
	pthread_join(watch, NULL);
	printf("# %llu calls done, %llu without space, %llu with other errors; %llu commits, %llu rounds lost\n",
	       (unsigned long long)atomic_exchange(&done_count, 0),
	       (unsigned long long)atomic_exchange(&full_count, 0),
	       (unsigned long long)atomic_exchange(&other_count, 0),
	       (unsigned long long)pool_stats(t.pool)->commits,
	       (unsigned long long)pool_stats(t.pool)->retries);
	assert_null(pool_failed(t.pool));
	t.opts.fs.background = false;
	testfs_crash(&t);
	check_quiet(false);
	testfs_remount(&t);
	fs_work(t.fs);
	check_quiet(true);
	testfs_free(&t);
	for (unsigned i = 0; i < THREADS; i++)
		free(jobs[i].buf);
}

static void test_one_group(void **state)
{
	(void)state;
	run(&(struct testfs_opts){ .size_bytes = (uint64_t)40 << 20, .fs = { .background = true } }, 12000);
}

static void test_many_groups(void **state)
{
	(void)state;
	run(&(struct testfs_opts){ .size_bytes = (uint64_t)64 << 20,
				   .format = { .ag_size_bytes = (uint64_t)16 << 20,
					       .lane_size_bytes = 256u << 10 },
				   .fs = { .background = true } },
	    8000);
}

static void test_freed_by_everyone(void **state)
{
	(void)state;
	run(&(struct testfs_opts){ .size_bytes = (uint64_t)64 << 20 }, 6000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_group),
		cmocka_unit_test(test_many_groups),
		cmocka_unit_test(test_freed_by_everyone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
