/* SPDX-License-Identifier: BSD-3-Clause */
/* Threads for work that waits in the kernel: what they have open is not what keeps sockets and locks of a process that has been killed. (fuse/defer.h) */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <unistd.h>

#include <cmocka.h>

#include "fuse/defer.h"

struct look {
	struct defer_work work;
	int kept, other; /* in the thread: 0, or errno */
	int fds[2];
	pthread_mutex_t lock;
	pthread_cond_t over;
	bool is_over;
};

static int fd_errno(int fd)
{
	return fcntl(fd, F_GETFD) < 0 ? errno : 0;
}

static void look_at_fds(struct defer_work *work)
{
	struct look *l = container_of(work, struct look, work);

	pthread_mutex_lock(&l->lock);
	l->kept = fd_errno(l->fds[0]);
	l->other = fd_errno(l->fds[1]);
	l->is_over = true;
	pthread_cond_signal(&l->over);
	pthread_mutex_unlock(&l->lock);
}

/* From a thread that has only the first one, if alone. */
static void look_from(struct look *l, bool alone)
{
	struct defer *defer;

	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->over, NULL);
	l->is_over = false;
	l->work = (struct defer_work){ .fn = look_at_fds };
	assert_int_equal(alone ? defer_open_alone(2, l->fds[0], &defer) : defer_open(2, &defer), 0);
	assert_true(defer_add(defer, &l->work));
	pthread_mutex_lock(&l->lock);
	while (!l->is_over)
		pthread_cond_wait(&l->over, &l->lock);
	pthread_mutex_unlock(&l->lock);
	defer_close(defer);
	defer_free(defer);
	pthread_cond_destroy(&l->over);
	pthread_mutex_destroy(&l->lock);
}

/* One side of a pipe is at its end when the process has closed the other, though a thread goes on that has the first. */
static void test_alone(void **state)
{
	struct look l;
	char byte;

	(void)state;
	assert_int_equal(pipe(l.fds), 0);
	look_from(&l, true);
	assert_int_equal(l.kept, 0);
	assert_int_equal(l.other, EBADF);
	/* Here they are all there, as are those that are opened later. */
	assert_int_equal(fd_errno(l.fds[0]), 0);
	assert_int_equal(write(l.fds[1], "x", 1), 1);
	assert_int_equal(read(l.fds[0], &byte, 1), 1);
	look_from(&l, false);
	assert_int_equal(l.kept, 0);
	assert_int_equal(l.other, 0);
	close(l.fds[0]);
	close(l.fds[1]);
}

static void test_first(void **state)
{
	struct look l = { .fds = { 0, 1 } };

	(void)state;
	look_from(&l, true);
	assert_int_equal(l.kept, fd_errno(0));
	assert_int_equal(l.other, EBADF);
	assert_int_equal(fd_errno(1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alone),
		cmocka_unit_test(test_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
