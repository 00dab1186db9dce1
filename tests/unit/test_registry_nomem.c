/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registry when memory is wanting at any step of a call: nothing has changed, or what has not been noted is kept from use. UMBRA_SEED replays a run.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "registry/priv.h"
#include "registry_world.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static _Thread_local unsigned
	fail_at; /* the so-manyth from now on fails, and all after it if it lasts; 0: none */
static _Thread_local bool fail_lasts;
static unsigned failures;

static bool fails(void)
{
	if (fail_at == 0 || --fail_at > 0)
		return false;
	fail_at = fail_lasts;
	failures++;
	return true;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return fails() ? NULL : __real_realloc(old, size);
}

enum { CLIENTS = 4, STEPS = 6000, FILES = 3 };

static uint64_t rng;

static uint64_t pick(uint64_t below)
{
	uint64_t x = rng += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return (x ^ x >> 31) % below;
}

static void arm(void)
{
	fail_lasts = pick(3) == 0;
	fail_at = pick(2) ? 1 + (unsigned)pick(12) : 0;
}

static bool is_ours(void *arg, pid_t pid)
{
	return arg && pid == *(const pid_t *)arg;
}

static void client_step(struct client *c)
{
	uint64_t ino = 1 + pick(FILES), lo = pick(FAKE_FILE_BLK), hi = lo + 1 + pick(FAKE_FILE_BLK);
	bool write = pick(2), release = pick(2);
	int rc = 0;

	if (c->lost && pick(2)) {
		arm();
		client_end(c, false);
		fail_at = 0;
	}
	if (c->ended) {
		registry_reap(c->w->r, is_ours, NULL, &c->pid);
		client_start(c, CLIENT_PROMPT, true);
	}
	if (c->lost)
		return;
	arm();
	if (!c->handles[ino])
		rc = client_attach(c, ino, true);
	else if (pick(8) == 0)
		client_detach(c, ino);
	else if (pick(8) == 0)
		rc = client_release(c, ino, lo, hi);
	else
		rc = client_grant(c, ino, lo, hi, write, release);
	fail_at = 0;
	assert_true(rc == 0 || rc == -ENOMEM || rc == -ENOSPC || rc == -EBUSY || rc == -ENOTCONN);
	if (rc == -ENOMEM && c->handles[ino]) /* it may have let go, and says so again */
		assert_int_equal(client_release(c, ino, lo, hi), 0);
}

static void file_step(struct world *w)
{
	uint64_t ino = 1 + pick(FILES), to = 1 + pick(FILES), lo = pick(FAKE_FILE_BLK),
		 hi = lo + 1 + pick(FAKE_FILE_BLK);
	bool fill = pick(2);
	int rc;

	arm();
	rc = pick(3) == 0 && to != ino ? fake_share(w->fs, ino, to, lo, hi) :
					 fake_move(w->fs, ino, lo, hi, fill);
	fail_at = 0;
	assert_true(rc == 0 || rc == -ENOMEM || rc == -ENOSPC || rc == -EBUSY);
}

static void test_random(void **unused)
{
	const char *given = getenv("UMBRA_SEED");
	struct world w;

	(void)unused;
	rng = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 2654435761u;
	printf("# UMBRA_SEED=%llu\n", (unsigned long long)rng);
	world_open(&w, CLIENTS, 1);
	w.leaks = true;
	for (unsigned i = 0; i < STEPS; i++) {
		if (pick(3))
			client_step(&w.clients[pick(CLIENTS)]);
		else
			file_step(&w);
		assert_true(w.fake->bad_release == 0);
		registry_reap(w.r, is_ours, NULL, NULL);
		world_check(&w);
	}
	printf("# memory was wanting %u times\n", failures);
	assert_true(failures > STEPS / 20);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
