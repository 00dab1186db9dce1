/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A slot for each descriptor: how many calls have been made on it, or whose it is. Data calls read it in a section (section.h); who takes an entry away waits for
 * sections, and for the calls that go on without.
 *
 * The slots are wiped in whatever child has no other memory than its own: it begins anew after fork(), and does nothing directly when it came to be without the
 * handlers of pthread_atfork(). A child that shares the memory (vfork) has descriptors of its own, and leaves the slots alone.
 *
 * Lock order: fds_lock, then those of session.c.
 */
#include "client/fds.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <umbra/direct.h>
#include <umbra/umbra.h>

#include "client/calls.h"
#include "client/data.h"
#include "client/fds_attach.h"
#include "client/fds_entry.h"
#include "client/fds_others.h"
#include "client/fds_own.h"
#include "client/file.h"
#include "client/guard.h"
#include "client/memory.h"
#include "client/mapping.h"
#include "client/preload_handlers.h"
#include "client/section.h"
#include "client/session.h"

#define CALLS_BEFORE 8u /* an entry is made: it costs as much as some calls of the kernel */
#define WAIT_NS 20000
#define WAITS_MAX 100000u /* two seconds: somebody has jumped out of a call */
#define UNFIT_BUCKETS 64

/* Slots: 0 to CALLS_BEFORE is a count of calls; these; and struct fd_entry. */
#define SLOT_KERNEL 0x100u /* not a file for us */
#define SLOT_BUSY 0x101u   /* is looked at */
#define SLOT_ENDS 0x200u   /* plus how many are closing it */
#define SLOT_ENTRY 0x10000u

struct table {
	atomic_bool alive; /* this process has made it, or its child has said so */
	_Alignas(64) _Atomic uintptr_t slots[FDS_MAX];
};

/* Files that this process has mapped. */
struct unfit {
	uint64_t dev, ino;
	struct unfit *next;
};

static struct table *table; /* NULL: no direct calls */
static pthread_mutex_t fds_lock = PTHREAD_MUTEX_INITIALIZER;
static struct fd_entry *entries, *left; /* left: of the parent */
static struct fd_entry *ending;         /* the daemon is to hear of it when the descriptor has been closed */
static struct unfit *unfit[UNFIT_BUCKETS];
static unsigned calls_before = CALLS_BEFORE;
static _Atomic unsigned fd_last; /* no entry above */
static atomic_bool no_writes, is_off;
static pid_t own_pid;

/* Within a call of this thread's: handlers of signals wait for its end. Calls of those that do not go to the kernel. */
static __thread unsigned depth __attribute__((tls_model("initial-exec")));
/* How many it has in ending. */
static __thread unsigned ending_mine __attribute__((tls_model("initial-exec")));

static struct fd_entry *entry_of(uintptr_t slot)
{
	return slot >= SLOT_ENTRY ? (struct fd_entry *)slot : NULL; /* NOLINT(performance-no-int-to-ptr) */
}

/* A handler may come that does not return. */
static inline void release(void)
{
	atomic_signal_fence(memory_order_seq_cst);
	if (__builtin_expect(handlers_wait, 0) && depth == 0)
		handlers_release();
}

/* ---- what is not fast ---- */

struct slow slow_begin(void)
{
	struct slow s = { .error = errno };
	sigset_t set;

	depth++;
	sigfillset(&set);
	handlers_keep_faults(&set);
	client_calls.mask(SIG_BLOCK, &set, &s.signals);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &s.cancel);
	return s;
}

void slow_end(const struct slow *s)
{
	int ignored;

	depth--;
	pthread_setcancelstate(s->cancel, &ignored);
	client_calls.mask(SIG_SETMASK, &s->signals, NULL);
	errno = s->error;
	release();
}

bool fds_is_quiet(void)
{
	return depth == 0;
}

/* ---- files that are mapped ---- */

static struct unfit **unfit_at(uint64_t dev, uint64_t ino)
{
	struct unfit **at = &unfit[(dev ^ ino) % UNFIT_BUCKETS];

	while (*at && ((*at)->dev != dev || (*at)->ino != ino))
		at = &(*at)->next;
	return at;
}

/* ---- entries ---- */

/* All locks of the library are held meanwhile: handlers wait, as in a call. Comes before what libumbra does about fork(), and after it. */
static void fork_prepare(void)
{
	depth++;
	pthread_mutex_lock(&fds_lock);
	own_fork_prepare();
}

static void fork_parent(void)
{
	own_fork_parent();
	pthread_mutex_unlock(&fds_lock);
	depth--;
	release();
}

/* Nothing is freed here: many children do not live long. */
static void fork_child(void)
{
	struct fd_entry **end = &left;

	own_fork_child();
	while (*end)
		end = &(*end)->next;
	*end = entries;
	entries = ending = NULL;
	own_pid = getpid();
	if (table)
		atomic_store(&table->alive, true);
	pthread_mutex_unlock(&fds_lock);
	depth--;
	release();
}

static void entry_free(struct fd_entry *e)
{
	umbra_detach(e->file);
	memory_put(e);
}

/* Under fds_lock */
static void left_free(void)
{
	while (left) {
		struct fd_entry *e = left;

		left = e->next;
		atomic_store(&e->file->closed, true);
		entry_free(e);
	}
}

static void entry_unlink(struct fd_entry *e)
{
	struct fd_entry **at = &entries;

	while (*at != e)
		at = &(*at)->next;
	*at = e->next;
}

/* Out of its slot: nobody uses it any more when this returns true. */
static bool entry_is_quiet(struct fd_entry *e)
{
	const struct timespec pause = { .tv_nsec = WAIT_NS };

	section_wait();
	for (unsigned i = 0; atomic_load(&e->pins) > 0; i++) {
		if (i == WAITS_MAX)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

/*
 * Without fds_lock: a call that is waited for may want it. fd: it is about to be closed, and entries_ended() will follow; -1: it goes on without us.
 */
static void entry_end(struct fd_entry *e, int fd)
{
	if (!entry_is_quiet(e)) {
		atomic_store(&e->file->closed, true);
		return;
	}
	pthread_mutex_lock(&fds_lock);
	entry_unlink(e);
	pthread_mutex_unlock(&fds_lock);
	if (fd < 0) {
		entry_free(e);
		return;
	}
	file_detach_begin(e->file);
	pthread_mutex_lock(&fds_lock);
	e->fd = fd;
	e->ended_by = &ending_mine;
	e->next = ending;
	ending = e;
	pthread_mutex_unlock(&fds_lock);
	ending_mine++;
}

static struct fd_entry *ending_take(int fd)
{
	struct fd_entry **at = &ending, *e;

	pthread_mutex_lock(&fds_lock);
	while (*at && ((*at)->fd != fd || (*at)->ended_by != &ending_mine))
		at = &(*at)->next;
	e = *at;
	if (e)
		*at = e->next;
	pthread_mutex_unlock(&fds_lock);
	return e;
}

/* fd has been closed. Whoever has ended none takes no lock: it may be a handler that has come in fork(), with all of them. */
static void entries_ended(int fd)
{
	struct fd_entry *e;
	struct slow s;

	if (ending_mine == 0 || depth > 0)
		return;
	s = slow_begin();
	while ((e = ending_take(fd))) {
		ending_mine--;
		file_detach_end(e->file);
		memory_put(e);
	}
	slow_end(&s);
}

/* What the slot is to be. Under fds_lock, with the slot busy. */
static uintptr_t look_at(int fd)
{
	struct fd_entry *e;
	struct stat st;
	int flags;

	if (!attach_is_ours(fd, &st, &flags))
		return SLOT_KERNEL;
	if (*unfit_at(st.st_dev, st.st_ino)) {
		fds_tell(BY_MAPPED);
		return SLOT_KERNEL;
	}
	e = memory_get_clear(sizeof(*e));
	if (!e)
		return SLOT_KERNEL;
	e->dev = st.st_dev;
	e->ino = st.st_ino;
	offset_init(&e->offset);
	e->file = attach_begin(fd, flags);
	if (!e->file) {
		memory_put(e);
		return attach_is_later() ? 0 : SLOT_KERNEL;
	}
	e->next = entries;
	entries = e;
	if ((unsigned)fd > atomic_load(&fd_last))
		atomic_store(&fd_last, (unsigned)fd);
	return (uintptr_t)e;
}

/* A call on a descriptor of which nothing is known. True: something is now. */
static bool slot_learn(int fd, uintptr_t slot)
{
	struct fd_entry *e = NULL;
	struct slow s;

	if (slot + 1 < calls_before || attach_is_later()) {
		if (slot + 1 < calls_before)
			atomic_compare_exchange_strong(&table->slots[fd], &slot, slot + 1);
		fds_tell(BY_FEW_CALLS);
		return false;
	}
	s = slow_begin();
	pthread_mutex_lock(&fds_lock);
	left_free();
	if (atomic_load(&table->alive) &&
	    atomic_compare_exchange_strong(&table->slots[fd], &slot, SLOT_BUSY)) {
		uintptr_t busy = SLOT_BUSY, found = look_at(fd);

		/* It is being closed. */
		if (!atomic_compare_exchange_strong(&table->slots[fd], &busy, found))
			e = entry_of(found);
	}
	pthread_mutex_unlock(&fds_lock);
	if (e)
		entry_end(e, -1);
	slow_end(&s);
	return true;
}

/* ---- calls ---- */

enum done { DONE, PINNED, NOT_OURS, TO_LEARN };

/* What can be done at once, else the entry pinned. */
static enum done try(int fd, void *buf, size_t size, off_t off, bool store, struct fd_entry **pinned,
		     uintptr_t *slot)
{
	struct section *section = section_mine();
	bool at_once = size > 0 && size <= DATA_AT_ONCE_MAX && off >= 0;
	enum done done = NOT_OURS;
	struct fd_entry *e;

	*slot = atomic_load_explicit(&table->slots[fd], memory_order_relaxed);
	if (*slot < calls_before)
		return TO_LEARN;
	if (*slot < SLOT_ENTRY || !section)
		return NOT_OURS;
	at_once = at_once && data_touch(buf, size, store);
	section_enter(section);
	e = entry_of(atomic_load_explicit(&table->slots[fd], memory_order_acquire));
	if (e && at_once && data_at_once(e->file, section, buf, size, off, store)) {
		done = DONE;
	} else if (e) {
		atomic_fetch_add(&e->pins, 1);
		*pinned = e;
		done = PINNED;
	}
	section_leave(section);
	return done;
}

static ssize_t long_way(struct fd_entry *e, void *buf, size_t size, off_t off, bool store)
{
	struct slow s = slow_begin();
	ssize_t rc = data_call(e->file, buf, size, off, store);

	others_look(e);
	atomic_fetch_sub(&e->pins, 1);
	slow_end(&s);
	if (rc < 0) {
		errno = (int)-rc;
		rc = -1;
	}
	return rc;
}

bool fds_begin(int fd, bool store)
{
	if (!table || fd < 0 || (unsigned)fd >= FDS_MAX)
		return false;
	if (depth > 0 || atomic_load_explicit(&is_off, memory_order_relaxed))
		return false;
	if (store && atomic_load_explicit(&no_writes, memory_order_relaxed)) {
		fds_tell(BY_LIMIT);
		return false;
	}
	depth++;
	return true;
}

void fds_done(void)
{
	depth--;
	release();
}

/* Before an entry is made. False: not yet. */
static bool is_worth_learning(int fd, uintptr_t *slot,
			      bool (*is_worth)(int fd, size_t size, off_t off, bool store), size_t size,
			      off_t off, bool store)
{
	if (*slot + 1 != calls_before || calls_before == 1 || is_worth(fd, size, off, store))
		return true;
	atomic_compare_exchange_strong(&table->slots[fd], slot, 0);
	fds_tell(BY_SIZE);
	return false;
}

/* What makes a file longer is the kernel's: a journal that is written, and removed, is not worth it. */
static bool is_worth_at(int fd, size_t size, off_t off, bool store)
{
	uint64_t end_bytes;
	int before = errno;
	bool worth = !store || off < 0 || fd_size(fd, &end_bytes) || (uint64_t)off < end_bytes;

	(void)size;
	errno = before;
	return worth;
}

bool fds_call(int fd, void *buf, size_t size, off_t off, bool store, ssize_t *rc)
{
	enum done done = NOT_OURS;
	struct fd_entry *e = NULL;
	uintptr_t slot = 0;

	if (!fds_begin(fd, store))
		return false;
	done = try(fd, buf, size, off, store, &e, &slot);
	if (done == TO_LEARN && is_worth_learning(fd, &slot, is_worth_at, size, off, store) &&
	    slot_learn(fd, slot))
		done = try(fd, buf, size, off, store, &e, &slot);
	if (done == DONE)
		*rc = (ssize_t)size;
	else if (done == PINNED)
		*rc = long_way(e, buf, size, off, store);
	fds_done();
	if (done == NOT_OURS)
		fds_tell(BY_OTHER_FILE);
	return done == DONE || done == PINNED;
}

struct fd_entry *fds_pin(int fd)
{
	struct section *section = section_mine();
	struct fd_entry *e;

	if (!section || atomic_load_explicit(&table->slots[fd], memory_order_relaxed) < SLOT_ENTRY)
		return NULL;
	section_enter(section);
	e = entry_of(atomic_load_explicit(&table->slots[fd], memory_order_acquire));
	if (e)
		atomic_fetch_add(&e->pins, 1);
	section_leave(section);
	return e;
}

bool fds_learn(int fd, bool (*is_worth)(int fd, size_t size, off_t off, bool store), size_t size, bool store)
{
	uintptr_t slot = atomic_load_explicit(&table->slots[fd], memory_order_relaxed);

	if (slot >= calls_before) {
		fds_tell(BY_OTHER_FILE);
		return false;
	}
	return is_worth_learning(fd, &slot, is_worth, size, -1, store) && slot_learn(fd, slot);
}

bool fds_maybe(int fd)
{
	uintptr_t slot;

	if (!table || fd < 0 || (unsigned)fd >= FDS_MAX || depth > 0)
		return false;
	slot = atomic_load_explicit(&table->slots[fd], memory_order_relaxed);
	return slot < calls_before || slot >= SLOT_ENTRY;
}

bool fds_guard(void)
{
	static atomic_bool done;

	if (!atomic_load_explicit(&done, memory_order_relaxed) && guard_install_user() == 0)
		atomic_store(&done, true);
	return atomic_load(&done);
}

/* ---- the end of descriptors ---- */

static bool is_known(int fd)
{
	return table && fd >= 0 && (unsigned)fd < FDS_MAX;
}

static uintptr_t slot_end(int fd)
{
	uintptr_t before = atomic_load(&table->slots[fd]), after;

	do
		after = before > SLOT_ENDS && before < SLOT_ENTRY ? before + 1 : SLOT_ENDS + 1;
	while (!atomic_compare_exchange_weak(&table->slots[fd], &before, after));
	return before;
}

/* A child by vfork() has this memory, but other descriptors. */
static bool is_other_process(void)
{
	return getpid() != own_pid;
}

/* Its descriptors are copies, of which it may close any. */
static bool has_locks_to_lose(void)
{
	return own_has_locks() && !is_other_process();
}

/* Another thread looks at a descriptor that is about to be closed, and may change its flags: they must not be those of what gets its number. */
static void look_is_over(void)
{
	struct slow s;

	if (depth > 0 || is_other_process())
		return;
	s = slow_begin();
	pthread_mutex_lock(&fds_lock);
	pthread_mutex_unlock(&fds_lock);
	slow_end(&s);
}

bool fds_end(int fd)
{
	struct fd_entry *e;
	uintptr_t slot;
	struct slow s;

	if (own_is(fd))
		return false;
	if (!is_known(fd))
		return true;
	if (has_locks_to_lose())
		own_lock_ends(fd);
	if (atomic_load_explicit(&table->slots[fd], memory_order_relaxed) >= SLOT_ENTRY && is_other_process())
		return true;
	slot = slot_end(fd);
	if (slot == SLOT_BUSY)
		look_is_over();
	e = entry_of(slot);
	if (!e)
		return true;
	if (depth > 0) {
		/* In a handler, which nobody may wait in: calls under way end with what they have. */
		atomic_store(&e->file->closed, true);
		return true;
	}
	s = slow_begin();
	entry_end(e, fd);
	slow_end(&s);
	return true;
}

void fds_ended(int fd)
{
	uintptr_t before, after;

	if (!is_known(fd))
		return;
	if (!is_other_process())
		entries_ended(fd);
	before = atomic_load(&table->slots[fd]);
	do {
		if (before <= SLOT_ENDS || before >= SLOT_ENTRY)
			return;
		after = before == SLOT_ENDS + 1 ? 0 : before - 1;
	} while (!atomic_compare_exchange_weak(&table->slots[fd], &before, after));
}

static unsigned range_last(unsigned last)
{
	return last < FDS_MAX - 1 ? last : FDS_MAX - 1;
}

/* All that has been called upon; the rest nobody may use while it is closed. */
void fds_end_range(unsigned first, unsigned last)
{
	if (!table || is_other_process())
		return;
	own_locks_end(first, range_last(last));
	for (unsigned fd = first; fd <= range_last(last); fd++)
		if (atomic_load_explicit(&table->slots[fd], memory_order_relaxed))
			(void)!fds_end((int)fd);
}

void fds_ended_range(unsigned first, unsigned last)
{
	if (!table || is_other_process())
		return;
	for (unsigned fd = first; fd <= range_last(last); fd++)
		if (atomic_load_explicit(&table->slots[fd], memory_order_relaxed))
			fds_ended((int)fd);
}

/* ---- other things that happen to them ---- */

/* All that is known of the file goes. */
static void unfit_add(uint64_t dev, uint64_t ino)
{
	struct slow s = slow_begin();
	struct unfit **at, *new = memory_get(sizeof(*new));

	pthread_mutex_lock(&fds_lock);
	at = unfit_at(dev, ino);
	if (!*at && new) {
		*new = (struct unfit){ .dev = dev, .ino = ino };
		*at = new;
		new = NULL;
	} else if (!*at) {
		fds_off();
	}
	pthread_mutex_unlock(&fds_lock);
	memory_put(new);
	if (!is_other_process())
		for (unsigned i = 0; i <= atomic_load(&fd_last); i++) {
			uintptr_t slot = atomic_load(&table->slots[i]);
			struct fd_entry *e = entry_of(slot);

			pthread_mutex_lock(&fds_lock);
			/* The entry is there while it is in its slot, and does not leave it for good under the lock. */
			if (e && (atomic_load(&table->slots[i]) != slot || e->dev != dev || e->ino != ino ||
				  !atomic_compare_exchange_strong(&table->slots[i], &slot, SLOT_KERNEL)))
				e = NULL;
			pthread_mutex_unlock(&fds_lock);
			if (e)
				entry_end(e, -1);
		}
	slow_end(&s);
}

bool fds_mapped(int fd)
{
	struct stat st;
	struct statfs fs;
	struct slow s;

	if (!is_known(fd) || depth > 0 || fd_about(fd, &st) || !S_ISREG(st.st_mode) || fstatfs(fd, &fs) ||
	    (unsigned long)fs.f_type != FUSE_SUPER_MAGIC)
		return false;
	unfit_add(st.st_dev, st.st_ino);
	s = slow_begin();
	mappings_leave_file(st.st_dev, st.st_ino);
	slow_end(&s);
	return true;
}

void fds_learn_other(int fd, uint64_t dev, uint64_t ino)
{
	uintptr_t busy = SLOT_BUSY,
		  slot = is_known(fd) && !own_is(fd) ? atomic_load(&table->slots[fd]) : busy;
	struct fd_entry *e = NULL;
	struct stat st;

	if (slot >= SLOT_KERNEL || fd_about(fd, &st) || st.st_ino != ino || st.st_dev != dev)
		return;
	pthread_mutex_lock(&fds_lock);
	if (atomic_compare_exchange_strong(&table->slots[fd], &slot, SLOT_BUSY)) {
		slot = look_at(fd);
		/* It is being closed. */
		if (!atomic_compare_exchange_strong(&table->slots[fd], &busy, slot))
			e = entry_of(slot);
	}
	pthread_mutex_unlock(&fds_lock);
	if (e)
		entry_end(e, -1);
}

struct umbra_file *fds_attach(int fd, bool worth, bool store)
{
	struct umbra_file *file = NULL;
	bool unfit_now, small = !worth && calls_before > 1;
	struct stat st;
	int flags, own;

	if (!is_known(fd) || is_off || !atomic_load(&table->alive) || !attach_is_ours(fd, &st, &flags))
		return NULL;
	pthread_mutex_lock(&fds_lock);
	unfit_now = *unfit_at(st.st_dev, st.st_ino);
	pthread_mutex_unlock(&fds_lock);
	if (!unfit_now && !small && store)
		others_learn(fd, st.st_dev, st.st_ino);
	pthread_mutex_lock(&fds_lock);
	if (*unfit_at(st.st_dev, st.st_ino)) {
		fds_tell(BY_MAPPED);
	} else if (small) {
		fds_tell(BY_SMALL_MAPPING);
	} else {
		own = client_calls.fd_dup(fd);
		file = own >= 0 ? attach_begin(own, flags) : NULL;
		if (own >= 0 && !file)
			client_calls.fd_close(own);
	}
	pthread_mutex_unlock(&fds_lock);
	return file;
}

void fds_no_writes(void)
{
	atomic_store(&no_writes, true);
}

void fds_off(void)
{
	atomic_store(&is_off, true);
}

bool fds_are_on(void)
{
	return table != NULL;
}

bool fds_are_own(void)
{
	return !is_other_process();
}

bool fds_init(void)
{
	const char *wanted = getenv("UMBRA_DIRECT");
	struct rlimit limit;
	struct table *t;

	fds_counts_begin();
	if (wanted && strcmp(wanted, "0") == 0)
		return false;
	if (wanted && strcmp(wanted, "all") == 0)
		calls_before = 1;
	t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		 0);
	if (t == MAP_FAILED)
		return false;
	if (madvise(t, sizeof(*t), MADV_WIPEONFORK)) {
		munmap(t, sizeof(*t));
		return false;
	}
	if (getrlimit(RLIMIT_FSIZE, &limit) || limit.rlim_cur != RLIM_INFINITY)
		fds_no_writes();
	own_init();
	client_calls.file_left = unfit_add;
	client_calls.fd_bypass = NULL; /* attach_begin() */
	own_pid = getpid();
	atomic_store(&t->alive, true);
	/* After that of libumbra's own: it takes its locks after ours. */
	if (!session_init() || pthread_atfork(fork_prepare, fork_parent, fork_child)) {
		munmap(t, sizeof(*t));
		return false;
	}
	table = t;
	return true;
}
