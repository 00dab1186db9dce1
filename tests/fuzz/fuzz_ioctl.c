/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The arguments of ioctls, on a file system that is there and a kernel that is not: the few functions of libfuse that the handlers call
 * are in this file.
 *
 * Input: calls, each: u8 command | u8 file | u8 how it is open | u8 flags | le16 length of the argument | argument.
 */
#include <linux/fs.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <umbra/direct.h>

#undef BLOCK_SIZE /* another one of <linux/fs.h> */
#include "daemon/direct.h"
#include "fuse/direct.h"
#include "fuse/events.h"
#include "fuse/ops.h"
#include "fuse/place.h"
#include "fuzz/input.h"
#include "fuzz/pool.h"
#include "fuzz/target.h"

#define CALL_USER 0x1u    /* not root */
#define CALL_TOKEN 0x2u   /* the argument begins with the last token that was given */
#define CALL_SHORT 0x4u   /* not as long as the command says */
#define CALL_COMPAT 0x8u  /* from a 32-bit program */
#define CALL_OPEN_SHIFT 4 /* above: the number of an open through the page cache */
#define CALLS_MAX 20u

static const unsigned cmds[] = {
	FS_IOC_GETFLAGS,        FS_IOC_SETFLAGS,     FS_IOC_FSGETXATTR,     FS_IOC_FSSETXATTR,
	FS_IOC_GETVERSION,      UMBRA_IOC_TOKEN,     UMBRA_IOC_EXTENTS,     UMBRA_IOC_INFO,
	UMBRA_IOC_STATS,        UMBRA_IOC_OWNERS,    UMBRA_IOC_SCRUB,       UMBRA_IOC_CLONE_RANGE,
	UMBRA_IOC_DEDUPE_RANGE, UMBRA_IOC_FALLOCATE, UMBRA_IOC_CLONE_FILES, UMBRA_IOC_LOSSES,
	UMBRA_IOC_EVENTS,       UMBRA_IOC_POISON,    UMBRA_IOC_REPAIR,      UMBRA_IOC_POISON_CLEAR,
	UMBRA_IOC_DAMAGE,       UMBRA_IOC_EVACUATE,  UMBRA_IOC_DIRECT,      UMBRA_IOC_MAP_TOKEN,
	UMBRA_IOC_SHADOWS,
};

static struct session session;
static struct worker worker;
static struct fuse_ctx ctx;
static struct umbra_token token;
static unsigned cmd_now;
static char socket_path[64];
static sem_t answered;
static atomic_uint calls_count, answers_count;

/* ---- what libfuse would do ---- */

static void answer(void)
{
	if (atomic_fetch_add(&answers_count, 1) >= atomic_load(&calls_count))
		fuzz_stop("answered twice", 0, "");
	sem_post(&answered);
}

int fuse_req_getgroups(fuse_req_t req, int size, gid_t list[])
{
	(void)req, (void)size, (void)list;
	return 0;
}

int fuse_reply_err(fuse_req_t req, int err)
{
	(void)req;
	if (err < 0 || err > 4095)
		fuzz_stop("fuse_reply_err", err, "");
	answer();
	return 0;
}

int fuse_reply_ioctl(fuse_req_t req, int result, const void *buf, size_t size)
{
	(void)req, (void)result;
	for (size_t i = 0; i < size; i++)
		(void)((const volatile uint8_t *)buf)[i];
	if ((cmd_now == UMBRA_IOC_TOKEN || cmd_now == UMBRA_IOC_MAP_TOKEN) && size == sizeof(token))
		memcpy(&token, buf, size);
	answer();
	return 0;
}

const struct fuse_ctx *fuse_req_ctx(fuse_req_t req)
{
	(void)req;
	return &ctx;
}

void *fuse_req_userdata(fuse_req_t req)
{
	(void)req;
	return &session;
}

int fuse_lowlevel_notify_inval_inode(struct fuse_session *se, fuse_ino_t ino, off_t off, off_t len)
{
	(void)se, (void)ino, (void)off, (void)len;
	return 0;
}

int fuse_lowlevel_notify_inval_entry(struct fuse_session *se, fuse_ino_t dir, const char *name, size_t len)
{
	(void)se, (void)dir, (void)name, (void)len;
	return 0;
}

/* ---- calls ---- */

/* Not counted as coverage: it comes at any time. */
__attribute__((no_sanitize("coverage"))) static void nudge(int signal)
{
	(void)signal;
}

/*
 * A signal each millisecond. libFuzzer has an alarm twice a minute, whose handler breaks waits off: who does
 * not expect that is found by the first few inputs.
 */
static void nudges_start(void)
{
	const struct sigaction action = { .sa_handler = nudge };
	const struct itimerspec each_ms = { { .tv_nsec = 1000000 }, { .tv_nsec = 1000000 } };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGURG };
	timer_t timer;

	if (sigaction(SIGURG, &action, NULL) || timer_create(CLOCK_MONOTONIC, &event, &timer) ||
	    timer_settime(timer, 0, &each_ms, NULL))
		fuzz_stop("no timer", 0, "");
}

static void answer_wait(void)
{
	while (sem_wait(&answered))
		;
	/* What is not finished would still be at work in a file system that is closed. */
	if (atomic_load(&answers_count) != atomic_load(&calls_count))
		fuzz_stop("not answered", 0, "");
}

static void call(struct input *in)
{
	unsigned file, flags, size;
	struct fuse_file_info fi = { 0 };
	uint8_t *arg;

	cmd_now = cmds[input_u8(in) % ARRAY_SIZE(cmds)];
	file = input_u8(in) % (FUZZ_FILES + 1);
	fi.fh = input_u8(in) & 0x1f;
	flags = input_u8(in);
	fi.fh |= (uint64_t)(flags >> CALL_OPEN_SHIFT) << OPS_FH_OPEN_SHIFT;
	size = input_u16(in) % 16384;
	if (!(flags & CALL_SHORT) && cmd_now != FS_IOC_SETFLAGS)
		size = _IOC_SIZE(cmd_now);
	arg = input_memory(in, size ? size : 1);
	if (flags & CALL_TOKEN && size >= sizeof(token))
		memcpy(arg, &token, sizeof(token));
	ctx = (struct fuse_ctx){ .uid = flags & CALL_USER ? 1000 : 0, .pid = getpid() };
	atomic_fetch_add(&calls_count, 1);
	ops_ioctl(NULL, file < FUZZ_FILES ? fuzz_inos[file] : 77777, cmd_now, NULL, &fi,
		  flags & CALL_COMPAT ? FUSE_IOCTL_COMPAT : 0, _IOC_DIR(cmd_now) & _IOC_WRITE ? arg : NULL,
		  _IOC_DIR(cmd_now) & _IOC_WRITE ? size : 0, _IOC_DIR(cmd_now) & _IOC_READ ? size : 0);
	answer_wait();
	/* Whoever has a token for it may excuse it. */
	if (fi.fh >> OPS_FH_OPEN_SHIFT && session_excuse_open(&session, fi.fh >> OPS_FH_OPEN_SHIFT))
		(void)session_accuse_open(&session, fi.fh >> OPS_FH_OPEN_SHIFT);
	free(arg);
}

static void calls(struct input *in)
{
	struct daemon_opts direct_opts = { .direct = DIRECT_RIGHTS_DEFAULT, .socket = socket_path };
	struct direct *direct;
	struct fs_opts opts = { 0 };
	struct pool_opts pool_opts = { 0 };
	struct dax *dax = fuzz_dax_open(false);
	struct pool *pool;
	char why[256];
	int rc = pool_open(dax, &pool_opts, &pool, why, sizeof(why));

	if (rc)
		fuzz_stop("pool_open", rc, why);
	rc = fs_open(pool, &opts, &session.fs);
	if (rc)
		fuzz_stop("fs_open", rc, "");
	session.scrub = scrub_new(session.fs);
	rc = token_open(NULL, &session.tokens);
	if (!rc)
		rc = events_new(&session, &session.events);
	if (!rc)
		rc = opens_new(&session.opens);
	if (!rc)
		rc = direct_open(session.fs, &session, &direct_opts, false, &direct);
	if (rc || !session.scrub)
		fuzz_stop("no memory", rc, "");
	for (unsigned i = 0; i < CALLS_MAX && in->size; i++)
		call(in);
	direct_stop(direct);
	direct_close(direct);
	opens_free(session.opens);
	token_close(session.tokens);
	scrub_free(session.scrub);
	events_free(session.events);
	fs_close(session.fs);
	pool_close(pool, true);
	dax_close(dax);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static char source[] = "pool";
	int rc;

	(void)argc, (void)argv;
	fuzz_pool_make();
	sem_init(&answered, 0, 0);
	rc = defer_open(1, &session.defer);
	if (!rc)
		rc = defer_open(1, &session.mover);
	if (!rc)
		rc = place_open(1, false, &session.place);
	worker.buf = aligned_alloc(4096, OPS_WRITE_MAX);
	if (rc || !worker.buf)
		fuzz_stop("no memory", rc, "");
	session.workers = &worker;
	session.opts = (struct session_opts){ .source = source, .threads = 1 };
	worker_now = &worker;
	snprintf(socket_path, sizeof(socket_path), "/tmp/fuzz_ioctl.%d", getpid());
	nudges_start();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };

	calls(&in);
	fuzz_pool_restore();
	return 0;
}
