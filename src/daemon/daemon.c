/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The program umbrafs: opens a pool, mounts it, serves it until it is unmounted or told to end (SIGTERM, SIGINT, SIGHUP).
 *
 * Start goes up the floors (pool memory, pool, file system, mount), the end goes down the same way; each step undoes its own on
 * failure. One thread does nothing but wait for signals: they are blocked everywhere else.
 */
#include "daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <umbra/ioctl.h>

#undef BLOCK_SIZE /* another one of <sys/mount.h> */
#include "daemon/background.h"
#include "daemon/badblocks.h"
#include "daemon/direct.h"
#include "daemon/direct_device.h"
#include "daemon/early.h"
#include "daemon/guard.h"
#include "daemon/keeper.h"
#include "daemon/options.h"
#include "fs/fs.h"
#include "fs/ledger.h"
#include "fuse/hook.h"
#include "fuse/kept.h"
#include "fuse/session.h"
#include "txn/pool.h"
#include "util/log.h"

#define STATUS_USAGE 1
#define STATUS_SYSTEM 2
#define STATUS_MOUNT 32
#define WHY_SIZE (2 * PATH_MAX)
/* The daemon of a mount that was just unmounted may still be closing the pool. */
#define BUSY_WAIT_MS 2000
#define BUSY_STEP_MS 1
#define DETACH_TRIES 2 /* dead mounts on one mount point */
/* And processes that it has let map the pool's memory may still be about to let go. */
#define MAPPED_WAIT_MS 5000
#define THREADS_LEAST 2
#define THREADS_DEFAULT_MAX 8
#define OOM_SCORE "-900"

struct daemon {
	struct daemon_opts opts;
	char pool_path[PATH_MAX], dir[PATH_MAX];
	struct dax *dax;
	struct pool *pool;
	struct fs *fs;
	struct session *session;
	struct direct *direct;
	struct early *early;
	struct badblocks *badblocks;
	struct hook *hook;
	struct keeper_child keeper; /* that has started us */
	struct kept *kept;          /* for it; NULL: there is none */
	struct guard guard;         /* where there is no keeper */
	_Atomic bool is_over;       /* nothing more for signals to end */
	char why[WHY_SIZE];
};

static void sleep_ms(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&t, NULL);
}

/* ---- where ---- */

/* As realpath(3), where the last component may be a dead mount, which cannot be looked at. */
static bool dir_realpath(const char *dir, char *real, size_t real_size)
{
	char parent[PATH_MAX];
	const char *base;
	size_t len = strlen(dir);

	if (realpath(dir, real))
		return true;
	if (errno != ENOTCONN && !session_is_dying(errno))
		return false;
	while (len > 1 && dir[len - 1] == '/')
		len--;
	base = memrchr(dir, '/', len);
	base = base ? base + 1 : dir;
	snprintf(parent, sizeof(parent), "%.*s", base == dir ? 1 : (int)(base - dir),
		 base == dir ? "." : dir);
	if (!realpath(parent, real))
		return false;
	snprintf(real + strlen(real), real_size - strlen(real), "/%.*s", (int)(dir + len - base), base);
	return true;
}

/* A mount that does not answer: 'why' says so. */
static void hangs(struct daemon *d)
{
	char mountpoint[PATH_MAX];

	session_in_the_way(d->opts.dir, mountpoint, sizeof(mountpoint));
	snprintf(d->why, sizeof(d->why), "%s: the mount%s%s does not answer; 'umount -f' ends it",
		 d->opts.dir, *mountpoint ? " on " : "", mountpoint);
}

/* The real path of a mount point; a dead mount there is detached first. Nobody is asked by this process but who has answered. */
static int dir_resolve(struct daemon *d)
{
	mode_t mode = 0;
	int rc, waited_ms = 0;

	/* Again and again, since a daemon may die between two looks. */
	for (int tries = 0;; tries++) {
		while ((rc = session_look(d->opts.dir, &mode)) && session_is_dying(-rc) &&
		       waited_ms++ < BUSY_WAIT_MS)
			sleep_ms(1);
		if ((rc == 0 || rc == -ENOTCONN) && !dir_realpath(d->opts.dir, d->dir, sizeof(d->dir)))
			rc = -errno;
		if (rc != -ENOTCONN || tries == DETACH_TRIES || session_detach_dead(d->dir))
			break;
		log_info("%s: detached the mount of a daemon that is dead", d->dir);
	}
	if (rc == -ETIMEDOUT) {
		hangs(d);
		return rc;
	}
	if (rc) {
		snprintf(d->why, sizeof(d->why), "%s: no mount point there: %s", d->opts.dir, strerror(-rc));
		return rc;
	}
	if (!S_ISDIR(mode)) {
		snprintf(d->why, sizeof(d->why), "%s: is not a directory, so nothing can be mounted there",
			 d->opts.dir);
		return -ENOTDIR;
	}
	return 0;
}

/* Whether what is mounted there is one of ours, and can become what is asked for. */
static int remount_check(struct daemon *d)
{
	struct umbra_info info;
	int fd = open(d->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0) {
		rc = -errno;
		snprintf(d->why, sizeof(d->why), "%s: cannot remount: %s", d->dir, strerror(-rc));
		return rc;
	}
	if (ioctl(fd, UMBRA_IOC_INFO, &info)) {
		rc = -EINVAL;
		snprintf(d->why, sizeof(d->why), "%s: cannot remount: is not an umbrafs mount", d->dir);
	} else if (info.flags & UMBRA_INFO_READONLY && !(d->opts.mount_flags & MS_RDONLY)) {
		rc = -EROFS;
		snprintf(d->why, sizeof(d->why),
			 "%s: cannot remount: the pool was opened to read only; unmount, then mount it anew",
			 d->dir);
	}
	close(fd);
	return rc;
}

static int remount(struct daemon *d)
{
	int rc = session_look(d->opts.dir, NULL);

	if (rc == -ETIMEDOUT) {
		hangs(d);
		return rc;
	}
	if (!realpath(d->opts.dir, d->dir))
		snprintf(d->dir, sizeof(d->dir), "%s", d->opts.dir);
	rc = remount_check(d);
	if (rc)
		return rc;
	if (d->opts.fixed)
		log_warn("%s: a remount cannot change %.*s: it stays as it is", d->dir,
			 (int)strcspn(d->opts.fixed, "="), d->opts.fixed);
	if (mount(d->opts.pool, d->dir, NULL, MS_REMOUNT | d->opts.mount_flags, NULL) == 0)
		return 0;
	rc = -errno;
	snprintf(d->why, sizeof(d->why), "%s: cannot remount: %s", d->dir, strerror(-rc));
	return rc;
}

/* ---- up ---- */

static int dax_up(struct daemon *d, bool readonly)
{
	struct dax_opts opts = { .durability = d->opts.durability, .readonly = readonly, .lent_ok = true };
	char why[1024];
	int rc;

	if (d->keeper.is_taking) {
		opts.taken_fd = fcntl(d->keeper.pool, F_DUPFD_CLOEXEC, 0);
		if (opts.taken_fd < 0)
			return -errno;
	}
	for (int waited_ms = 0;; waited_ms += BUSY_STEP_MS) {
		rc = dax_open(d->pool_path, &opts, &d->dax, d->why, sizeof(d->why));
		if (rc != -EBUSY || waited_ms >= BUSY_WAIT_MS)
			break;
		sleep_ms(BUSY_STEP_MS);
	}
	/* Readers share the pool, and whom another one has let read it. */
	if (rc || readonly)
		return rc;
	rc = direct_device_wait(dax_fd(d->dax), MAPPED_WAIT_MS, why, sizeof(why));
	if (rc == 0)
		return 0;
	snprintf(d->why, sizeof(d->why), "%s: %s", d->pool_path, why);
	dax_close(d->dax);
	d->dax = NULL;
	return rc;
}

static int pool_up(struct daemon *d, bool readonly)
{
	struct pool_opts opts = {
		.readonly = readonly,
		.applied = d->kept ? kept_applied : NULL,
		.applied_arg = d->kept,
	};
	char why[512];
	int rc = dax_up(d, readonly);

	if (rc)
		return rc;
	rc = pool_open(d->dax, &opts, &d->pool, why, sizeof(why));
	if (rc == 0)
		return 0;
	snprintf(d->why, sizeof(d->why), "%s: %s", d->pool_path, why);
	dax_close(d->dax);
	d->dax = NULL;
	return rc;
}

static void pool_down(struct daemon *d, bool clean)
{
	if (d->pool)
		pool_close(d->pool, clean);
	if (d->dax)
		dax_close(d->dax);
	d->pool = NULL;
	d->dax = NULL;
}

/*
 * A read-only mount of a pool that was not unmounted: the journal is replayed first, for which the pool is opened for writing once.
 */
static int pool_up_readonly(struct daemon *d)
{
	struct fs_opts opts = { .background = false };
	char why[WHY_SIZE];
	int rc = pool_up(d, true);

	if (rc != -EROFS)
		return rc;
	memcpy(why, d->why, sizeof(why));
	if (pool_up(d, false)) {
		memcpy(d->why, why, sizeof(why)); /* the pool itself is read-only: this is what counts */
		return rc;
	}
	log_info("%s: was not unmounted; made whole before the read-only mount", d->pool_path);
	rc = fs_open(d->pool, &opts, &d->fs);
	if (rc == 0)
		fs_close(d->fs);
	d->fs = NULL;
	pool_down(d, rc == 0);
	return pool_up(d, true);
}

/* What another daemon has kept for us. */
static int kept_up(struct daemon *d)
{
	int rc;

	if (!d->keeper.is_taking)
		return 0;
	rc = kept_take(d->keeper.memory, &d->kept);
	if (rc) {
		snprintf(d->why, sizeof(d->why), "cannot take over: %s",
			 rc == -EPROTO ? "the daemon before was of a build too different" : strerror(-rc));
		return rc;
	}
	memcpy(d->dir, kept_head(d->kept)->dir, sizeof(d->dir));
	memcpy(d->pool_path, kept_head(d->kept)->source, sizeof(d->pool_path));
	return 0;
}

/* For whoever takes over from us. */
static int kept_make(struct daemon *d)
{
	int rc;

	if (d->keeper.control < 0 || d->kept)
		return 0;
	rc = kept_new(fs_ledger_cells(d->pool), &d->kept);
	if (rc) {
		snprintf(d->why, sizeof(d->why), "no memory for a keeper: %s", strerror(-rc));
		return rc;
	}
	memcpy(kept_head(d->kept)->dir, d->dir, sizeof(d->dir));
	memcpy(kept_head(d->kept)->source, d->pool_path, sizeof(d->pool_path));
	return 0;
}

static int fs_up(struct daemon *d)
{
	bool readonly = d->opts.mount_flags & MS_RDONLY;
	struct fs_opts opts = {
		.readonly = readonly,
		.noatime = d->opts.noatime,
		.strictatime = d->opts.strictatime,
		.background = true,
	};
	struct inode_attr root;
	int rc = kept_up(d);

	if (!rc)
		rc = readonly ? pool_up_readonly(d) : pool_up(d, false);
	if (!rc)
		rc = kept_make(d);
	if (rc)
		return rc;
	if (d->kept) {
		fs_ledger_settle(kept_ledger(d->kept));
		opts.ledger = kept_ledger(d->kept);
	}
	if (pool_super(d->pool)->ro_compat & ~FEATURE_RO_COMPAT_KNOWN)
		d->opts.mount_flags |= MS_RDONLY; /* as the pool has said */
	rc = fs_open(d->pool, &opts, &d->fs);
	if (rc) {
		snprintf(d->why, sizeof(d->why), "%s: the file system cannot be opened: %s", d->pool_path,
			 rc == -EUCLEAN ? "damaged metadata" : strerror(-rc));
		return rc;
	}
	rc = fs_getattr(d->fs, INODE_ROOT, &root);
	if (rc)
		snprintf(d->why, sizeof(d->why), "%s: the root directory cannot be read: %s", d->pool_path,
			 rc == -EUCLEAN ? "damaged metadata" : strerror(-rc));
	return rc;
}

static void size_text(uint64_t bytes, char *text, size_t text_size)
{
	static const char units[] = "KMGTP";
	double n = (double)bytes / 1024;
	unsigned unit = 0;

	while (n >= 1024 && unit < sizeof(units) - 2) {
		n /= 1024;
		unit++;
	}
	snprintf(text, text_size, "%.4g %ciB", n, units[unit]);
}

static void say_up(const struct daemon *d)
{
	char size[32];
	const char *why;
	bool is_uring = session_is_uring(d->session, &why);

	size_text(pool_super(d->pool)->size_blk * BLOCK_SIZE, size, sizeof(size));
	printf("%s: %s, durability %s, %u thread%s, placement %s, transport %s%s%s%s%s, mounted on %s\n",
	       d->pool_path, size, dax_durability_name(dax_durability(d->dax)), d->opts.threads,
	       d->opts.threads == 1 ? "" : "s",
	       session_placement(d->session) == SESSION_PLACE_CALLER ? "caller" : "spread",
	       is_uring ? "io_uring" : "/dev/fuse", *why ? " (" : "", why, *why ? ")" : "",
	       d->opts.mount_flags & MS_RDONLY ? ", read-only" : "", d->dir);
	fflush(stdout);
}

static bool is_kept(void *arg)
{
	const struct daemon *d = arg;

	return keeper_is_there(&d->keeper);
}

static int mount_up(struct daemon *d)
{
	struct session_opts opts = {
		.source = d->pool_path,
		.mountpoint = d->dir,
		.mount_flags = d->opts.mount_flags,
		.allow_other = d->opts.allow_other,
		.threads = d->opts.threads,
		.dax = d->opts.dax,
		.placement = d->opts.placement,
		.transport = d->opts.transport,
		.kept = d->kept,
		.keeper_is_there = is_kept,
		.keeper_arg = d,
		.connection_fd = d->keeper.connection,
	};
	int rc = session_open(d->fs, &opts, &d->session, d->why, sizeof(d->why)), direct_rc;

	if (rc)
		return rc;
	if (d->kept && !d->keeper.is_taking) {
		rc = keeper_mounted(&d->keeper, kept_fd(d->kept), session_connection(d->session),
				    dax_fd(d->dax));
		if (rc)
			log_warn("the keeper is gone: %s", strerror(-rc));
	}
	guard_watch(&d->guard, session_dev_minor(d->session));
	direct_rc = direct_open(d->fs, d->session, &d->opts, d->opts.mount_flags & MS_RDONLY, &d->direct);
	rc = session_run(d->session);
	if (rc == 0 && d->direct)
		direct_rc = direct_run(d->direct);
	if (rc == -EOPNOTSUPP && d->kept) {
		snprintf(d->why, sizeof(d->why),
			 "%s: keeper: this kernel cannot send requests again (Linux 6.9)", d->dir);
	} else if (rc) {
		snprintf(d->why, sizeof(d->why), "%s: the mount cannot be served: %s", d->dir, strerror(-rc));
	} else if (direct_rc && d->opts.socket) {
		rc = direct_rc;
		snprintf(d->why, sizeof(d->why), "%s: no socket for direct mappings: %s", d->opts.socket,
			 strerror(-rc));
	} else if (direct_rc == -ENOENT) {
		log_debug("%s: no direct mappings: there is no folder for the socket", d->dir);
	} else if (direct_rc) {
		log_warn("%s: no direct mappings: %s", d->dir, strerror(-direct_rc));
	}
	if (rc && !d->keeper.is_taking) {
		session_stop(d->session);
		session_wait(d->session);
	}
	return rc;
}

/* Whoever takes over instead has to find all as it was left: the mount, orphans that are open, the pool's state. */
static void take_failed(const struct daemon *d)
{
	log_error("%s", d->why);
	_exit(STATUS_MOUNT);
}

static void all_down(struct daemon *d)
{
	badblocks_stop(d->badblocks);
	early_stop(d->early);
	hook_stop(d->hook);
	direct_stop(d->direct);
	if (d->session)
		session_close(d->session);
	guard_end(&d->guard);
	direct_close(d->direct);
	if (d->fs)
		fs_close(d->fs);
	pool_down(d, true);
	kept_close(d->kept);
}

/* ---- serving ---- */

static void signals_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGUSR2); /* ours: look whether it is over */
}

static void *signals_wait(void *arg)
{
	struct daemon *d = arg;
	sigset_t set;
	int got;

	signals_set(&set);
	while (!atomic_load(&d->is_over)) {
		if (sigwait(&set, &got) || got == SIGUSR2)
			continue;
		log_info("%s: ending (signal %d)", d->dir, got);
		session_stop(d->session);
	}
	return NULL;
}

/* The keeper has been killed since it was looked for: the mount goes on with us. */
static void stay(struct daemon *d, int rc)
{
	struct kept_head *head = kept_head(d->kept);

	log_warn("%s: the keeper is gone (%s): %s cannot take over", d->dir, strerror(-rc),
		 session_leaving(d->session));
	snprintf(head->upgrade_why, sizeof(head->upgrade_why), "the keeper is gone");
	session_stay(d->session);
	atomic_store(&head->upgrade, KEPT_UPGRADE_FAILED);
}

/* Another program takes over. What is not answered now it is asked again, as after a kill. Returns if that cannot be. */
static void leave(struct daemon *d)
{
	int rc = keeper_upgrade(&d->keeper, session_leaving(d->session));

	if (rc) {
		stay(d, rc);
		return;
	}
	session_quiet(d->session);
	fs_flush(d->fs);
	log_info("%s: makes room for %s", d->dir, session_leaving(d->session));
	_exit(KEEPER_STATUS_UPGRADE);
}

/* The mount has been taken over. */
static void taken(struct daemon *d)
{
	uint32_t runs = KEPT_UPGRADE_RUNS;

	/* A keeper that was killed since it has started this program says so no more. */
	if (keeper_up(&d->keeper))
		(void)atomic_compare_exchange_strong(&kept_head(d->kept)->upgrade, &runs, KEPT_UPGRADE_DONE);
	log_release();
}

static int serve(struct daemon *d, struct background *bg)
{
	pthread_t thread;
	int rc = -pthread_create(&thread, NULL, signals_wait, d);

	if (rc) {
		snprintf(d->why, sizeof(d->why), "cannot start a thread: %s", strerror(-rc));
		if (d->keeper.is_taking)
			return rc;
		session_stop(d->session);
		session_wait(d->session);
		return rc;
	}
	/* From here on whoever takes what there is to say may wait for the mount. */
	if (d->keeper.is_taking)
		taken(d);
	rc = d->opts.mount_flags & MS_RDONLY ? 0 : early_start(d->fs, &d->early);
	if (rc)
		log_warn("no early notice of bad memory: %s", strerror(-rc));
	rc = d->opts.on_event ? hook_start(d->session, d->opts.on_event, &d->hook) : 0;
	if (rc)
		log_warn("%s will not be run: %s", d->opts.on_event, strerror(-rc));
	say_up(d);
	/* Until here the one who waits for the command reads what there is to say. */
	if (!d->opts.foreground)
		log_syslog();
	if (d->kept && !d->opts.foreground)
		background_detach();
	background_up(bg);
	/* From here on nobody who has the mount waits for whoever takes standard error. */
	if (d->opts.foreground)
		log_hold();
	if (!d->keeper.is_taking)
		(void)keeper_up(&d->keeper);
	rc = d->opts.mount_flags & MS_RDONLY ? 0 : badblocks_start(d->fs, BADBLOCKS_LOOK_MS, &d->badblocks);
	if (rc)
		log_warn("the device's list of bad memory is not read: %s", strerror(-rc));
	rc = dax_fill(pool_dax(fs_pool(d->fs)));
	if (rc)
		log_debug("page tables are filled as memory is used: %s", strerror(-rc));
	for (session_wait(d->session); session_leaving(d->session); session_wait(d->session))
		leave(d);
	atomic_store(&d->is_over, true);
	pthread_kill(thread, SIGUSR2);
	pthread_join(thread, NULL);
	return 0;
}

/* What a process that a mount hangs on should have. All of it may be refused. */
static void process_setup(void)
{
	sigset_t set;
	int fd;

	signals_set(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* Whoever started us may ignore it, and then nobody learns how a child has ended. */
	signal(SIGCHLD, SIG_DFL);
	umask(0);
#ifdef PR_SET_IO_FLUSHER
	/* Memory that the kernel frees for us must not wait for pages that only we can write. */
	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
#endif
	fd = geteuid() == 0 ? open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC) : -1;
	if (fd >= 0) {
		if (write(fd, OOM_SCORE, strlen(OOM_SCORE)) < 0)
			log_debug("oom_score_adj: %s", strerror(errno));
		close(fd);
	}
}

static unsigned threads_default(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (cpus < THREADS_LEAST)
		return THREADS_LEAST;
	return cpus > THREADS_DEFAULT_MAX ? THREADS_DEFAULT_MAX : (unsigned)cpus;
}

static int run(struct daemon *d, struct background *bg)
{
	int rc;

	process_setup();
	if (d->keeper.control < 0)
		guard_start(&d->guard, d->dir);
	rc = fs_up(d);
	/* A daemon that was killed gives up the pool's lock before the kernel is told that its mount is dead. */
	while (rc == 0 && !(d->opts.mount_flags & MS_RDONLY) && !d->keeper.is_taking &&
	       session_detach_former(d->dir, d->pool_path) == 0)
		log_info("%s: detached the mount of a daemon that is dead", d->dir);
	if (rc == 0)
		rc = mount_up(d);
	if (rc == 0)
		rc = serve(d, bg);
	if (rc && d->keeper.is_taking)
		take_failed(d);
	all_down(d);
	log_offer();
	return rc;
}

/* In the process that started the daemon: what it left is of no use. */
static void died(void *arg)
{
	const struct daemon *d = arg;

	if (session_detach_dead(d->dir) == 0)
		log_info("%s: detached again", d->dir);
}

/* Reading options cuts their lists to pieces. NULL: no memory. */
static char **arguments_copy(int argc, char **argv)
{
	char **copy = calloc((size_t)argc + 1, sizeof(*copy));

	for (int i = 0; copy && i < argc; i++)
		if (!(copy[i] = strdup(argv[i])))
			return NULL;
	return copy;
}

int daemon_main(int argc, char **argv)
{
	static struct daemon d;
	static char **arguments; /* for a daemon that a keeper starts */
	struct background bg = { .fd = -1 };
	bool is_kept = keeper_child(&d.keeper);

	guard_title_room(argc, argv);
	arguments = arguments_copy(argc, argv);
	if (!arguments) {
		fprintf(stderr, "umbrafs: out of memory\n");
		return STATUS_SYSTEM;
	}

	log_setup("umbrafs", LOG_LEVEL_INFO, false);
	if (d.keeper.is_taking)
		log_hold();
	if (options_parse(argc, argv, &d.opts, d.why, sizeof(d.why))) {
		log_error("%s", d.why);
		return STATUS_USAGE;
	}
	if (d.opts.help || d.opts.version) {
		fputs(d.opts.help ? options_help : "umbrafs " UMBRA_VERSION "\n", stdout);
		return 0;
	}
	log_setup("umbrafs", d.opts.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO, false);
	if (d.opts.threads == 0)
		d.opts.threads = threads_default();
	if (d.opts.remount) {
		if (remount(&d) == 0)
			return 0;
		goto failed;
	}
	/* A name that cannot be resolved is left to the floor that says why. */
	if (!d.keeper.is_taking && !realpath(d.opts.pool, d.pool_path))
		snprintf(d.pool_path, sizeof(d.pool_path), "%s", d.opts.pool);
	/* Any of these paths may lead through the mount, where nobody answers before we do; a program that is gone by now ends no mount. */
	if (!d.keeper.is_taking && d.opts.on_event && hook_check(d.opts.on_event, d.why, sizeof(d.why)))
		goto failed;
	if (!d.keeper.is_taking && dir_resolve(&d))
		goto failed;
	if (!d.opts.foreground && !is_kept) {
		int rc = background_start(&bg, died, &d);

		if (rc) {
			fprintf(stderr, "umbrafs: cannot go to the background: %s\n", strerror(-rc));
			return STATUS_SYSTEM;
		}
	}
	if (d.opts.keeper && !is_kept)
		return keeper_run(arguments, &bg);
	if (run(&d, &bg) == 0)
		return 0;
failed:
	log_error("%s", d.why);
	return STATUS_MOUNT;
}
