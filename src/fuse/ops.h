/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of this floor share: the session's state, answers, the handlers of requests (by subject).
 */
#ifndef UMBRA_FUSE_OPS_H
#define UMBRA_FUSE_OPS_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>

#include "fs/fs.h"
#include "fuse/asks.h"
#include "fuse/defer.h"
#include "fuse/direct.h"
#include "fuse/kept.h"
#include "fuse/opens.h"
#include "fuse/place.h"
#include "fuse/session.h"
#include "fuse/token.h"
#include "fuse/uring.h"
#include "fuse/wire.h"
#include "repair/scrub.h"

/*
 * How long the kernel may believe what it was told. Everything changes through the kernel, and where it does not (private
 * ioctls) it is told so.
 */
#define OPS_TIMEOUT_S (30.0 * 86400)

#define OPS_WRITE_MAX (1u << 20) /* bytes of one READ or WRITE */
#define OPS_PATH_MAX 8192u       /* bytes of a path that a report names */

struct worker {
	pthread_t thread;
	struct session *session;
	struct place_seat *seat;      /* of one that reads /dev/fuse */
	struct uring_seat *ring_seat; /* of one that serves rings */
	_Atomic bool done;
	_Atomic bool is_busy; /* with what it has read from /dev/fuse */
	char *request;        /* a request; the data of a WRITE in it starts at a page */
	char *buf;            /* OPS_WRITE_MAX bytes for replies, at a page */
	uint64_t *refs;       /* given with the READDIRPLUS reply in the making */
	_Atomic uint64_t requests, read_bytes, written_bytes, cloned_bytes; /* written by this thread alone */
};
/* Of the calling thread; handlers run on workers only. */
extern _Thread_local struct worker *worker_now;

struct session {
	struct fs *fs;
	struct session_opts opts;
	struct fuse_session *se;
	int fd; /* /dev/fuse */
	struct wire wire;
	struct defer *defer;
	struct defer *mover;   /* what takes long: one thread */
	struct defer *tellers; /* tell.c; NULL: whoever tells the kernel something does so himself */
	struct asks *asks;
	struct token_table *tokens;
	struct scrub *scrub;
	struct events *events;
	const struct session_direct *direct; /* or NULL */
	_Atomic uint64_t open_count;         /* gives opens their numbers */
	struct opens *opens;
	struct worker *workers;
	unsigned workers_count;
	struct standins *standins;      /* workers.c */
	struct uring *uring;            /* or NULL */
	_Atomic bool is_uring;          /* the kernel has taken the queues */
	_Atomic unsigned forgets_count; /* messages carried out */
	char transport_why[256];        /* if it has not */
	struct place *place;            /* of the workers */
	_Atomic unsigned running;       /* workers */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* INIT has been answered, the last worker is gone */
	bool is_init_over;      /* (lock) */
	int init_rc;            /* (lock) what became of it */
	bool stop;              /* (lock) */
	_Atomic bool exiting;
	struct kept *kept;             /* or NULL */
	bool is_taken;                 /* over, from another daemon */
	char *_Atomic leave_path;      /* the program that takes over; NULL: none */
	_Atomic bool is_quiet;         /* it is about to: the kernel is told nothing more */
	_Atomic unsigned tellings;     /* threads that tell it something */
	unsigned dev_major, dev_minor; /* of the mount: where its attributes are */
};

extern const struct fuse_lowlevel_ops ops_all;

static inline struct session *req_session(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* Who asks. */
struct fs_cred ops_cred(fuse_req_t req);

static inline void worker_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

/* ---- attributes ---- */

void ops_stat(const struct inode_attr *attr, struct stat *st);
void ops_entry(const struct session *session, const struct inode_attr *attr, struct fuse_entry_param *entry);
/* How long the kernel may keep attributes. */
double ops_attr_timeout(const struct session *session, uint64_t ino);
/* Answers with an entry that has one reference; gives the reference back if the kernel does not take it. */
void ops_reply_entry(fuse_req_t req, const struct inode_attr *attr);
/* rc <= 0 */
void ops_reply(fuse_req_t req, int rc);

/* ---- handlers ---- */

/* ops_meta.c */
void ops_lookup(fuse_req_t req, fuse_ino_t dir, const char *name);
void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi);
void ops_readlink(fuse_req_t req, fuse_ino_t ino);
void ops_statfs(fuse_req_t req, fuse_ino_t ino);
/* Answers a STATX request itself; what is not a reply of libfuse's goes out through session_send(). */
void ops_statx(struct session *session, const void *request);

/* ops_dir.c */
void ops_mknod(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, dev_t rdev);
void ops_mkdir(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode);
void ops_symlink(fuse_req_t req, const char *target, fuse_ino_t dir, const char *name);
void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t dir, const char *name);
void ops_unlink(fuse_req_t req, fuse_ino_t dir, const char *name);
void ops_rmdir(fuse_req_t req, fuse_ino_t dir, const char *name);
void ops_rename(fuse_req_t req, fuse_ino_t dir, const char *name, fuse_ino_t new_dir, const char *new_name,
		unsigned flags);
void ops_opendir(fuse_req_t req, fuse_ino_t dir, struct fuse_file_info *fi);
void ops_readdir(fuse_req_t req, fuse_ino_t dir, size_t size, off_t off, struct fuse_file_info *fi);
void ops_readdirplus(fuse_req_t req, fuse_ino_t dir, size_t size, off_t off, struct fuse_file_info *fi);

/* ops_data.c */
void ops_create(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, struct fuse_file_info *fi);
void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);
void ops_copy_file_range(fuse_req_t req, fuse_ino_t src, off_t src_off, struct fuse_file_info *src_fi,
			 fuse_ino_t dst, off_t dst_off, struct fuse_file_info *dst_fi, size_t len, int flags);
void ops_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);

/* ops_write.c */
void ops_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	       struct fuse_file_info *fi);

/* ops_xattr.c */
void ops_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
		  int flags);
void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void ops_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* ops_evacuate.c: on a deferred thread. */
struct umbra_evacuate;
int evacuate_change(struct fs *fs, uid_t uid, struct umbra_evacuate *arg);

/* direct.c */
void ops_direct(fuse_req_t req);
void ops_shadows(fuse_req_t req, const void *in);

/* ops_grow.c */
void ops_grow(fuse_req_t req, const void *in);

/* ops_upgrade.c */
void ops_upgrade(fuse_req_t req, const void *in);

/* ops_scrub.c */
void ops_scrub(fuse_req_t req, const void *in);

/* ops_poison.c */
void ops_damage(fuse_req_t req);
void ops_losses(fuse_req_t req, const void *in);
void ops_events(fuse_req_t req, const void *in);
void ops_poison(fuse_req_t req, const void *in);
void ops_poison_clear(fuse_req_t req, const void *in);

/* ops_ioctl.c: the ioctls that every file system has; the private ones go on to ops_private(). */
void ops_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
	       unsigned flags, const void *in, size_t in_size, size_t out_size);
/* ops_private.c: false if it is none of ours. */
bool ops_private(fuse_req_t req, fuse_ino_t ino, unsigned cmd, const struct fuse_file_info *fi,
		 const void *in, size_t in_size, size_t out_size);

/* ops_change.c: those that change files; answered by a deferred thread. in has the size that cmd says. */
void change_start(fuse_req_t req, fuse_ino_t ino, unsigned cmd, const struct fuse_file_info *fi,
		  const void *in);

/* session.c: carries out one request, with room before it. */
void session_serve(struct worker *worker, char *request, size_t size);
/*
 * workers.c: what is asked for after a file was unlinked may come before its FORGET, which comes another way, and find no space. Waits for some,
 * 100 ms: the kernel sends them when the last RELEASE is answered. Whether any were carried out since there were before_count.
 */
bool session_forgets_wait(struct session *session, unsigned before_count);
/* resend.c: what a daemon before this one has not answered is, on this thread. Before the workers start. */
must_check int resend_all(struct session *session);
/* workers.c: for one more of them, that has no seat. */
must_check int worker_init(struct session *session, struct worker *worker);
void worker_free(struct worker *worker);
/* session.c: INIT has been answered, or cannot be (-errno). */
void session_init_over(struct session *session, int rc);
/* session.c: writes a message to the kernel. -errno */
must_check int session_send(struct session *session, struct iovec *iov, int count);
/*
 * tell.c: the kernel is to drop pages and attributes, or a name, as fuse_lowlevel_notify_inval_inode() and _entry(). It waits for requests under
 * way, and cannot be ended meanwhile: not on a worker, but with off -1 (attributes alone).
 */
int session_drop(struct session *session, uint64_t ino, off_t off, off_t len);
int session_drop_name(struct session *session, uint64_t dir, const char *name, size_t len);
/* Waits until nobody is in one of them; whoever comes after that waits for the end of the process. */
void tellings_end(struct session *session);
/* session.c: sums of the workers' counters. */
struct session_counts {
	uint64_t requests, read_bytes, written_bytes, cloned_bytes;
};
void session_counts(struct session *session, struct session_counts *counts);

/* mount.c */
must_check int mount_attach(struct session *session, char *why, size_t why_size);
void mount_detach(struct session *session); /* lazily */
/*
 * Has our own mount write what is dirty. -errno. A child asks for it, which has no part in the connection: a thread of ours would wait,
 * even when killed, for workers that are gone, and keep the connection open so that nobody else is let go either.
 */
must_check int mount_sync(const struct session *session);

#endif
