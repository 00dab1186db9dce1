/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opens and reads of files that somebody maps directly, without a kernel: the few functions of libfuse that the handlers call are in this file. Nobody but the test's own thread calls
 * handlers, as if there were one worker: what does not come back from one of them keeps all others from being answered.
 */
#include <errno.h>
#include <fcntl.h>
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

#include "fs/holders.h"
#include "fuse/asks.h"
#include "fuse/ops.h"
#include "lib/testfs.h"

#define DIRECT_IO_MMAP (1ull << 36) /* the kernel's feature */
#define READERS 12u
#define STUCK 0
#define PROMPT 1
#define FREE 2
#define FILES 3u

static struct testfs t;
static struct session session;
static struct worker worker;
static uint64_t inos[FILES];
static char page[BLOCK_SIZE];

/* ---- what libfuse would do ---- */

static struct fuse_ctx ctx;
static struct fuse_file_info opened;
static _Atomic unsigned answers, errors;

int fuse_req_getgroups(fuse_req_t req, int size, gid_t list[])
{
	(void)req, (void)size, (void)list;
	return 0;
}

const struct fuse_ctx *fuse_req_ctx(fuse_req_t req)
{
	(void)req;
	return &ctx;
}

void *fuse_req_userdata(fuse_req_t req)
{
	(void)req;
	return &session;
}

int fuse_reply_err(fuse_req_t req, int err)
{
	(void)req, (void)err;
	atomic_fetch_add(&errors, 1);
	return 0;
}

int fuse_reply_open(fuse_req_t req, const struct fuse_file_info *fi)
{
	(void)req;
	opened = *fi;
	atomic_fetch_add(&answers, 1);
	return 0;
}

int fuse_reply_buf(fuse_req_t req, const char *buf, size_t size)
{
	(void)req;
	if (size != sizeof(page) || memcmp(buf, page, size) != 0)
		atomic_fetch_add(&errors, 1);
	atomic_fetch_add(&answers, 1);
	return 0;
}

/* ---- who maps the files ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned asked, asking, asking_max; /* (lock) of the file whose holder is stuck */
static bool may_go;                        /* (lock) */
static atomic_bool gone[FILES];

static bool is_held(void *arg, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, enum fs_change change)
{
	(void)arg, (void)lo_blk, (void)hi_blk, (void)change;
	return (ino == inos[STUCK] && !atomic_load(&gone[STUCK])) ||
	       (ino == inos[PROMPT] && !atomic_load(&gone[PROMPT]));
}

static int begin(void *arg, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, enum fs_change change)
{
	(void)arg, (void)lo_blk, (void)hi_blk, (void)change;
	if (ino == inos[PROMPT]) {
		atomic_store(&gone[PROMPT], true);
		return 0;
	}
	pthread_mutex_lock(&lock);
	asked++;
	if (++asking > asking_max)
		asking_max = asking;
	pthread_cond_broadcast(&changed);
	while (!may_go)
		pthread_cond_wait(&changed, &lock);
	asking--;
	atomic_store(&gone[STUCK], true);
	pthread_mutex_unlock(&lock);
	return 0;
}

static void end(void *arg, uint64_t ino, uint64_t lo_blk, uint64_t hi_blk, enum fs_change change)
{
	(void)arg, (void)ino, (void)lo_blk, (void)hi_blk, (void)change;
}

static uint64_t keep(void *arg, uint64_t blk, uint64_t count_blk, bool *held)
{
	(void)arg, (void)blk;
	*held = false;
	return count_blk;
}

static const struct fs_holders holders = { NULL, begin, end, is_held, keep };

/* ---- */

static void wait_asked(unsigned count)
{
	pthread_mutex_lock(&lock);
	while (asked < count)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static void wait_answers(unsigned count)
{
	while (atomic_load(&answers) + atomic_load(&errors) < count)
		usleep(1000);
	assert_int_equal(atomic_load(&errors), 0);
	assert_int_equal(atomic_load(&answers), count);
}

static void let_go(void)
{
	pthread_mutex_lock(&lock);
	may_go = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void up(bool here)
{
	testfs_make(&t, NULL);
	memset(page, 7, sizeof(page));
	session = (struct session){ .fs = t.fs };
	session.wire.agreed = DIRECT_IO_MMAP;
	assert_int_equal(opens_new(&session.opens), 0);
	assert_int_equal(asks_open(here, &session.asks), 0);
	assert_int_equal(worker_init(&session, &worker), 0);
	worker_now = &worker;
	fs_set_holders(t.fs, &holders);
	for (unsigned i = 0; i < FILES; i++) {
		char name[8];

		snprintf(name, sizeof(name), "f%u", i);
		inos[i] = testfs_node(&t, INODE_ROOT, name, S_IFREG | 0644);
		for (unsigned blk = 0; blk < READERS; blk++)
			assert_int_equal(fs_write(t.fs, &testfs_root, inos[i], page, sizeof(page),
						  blk * sizeof(page), 0),
					 sizeof(page));
		atomic_store(&gone[i], false);
	}
	atomic_store(&answers, 0);
	atomic_store(&errors, 0);
	asked = asking = asking_max = 0;
	may_go = false;
}

static void down(void)
{
	asks_close(session.asks);
	fs_set_holders(t.fs, NULL);
	worker_free(&worker);
	opens_free(session.opens);
	testfs_check(&t);
	testfs_free(&t);
}

static void read_blk(unsigned file, unsigned blk)
{
	struct fuse_file_info fi = { .fh = OPS_FH_READ };

	ops_read(NULL, inos[file], sizeof(page), (off_t)(blk * sizeof(page)), &fi);
}

static void open_file(unsigned file, int flags)
{
	struct fuse_file_info fi = { .flags = flags };

	ops_open(NULL, inos[file], &fi);
}

/* As many wait for who is stuck as there may be: all others are answered. */
static void test_stuck(void **state)
{
	(void)state;
	up(false);
	/* This one writes through pages, and so does whoever comes after it. */
	open_file(STUCK, O_RDWR);
	assert_false(opened.direct_io);
	for (unsigned i = 0; i < FILES; i++)
		assert_int_equal(fs_hold(t.fs, inos[i]), 0);
	open_file(PROMPT, O_RDONLY);
	wait_answers(2);
	for (unsigned blk = 0; blk < READERS; blk++)
		read_blk(STUCK, blk);
	/* The kernel may have pages of it, and this one may store to them. */
	open_file(STUCK, O_RDWR);
	wait_asked(1);
	assert_int_equal(atomic_load(&answers), 2);
	read_blk(FREE, 0);
	open_file(FREE, O_RDWR);
	read_blk(PROMPT, 0);
	wait_answers(5);
	pthread_mutex_lock(&lock);
	assert_int_equal(asking, 1);
	pthread_mutex_unlock(&lock);
	let_go();
	wait_answers(5 + READERS + 1);
	assert_int_equal(asking_max, 1);
	for (unsigned i = 0; i < FILES; i++)
		fs_unhold(t.fs, inos[i]);
	down();
}

static void *read_run(void *arg)
{
	struct worker own = { .session = &session };

	assert_int_equal(worker_init(&session, &own), 0);
	worker_now = &own;
	read_blk(STUCK, 0);
	worker_free(&own);
	return arg;
}

/* One waits where it is, and no other one. */
static void test_here(void **state)
{
	pthread_t thread;

	(void)state;
	up(true);
	assert_int_equal(fs_hold(t.fs, inos[STUCK]), 0);
	assert_int_equal(pthread_create(&thread, NULL, read_run, NULL), 0);
	wait_asked(1);
	read_blk(STUCK, 1);
	wait_asked(2);
	assert_int_equal(atomic_load(&answers), 0);
	let_go();
	pthread_join(thread, NULL);
	wait_answers(2);
	/* And again, when it is over. */
	assert_true(asks_here(session.asks));
	asks_here_end(session.asks);
	fs_unhold(t.fs, inos[STUCK]);
	down();
}

/* ---- an open, and somebody who attaches the file meanwhile ---- */

static uint64_t attaches;

bool __real_fs_open_way(struct fs *fs, uint64_t ino, unsigned flags, enum fs_way way, uint32_t harmless);
bool __wrap_fs_open_way(struct fs *fs, uint64_t ino, unsigned flags, enum fs_way way, uint32_t harmless);

bool __wrap_fs_open_way(struct fs *fs, uint64_t ino, unsigned flags, enum fs_way way, uint32_t harmless)
{
	if (attaches == ino) {
		attaches = 0;
		assert_int_equal(fs_hold(fs, ino), 0);
	}
	return __real_fs_open_way(fs, ino, flags, way, harmless);
}

/* Whoever opens a file to write goes past the pages of the kernel if somebody has it attached; also since just now, when nothing has been counted yet. */
static void test_attached_meanwhile(void **state)
{
	(void)state;
	up(true);
	open_file(FREE, O_RDWR);
	assert_false(opened.direct_io);
	assert_int_equal(fs_through_opens(t.fs, inos[FREE]), 1);
	attaches = inos[PROMPT];
	open_file(PROMPT, O_RDWR);
	assert_int_equal(attaches, 0);
	assert_true(opened.direct_io);
	assert_int_equal(fs_through_opens(t.fs, inos[PROMPT]), 0);
	assert_int_equal(fs_cached_opens(t.fs, inos[PROMPT]), 0);
	wait_answers(2);
	fs_unhold(t.fs, inos[PROMPT]);
	down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_attached_meanwhile),
		cmocka_unit_test(test_stuck),
		cmocka_unit_test(test_here),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
