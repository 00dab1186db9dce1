/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The server of direct mappings, and processes that do not do what they should: that do not wait for answers, never stop sending or connecting, or whose
 * messages are read late; and one that ends in the middle of a request. Who waits for an acknowledgement reads it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "direct_world.h"

#include "daemon/direct_priv.h"
#include "registry/priv.h"

/* It does not wait for WELCOME before it asks for more. */
static void test_hasty(void **state)
{
	struct umbra_msg_hello first = { .version = UMBRA_DIRECT_VERSION,
					 .rights = UMBRA_DIRECT_READ | UMBRA_DIRECT_WRITE };

	(void)state;
	up(&(struct server_opts){ 0 }, REVOKE_MS);
	for (unsigned i = 0; i < 500; i++) {
		struct umbra_msg_attach in = { .token = token_of(inos[0], BOTH) };
		struct client c;

		client_connect(&c);
		message_send(&c, &first, UMBRA_MSG_HELLO, sizeof(first));
		message_send(&c, &in, UMBRA_MSG_ATTACH, sizeof(in));
		for (unsigned answers = 0; answers < 2; answers++) {
			uint16_t type = message_next(&c);

			if (type == UMBRA_MSG_ERROR)
				assert_int_equal(c.in.error.error, ENOTCONN);
			else
				assert_true(type == UMBRA_MSG_WELCOME || type == UMBRA_MSG_ATTACHED);
		}
		client_down(&c, true);
	}
	down();
}

/* Sockets at which one message comes after the other, as fast as they are read: the linker leads recv() here. */
static atomic_bool is_endless[1024];

/* One of which nothing is read for now. */
static atomic_int unread_fd = -1;

/* One of which the server's own threads read nothing. */
static atomic_int heard_fd = -1;

/* A thread that changes files; it finds nothing unread before something has come. */
static _Thread_local bool is_waiter;

/* After the first wait for an answer any other one takes long. */
static atomic_bool is_patient;

ssize_t __real_recv(int fd, void *buf, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *buf, size_t size, int flags);

ssize_t __wrap_recv(int fd, void *buf, size_t size, int flags)
{
	const struct umbra_msg msg = { .size = sizeof(msg), .type = UMBRA_MSG_ACK };

	/* Whoever only looks whether there is something has us read on. */
	if (flags & MSG_PEEK && size == 1) {
		atomic_store(&unread_fd, -1);
		if (atomic_load(&is_patient)) {
			pthread_mutex_lock(&registry->lock);
			registry->opts.revoke_ms = REVOKE_MS;
			pthread_mutex_unlock(&registry->lock);
		}
	} else if (atomic_load(&unread_fd) == fd || (atomic_load(&heard_fd) == fd && !is_waiter)) {
		errno = EAGAIN;
		return -1;
	} else if (atomic_load(&heard_fd) == fd) {
		struct pollfd in = { .fd = fd, .events = POLLIN };

		assert_int_equal(poll(&in, 1, WAIT_MS), 1);
	}
	if (fd < 0 || fd >= (int)ARRAY_SIZE(is_endless) || !atomic_load(&is_endless[fd]))
		return __real_recv(fd, buf, size, flags);
	memcpy(buf, &msg, sizeof(msg));
	return sizeof(msg);
}

/* More of them than there are threads: others are served all the same. */
static void test_endless(void **state)
{
	struct client c, endless[24];
	struct umbra_msg msg = { 0 };

	(void)state;
	up(&(struct server_opts){ .hello_ms = WAIT_MS * 3 }, REVOKE_MS);
	for (unsigned i = 0; i < ARRAY_SIZE(endless); i++) {
		int fds[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
		endless[i] = (struct client){ .fd = fds[0], .device_fd = -1 };
		message_send(&endless[i], &msg, UMBRA_MSG_ACK, sizeof(msg));
		atomic_store(&is_endless[fds[1]], true);
		(void)!server_adopt(server, fds[1]);
	}
	client_up(&c);
	assert_int_equal(map(&c, attach(&c, inos[0], BOTH), 0, 4, UMBRA_MAP_WRITE), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(is_endless); i++)
		atomic_store(&is_endless[i], false);
	for (unsigned i = 0; i < ARRAY_SIZE(endless); i++)
		client_down(&endless[i], false);
	client_down(&c, true);
	down();
}

static void *truncate_run(void *arg)
{
	is_waiter = true;
	assert_int_equal(truncate_to(inos[0], 0), 0);
	return arg;
}

/* It has all of the first file, which is being truncated: it has been asked for it. The number of that. */
static uint64_t asked_for(struct client *c, pthread_t *thread)
{
	struct umbra_msg_revoke asked;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	*c = (struct client){ .fd = fds[0], .device_fd = -1 };
	(void)!server_adopt(server, fds[1]);
	client_hello(c);
	assert_int_equal(map(c, attach(c, inos[0], BOTH), 0, FILE_BLK, UMBRA_MAP_WRITE), 0);
	(void)attach(c, inos[1], BOTH);
	atomic_store(&heard_fd, fds[1]);
	assert_int_equal(pthread_create(thread, NULL, truncate_run, NULL), 0);
	assert_int_equal(recv(c->fd, &asked, sizeof(asked), 0), sizeof(asked));
	assert_int_equal(asked.msg.type, UMBRA_MSG_REVOKE);
	return asked.msg.id;
}

/* Who waits for one process reads its answer, without the server's threads; afterwards those read it again. */
static void test_heard(void **state)
{
	struct registry_stats stats;
	struct umbra_msg ack = { 0 };
	pthread_t thread;
	struct client c;

	(void)state;
	up(&(struct server_opts){ 0 }, 2000);
	ack.id = asked_for(&c, &thread);
	message_send(&c, &ack, UMBRA_MSG_ACK, sizeof(ack));
	pthread_join(thread, NULL);
	registry_get_stats(registry, &stats);
	assert_int_equal(stats.late, 0);
	atomic_store(&heard_fd, -1);
	assert_int_equal(map(&c, c.in.attached.handle, 0, 1, 0), 0);
	client_down(&c, true);
	stats_wait(0, 0);
	down();
}

/* What comes before the answer is served by whoever does so otherwise, and in its turn. */
static void test_heard_other(void **state)
{
	struct umbra_msg_map in = { .len = BLOCK_SIZE };
	struct umbra_msg ack = { 0 };
	pthread_t thread;
	struct client c;

	(void)state;
	up(&(struct server_opts){ 0 }, REVOKE_MS);
	ack.id = asked_for(&c, &thread);
	in.handle = c.in.attached.handle;
	message_send(&c, &in, UMBRA_MSG_MAP, sizeof(in));
	message_send(&c, &ack, UMBRA_MSG_ACK, sizeof(ack));
	atomic_store(&heard_fd, -1);
	assert_int_equal(message_next(&c), UMBRA_MSG_PIECES);
	pthread_join(thread, NULL);
	client_down(&c, true);
	stats_wait(0, 0);
	down();
}

/* A process that ends in place of an answer. */
static void test_heard_end(void **state)
{
	pthread_t thread;
	struct client c;

	(void)state;
	up(&(struct server_opts){ 0 }, REVOKE_MS);
	(void)asked_for(&c, &thread);
	client_down(&c, false);
	/* By the number there may be another descriptor soon. */
	atomic_store(&heard_fd, -1);
	pthread_join(thread, NULL);
	stats_wait(0, 0);
	down();
}

/* It has answered in time, but nobody has come to read that: it is not taken for one that does not answer. */
static void test_unread(void **state)
{
	struct client c = { .device_fd = -1 };
	pthread_t thread;
	int fds[2];

	(void)state;
	up(&(struct server_opts){ 0 }, 2000);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	c.fd = fds[0];
	(void)!server_adopt(server, fds[1]);
	client_hello(&c);
	assert_int_equal(map(&c, attach(&c, inos[0], BOTH), 0, FILE_BLK, UMBRA_MAP_WRITE), 0);
	atomic_store(&unread_fd, fds[1]);
	assert_int_equal(pthread_create(&thread, NULL, truncate_run, NULL), 0);
	/* Answers the REVOKE, and waits for what comes next. */
	assert_int_equal(map(&c, attach(&c, inos[1], BOTH), 0, 1, 0), 0);
	assert_int_equal(c.revokes, 1);
	pthread_join(thread, NULL);
	stats_wait(1, 0);
	client_down(&c, true);
	down();
}

static atomic_bool is_dropping, may_drop;

static void drop_waits(uint64_t ino)
{
	(void)ino;
	atomic_store(&is_dropping, true);
	while (!atomic_load(&may_drop))
		usleep(1000);
}

/* A process has ended while a request of it was in work: nothing comes of it that would have to be waited for. */
static void test_ended_at_work(void **state)
{
	struct umbra_msg_map in = { .len = BLOCK_SIZE, .flags = UMBRA_MAP_WRITE };
	struct timespec until;
	struct client c;
	pthread_t thread;

	(void)state;
	up(&(struct server_opts){ 0 }, 100);
	client_up(&c);
	assert_int_equal(map(&c, attach(&c, inos[0], BOTH), 0, FILE_BLK, 0), 0);
	in.handle = attach(&c, inos[1], BOTH);
	atomic_store(&is_dropping, false);
	atomic_store(&may_drop, false);
	on_drop = drop_waits;
	message_send(&c, &in, UMBRA_MSG_MAP, sizeof(in));
	while (!atomic_load(&is_dropping))
		usleep(1000);
	client_down(&c, false);
	atomic_store(&is_patient, true);
	assert_int_equal(pthread_create(&thread, NULL, truncate_run, NULL), 0);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_MS / 1000;
	assert_int_equal(pthread_timedjoin_np(thread, NULL, &until), 0);
	atomic_store(&is_patient, false);
	atomic_store(&may_drop, true);
	stats_wait(0, 0);
	down();
}

/* One that has been asked for what it holds, asks for more, which waits for whoever wants that, and is gone: nobody waits until it would have been late. */
static void test_ended_in_grant(void **state)
{
	struct umbra_msg_map in = { .handle = 1, .len = BLOCK_SIZE };
	struct registry_stats stats;
	pthread_t thread;
	struct client c;

	(void)state;
	up(&(struct server_opts){ 0 }, GRANT_WAIT_MS - 1000);
	(void)asked_for(&c, &thread);
	atomic_store(&heard_fd, -1);
	message_send(&c, &in, UMBRA_MSG_MAP, sizeof(in));
	client_down(&c, false);
	pthread_join(thread, NULL);
	registry_get_stats(registry, &stats);
	assert_int_equal(stats.late, 0);
	stats_wait(0, 0);
	down();
}

/* Connections that come one after the other, as fast as they are taken. */
static atomic_bool accepts_endless;
static _Atomic unsigned accepted;

int __real_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags);

int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
	if (!atomic_load(&accepts_endless))
		return __real_accept4(fd, address, size, flags);
	atomic_fetch_add(&accepted, 1);
	return socket(AF_UNIX, SOCK_SEQPACKET | flags, 0);
}

static void *down_run(void *arg)
{
	down();
	return arg;
}

static void test_endless_connects(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timespec until;
	pthread_t thread;
	int fds[2];

	(void)state;
	fds[0] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
	fds[1] = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "umbra-test-%d", (int)getpid());
	assert_int_equal(bind(fds[0], (const struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fds[0], 8), 0);
	atomic_store(&accepts_endless, true);
	up(&(struct server_opts){ .listen_fd = fds[0], .peers_max = 1 }, REVOKE_MS);
	assert_int_equal(connect(fds[1], (const struct sockaddr *)&address, sizeof(address)), 0);
	while (atomic_load(&accepted) < 1000)
		usleep(1000);
	/* Threads come back to see that it is over. */
	assert_int_equal(pthread_create(&thread, NULL, down_run, NULL), 0);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_MS / 1000;
	assert_int_equal(pthread_timedjoin_np(thread, NULL, &until), 0);
	atomic_store(&accepts_endless, false);
	close(fds[0]);
	close(fds[1]);
}

/* An open by which nothing could be attached counts as that of somebody else, also if its process has the file by another one. */
static void test_no_slot(void **state)
{
	struct umbra_msg_attach in = { .token = { { 0 } } };
	struct client c;

	(void)state;
	up(&(struct server_opts){ 0 }, REVOKE_MS);
	client_up(&c);
	in.token = token_of(inos[0], BOTH);
	in.token.bytes[9] = 1;
	(void)attach(&c, inos[0], OPS_FH_READ);
	memset(server->peers->slots_used, 0xff, sizeof(server->peers->slots_used));
	assert_int_equal(call(&c, &in, UMBRA_MSG_ATTACH, sizeof(in)), UMBRA_MSG_ERROR);
	assert_int_equal(c.in.error.error, EMFILE);
	assert_int_equal(atomic_load(&others_open), 1);
	client_down(&c, true);
	down();
}

/* No user takes all descriptors that the daemon may have. In a process of its own: what has been given up does not come back. */
static void test_descriptors(void **state)
{
	const struct rlimit few = { 400, 400 };
	int status;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		if (setrlimit(RLIMIT_NOFILE, &few))
			_exit(2);
		up(&(struct server_opts){ 0 }, REVOKE_MS);
		_exit(server->opts.peers_max != 200 || server->opts.peers_user != 51);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	up(&(struct server_opts){ .peers_max = 7, .peers_user = 3 }, REVOKE_MS);
	assert_int_equal(server->opts.peers_max, 7);
	assert_int_equal(server->opts.peers_user, 3);
	down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_descriptors),      cmocka_unit_test(test_hasty),
		cmocka_unit_test(test_endless),          cmocka_unit_test(test_unread),
		cmocka_unit_test(test_endless_connects), cmocka_unit_test(test_no_slot),
		cmocka_unit_test(test_ended_at_work),    cmocka_unit_test(test_heard),
		cmocka_unit_test(test_heard_other),      cmocka_unit_test(test_heard_end),
		cmocka_unit_test(test_ended_in_grant),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
