/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The main thread is known by a value of its own, whose destructor runs when it ends by pthread_exit(); not when the process ends. Until then nobody looks, and nothing is paid.
 */
#include "client/last.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "client/calls.h"

#define PAUSE_MIN_NS 10000000l
#define PAUSE_MAX_NS 320000000l
#define LOOKS 2u /* that must have seen nobody, one after the other */

static pthread_key_t key;
static bool key_ok;
static _Atomic unsigned ours; /* threads, but for the one that looks */
static atomic_bool main_gone, looks;

/* Threads beside the main one, which is gone but for its name. 0: not known. */
static unsigned threads_now(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *e;
	unsigned count = 0;

	if (!dir)
		return 0;
	while ((e = readdir(dir)) != NULL)
		count += e->d_name[0] != '.' && strtol(e->d_name, NULL, 10) != getpid();
	closedir(dir);
	return count;
}

static _Noreturn void *look(void *arg)
{
	struct timespec pause = { .tv_nsec = PAUSE_MIN_NS };
	unsigned alone = 0, count;

	(void)arg;
	while (alone < LOOKS) {
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < PAUSE_MAX_NS)
			pause.tv_nsec *= 2;
		count = threads_now();
		if (count > 0 && count == atomic_load(&ours) + 1)
			alone++;
		else
			alone = 0;
	}
	exit(0);
}

static void look_start(void)
{
	pthread_attr_t attr;
	sigset_t all, before;
	pthread_t thread;
	int rc;

	if (atomic_exchange(&looks, true))
		return;
	sigfillset(&all);
	client_calls.mask(SIG_SETMASK, &all, &before);
	rc = pthread_attr_init(&attr);
	if (rc == 0) {
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		rc = pthread_create(&thread, &attr, look, NULL);
		pthread_attr_destroy(&attr);
	}
	if (rc)
		atomic_store(&looks, false);
	client_calls.mask(SIG_SETMASK, &before, NULL);
}

static void main_ends(void *arg)
{
	(void)arg;
	atomic_store(&main_gone, true);
	if (atomic_load(&ours) > 0)
		look_start();
}

/* Of the main thread. */
static void note_main(void)
{
	if (key_ok)
		(void)!pthread_setspecific(key, &key);
}

__attribute__((constructor)) static void begin(void)
{
	key_ok = pthread_key_create(&key, main_ends) == 0;
	if (gettid() == getpid())
		note_main();
}

void last_thread_begins(void)
{
	atomic_fetch_add(&ours, 1);
	if (atomic_load(&main_gone))
		look_start();
}

void last_thread_ends(void)
{
	atomic_fetch_sub(&ours, 1);
}

void last_fork_child(void)
{
	atomic_store(&ours, 0);
	atomic_store(&main_gone, false);
	atomic_store(&looks, false);
	note_main();
}
