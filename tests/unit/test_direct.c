/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The server of direct mappings over a pool in memory: clients at the other ends of socket pairs, without a mount.
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "direct_world.h"

/* ---- cases ---- */

/* 2 MiB of a file as one piece of the device. */
static uint32_t map_whole(struct client *c, uint32_t handle, uint64_t blk, uint64_t count_blk, uint32_t flags)
{
	return map(c, handle, blk, count_blk, flags | UMBRA_MAP_WHOLE);
}

static void test_whole(void **state)
{
	struct client c;
	uint64_t at = 0;
	uint32_t handle;

	(void)state;
	up(&(struct server_opts){ .unit = UMBRA_WHOLE_BYTES }, REVOKE_MS);
	client_up(&c);
	assert_int_equal(c.in.welcome.align_bytes, UMBRA_WHOLE_BYTES);
	handle = attach(&c, inos[0], BOTH);
	assert_int_equal(map_whole(&c, handle, 1, CHUNK_BLOCKS, 0), EINVAL);
	assert_int_equal(map_whole(&c, handle, 0, 2 * CHUNK_BLOCKS, 0), EINVAL);
	/* It is short: for who only reads nothing is set aside. */
	assert_int_equal(map_whole(&c, handle, 0, CHUNK_BLOCKS, 0), EOPNOTSUPP);
	assert_int_equal(map_whole(&c, handle, 0, CHUNK_BLOCKS, UMBRA_MAP_WRITE), 0);
	for (unsigned i = 0; i < c.in.pieces.count; i++) {
		const struct umbra_piece *p = &c.in.pieces.pieces[i];

		assert_int_equal(p->file_off, at);
		assert_int_equal(p->dev_off, c.in.pieces.pieces[0].dev_off + at);
		assert_int_equal(p->flags,
				 UMBRA_PIECE_WRITE | (at < FILE_BLK * BLOCK_SIZE ? 0 : UMBRA_PIECE_PAST));
		at += p->len;
	}
	assert_int_equal(at, UMBRA_WHOLE_BYTES);
	assert_int_equal(c.in.pieces.pieces[0].dev_off % UMBRA_WHOLE_BYTES, 0);
	assert_int_equal(map_whole(&c, handle, CHUNK_BLOCKS, CHUNK_BLOCKS, UMBRA_MAP_WRITE), 0);
	assert_int_equal(c.in.pieces.count, 0);
	client_down(&c, true);
	down();
}

static void test_pieces(void **state)
{
	struct client c;
	uint32_t handle;

	(void)state;
	up(&(struct server_opts){ 0 }, REVOKE_MS);
	client_up(&c);
	handle = attach(&c, inos[0], OPS_FH_READ);
	assert_int_equal(c.in.attached.slot, UMBRA_SLOT_NONE);
	assert_int_equal(map(&c, handle, 0, 1000, 0), 0);
	assert_true(c.in.pieces.count > 0);
	assert_int_equal(c.in.pieces.pieces[0].file_off, 0);
	assert_memory_equal((const uint8_t *)dax_ptr(t.dax, c.in.pieces.pieces[0].dev_off), "\1\1\1\1", 4);
	assert_int_equal(map(&c, handle, 0, 1, UMBRA_MAP_WRITE), EACCES);
	/* Once more, for writing: the same handle, with the rights of both. */
	assert_int_equal(attach(&c, inos[0], OPS_FH_WRITE), handle);
	assert_int_equal(c.in.attached.rights, UMBRA_DIRECT_READ | UMBRA_DIRECT_WRITE);
	assert_int_not_equal(c.in.attached.slot, UMBRA_SLOT_NONE);
	assert_false(server_is_stored(server, inos[0]));
	assert_int_equal(map(&c, handle, 0, 1, UMBRA_MAP_WRITE), 0);
	assert_true(server_is_stored(server, inos[0]));
	assert_int_equal(atomic_load(&drops), 1);
	/* With the last one the kernel's pages of that time go. */
	assert_int_equal(detach(&c, handle), UMBRA_MSG_DONE);
	assert_true(server_is_stored(server, inos[0]));
	assert_int_equal(detach(&c, handle), UMBRA_MSG_DONE);
	assert_false(server_is_stored(server, inos[0]));
	assert_int_equal(atomic_load(&drops), 2);
	client_down(&c, true);
	down();
}

/* From blk of the file on: how far it may be stored to. */
static uint64_t storable_bytes(struct client *c, uint32_t handle, uint64_t blk)
{
	uint64_t at = blk * BLOCK_SIZE;

	assert_int_equal(map(c, handle, blk, 4096, UMBRA_MAP_WRITE | UMBRA_MAP_RELEASE), 0);
	for (unsigned i = 0; i < c->in.pieces.count; i++) {
		assert_int_equal(c->in.pieces.pieces[i].file_off, at);
		assert_int_equal(c->in.pieces.pieces[i].flags, UMBRA_PIECE_WRITE);
		at += c->in.pieces.pieces[i].len;
	}
	return at - blk * BLOCK_SIZE;
}

/* What is asked for at once is made storable, but not the last space of all for one. */
static void test_much(void **state)
{
	static const uint8_t some[64 * BLOCK_SIZE] = { 1 };
	struct fs_statfs st;
	struct client c;
	uint32_t handle;

	(void)state;
	up(&(struct server_opts){ 0 }, REVOKE_MS);
	client_up(&c);
	assert_int_equal(truncate_to(inos[0], 6144), 0);
	handle = attach(&c, inos[0], BOTH);
	assert_int_equal(storable_bytes(&c, handle, 0), UMBRA_MAP_WRITE_MAX);
	for (uint64_t off = 0; fs_statfs(t.fs, &st) == 0 && st.free_blk >= st.total_blk / 16;
	     off += sizeof(some))
		assert_int_equal(fs_write(t.fs, &testfs_root, inos[1], some, sizeof(some), off, 0),
				 sizeof(some));
	assert_int_equal(storable_bytes(&c, handle, 2048), 2u << 20);
	client_down(&c, true);
	down();
}

static void test_cached(void **state)
{
	struct client c;
	uint32_t handle;

	(void)state;
	up(&(struct server_opts){ 0 }, REVOKE_MS);
	client_up(&c);
	handle = attach(&c, inos[0], BOTH);
	atomic_store(&others_open, 1);
	assert_int_equal(map(&c, handle, 0, 1, UMBRA_MAP_WRITE), EBUSY);
	assert_false(server_is_stored(server, inos[0]));
	assert_int_equal(atomic_load(&drops), 0);
	atomic_store(&others_open, 0);
	assert_int_equal(map(&c, handle, 0, 1, UMBRA_MAP_WRITE), 0);
	/* Those who come later bypass the cache: nobody counts them. */
	atomic_store(&others_open, 1);
	assert_int_equal(map(&c, handle, 1, 1, UMBRA_MAP_WRITE), 0);
	client_down(&c, true);
	down();
}

/* A file that is attached by an open that counts when it is not any more: its handle. */
static uint32_t attach_excused(struct client *c, uint64_t ino)
{
	struct umbra_msg_attach in = { .token = token_of(ino, BOTH) };

	in.token.bytes[9] = 1;
	assert_int_equal(call(c, &in, UMBRA_MSG_ATTACH, sizeof(in)), UMBRA_MSG_ATTACHED);
	return c->in.attached.handle;
}

static void detach_send(struct client *c, uint32_t handle)
{
	struct umbra_msg_detach in = { .handle = handle };

	message_send(c, &in, UMBRA_MSG_DETACH, sizeof(in));
}

/* Something has come. */
static void client_wait(const struct client *c)
{
	struct pollfd in = { .fd = c->fd, .events = POLLIN };

	assert_int_equal(poll(&in, 1, WAIT_MS), 1);
}

/* One whose open outlives that its process has the file: beside it nobody stores, and what has been read is dropped. */
static void test_accused(void **state)
{
	struct client c, d;
	uint32_t excused, handle;

	(void)state;
	up(&(struct server_opts){ 0 }, REVOKE_MS);
	client_up(&c);
	client_up(&d);
	excused = attach_excused(&c, inos[0]);
	handle = attach(&d, inos[0], BOTH);
	assert_int_equal(map(&d, handle, 0, 4, UMBRA_MAP_WRITE), 0);
	assert_int_equal(atomic_load(&drops), 1);
	detach_send(&c, excused);
	/* The other is asked before the answer, and gets nothing from then on. */
	client_wait(&d);
	assert_int_equal(atomic_load(&drops), 1);
	assert_int_equal(map(&d, handle, 0, 4, UMBRA_MAP_WRITE), EBUSY);
	assert_int_equal(d.revokes, 1);
	assert_int_equal(message_next(&c), UMBRA_MSG_DONE);
	assert_int_equal(atomic_load(&drops), 2);
	assert_false(registry_is_stored(registry, inos[0]));
	assert_int_equal(map(&d, handle, 0, 4, 0), 0);
	/* It is closed. */
	atomic_store(&others_open, 0);
	assert_int_equal(map(&d, handle, 0, 4, UMBRA_MAP_WRITE), 0);
	assert_int_equal(atomic_load(&drops), 3);
	client_down(&c, true);
	client_down(&d, true);
	down();
}

/* What is being granted then is granted first, and asked for with the rest. */
static void test_accused_in_grant(void **state)
{
	const struct timespec step = { .tv_nsec = 1000000 };
	struct umbra_msg_map in = { .flags = UMBRA_MAP_WRITE,
				    .off = FILE_BLK * BLOCK_SIZE,
				    .len = 8 * BLOCK_SIZE };
	struct umbra_msg_revoke asked;
	struct umbra_msg ack = { 0 };
	struct client c, d, e;
	uint32_t excused;

	(void)state;
	up(&(struct server_opts){ 0 }, REVOKE_MS);
	client_up(&c);
	client_up(&d);
	client_up(&e);
	assert_int_equal(truncate_to(inos[0], FILE_BLK + 8), 0);
	excused = attach_excused(&c, inos[0]);
	in.handle = attach(&d, inos[0], BOTH);
	assert_int_equal(map(&e, attach(&e, inos[0], OPS_FH_READ), FILE_BLK, 8, 0), 0);
	assert_int_equal(map(&d, in.handle, 0, 1, UMBRA_MAP_WRITE), 0);
	/* Who knows of the hole has to let go of it first. */
	message_send(&d, &in, UMBRA_MSG_MAP, sizeof(in));
	client_wait(&e);
	assert_int_equal(recv(e.fd, &asked, sizeof(asked), 0), sizeof(asked));
	assert_int_equal(asked.msg.type, UMBRA_MSG_REVOKE);
	detach_send(&c, excused);
	for (unsigned i = 0; i < 60000 && !atomic_load(&others_open); i++)
		nanosleep(&step, NULL);
	ack.id = asked.msg.id;
	message_send(&e, &ack, UMBRA_MSG_ACK, sizeof(ack));
	assert_int_equal(message_next(&d), UMBRA_MSG_PIECES);
	assert_int_equal(d.revokes, 0);
	client_wait(&d);
	assert_int_equal(map(&d, in.handle, FILE_BLK, 8, UMBRA_MAP_WRITE), EBUSY);
	assert_int_equal(d.revokes, 1);
	assert_int_equal(message_next(&c), UMBRA_MSG_DONE);
	assert_false(registry_is_stored(registry, inos[0]));
	client_down(&c, true);
	client_down(&d, true);
	client_down(&e, true);
	down();
}

static void page_read(uint64_t ino, uint64_t blk)
{
	uint8_t page[BLOCK_SIZE];

	assert_int_equal(fs_read_pages(t.fs, ino, page, sizeof(page), blk * BLOCK_SIZE), sizeof(page));
}

/* One that nobody has. */
static void far_page_read(uint64_t ino)
{
	page_read(ino, FILE_BLK - 1);
}

struct page_reader {
	uint64_t ino;
	_Atomic bool is_done;
};

static void *page_read_run(void *arg)
{
	struct page_reader *r = arg;

	page_read(r->ino, 0);
	atomic_store(&r->is_done, true);
	return NULL;
}

/* A page comes to the kernel when whoever may store there has let go, and before he may again all pages go; as long as they come as fast, it is the kernel's. */
static void test_page_kept(void **state)
{
	struct page_reader reader = { 0 };
	struct umbra_msg_revoke asked;
	struct umbra_msg ack = { 0 };
	pthread_t thread;
	struct client c;
	uint32_t handle;

	(void)state;
	up(&(struct server_opts){ 0 }, REVOKE_MS);
	client_up(&c);
	reader.ino = inos[0];
	handle = attach(&c, inos[0], BOTH);
	assert_int_equal(map(&c, handle, 0, 4, UMBRA_MAP_WRITE), 0);
	assert_int_equal(atomic_load(&drops), 1);
	assert_int_equal(pthread_create(&thread, NULL, page_read_run, &reader), 0);
	client_wait(&c);
	assert_int_equal(recv(c.fd, &asked, sizeof(asked), 0), sizeof(asked));
	assert_int_equal(asked.msg.type, UMBRA_MSG_REVOKE);
	assert_int_equal(asked.flags, UMBRA_REVOKE_WRITE);
	assert_int_equal(asked.len, BLOCK_SIZE);
	assert_false(atomic_load(&reader.is_done));
	ack.id = asked.msg.id;
	message_send(&c, &ack, UMBRA_MSG_ACK, sizeof(ack));
	pthread_join(thread, NULL);
	assert_int_equal(map(&c, handle, 0, 4, UMBRA_MAP_WRITE), 0);
	assert_int_equal(atomic_load(&drops), 2);
	on_drop = far_page_read;
	assert_int_equal(map(&c, handle, 4, 4, UMBRA_MAP_WRITE), 0);
	far_page_read(inos[0]);
	assert_int_equal(map(&c, handle, 4, 4, UMBRA_MAP_WRITE), EBUSY);
	on_drop = NULL;
	assert_int_equal(map(&c, handle, 4, 4, UMBRA_MAP_WRITE), 0);
	/* One of them counts from now on. */
	atomic_store(&others_open, 1);
	assert_int_equal(map(&c, handle, 8, 4, UMBRA_MAP_WRITE), 0);
	server_unready(server, inos[0]);
	server_unready(server, inos[1]);
	assert_int_equal(map(&c, handle, 12, 4, UMBRA_MAP_WRITE), EBUSY);
	assert_int_equal(map(&c, handle, 12, 4, 0), 0);
	atomic_store(&others_open, 0);
	assert_int_equal(map(&c, handle, 12, 4, UMBRA_MAP_WRITE), 0);
	client_down(&c, true);
	down();
}

static void test_times(void **state)
{
	const struct fs_set set = { .what = FS_SET_MTIME, .mtime = { .s = 5 } };
	struct umbra_slot *slot;
	struct inode_attr attr;
	struct client c;
	uint32_t handle;

	(void)state;
	up(&(struct server_opts){ 0 }, REVOKE_MS);
	client_up(&c);
	handle = attach(&c, inos[0], BOTH);
	slot = &c.slots[c.in.attached.slot];
	assert_int_equal(map(&c, handle, 0, 1, UMBRA_MAP_WRITE), 0);
	assert_int_equal(fs_setattr(t.fs, &testfs_root, inos[0], &set, &attr), 0);
	server_look(server, inos[0]);
	assert_int_equal(testfs_attr(&t, inos[0]).mtime.s, 5);
	__atomic_store_n(&slot->stored, 1, __ATOMIC_RELEASE);
	server_look(server, inos[0]);
	assert_true(testfs_attr(&t, inos[0]).mtime.s > 5);
	/* At the end of the session too. */
	assert_int_equal(fs_setattr(t.fs, &testfs_root, inos[0], &set, &attr), 0);
	__atomic_store_n(&slot->stored, 1, __ATOMIC_RELEASE);
	client_down(&c, true);
	stats_wait(0, 0);
	server_stop(server);
	assert_true(testfs_attr(&t, inos[0]).mtime.s > 5);
	server_close(server);
	registry_close(registry);
	testfs_free(&t);
	close(device_fd);
}

/* Its blocks stay out of use until nobody has its descriptor of the device, in whatever process. */
static void test_orphan(void **state)
{
	struct client c;
	int copy;

	(void)state;
	up(&(struct server_opts){ 0 }, 50);
	client_up(&c);
	assert_int_equal(map(&c, attach(&c, inos[0], BOTH), 0, FILE_BLK, UMBRA_MAP_WRITE), 0);
	copy = dup(c.device_fd);
	assert_true(copy >= 0);
	client_down(&c, false);
	assert_int_equal(truncate_to(inos[0], 0), 0);
	assert_true(stats_are(1, FILE_BLK));
	/* Pages that were read while somebody could still store are dropped, when nobody can any more. */
	while (atomic_load(&drops) < 2)
		usleep(1000);
	assert_int_equal(atomic_load(&drops), 2);
	close(copy);
	stats_wait(0, 0);
	assert_int_equal(atomic_load(&drops), 3);
	down();
}

/* Who does not answer is left alone, and hears that it is over. */
static void test_silent(void **state)
{
	struct client c;

	(void)state;
	up(&(struct server_opts){ 0 }, 50);
	client_up(&c);
	c.is_silent = true;
	assert_int_equal(map(&c, attach(&c, inos[0], BOTH), 0, FILE_BLK, UMBRA_MAP_WRITE), 0);
	assert_int_equal(truncate_to(inos[0], 0), 0);
	assert_int_equal(message_next(&c), 0);
	assert_int_equal(c.revokes, 1);
	assert_true(stats_are(1, FILE_BLK));
	client_down(&c, false);
	stats_wait(0, 0);
	down();
}

/* With so little time for HELLO, and a busy machine, it may have been shown out before it comes to that. */
static void client_up_in_time(struct client *c)
{
	struct umbra_msg_hello in = { .msg = { .size = sizeof(in), .type = UMBRA_MSG_HELLO, .id = 1 },
				      .version = UMBRA_DIRECT_VERSION,
				      .rights = UMBRA_DIRECT_READ | UMBRA_DIRECT_WRITE };

	for (;;) {
		client_connect(c);
		c->id = in.msg.id;
		if (send(c->fd, &in, sizeof(in), MSG_NOSIGNAL) == sizeof(in) &&
		    message_next(c) == UMBRA_MSG_WELCOME)
			return;
		client_down(c, false);
	}
}

static void test_limits(void **state)
{
	struct umbra_msg_map in = { .handle = 1, .len = BLOCK_SIZE };
	struct client c, others[3];

	(void)state;
	up(&(struct server_opts){ .hello_ms = 50, .peers_max = 4 }, REVOKE_MS);
	client_up_in_time(&c);
	/* As many requests as are allowed, and none is refused. */
	in.handle = attach(&c, inos[0], BOTH);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < UMBRA_REQUESTS_MAX; i++)
			message_send(&c, &in, UMBRA_MSG_MAP, sizeof(in));
		for (unsigned i = 0; i < UMBRA_REQUESTS_MAX; i++)
			assert_int_equal(message_next(&c), UMBRA_MSG_PIECES);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++)
		client_connect(&others[i]);
	{
		struct client more;

		client_connect(&more);
		assert_int_equal(message_next(&more), 0);
		client_down(&more, false);
	}
	/* They do not say who they are. */
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
		assert_int_equal(message_next(&others[i]), 0);
		client_down(&others[i], false);
	}
	client_down(&c, true);
	stats_wait(0, 0);
	/* Who does not read is cut off. */
	client_up(&c);
	in.handle = attach(&c, inos[0], BOTH);
	in.msg = (struct umbra_msg){ .size = sizeof(in), .type = UMBRA_MSG_MAP };
	while (send(c.fd, &in, sizeof(in), MSG_NOSIGNAL) == sizeof(in))
		;
	client_down(&c, false);
	stats_wait(0, 0);
	down();
}

/* ---- many at once ---- */

#define CLIENTS 8u
#define ROUNDS 150u

static void *client_run(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)arg * 7919 + 1;
	uint32_t handles[FILES];
	struct client c;

	client_up(&c);
	for (unsigned i = 0; i < FILES; i++)
		handles[i] = attach(&c, inos[i], BOTH);
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned which = (unsigned)testfs_below(&seed, FILES);
		uint64_t blk = testfs_below(&seed, FILE_BLK), kind = testfs_below(&seed, 10);
		uint32_t flags = kind < 4 ? UMBRA_MAP_WRITE | UMBRA_MAP_RELEASE : 0;

		if (kind == 9) {
			struct umbra_msg_detach in = { .handle = handles[which] };

			assert_int_equal(call(&c, &in, UMBRA_MSG_DETACH, sizeof(in)), UMBRA_MSG_DONE);
			handles[which] = attach(&c, inos[which], BOTH);
		} else if (kind == 8) {
			struct umbra_msg_release in = { .handle = handles[which],
							.off = blk * BLOCK_SIZE,
							.len = BLOCK_SIZE };

			message_send(&c, &in, UMBRA_MSG_RELEASE, sizeof(in));
		} else {
			assert_int_equal(map(&c, handles[which], blk, 1 + testfs_below(&seed, 8), flags), 0);
		}
	}
	/* Half of them without a word. */
	client_down(&c, (uintptr_t)arg % 2);
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[CLIENTS];
	uint64_t seed = testfs_seed();
	uint8_t block[BLOCK_SIZE] = { 9 };

	(void)state;
	up(&(struct server_opts){ 0 }, REVOKE_MS);
	for (uintptr_t i = 0; i < CLIENTS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, client_run, (void *)i), 0);
	for (unsigned i = 0; i < 60; i++) {
		uint64_t src = inos[testfs_below(&seed, FILES)], dst = inos[testfs_below(&seed, FILES)];
		uint64_t blk = testfs_below(&seed, FILE_BLK / 2);

		switch (testfs_below(&seed, 4)) {
		case 3:
			page_read(dst, blk);
			break;
		case 0:
			assert_int_equal(truncate_to(dst, FILE_BLK - testfs_below(&seed, 3)), 0);
			break;
		case 1:
			assert_int_equal(fs_write(t.fs, &testfs_root, dst, block, sizeof(block),
						  blk * BLOCK_SIZE, 0),
					 BLOCK_SIZE);
			break;
		default:
			if (src != dst)
				assert_true(fs_clone(t.fs, &testfs_root, src, blk * BLOCK_SIZE, dst,
						     blk * BLOCK_SIZE, 4 * BLOCK_SIZE, 0, NULL) >= 0);
		}
		server_look(server, dst);
		(void)server_is_stored(server, dst);
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		pthread_join(threads[i], NULL);
	stats_wait(0, 0);
	down();
}

/* Beside somebody who writes through pages of the kernel none are dropped, for a reader neither. */
static void test_through(void **state)
{
	const unsigned flags = FS_OPEN_WRITE | FS_OPEN_MAP;
	uint8_t page[BLOCK_SIZE];
	uint32_t handle;
	struct client c;

	(void)state;
	up(&(struct server_opts){ 0 }, REVOKE_MS);
	client_up(&c);
	handle = attach(&c, inos[0], OPS_FH_READ);
	atomic_store(&others_write, 1);
	assert_int_equal(fs_read_pages(t.fs, inos[0], page, sizeof(page), 0), sizeof(page));
	assert_int_equal(map(&c, handle, 8, 4, 0), 0); /* nobody could have stored to it */
	assert_int_equal(fs_opened(t.fs, inos[0], flags, &testfs_root), 0);
	assert_int_equal(map(&c, handle, 0, 4, 0), EBUSY);
	assert_int_equal(atomic_load(&drops), 0);
	atomic_store(&others_write, 0);
	assert_int_equal(map(&c, handle, 0, 4, 0), 0);
	assert_int_equal(atomic_load(&drops), 1);
	fs_closed(t.fs, inos[0], flags);
	/* Nor when the last one who stored has gone; else they are. */
	for (unsigned writers = 0; writers < 2; writers++) {
		uint32_t before;

		handle = attach(&c, inos[1], BOTH);
		assert_int_equal(map(&c, handle, 0, 4, UMBRA_MAP_WRITE), 0);
		before = atomic_load(&drops);
		atomic_store(&others_write, writers);
		assert_int_equal(detach(&c, handle), UMBRA_MSG_DONE);
		assert_int_equal(atomic_load(&drops) - before, writers ? 0 : 1);
	}
	client_down(&c, true);
	down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_much),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_cached),
		cmocka_unit_test(test_accused),
		cmocka_unit_test(test_accused_in_grant),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_orphan),
		cmocka_unit_test(test_silent),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_page_kept),
		cmocka_unit_test(test_through),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
