/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/fds_others.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "client/fds.h"
#include "client/fds_entry.h"
#include "client/file.h"
#include "client/session.h"

#define LOOK_AGAIN_NS 50000000ll
#define LOOK_AGAIN_MAX_NS 10000000000ll

void others_learn(int fd, uint64_t dev, uint64_t ino)
{
	DIR *dir = opendir("/proc/thread-self/fd");
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && atoi(entry->d_name) != fd)
			fds_learn_other(atoi(entry->d_name), dev, ino);
	if (dir)
		closedir(dir);
}

/* Not more often than it may help: a process may have many descriptors, and it may be somebody else's. */
void others_look(struct fd_entry *e)
{
	struct holding *h = e->file->holding;
	int64_t now_ns, wait_ns;

	if (!atomic_load_explicit(&h->refused, memory_order_relaxed))
		return;
	now_ns = client_now_ns();
	if (now_ns < atomic_load(&h->look_ns) || !fds_are_own() || !atomic_exchange(&h->refused, false))
		return;
	wait_ns = 2 * atomic_load(&h->look_again_ns) + LOOK_AGAIN_NS;
	atomic_store(&h->look_again_ns, wait_ns < LOOK_AGAIN_MAX_NS ? wait_ns : LOOK_AGAIN_MAX_NS);
	atomic_store(&h->look_ns, now_ns + wait_ns);
	others_learn(-1, e->dev, e->ino);
}
