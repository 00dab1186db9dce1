/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A process that is killed in the middle of a request, and the next one that is asked the same: what has been done is done once. (txn/receipt.h, fs/ledger.h)
 *
 * The pool, the receipts and the ledger are in memory that processes share. For each scene and each of its stores and fences a child carries the request out and ends
 * there, as if killed; another one may end in the same way while it takes over; then this process takes over, and carries the request out if its receipt does not
 * say that it has been.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/core.h"
#include "fs/holders.h"
#include "lib/testfs.h"
#include "repair/check.h"
#include "util/log.h"

#define POOL_BYTES ((uint64_t)16 << 20)
#define BLOCKS 40u
#define PIECES 1400u /* of a file that is not freed in one transaction */
#define CUT 7        /* status of a child that has been cut */

#define MUST(call)                                                                                \
	do {                                                                                      \
		long long must_rc = (call);                                                       \
		if (must_rc < 0) {                                                                \
			fprintf(stderr, "%s:%d: %s: %lld\n", __FILE__, __LINE__, #call, must_rc); \
			abort();                                                                  \
		}                                                                                 \
	} while (0)

/* What processes share. */
static uint8_t *pool_bytes, *base_bytes;
static struct fs_ledger ledger;
static size_t cells_size;
static bool *is_answered; /* what another request did after the one that is cut */

/* Counts down; the process ends at 0. */
static long budget = -1;

static void event(void)
{
	if (budget >= 0 && budget-- == 0)
		_exit(CUT);
}

static void on_store(void *ctx, uint64_t off, const void *src, size_t len)
{
	(void)ctx;
	(void)off;
	(void)src;
	(void)len;
	event();
}

static void on_zero(void *ctx, uint64_t off, size_t len)
{
	(void)ctx;
	(void)off;
	(void)len;
	event();
}

static void on_fence(void *ctx)
{
	(void)ctx;
	event();
}

struct world {
	struct dax *dax;
	struct pool *pool;
	struct fs *fs;
	struct fs_cred cred;
	struct txn_receipt *receipt;
};

static void applied(void *arg, uint64_t seq)
{
	(void)arg;
	receipt_settle(&ledger.receipts[0], seq);
}

static void world_open(struct world *w)
{
	const struct dax_trace trace = { on_store, on_zero, on_fence, NULL };
	struct pool_opts pool_opts = { .applied = applied };
	struct fs_opts fs_opts = { .ledger = &ledger };
	char why[256];

	*w = (struct world){ .cred = testfs_root };
	MUST(dax_open_memory(pool_bytes, POOL_BYTES, &trace, &w->dax));
	MUST(pool_open(w->dax, &pool_opts, &w->pool, why, sizeof(why)));
	fs_ledger_settle(&ledger);
	MUST(fs_open(w->pool, &fs_opts, &w->fs));
	fs_work(w->fs);
	w->receipt = w->cred.receipt = &ledger.receipts[0];
}

static uint64_t number(struct world *w, const char *name, struct inode_attr *attr)
{
	int rc = fs_lookup(w->fs, INODE_ROOT, name, strlen(name), attr);

	if (rc)
		return 0;
	fs_forget(w->fs, attr->ino, 1);
	return attr->ino;
}

/* The receipt, or what is done now. */
static bool is_done(struct world *w, int *rc)
{
	*rc = w->receipt->result;
	return receipt_is_done(w->receipt);
}

/* ---- scenes: what is asked, and what must be there once it has been answered ---- */

struct scene {
	const char *name;
	int (*ask)(struct world *w);
	void (*look)(struct world *w);
	void (*then)(struct world *w); /* or NULL: another request, which is answered */
};

/* The reference of the answer is given back. */
static void made_forget(struct world *w)
{
	struct inode_attr attr;

	assert_true(receipt_has(w->receipt, RECEIPT_REF));
	assert_int_equal(fs_getattr(w->fs, (uint64_t)w->receipt->value, &attr), 0);
	assert_int_equal(atomic_load(&ledger.cells[w->receipt->value].refs), 1);
	fs_forget(w->fs, (uint64_t)w->receipt->value, 1);
	assert_int_equal(atomic_load(&ledger.cells[w->receipt->value].refs), 0);
}

static int ask_create(struct world *w)
{
	struct inode_attr attr;
	int rc;

	return is_done(w, &rc) ? rc :
				 fs_mknod(w->fs, &w->cred, INODE_ROOT, "new", 3, S_IFREG | 0644, 0, &attr);
}

static void look_new(struct world *w)
{
	struct inode_attr attr;

	assert_int_equal(number(w, "new", &attr), w->receipt->value);
	made_forget(w);
}

static int ask_mkdir(struct world *w)
{
	struct inode_attr attr;
	int rc;

	return is_done(w, &rc) ? rc :
				 fs_mknod(w->fs, &w->cred, INODE_ROOT, "new", 3, S_IFDIR | 0755, 0, &attr);
}

static int ask_symlink(struct world *w)
{
	struct inode_attr attr;
	int rc;

	return is_done(w, &rc) ? rc : fs_symlink(w->fs, &w->cred, INODE_ROOT, "new", 3, "to", 2, &attr);
}

static int ask_link(struct world *w)
{
	struct inode_attr attr;
	int rc;

	return is_done(w, &rc) ? rc : fs_link(w->fs, number(w, "other", &attr), INODE_ROOT, "new", 3, &attr);
}

static void look_link(struct world *w)
{
	struct inode_attr attr;

	assert_int_equal(number(w, "new", &attr), w->receipt->value);
	assert_int_equal(attr.nlink, 2);
	made_forget(w);
}

static int ask_tmpfile(struct world *w)
{
	struct inode_attr attr;
	int rc;

	return is_done(w, &rc) ? rc : fs_tmpfile(w->fs, &w->cred, INODE_ROOT, 0600, &attr);
}

static void look_tmpfile(struct world *w)
{
	struct inode_attr attr;

	made_forget(w);
	assert_int_equal(fs_getattr(w->fs, (uint64_t)w->receipt->value, &attr), -ESTALE);
}

static int ask_unlink(struct world *w)
{
	int rc;

	return is_done(w, &rc) ? rc : fs_unlink(w->fs, INODE_ROOT, "old", 3);
}

/* The kernel still has it: old_ino has a reference from before. */
static uint64_t old_ino;

static void look_orphan(struct world *w)
{
	struct inode_attr attr;

	assert_int_equal(fs_getattr(w->fs, old_ino, &attr), 0);
	assert_int_equal(attr.nlink, 0);
}

static void look_unlink(struct world *w)
{
	struct inode_attr attr;

	assert_int_equal(number(w, "old", &attr), 0);
	look_orphan(w);
}

static int ask_rmdir(struct world *w)
{
	int rc;

	return is_done(w, &rc) ? rc : fs_rmdir(w->fs, INODE_ROOT, "dir", 3);
}

static void look_rmdir(struct world *w)
{
	struct inode_attr attr;

	assert_int_equal(number(w, "dir", &attr), 0);
}

static int ask_rename(struct world *w)
{
	int rc;

	return is_done(w, &rc) ? rc :
				 fs_rename(w->fs, &w->cred, INODE_ROOT, "other", 5, INODE_ROOT, "old", 3, 0);
}

static void look_rename(struct world *w)
{
	struct inode_attr attr;

	assert_int_equal(number(w, "other", &attr), 0);
	assert_int_not_equal(number(w, "old", &attr), 0);
	assert_int_not_equal(attr.ino, old_ino);
	look_orphan(w);
}

static int ask_setxattr(struct world *w)
{
	int rc;

	return is_done(w, &rc) ? rc : fs_setxattr(w->fs, old_ino, "user.new", "x", 1, XATTR_CREATE, false);
}

static void look_setxattr(struct world *w)
{
	assert_int_equal(fs_getxattr(w->fs, old_ino, "user.new", NULL, 0), 1);
}

static int ask_removexattr(struct world *w)
{
	int rc;

	return is_done(w, &rc) ? rc : fs_removexattr(w->fs, old_ino, "user.old");
}

static void look_removexattr(struct world *w)
{
	assert_int_equal(fs_getxattr(w->fs, old_ino, "user.old", NULL, 0), -ENODATA);
}

/* Larger than what is stored in one transaction need not be: how far it came is what counts. */
static int ask_append(struct world *w)
{
	static uint8_t bytes[3 * BLOCK_SIZE + 100];
	size_t before = receipt_is_done(w->receipt) ? (size_t)w->receipt->value : 0;
	ssize_t n;

	memset(bytes, 'a', sizeof(bytes));
	if (before == sizeof(bytes))
		return 0;
	n = fs_write(w->fs, &w->cred, old_ino, bytes + before, sizeof(bytes) - before, 0, FS_WRITE_APPEND);
	return n < 0 ? (int)n : 0;
}

static void look_append(struct world *w)
{
	static uint8_t bytes[BLOCKS * BLOCK_SIZE + 4 * BLOCK_SIZE];
	struct inode_attr attr;

	assert_int_equal(fs_getattr(w->fs, old_ino, &attr), 0);
	assert_int_equal(attr.size, BLOCKS * BLOCK_SIZE + 3 * BLOCK_SIZE + 100);
	assert_int_equal(fs_read(w->fs, old_ino, bytes, sizeof(bytes), 0), attr.size);
	for (uint64_t at = BLOCKS * BLOCK_SIZE; at < attr.size; at++)
		assert_int_equal(bytes[at], 'a');
}

static int ask_collapse(struct world *w)
{
	int rc;

	return is_done(w, &rc) ? rc :
				 fs_fallocate(w->fs, &w->cred, old_ino, FALLOC_FL_COLLAPSE_RANGE,
					      4 * BLOCK_SIZE, BLOCK_SIZE);
}

static void look_collapse(struct world *w)
{
	struct inode_attr attr;
	uint8_t byte;

	assert_int_equal(fs_getattr(w->fs, old_ino, &attr), 0);
	assert_int_equal(attr.size, (BLOCKS - 1) * BLOCK_SIZE);
	for (uint64_t blk = 0; blk < BLOCKS - 1; blk++) {
		assert_int_equal(fs_read(w->fs, old_ino, &byte, 1, blk * BLOCK_SIZE), 1);
		assert_int_equal(byte, blk < 4 ? blk + 1 : blk + 2);
	}
}

static int ask_clone_files(struct world *w)
{
	struct fs_clone_item items[3] = { { old_ino, "c0", 2, 0 },
					  { old_ino, "c1", 2, 0 },
					  { old_ino, "c2", 2, 0 } };
	unsigned before = receipt_is_done(w->receipt) ? (unsigned)w->receipt->value : 0, done;

	if (before == 3)
		return 0;
	return fs_clone_files(w->fs, &w->cred, INODE_ROOT, items + before, 3 - before, &done);
}

static void look_clone_files(struct world *w)
{
	struct inode_attr attr;

	assert_int_not_equal(number(w, "c0", &attr), 0);
	assert_int_not_equal(number(w, "c1", &attr), 0);
	assert_int_not_equal(number(w, "c2", &attr), 0);
}

/* A file is cut off, and somebody adds to it before that has been answered: it is not cut off once more. */
static int cut_off(struct world *w, uint64_t ino, uint64_t size)
{
	const struct fs_set set = { .what = FS_SET_SIZE | FS_SET_TOUCH, .size = size };
	struct inode_attr attr;
	int rc;

	return is_done(w, &rc) ? rc : fs_setattr(w->fs, &w->cred, ino, &set, &attr);
}

static void add_to(struct world *w, uint64_t ino)
{
	static const uint8_t bytes[100] = { 'b' };

	MUST(fs_write(w->fs, &testfs_root, ino, bytes, sizeof(bytes), 0, FS_WRITE_APPEND));
	*is_answered = true;
}

static void look_cut_off(struct world *w, uint64_t ino, uint64_t size)
{
	struct inode_attr attr;
	uint8_t byte;

	assert_int_equal(fs_getattr(w->fs, ino, &attr), 0);
	if (attr.size == size)
		assert_false(*is_answered);
	else
		assert_int_equal(attr.size, size + 100);
	if (attr.size > size) {
		assert_int_equal(fs_read(w->fs, ino, &byte, 1, size), 1);
		assert_int_equal(byte, 'b');
	}
}

static int ask_truncate(struct world *w)
{
	return cut_off(w, old_ino, 10 * BLOCK_SIZE + 7);
}

static void then_truncate(struct world *w)
{
	add_to(w, old_ino);
}

static void look_truncate(struct world *w)
{
	look_cut_off(w, old_ino, 10 * BLOCK_SIZE + 7);
}

static uint64_t long_ino;

static int ask_truncate_long(struct world *w)
{
	return cut_off(w, long_ino, BLOCK_SIZE);
}

static void then_truncate_long(struct world *w)
{
	add_to(w, long_ino);
}

static void look_truncate_long(struct world *w)
{
	look_cut_off(w, long_ino, BLOCK_SIZE);
}

static const struct scene scenes[] = {
	{ "create", ask_create, look_new, NULL },
	{ "mkdir", ask_mkdir, look_new, NULL },
	{ "symlink", ask_symlink, look_new, NULL },
	{ "link", ask_link, look_link, NULL },
	{ "tmpfile", ask_tmpfile, look_tmpfile, NULL },
	{ "unlink", ask_unlink, look_unlink, NULL },
	{ "rmdir", ask_rmdir, look_rmdir, NULL },
	{ "rename", ask_rename, look_rename, NULL },
	{ "setxattr", ask_setxattr, look_setxattr, NULL },
	{ "removexattr", ask_removexattr, look_removexattr, NULL },
	{ "append", ask_append, look_append, NULL },
	{ "collapse", ask_collapse, look_collapse, NULL },
	{ "clone_files", ask_clone_files, look_clone_files, NULL },
	{ "truncate", ask_truncate, look_truncate, then_truncate },
	{ "truncate_long", ask_truncate_long, look_truncate_long, then_truncate_long },
};

/* ---- each cut of each scene ---- */

static void *shared(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static void base_fill(struct world *w)
{
	static uint8_t block[BLOCK_SIZE];
	struct inode_attr attr, other;

	for (int i = 0; i < 2; i++) {
		MUST(fs_mknod(w->fs, &testfs_root, INODE_ROOT, i ? "other" : "old", i ? 5 : 3, S_IFREG | 0644,
			      0, &attr));
		/* Every second block first: in many pieces. */
		for (unsigned odd = 0; odd < 2; odd++) {
			for (uint64_t blk = odd; blk < BLOCKS; blk += 2) {
				memset(block, (int)blk + 1, sizeof(block));
				MUST(fs_write(w->fs, &testfs_root, attr.ino, block, sizeof(block),
					      blk * BLOCK_SIZE, 0));
			}
		}
		fs_forget(w->fs, attr.ino, 1);
		if (i == 0)
			old_ino = attr.ino;
	}
	/* Of one block, again and again. */
	MUST(fs_lookup(w->fs, INODE_ROOT, "other", 5, &other));
	MUST(fs_mknod(w->fs, &testfs_root, INODE_ROOT, "long", 4, S_IFREG | 0644, 0, &attr));
	for (uint64_t blk = 0; blk < PIECES; blk++)
		MUST(fs_clone(w->fs, &testfs_root, other.ino, 0, attr.ino, 2 * blk * BLOCK_SIZE, BLOCK_SIZE,
			      0, NULL));
	fs_forget(w->fs, other.ino, 1);
	fs_forget(w->fs, attr.ino, 1);
	long_ino = attr.ino;
	MUST(fs_setxattr(w->fs, old_ino, "user.old", "y", 1, 0, false));
	MUST(fs_mknod(w->fs, &testfs_root, INODE_ROOT, "dir", 3, S_IFDIR | 0755, 0, &attr));
	fs_forget(w->fs, attr.ino, 1);
}

static void world_close(struct world *w)
{
	fs_close(w->fs);
	pool_close(w->pool, true);
	dax_close(w->dax);
}

static int setup(void **state)
{
	char why[256];
	struct world w;

	(void)state;
	log_setup("test", LOG_LEVEL_WARN, false);
	pool_bytes = shared(POOL_BYTES);
	base_bytes = malloc(POOL_BYTES);
	is_answered = shared(sizeof(*is_answered));
	ledger.receipts = shared(sizeof(*ledger.receipts));
	ledger.receipt_count = 1;
	MUST(dax_open_memory(pool_bytes, POOL_BYTES, NULL, &w.dax));
	MUST(pool_format(w.dax, &(struct format_opts){ .lane_size_bytes = 256u << 10 }, NULL, why,
			 sizeof(why)));
	dax_close(w.dax);
	world_open(&w);
	base_fill(&w);
	ledger.cell_count = fs_ledger_cells(w.pool);
	cells_size = ledger.cell_count * sizeof(*ledger.cells);
	world_close(&w);
	ledger.cells = shared(cells_size);
	memcpy(base_bytes, pool_bytes, POOL_BYTES);
	return 0;
}

/* Asks in a child that ends at its event number at; true: it has come to its end before. */
static bool ask_cut(const struct scene *s, long at)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct inode_attr attr;
		struct world w;

		world_open(&w);
		MUST(fs_lookup(w.fs, INODE_ROOT, "old", 3, &attr)); /* the kernel has it */
		atomic_store(&w.receipt->unique, 2);
		fs_receipt_set(w.receipt);
		budget = at;
		MUST(s->ask(&w));
		fs_receipt_set(NULL);
		if (s->then)
			s->then(&w);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == CUT));
	return WEXITSTATUS(status) == 0;
}

/* Another one takes over, asks again, and ends in the same way. */
static void again_cut(const struct scene *s, long at)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct world w;

		budget = at;
		world_open(&w);
		fs_receipt_set(w.receipt);
		MUST(s->ask(&w));
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == CUT));
}

static void found(void *arg, enum check_kind kind, const char *text)
{
	(void)arg;
	fprintf(stderr, "%s: %s\n", check_kind_name(kind), text);
}

static void take_over(const struct scene *s)
{
	struct check_opts opts = { .found = found, .limit = 5 };
	struct check_report report;
	struct inode_attr attr;
	struct world w;

	world_open(&w);
	fs_receipt_set(w.receipt);
	assert_int_equal(s->ask(&w), 0);
	fs_receipt_set(NULL);
	s->look(&w);
	/* The kernel forgets what it had; what has no name goes. */
	fs_forget(w.fs, old_ino, 1);
	assert_int_equal(atomic_load(&ledger.cells[old_ino].refs), 0);
	fs_work(w.fs);
	if (s->look == look_unlink || s->look == look_rename)
		assert_int_equal(fs_getattr(w.fs, old_ino, &attr), -ESTALE);
	assert_int_equal(check_pool(w.pool, &opts, &report), 0);
	assert_int_equal(report.findings, 0);
	assert_int_equal(report.orphans, 0);
	world_close(&w);
}

static void all_cuts(const char *name)
{
	bool is_over = false;
	const struct scene *s = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(scenes); i++)
		if (strcmp(scenes[i].name, name) == 0)
			s = &scenes[i];
	assert_non_null(s);
	for (long at = 0; !is_over; at++) {
		/* The second one: not at all, or somewhere. */
		for (long second = -1; second < 60; second += second < 0 ? 1 + at % 19 : 19) {
			memcpy(pool_bytes, base_bytes, POOL_BYTES);
			memset(ledger.cells, 0, cells_size);
			memset(ledger.receipts, 0, sizeof(*ledger.receipts));
			*is_answered = false;
			is_over = ask_cut(s, at);
			if (second >= 0)
				again_cut(s, second);
			take_over(s);
		}
	}
}

#define SCENE(name)                           \
	static void test_##name(void **state) \
	{                                     \
		(void)state;                  \
		all_cuts(#name);              \
	}
SCENE(create)
SCENE(mkdir)
SCENE(symlink)
SCENE(link)
SCENE(tmpfile)
SCENE(unlink)
SCENE(rmdir)
SCENE(rename)
SCENE(setxattr)
SCENE(removexattr)
SCENE(append)
SCENE(collapse)
SCENE(clone_files)
SCENE(truncate)
SCENE(truncate_long)

/* ---- what is known of opens, and of pages that the kernel has ---- */

/* What the child does with "old" open, and is killed. */
static void opens_cut(bool (*open)(struct world *w))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct inode_attr attr;
		struct world w;

		world_open(&w);
		MUST(fs_lookup(w.fs, INODE_ROOT, "old", 3, &attr));
		_exit(open(&w) ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void opens_begin(void)
{
	memcpy(pool_bytes, base_bytes, POOL_BYTES);
	memset(ledger.cells, 0, cells_size);
	memset(ledger.receipts, 0, sizeof(*ledger.receipts));
}

/* One writes through pages, one bypasses them, and one that did has been closed. */
static bool opened_both_ways(struct world *w)
{
	const unsigned cached = FS_OPEN_WRITE | FS_OPEN_CACHED;
	uint8_t byte;

	for (unsigned i = 0; i < 2; i++) {
		MUST(fs_opened(w->fs, old_ino, cached, &w->cred));
		if (fs_open_way(w->fs, old_ino, FS_OPEN_THROUGH, FS_WAY_CACHED, 0))
			return false;
	}
	fs_closed(w->fs, old_ino, cached | FS_OPEN_THROUGH);
	MUST(fs_opened(w->fs, old_ino, 0, &w->cred));
	MUST(fs_read_pages(w->fs, old_ino, &byte, 1, 0));
	return fs_open_way(w->fs, old_ino, FS_OPEN_BYPASS, FS_WAY_BYPASS, 0);
}

static int take_any(void *arg, const struct fs_piece *pieces, unsigned count, uint64_t size_bytes)
{
	(void)arg;
	(void)pieces;
	(void)size_bytes;
	return count > 0 ? 0 : -ENODATA;
}

static void test_ways(void **state)
{
	struct fs_grant grant = { .hi_blk = BLOCKS, .write = true, .take = take_any };
	uint64_t drop;
	struct world w;

	(void)state;
	opens_begin();
	opens_cut(opened_both_ways);
	world_open(&w);
	assert_int_equal(fs_through_opens(w.fs, old_ino), 1);
	/* Beside both it goes along with who writes through pages, but for what must bypass them. */
	assert_false(fs_open_way(w.fs, old_ino, FS_OPEN_THROUGH, FS_WAY_WANTS, 0));
	assert_int_equal(fs_through_opens(w.fs, old_ino), 2);
	fs_open_way_again(w.fs, old_ino);
	/* The page that was read before is dropped first. */
	grant.ino = old_ino;
	MUST(fs_hold(w.fs, old_ino));
	assert_int_equal(fs_grant(w.fs, &grant), -ERESTART);
	drop = fs_drop_begin(w.fs, old_ino);
	fs_drop_end(w.fs, old_ino, drop);
	assert_int_equal(fs_grant(w.fs, &grant), 0);
	fs_unhold(w.fs, old_ino);
	/* All of them are closed, and nothing is left of that. */
	fs_closed(w.fs, old_ino, FS_OPEN_WRITE | FS_OPEN_CACHED | FS_OPEN_THROUGH);
	assert_int_equal(fs_through_opens(w.fs, old_ino), 0);
	/* Who bypasses is known too: a writer who could go either way goes along with him. */
	assert_true(fs_open_way(w.fs, old_ino, FS_OPEN_THROUGH, FS_WAY_CACHED, 0));
	fs_closed(w.fs, old_ino, FS_OPEN_BYPASS);
	assert_int_equal(atomic_load(&ledger.cells[old_ino].ways), 0);
	assert_int_equal(atomic_load(&ledger.cells[old_ino].opens), 0);
	fs_forget(w.fs, old_ino, 1);
	world_close(&w);
}

/* It counts because of its pages, as long as the daemon lives that has counted it. */
static bool opened_paged(struct world *w)
{
	MUST(fs_opened(w->fs, old_ino, 0, &w->cred));
	fs_cached(w->fs, old_ino);
	return fs_cached_opens(w->fs, old_ino) == 1;
}

static void test_paged(void **state)
{
	struct world w;

	(void)state;
	opens_begin();
	opens_cut(opened_paged);
	world_open(&w);
	assert_int_equal(fs_cached_opens(w.fs, old_ino), 0);
	fs_cached(w.fs, old_ino);
	assert_int_equal(fs_cached_opens(w.fs, old_ino), 1);
	fs_closed(w.fs, old_ino, FS_OPEN_PAGED);
	assert_int_equal(fs_cached_opens(w.fs, old_ino), 0);
	assert_int_equal(atomic_load(&ledger.cells[old_ino].cached_opens), 0);
	fs_forget(w.fs, old_ino, 1);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),        cmocka_unit_test(test_mkdir),
		cmocka_unit_test(test_symlink),       cmocka_unit_test(test_link),
		cmocka_unit_test(test_tmpfile),       cmocka_unit_test(test_unlink),
		cmocka_unit_test(test_rmdir),         cmocka_unit_test(test_rename),
		cmocka_unit_test(test_setxattr),      cmocka_unit_test(test_removexattr),
		cmocka_unit_test(test_append),        cmocka_unit_test(test_collapse),
		cmocka_unit_test(test_clone_files),   cmocka_unit_test(test_truncate),
		cmocka_unit_test(test_truncate_long), cmocka_unit_test(test_ways),
		cmocka_unit_test(test_paged),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
