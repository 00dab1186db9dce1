/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sessions: how they begin, and fork(). How they end is in listen.c.
 *
 * Lock order: connect_lock, client_lock, the locks of section.c, that of memory.c.
 *
 * A child has the locks, since they are taken around fork(), and all that they protect. It has neither the listeners nor the mappings of the device (MADV_DONTFORK):
 * all is void, and its copy of the socket is closed at once, so that the daemon sees the end of the parent.
 */
#include "client/calls.h"
#include "client/session.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client/guard.h"
#include "client/home.h"
#include "client/last.h"
#include "client/mapping.h"
#include "client/memory.h"
#include "client/reopen.h"
#include "client/section.h"
#include "client/store.h"
#include "util/sabotage.h"

#define WELCOME_S 5
#define ANSWER_NS 100000000 /* a daemon that is there has answered by then */
#define STACK_BYTES (256u << 10)

/* Where sessions are made: never freed. */
struct mount {
	dev_t dev;
	char socket[sizeof(((struct umbra_direct *)0)->socket) + 1];
	struct session *session;    /* NULL: there is none now */
	int64_t retry_ns, later_ns; /* not before that; nor who waits */
	const struct home *home;    /* may be NULL */
	struct mount *next;
};

pthread_mutex_t client_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t client_changed = PTHREAD_COND_INITIALIZER;
_Atomic int64_t client_answered_ns;
_Atomic uint64_t client_maps, client_revokes, client_lost;
int (*client_socket_made)(int sock);
void (*client_socket_ends)(int sock);

static pthread_mutex_t connect_lock = PTHREAD_MUTEX_INITIALIZER;
static struct mount *mounts;
/* Of the parent: to be freed in some quiet moment. */
static struct session *left_sessions;
static struct view *left_views;

int64_t client_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static void socket_close(int sock)
{
	if (client_socket_ends)
		client_socket_ends(sock);
	close(sock);
}

/* ---- fork ---- */

static void fork_prepare(void)
{
	pthread_mutex_lock(&connect_lock);
	pthread_mutex_lock(&client_lock);
	section_fork_prepare();
	guard_fork_prepare();
	memory_fork_prepare();
}

static void fork_parent(void)
{
	memory_fork_end();
	guard_fork_end();
	section_fork_parent();
	pthread_mutex_unlock(&client_lock);
	pthread_mutex_unlock(&connect_lock);
}

static void fork_child(void)
{
	memory_fork_end();
	guard_fork_end();
	section_fork_child();
	last_fork_child();
	for (struct mount *m = mounts; m; m = m->next) {
		struct session *s = m->session;

		m->retry_ns = 0;
		m->session = NULL;
		if (!s)
			continue;
		socket_close(s->sock);
		guard_remove(s->base);
		guard_remove(s->read_base);
		s->next = left_sessions;
		left_sessions = s;
	}
	for (struct holding *h = client_holdings; h; h = h->next) {
		holding_void(h, &left_views);
		h->busy = h->leaving = false;
	}
	mappings_forked();
	client_changed = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
	pthread_mutex_unlock(&client_lock);
	pthread_mutex_unlock(&connect_lock);
}

/* Under connect_lock */
static void left_free(void)
{
	struct session *s;
	struct view *views;

	pthread_mutex_lock(&client_lock);
	s = left_sessions;
	views = left_views;
	left_sessions = NULL;
	left_views = NULL;
	pthread_mutex_unlock(&client_lock);
	views_retire(views);
	while (s) {
		struct session *next = s->next;

		free(s);
		s = next;
	}
}

static bool forks_known;

static void init_once(void)
{
	section_init();
	forks_known = pthread_atfork(fork_prepare, fork_parent, fork_child) == 0;
}

bool session_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, init_once);
	return forks_known;
}

/* ---- connecting ---- */

static int socket_open(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = WELCOME_S };
	int sock, rc;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock >= 0 && client_socket_made)
		sock = client_socket_made(sock);
	if (sock < 0)
		return -errno;
	/* The first is for connect() too: nobody may ever accept, and fork() waits for us. */
	if (setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) ||
	    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) ||
	    connect(sock, (struct sockaddr *)&addr, sizeof(addr))) {
		rc = -errno;
		socket_close(sock);
		return rc;
	}
	return sock;
}

/* What has come instead of WELCOME. */
static int refused(const struct umbra_msg_welcome *w, size_t size)
{
	struct umbra_msg_error error;

	if (size != sizeof(error) || w->msg.type != UMBRA_MSG_ERROR)
		return -EPROTO;
	memcpy(&error, w, sizeof(error));
	if (error.error == EBUSY)
		return SESSION_LATER;
	return error.error > 0 && error.error < 4096 ? -(int)error.error : -EPROTO;
}

/* Says HELLO and gets WELCOME with its two descriptors, which are the caller's. */
static int welcome(int sock, uint32_t rights, struct umbra_msg_welcome *w, int fds[2])
{
	struct umbra_msg_hello hello = { .msg = { .size = sizeof(hello), .type = UMBRA_MSG_HELLO, .id = 1 },
					 .version = UMBRA_DIRECT_VERSION,
					 .rights = rights };
	union {
		char bytes[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { w, sizeof(*w) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	struct cmsghdr *c;
	ssize_t n;

	if (send(sock, &hello, sizeof(hello), MSG_NOSIGNAL) != sizeof(hello))
		return -errno;
	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0) /* 0: it has ended without a word */
		return n < 0 ? -errno : -ECONNRESET;
	c = CMSG_FIRSTHDR(&msg);
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return refused(w, (size_t)n);
	if (c->cmsg_len != CMSG_LEN(2 * sizeof(int))) {
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++)
			close(((int *)(void *)CMSG_DATA(c))[i]);
		return -EPROTO;
	}
	memcpy(fds, CMSG_DATA(c), 2 * sizeof(int));
	return 0;
}

static bool welcome_is_sound(const struct umbra_msg_welcome *w)
{
	return w->msg.size == sizeof(*w) && w->msg.type == UMBRA_MSG_WELCOME &&
	       w->version == UMBRA_DIRECT_VERSION && w->device_bytes > 0 && w->device_bytes <= INT64_MAX &&
	       w->slots > 0 && w->slots <= UMBRA_SLOTS && (w->rights & UMBRA_DIRECT_READ);
}

/* Only of this process: a child maps for itself. */
static void *map(int fd, uint64_t len, int prot)
{
	void *at = client_calls.mmap(NULL, len, prot, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		return NULL;
	if (client_calls.madvise(at, len, MADV_DONTFORK)) {
		client_calls.munmap(at, len);
		return NULL;
	}
	return at;
}

static void bases_unmap(struct session *s)
{
	if (s->read_base && s->read_base != s->base) {
		guard_remove(s->read_base);
		client_calls.munmap(s->read_base, s->device_bytes);
	}
	if (s->base) {
		guard_remove(s->base);
		client_calls.munmap(s->base, s->device_bytes);
	}
}

/* Nobody copies from read_base, but early word of bad memory may name either. */
static int bases_guard(const struct session *s)
{
	int rc = guard_add(s->base, s->device_bytes);

	if (rc == 0 && s->read_base != s->base)
		rc = guard_add(s->read_base, s->device_bytes);
	return rc;
}

static int maps_make(struct session *s, const struct umbra_msg_welcome *w, const int fds[2])
{
	bool store = w->rights & UMBRA_DIRECT_WRITE;
	int rc = guard_install();
	struct stat st;

	if (rc)
		return rc;
	s->device_bytes = w->device_bytes;
	s->align_bytes = w->align_bytes;
	s->rights = w->rights;
	s->slot_count = w->slots;
	s->is_device = fstat(fds[0], &st) == 0 && S_ISCHR(st.st_mode);
	s->slots = map(fds[1], UMBRA_SLOTS * sizeof(struct umbra_slot), PROT_READ | PROT_WRITE);
	if (!s->slots)
		return -errno;
	s->base = map(fds[0], s->device_bytes, store ? PROT_READ | PROT_WRITE : PROT_READ);
	s->read_base = s->base && store ? map(fds[0], s->device_bytes, PROT_READ) : s->base;
	rc = s->read_base ? bases_guard(s) : -errno;
	if (rc == 0)
		return 0;
	bases_unmap(s);
	client_calls.munmap(s->slots, UMBRA_SLOTS * sizeof(struct umbra_slot));
	return rc;
}

static void maps_end(struct session *s)
{
	bases_unmap(s);
	client_calls.munmap(s->slots, UMBRA_SLOTS * sizeof(struct umbra_slot));
}

/* The application's signals are not for our thread. */
static int listener_start(struct session *s)
{
	pthread_attr_t attr;
	sigset_t all, before;
	pthread_t thread;
	int rc = pthread_attr_init(&attr);

	if (rc)
		return -rc;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_BYTES > PTHREAD_STACK_MIN ? STACK_BYTES : PTHREAD_STACK_MIN);
	sigfillset(&all);
	client_calls.mask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&thread, &attr, session_listen, s);
	if (rc == 0)
		pthread_setname_np(thread, "umbra");
	client_calls.mask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return -rc;
}

static int session_begin(struct session *s, uint32_t rights)
{
	struct timeval forever = { 0 };
	struct umbra_msg_welcome w = { 0 };
	int fds[2], rc;

	rc = welcome(s->sock, rights, &w, fds);
	if (rc)
		return rc;
	rc = welcome_is_sound(&w) ? maps_make(s, &w, fds) : -EPROTO;
	close(fds[0]);
	close(fds[1]);
	if (rc)
		return rc;
	if (setsockopt(s->sock, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever)) ||
	    setsockopt(s->sock, SOL_SOCKET, SO_SNDTIMEO, &forever, sizeof(forever)))
		rc = -errno;
	if (rc == 0)
		rc = listener_start(s);
	if (rc)
		maps_end(s);
	return rc;
}

static int session_new(struct mount *m, uint32_t rights, struct session **out)
{
	struct session *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return -ENOMEM;
	if ((rights & UMBRA_DIRECT_WRITE) && !store_load())
		rights &= ~UMBRA_DIRECT_WRITE;
	s->mount = m;
	s->home = m->home;
	s->users = 1;
	s->id_last = 1;
	s->sock = socket_open(m->socket);
	rc = s->sock < 0 ? s->sock : 0;
	if (rc == 0) {
		/* In its place before its listener starts, which takes it away again. */
		rc = session_begin(s, rights);
		if (rc)
			socket_close(s->sock);
	}
	if (rc)
		free(s);
	else
		*out = s;
	return rc;
}

/* Under connect_lock, as all that knows the list. NULL: no memory. */
static struct mount *mount_find(dev_t dev, const char *socket)
{
	struct mount *m;

	for (m = mounts; m; m = m->next)
		if (m->dev == dev && strcmp(m->socket, socket) == 0)
			return m;
	m = calloc(1, sizeof(*m));
	if (!m)
		return NULL;
	m->dev = dev;
	strcpy(m->socket, socket);
	m->next = mounts;
	mounts = m;
	return m;
}

int mount_ask(int fd, struct umbra_direct *direct)
{
	int64_t began_ns = client_now_ns(), now_ns;
	int rc = ioctl(fd, UMBRA_IOC_DIRECT, direct) ? -errno : 0;

	now_ns = client_now_ns();
	if (now_ns - began_ns > ANSWER_NS)
		atomic_store(&client_answered_ns, now_ns);
	return rc;
}

static int mount_of(int fd, struct mount **m, uint32_t *rights)
{
	char socket[sizeof((*m)->socket)] = "";
	struct umbra_direct direct = { 0 };
	struct stat st;

	int rc;

	if (fd_about(fd, &st))
		return -errno;
	rc = mount_ask(fd, &direct);
	if (rc)
		return rc;
	*rights = direct.rights & (UMBRA_DIRECT_READ | UMBRA_DIRECT_WRITE);
	if (direct.version != UMBRA_DIRECT_VERSION || !(*rights & UMBRA_DIRECT_READ) || !direct.socket[0])
		return -EOPNOTSUPP;
	memcpy(socket, direct.socket, sizeof(direct.socket));
	*m = mount_find(st.st_dev, socket);
	return *m ? 0 : -ENOMEM;
}

static struct session *session_now(struct mount *m)
{
	struct session *s;

	pthread_mutex_lock(&client_lock);
	s = m->session;
	if (s)
		s->users++;
	pthread_mutex_unlock(&client_lock);
	return s;
}

static int mount_connect(struct mount *m, int fd, uint32_t rights, bool wait, struct session **out)
{
	int rc;

	*out = session_now(m);
	if (*out)
		return 0;
	if (!wait && client_now_ns() < m->retry_ns)
		return -EAGAIN;
	if (client_now_ns() < m->later_ns)
		return SESSION_LATER;
	/* Once all that was of a mount is gone the numbers are those of another one. */
	rc = m->home ? home_has(m->home, fd) : 0;
	if (rc < 0)
		return rc;
	if (rc == 0)
		m->home = home_of(fd, m->dev);
	rc = session_new(m, rights, out);
	/* It ends just now, or begins. */
	if (rc == -ECONNREFUSED || rc == -ECONNRESET || rc == -ENOENT || rc == -EPIPE)
		rc = -EAGAIN;
	m->retry_ns = client_now_ns() + SESSION_RETRY_NS;
	if (rc == SESSION_LATER)
		m->later_ns = client_now_ns() + SESSION_LATER_NS;
	if (rc)
		return rc;
	/* The listener may have met the end already: then it waits for us to put it. */
	pthread_mutex_lock(&client_lock);
	if (!(*out)->ended)
		m->session = *out;
	pthread_mutex_unlock(&client_lock);
	return 0;
}

int session_get(int fd, bool wait, struct session **out)
{
	struct mount *m;
	uint32_t rights;
	int rc;

	if (!session_init())
		return -ENOMEM;
	if (wait)
		pthread_mutex_lock(&connect_lock);
	else if (pthread_mutex_trylock(&connect_lock))
		return -EAGAIN;
	left_free();
	rc = mount_of(fd, &m, &rights);
	if (rc == 0)
		rc = mount_connect(m, fd, rights, wait, out);
	pthread_mutex_unlock(&connect_lock);
	return rc;
}

void session_get_locked(struct session *s)
{
	s->users++;
}

void session_put_locked(struct session *s)
{
	if (--s->users == 0 && s->ended)
		pthread_cond_broadcast(&client_changed);
}

void session_put(struct session *s)
{
	pthread_mutex_lock(&client_lock);
	session_put_locked(s);
	pthread_mutex_unlock(&client_lock);
}

/* ---- its end, by the listener ---- */

/* What has been stored by calls, and what the daemon may not have taken note of. No copy is under way any more. */
static void stores_keep(struct session *s)
{
	pthread_mutex_lock(&client_lock);
	for (struct holding *h = client_holdings; h; h = h->next) {
		if (h->ended != s)
			continue;
		h->ended = NULL;
		if (h->ended_slot != UMBRA_SLOT_NONE &&
		    atomic_load_explicit((_Atomic __u64 *)&s->slots[h->ended_slot].stored,
					 memory_order_acquire) &&
		    !sabotage_point("stores-keep"))
			holding_stored(h);
	}
	pthread_mutex_unlock(&client_lock);
}

void session_end(struct session *s)
{
	struct view *old = NULL;

	pthread_mutex_lock(&client_lock);
	s->ended = true;
	if (s->mount->session == s)
		s->mount->session = NULL;
	for (struct request *r = s->requests; r; r = r->next) {
		r->rc = -ENOTCONN;
		r->done = true;
		pthread_cond_signal(&r->cond);
	}
	s->requests = NULL;
	pthread_cond_broadcast(&client_changed); /* whoever waits for its turn to ask */
	for (struct holding *h = client_holdings; h; h = h->next)
		if (h->session == s) {
			atomic_store(&h->away_ns, client_now_ns());
			h->ended = s;
			h->ended_slot = h->slot;
			holding_void(h, &old);
		}
	pthread_mutex_unlock(&client_lock);
	section_wait();
	views_retire(old);
	stores_keep(s);
	/*
	 * Whoever uses the session still may be in a call that the next daemon of the same mount has to answer, which changes nothing of what we have mapped before we have let go of it. Nobody gets at
	 * the mappings any more.
	 */
	if (!sabotage_point("session-users"))
		maps_end(s);
	pthread_mutex_lock(&client_lock);
	while (s->users > 0)
		pthread_cond_wait(&client_changed, &client_lock);
	pthread_mutex_unlock(&client_lock);
	if (sabotage_point("session-users"))
		maps_end(s);
	socket_close(s->sock);
	free(s);
	atomic_fetch_add(&client_lost, 1);
	mappings_take_back();
}
