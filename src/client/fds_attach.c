/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/fds_attach.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include <umbra/direct.h>
#include <umbra/umbra.h>

#include "client/fds.h"
#include "client/file.h"
#include "client/guard.h"
#include "client/session.h"

/*
 * The descriptions that are O_DIRECT since we have set it have a mark, which their other descriptors, here and in other processes, share: the signal for
 * O_ASYNC, which no regular file has. The second one if the program wants to have the flag too.
 */
#define MARK_OURS 63
#define MARK_BOTH 62

static _Atomic int64_t later_ns;

bool attach_is_ours(int fd, struct stat *st, int *flags)
{
	struct umbra_direct direct = { 0 };
	struct statfs fs;

	if (fd_about(fd, st) || !S_ISREG(st->st_mode) || fstatfs(fd, &fs) ||
	    (unsigned long)fs.f_type != FUSE_SUPER_MAGIC)
		return false;
	*flags = fcntl(fd, F_GETFL);
	if (*flags < 0 || *flags & (O_PATH | O_APPEND))
		return false;
	return ioctl(fd, UMBRA_IOC_DIRECT, &direct) == 0 && (direct.rights & UMBRA_DIRECT_READ);
}

/* That there will be a session, before anything is changed. Asked once for each. */
static bool is_refused(int fd)
{
	static _Atomic uint64_t had;
	uint64_t turn = atomic_load(&client_lost) + 1;
	struct session *s;
	int rc;

	if (atomic_load(&had) == turn)
		return false;
	rc = session_get(fd, true, &s);
	if (rc == SESSION_LATER)
		atomic_store(&later_ns, client_now_ns() + SESSION_LATER_NS);
	if (rc)
		return rc == SESSION_LATER;
	session_put(s);
	atomic_store(&had, turn);
	return false;
}

bool attach_is_later(void)
{
	int64_t until_ns = atomic_load_explicit(&later_ns, memory_order_relaxed);

	return until_ns && client_now_ns() < until_ns;
}

struct umbra_file *attach_begin(int fd, int flags)
{
	struct umbra_file *file;

	if (is_refused(fd))
		return NULL;
	/* Before: from then on the daemon lets others store. */
	if (fcntl(fd, F_SETSIG, flags & O_DIRECT ? MARK_BOTH : MARK_OURS) || fcntl(fd, F_SETFL, flags))
		return NULL;
	if (umbra_attach(fd, &file) == 0) {
		if (guard_install_user() == 0)
			return file;
		umbra_detach(file);
	}
	return NULL;
}

int fds_flags_seen(int fd, int flags)
{
	return flags >= 0 && flags & O_DIRECT && fcntl(fd, F_GETSIG) == MARK_OURS ? flags & ~O_DIRECT : flags;
}

int fds_flags_set(int fd, int flags)
{
	int mark = fcntl(fd, F_GETSIG), before = errno;

	if (mark != MARK_OURS && mark != MARK_BOTH)
		return flags;
	(void)fcntl(fd, F_SETSIG, flags & O_DIRECT ? MARK_BOTH : MARK_OURS);
	errno = before;
	return flags | O_DIRECT;
}
